//! A process opens a store and forks, and all its forks put the same entry at once: each put is done, and nobody ever
//! sees a part of an entry.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use jitcache::{Builder, Cache, Error, Lookup, Statistics, Store};

use crate::child::{self, Outcome};
use crate::content::{builder, compiled, identity, key};
use crate::long;
use crate::scratch::Scratch;

const FORKS: usize = 12;

/// Forks for so many rounds, and looks on.
pub fn child(root: &Path, rounds: u64) -> Outcome {
    child::hangs_after(if long() { 300 } else { 60 });
    let store = Store::open(root, identity()).unwrap();
    // What a thread has drawn of randomness is its forks' too.
    drop(HashMap::<u8, u8>::new());
    let code = vec![0xcc; 600_000];
    let (mut torn, mut failed) = (0, 0);
    for n in 1..=rounds {
        let mut built = Builder::new();
        built.code(&code[..]).function(0);
        let entry = built.finish(store.identity(), &key(n)).unwrap();
        let mut gate = [0; 2];
        // SAFETY: there is room for two descriptors.
        assert_eq!(unsafe { libc::pipe(gate.as_mut_ptr()) }, 0);
        let [gate, open_gate] = gate;
        for _ in 0..FORKS {
            // SAFETY: the fork puts and exits; the other threads' locks that it may find taken are none of its own.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0);
            if pid == 0 {
                // SAFETY: the other end is the parent's.
                unsafe { libc::close(open_gate) };
                let mut byte = 0_u8;
                // SAFETY: there is room for a byte; none comes, and the call returns once the parent has closed its
                // end.
                unsafe { libc::read(gate, (&raw mut byte).cast(), 1) };
                let put = store.put(&key(n), &entry);
                // SAFETY: nothing of the fork is needed any more.
                unsafe { libc::_exit(put.is_err().into()) };
            }
        }
        // SAFETY: both are this function's own.
        unsafe { libc::close(open_gate) };
        // SAFETY: the same.
        unsafe { libc::close(gate) };
        let mut alive = FORKS;
        while alive > 0 {
            match store.load(&key(n)) {
                Ok(Lookup::Hit(module)) if module.code() == code => {}
                Ok(Lookup::Miss) => {}
                _ => torn += 1,
            }
            let mut status = 0;
            // SAFETY: the status is there to be written to.
            while unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } > 0 {
                alive -= 1;
                failed += usize::from(status != 0);
            }
        }
        assert!(store.load(&key(n)).unwrap().hit().is_some());
        store.remove(&key(n)).unwrap();
    }
    eprintln!("{rounds} rounds of {FORKS} forks: {failed} puts failed, {torn} looks at a part of an entry");
    if (torn, failed) == (0, 0) { Outcome::Done } else { Outcome::Wrong }
}

/// Forks while another thread compiles: in the fork there is no such thread, and nobody who would end its flight.
pub fn child_in_flight() -> Outcome {
    child::hangs_after(20);
    // With all its patience, which the fork must not need.
    let cache = &Cache::in_memory(identity()).with_patience(Duration::from_secs(15));
    let ((starts, started), (release, released)) = (channel(), channel::<()>());
    thread::scope(|scope| {
        scope.spawn(move || {
            cache.get_or_compile(&key(1), |entry| {
                starts.send(()).unwrap();
                released.recv().unwrap();
                *entry = builder(1, 0);
                Ok::<(), Error>(())
            })
        });
        started.recv().unwrap();
        // SAFETY: the fork compiles and exits; no other thread holds a lock, as they wait.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            child::hangs_after(10);
            let is_there = (0..2).all(|_| compiled(cache, 1, 0).is_ok());
            // SAFETY: nothing of the fork is needed any more.
            unsafe { libc::_exit(if is_there { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: the status is there to be written to.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        release.send(()).unwrap();
        if status == 0 { Outcome::Done } else { Outcome::Wrong }
    })
}

/// Forks a process that has counted, and looks what its forks add to the tally.
pub fn child_that_counts(root: &Path) -> Outcome {
    child::hangs_after(20);
    let cache = Cache::open(root, identity()).unwrap();
    let wait = |pid| {
        let mut status = -1;
        // SAFETY: the status is there to be written to.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        status == 0
    };
    for n in 1..4 {
        drop(compiled(&cache, n, 0).unwrap());
    }
    drop(cache.forget(&key(1)));
    drop(cache.get(&key(1)).hit().unwrap());
    let store = cache.store().unwrap();
    let before = store.tally().unwrap();
    // SAFETY: the fork drops its cache and exits; there is no other thread whose locks it may find taken.
    let idle = unsafe { libc::fork() };
    if idle == 0 {
        drop(cache);
        // SAFETY: nothing of the fork is needed any more.
        unsafe { libc::_exit(0) };
    }
    if !wait(idle) || store.tally().unwrap() != before {
        return Outcome::Wrong;
    }
    // SAFETY: the same, and it compiles and loads.
    let busy = unsafe { libc::fork() };
    if busy == 0 {
        // What it has counted so far cannot be told from what its parent has.
        drop(cache.forget(&key(2)));
        drop(cache.get(&key(2)).hit().unwrap());
        drop(compiled(&cache, 4, 0).unwrap());
        drop(cache.forget(&key(3)));
        drop(cache.get(&key(3)).hit().unwrap());
        drop(cache);
        // SAFETY: nothing of the fork is needed any more.
        unsafe { libc::_exit(0) };
    }
    let counts = |counted: Statistics| [counted.hits, counted.misses, counted.compilations, counted.stored];
    let before = counts(before).map(|count| count + 1);
    if !wait(busy) || counts(store.tally().unwrap()) != before || counts(cache.tally().unwrap()) != [2, 4, 4, 4] {
        return Outcome::Wrong;
    }
    Outcome::Done
}

/// Forks a process in which entries wait to be stored, and looks which of them its fork stores.
pub fn child_that_writes_behind(root: &Path) -> Outcome {
    child::hangs_after(20);
    let cache = Cache::open(root, identity()).unwrap().with_write_behind(1 << 20);
    for n in 1..4 {
        drop(compiled(&cache, n, 0).unwrap());
    }
    // SAFETY: the fork compiles, drops its cache and exits; there is no other thread whose locks it may find taken.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(compiled(&cache, 4, 0).unwrap());
        drop(cache);
        // SAFETY: nothing of the fork is needed any more.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    // SAFETY: the status is there to be written to.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    let store = cache.store().unwrap();
    let stored = |n| store.load(&key(n)).unwrap().hit().is_some();
    if status != 0 || [1, 2, 3, 4].map(stored) != [false, false, false, true] {
        return Outcome::Wrong;
    }
    if (cache.flush(), [1, 2, 3, 4].map(stored)) == (3, [true; 4]) { Outcome::Done } else { Outcome::Wrong }
}

#[test]
fn a_fork_stores_what_it_has_compiled_and_leaves_what_waits_to_its_parent() {
    let scratch = Scratch::in_memory();
    let output = child::command("fork-behind", scratch.path()).output().unwrap();
    assert_eq!(Outcome::of(output.status), Outcome::Done, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_fork_does_not_count_what_its_parent_has_counted() {
    let scratch = Scratch::in_memory();
    let output = child::command("fork-counts", scratch.path()).output().unwrap();
    assert_eq!(Outcome::of(output.status), Outcome::Done, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_fork_of_a_process_in_which_a_thread_compiles_does_not_wait_for_that_for_ever() {
    let scratch = Scratch::in_memory();
    let output = child::command("fork-in-flight", scratch.path()).output().unwrap();
    assert_eq!(Outcome::of(output.status), Outcome::Done, "{}", String::from_utf8_lossy(&output.stderr));
}

/// `JITCACHE_LONG=1` makes it 2000 rounds instead of 60.
#[test]
fn forks_that_put_the_same_entry_at_once_do_so_whole() {
    let scratch = Scratch::in_memory();
    let rounds = if long() { 2000 } else { 60 };
    let output = child::command(&format!("fork {rounds}"), scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert_eq!(Outcome::of(output.status), Outcome::Done, "{said}");
}

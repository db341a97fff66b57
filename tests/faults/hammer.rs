//! Many processes put, load, remove and sweep in one directory and are killed at random: nobody ever finds the wrong
//! content, one sweep cleans up, and those that live on hold no more files and memory than at the start.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jitcache::{Lookup, Module, Store};

use crate::child::{self, Outcome};
use crate::content::{age, builder, files, identity, is_code, key, put};
use crate::long;
use crate::maps;
use crate::random::Random;
use crate::scratch::Scratch;

const KEYS: u64 = 24;

/// How many files are open and how many mappings there are.
pub fn held() -> (usize, usize) {
    (fs::read_dir("/proc/self/fd").unwrap().count(), maps::count())
}

/// Works in the directory until it is told to stop.
pub fn child(root: &Path, seed: u64) -> Outcome {
    // What the library keeps for small code is there before.
    drop(Module::load(&builder(7, 0).finish(&identity(), &key(7)).unwrap()).unwrap());
    let mut store = Store::open(root, identity()).unwrap();
    let mut random = Random(seed);
    let mut done = OpenOptions::new().append(true).open(root.join("done")).unwrap();
    let mut work = |operations: u32| -> Result<(), Outcome> {
        for _ in 0..operations {
            let n = random.below(KEYS);
            match random.below(100) {
                0 => store = Store::open(root, identity()).unwrap(),
                1..4 => drop(store.sweep().map_err(|_| Outcome::Io)?),
                4..10 => drop(store.remove(&key(n)).map_err(|_| Outcome::Io)?),
                10..40 => put(&store, n, random.below(3) as u8).map_err(|_| Outcome::Io)?,
                _ => match store.load(&key(n)).map_err(|_| Outcome::Io)? {
                    Lookup::Hit(module) if is_code(n, module.code()) => {}
                    Lookup::Miss => {}
                    _ => return Err(Outcome::Wrong),
                },
            }
        }
        // A byte for ten operations.
        done.write_all(&vec![0; operations as usize / 10]).map_err(|_| Outcome::Io)
    };
    let mut before = None;
    while !root.join("stop").exists() {
        if let Err(outcome) = work(10) {
            return outcome;
        }
        before.get_or_insert_with(held);
    }
    let (files, mappings) = held();
    let flat = before.is_none_or(|(before, mapped)| files <= before && mappings <= mapped + 2);
    if flat { Outcome::Done } else { Outcome::Leak }
}

/// `JITCACHE_LONG=1` lets 32 processes work for two minutes instead of 8 for five seconds.
#[test]
fn many_processes_that_are_killed_at_random_never_see_the_wrong_content() {
    let (processes, seconds) = if long() { (32, 120) } else { (8, 5) };
    let scratch = Scratch::in_memory();
    fs::write(scratch.path().join("done"), "").unwrap();
    let mut random = Random(std::process::id().into());
    let start = |random: &mut Random| -> Child {
        let mut hammer = child::command(&format!("hammer {}", random.next() >> 1), scratch.path());
        hammer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut hammers: Vec<_> = (0..processes).map(|_| start(&mut random)).collect();
    let (end, mut killed) = (Instant::now() + Duration::from_secs(seconds), 0);
    while Instant::now() < end {
        thread::sleep(Duration::from_millis(10 + random.below(60)));
        // The first two live on.
        let unlucky = &mut hammers[2 + random.below(processes - 2) as usize];
        unlucky.kill().unwrap();
        assert_eq!(Outcome::of(unlucky.wait().unwrap()), Outcome::Killed);
        killed += 1;
        *unlucky = start(&mut random);
    }
    fs::write(scratch.path().join("stop"), "").unwrap();
    for mut hammer in hammers {
        assert_eq!(Outcome::of(hammer.wait().unwrap()), Outcome::Done);
    }
    let store = Store::open(scratch.path(), identity()).unwrap();
    age(store.directory());
    let swept = store.sweep().unwrap();
    let operations = fs::metadata(scratch.path().join("done")).unwrap().len() * 10;
    println!("{processes} processes, {seconds} s: {operations} operations, {killed} killed, {swept} swept at the end");
    let entries =
        (0..KEYS).filter(|&n| store.load(&key(n)).unwrap().hit().is_some_and(|m| is_code(n, m.code()))).count();
    assert_eq!(files(store.directory()).len(), entries, "whole entries and nothing else");
}

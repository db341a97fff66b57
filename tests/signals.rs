//! Program counters are looked up in signal handlers that interrupt allocations, writers and other handlers, in fresh
//! threads, and beside a thread that adds and removes: no handler waits, allocates or frees, and each finds what there
//! is.
//!
//! A binary of its own, because it counts through the global allocator, and sets signal handlers.

#![cfg(unix)]
#![allow(
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a global allocator is unsafe to write, as signal handlers are, and tests compute with numbers they have chosen"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use std::{mem, ptr, thread};

use jitcache::{Builder, Identity, Key, Module, Registry};

thread_local! {
    /// How many handlers this thread is in.
    static HANDLERS: Cell<usize> = const { Cell::new(0) };
    /// Whether it is inside the registry's own insertion or removal.
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

/// What handlers have seen, and what must stay 0.
static LEFT: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
static IN_HANDLERS: AtomicUsize = AtomicUsize::new(0);
static IN_WRITERS: AtomicUsize = AtomicUsize::new(0);
static WRONG: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static FREES: AtomicUsize = AtomicUsize::new(0);

/// The program counter of a module that comes and goes; 0 before the first.
static COMES_AND_GOES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if HANDLERS.get() > 0 {
            ALLOCATIONS.fetch_add(1, SeqCst);
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if HANDLERS.get() > 0 {
            FREES.fetch_add(1, SeqCst);
        }
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The registry that handlers look into, and a module that stays in it.
static SHARED: LazyLock<(Registry, Arc<Module>)> = LazyLock::new(|| {
    let (registry, module) = (Registry::new(), module());
    module.check_source_map().unwrap();
    registry.insert(Arc::clone(&module)).unwrap();
    (registry, module)
});

fn module() -> Arc<Module> {
    let identity = Identity::new("signals", *b"SIGNAL", "1").unwrap();
    let mut builder = Builder::new();
    builder.code(vec![0xcc; 64]).function(0).source(0, 5);
    let entry = builder.finish(&identity, &Key::from_bytes([1; 32])).unwrap();
    Arc::new(Module::load(&entry).unwrap())
}

extern "C" fn handler(signal: libc::c_int) {
    HANDLERS.set(HANDLERS.get() + 1);
    let (registry, module) = &*SHARED;
    let pc = module.address_range().start + 1;
    // So long that the other signal finds it at work.
    let looked_up = (0..100).flat_map(|_| [registry.locate(pc), registry.locate_instruction(pc)]);
    for found in looked_up {
        let is_right = found.is_some_and(|found| {
            (found.module, found.function, found.code, found.source) == (module.id(), Some(0), 1, Some(5))
        });
        WRONG.fetch_add(usize::from(!is_right), SeqCst);
    }
    WRONG.fetch_add(usize::from(!registry.module(pc).is_some_and(|found| Arc::ptr_eq(&found, module))), SeqCst);
    WRONG.fetch_add(
        usize::from(registry.locate(pc.wrapping_sub(2)).is_some_and(|found| found.module == module.id())),
        SeqCst,
    );
    if let Some(found) = registry.locate_instruction(COMES_AND_GOES.load(SeqCst)) {
        WRONG.fetch_add(usize::from(found.module == module.id() || found.code != 1), SeqCst);
    }
    IN_HANDLERS.fetch_add(usize::from(HANDLERS.get() > 1), SeqCst);
    IN_WRITERS.fetch_add(usize::from(IS_WRITING.get()), SeqCst);
    HANDLERS.set(HANDLERS.get() - 1);
    LEFT[usize::from(signal == SIGNALS[1])].fetch_add(1, SeqCst);
}

const SIGNALS: [libc::c_int; 2] = [libc::SIGUSR1, libc::SIGUSR2];

/// Sets the handlers, each of which the other may interrupt; nobody else uses them until the guard is dropped.
fn handlers() -> MutexGuard<'static, ()> {
    static USED: Mutex<()> = Mutex::new(());
    let used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    LazyLock::force(&SHARED);
    for signal in SIGNALS {
        // SAFETY: zeros are a value of this structure.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        // SAFETY: the action is set, and its handler does nothing that a handler must not.
        assert_eq!(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) }, 0);
    }
    used
}

/// Checks what the handlers did.
fn check() {
    let seen = [&WRONG, &ALLOCATIONS, &FREES].map(|count| count.load(SeqCst));
    assert_eq!(seen, [0; 3], "wrong answers, allocations, frees");
}

/// How often the tests interrupt a thread.
fn rounds(default: usize) -> usize {
    if std::env::var_os("JITCACHE_LONG").is_some() { 10_000 } else { default }
}

/// Returns a thread as a number, which a pointer is that may go to another thread.
fn this_thread() -> usize {
    // SAFETY: it has no requirements.
    unsafe { libc::pthread_self() as usize }
}

/// Interrupts a thread, which has not ended, with one of the signals, and waits until the handler has left.
fn interrupt(thread: usize, which: usize) {
    let (left, start) = (LEFT[which].load(SeqCst), Instant::now());
    // SAFETY: by what the caller says, the thread is one.
    assert_eq!(unsafe { libc::pthread_kill(thread as libc::pthread_t, SIGNALS[which]) }, 0);
    while LEFT[which].load(SeqCst) == left {
        assert!(start.elapsed() < Duration::from_secs(20), "a handler has not come back");
        thread::yield_now();
    }
}

/// Adds and removes modules until it is told to stop, and returns how many.
fn come_and_go(stop: &AtomicBool) -> usize {
    let (registry, _) = &*SHARED;
    let mut count = 0;
    while !stop.load(SeqCst) {
        let module = module();
        module.check_source_map().unwrap();
        COMES_AND_GOES.store(module.address_range().start + 1, SeqCst);
        IS_WRITING.set(true);
        registry.insert(Arc::clone(&module)).unwrap();
        IS_WRITING.set(false);
        assert!(registry.locate(module.address_range().start).is_some());
        IS_WRITING.set(true);
        assert!(registry.remove(&module));
        IS_WRITING.set(false);
        assert!(registry.locate(module.address_range().start).is_none());
        count += 1;
    }
    count
}

#[test]
fn a_handler_that_interrupts_an_allocation_in_a_fresh_thread_comes_back_with_the_answer() {
    let _used = handlers();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = thread::spawn(move || come_and_go(&stopped));
    let rounds = rounds(250);
    for round in 0..rounds {
        let (ready, is_ready) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let fresh = thread::spawn(move || {
            ready.send(this_thread()).unwrap();
            let mut blocks = [ptr::null_mut::<libc::c_void>(); 60];
            while !stopped.load(SeqCst) {
                for (at, block) in blocks.iter_mut().enumerate() {
                    // Larger than what glibc keeps for each thread: every call takes the lock of the arena.
                    // SAFETY: any size may be asked for, and 0 is none.
                    *block = unsafe { libc::malloc(3000 + at * 64) };
                }
                // SAFETY: each was allocated above, and is freed once.
                blocks.iter().for_each(|block| unsafe { libc::free(*block) });
            }
        });
        let thread = is_ready.recv().unwrap();
        thread::sleep(Duration::from_micros(50 + round as u64 % 300));
        interrupt(thread, round % 2);
        stop.store(true, SeqCst);
        fresh.join().unwrap();
    }
    stop.store(true, SeqCst);
    let written = writer.join().unwrap();
    check();
    println!("{rounds} threads were interrupted, beside {written} modules that came and went");
    assert!(written > 0);
}

#[test]
fn handlers_that_interrupt_a_writer_and_one_another_come_back_with_the_answer() {
    let _used = handlers();
    let rounds = rounds(500);
    let before = [&IN_HANDLERS, &IN_WRITERS].map(|count| count.load(SeqCst));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let (ready, is_ready) = mpsc::channel();
    let writer = thread::spawn(move || {
        ready.send(this_thread()).unwrap();
        come_and_go(&stopped)
    });
    let thread = is_ready.recv().unwrap();
    let other = thread::spawn(move || (0..5 * rounds).for_each(|_| interrupt(thread, 0)));
    let mut round = 0;
    while !other.is_finished() {
        interrupt(thread, 1);
        round += 1;
    }
    other.join().unwrap();
    stop.store(true, SeqCst);
    let written = writer.join().unwrap();
    check();
    let [in_handlers, in_writers] = [&IN_HANDLERS, &IN_WRITERS].map(|count| count.load(SeqCst));
    let [in_handlers, in_writers] = [in_handlers - before[0], in_writers - before[1]];
    println!(
        "{} handlers, {in_handlers} of them in another, {in_writers} in a writer, {written} modules",
        5 * rounds + round
    );
    assert!(in_handlers > 0 && in_writers > 0);
}

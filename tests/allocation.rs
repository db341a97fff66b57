//! A view allocates nothing, and no file makes any call allocate more than it could need.
//!
//! A binary of its own, because it counts through the global allocator.

#![allow(
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a global allocator is unsafe to write, and tests compute with numbers they have chosen"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use jitcache::{Builder, CatchClause, Entry, FileBytes, Identity, Key, Module, Sealing};

const KEY: Key = Key::from_bytes([7; 32]);

struct Counting;

thread_local! {
    /// Bytes that this thread has allocated, freed or not.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns how many bytes `call` allocates.
fn allocated<T>(call: impl FnOnce() -> T) -> usize {
    let before = ALLOCATED.get();
    drop(black_box(call()));
    ALLOCATED.get() - before
}

fn identity() -> Identity {
    Identity::new("allocation", *b"ALLOC\0", "1").unwrap()
}

/// An entry with every part, of the given length at least.
fn sound(length: usize, identity: &Identity) -> Vec<u8> {
    let mut builder = Builder::new();
    builder.code(vec![0xcc; length.max(1)]).function(0).source(0, 5);
    builder.try_table(&[CatchClause { kind: 2, tag: 0 }]);
    builder.finish(identity, &KEY).unwrap().to_vec()
}

#[test]
fn the_view_of_a_file_allocates_nothing() {
    for (length, identity) in [(1, identity()), (1 << 20, identity()), (99, identity().with_sealing(Sealing::Plain))] {
        let file = sound(length, &identity);
        let used = allocated(|| {
            let entry = Entry::parse(&file, &identity).unwrap();
            entry.verify().unwrap();
            black_box((entry.code(), entry.functions().iter().sum::<u64>(), entry.functions().containing(0)));
            let map = entry.source_map().unwrap();
            black_box((map.iter().count(), map.before_return(7), map.at_instruction(7)));
            entry.try_tables().flatten().flatten().count()
        });
        assert_eq!(used, 0);
    }
}

#[test]
fn no_file_of_64_bytes_makes_any_call_allocate_more_than_4_kib() {
    let identity = identity().with_sealing(Sealing::Plain);
    let mut builder = Builder::new();
    builder.code(vec![0xcc; 3]).function(0).source(0, 5);
    let sound = builder.finish(&identity, &KEY).unwrap().to_vec();
    assert_eq!(sound.len(), 64);
    let mut most = 0;
    // Every byte with every value, and every run of eight bytes as a hostile number.
    let hostile = [0, 1, 63, 64, 65, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX];
    let bytes = (0..64).flat_map(|at| (0..=255).map(move |byte| (at, vec![byte])));
    let numbers = (0..57).flat_map(|at| hostile.map(|number: u64| (at, number.to_le_bytes().to_vec())));
    for (at, damage) in bytes.chain(numbers) {
        let mut file = sound.clone();
        file[at..at + damage.len()].copy_from_slice(&damage);
        let read = FileBytes::from(file.clone());
        let parse = allocated(|| Entry::parse(&file, &identity).map(drop));
        let verify = allocated(|| Entry::parse(&file, &identity).and_then(|entry| entry.verify()));
        let load = allocated(|| Module::load_file(read, &identity, &KEY).map(drop));
        let view = Entry::parse(&file, &identity);
        let copy = allocated(|| view.as_ref().map(|entry| Module::load(entry).map(drop)).ok());
        most = most.max(parse).max(verify).max(load).max(copy);
    }
    assert!(most > 0, "errors do allocate: otherwise nothing was counted");
    assert!(most <= 4096, "{most} bytes");
}

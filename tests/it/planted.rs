//! Faults on purpose, one for each thing that the sanitizers look for: one that does not find its own proves nothing by
//! finding no other. `.ci/sanitize` runs them one by one, and each has to fail.

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::mem::{self, transmute};

use jitcache::{Builder, Identity, Module};

use crate::machine::KEY;

/// Whether the faults are wanted: anybody may run the ignored tests.
fn wanted() -> bool {
    std::env::var_os("JITCACHE_PLANTED").is_some()
}

struct Unsynchronized(UnsafeCell<usize>);

// SAFETY: it is not, on purpose.
unsafe impl Sync for Unsynchronized {}

#[test]
#[ignore = "a fault on purpose"]
fn race() {
    static COUNT: Unsynchronized = Unsynchronized(UnsafeCell::new(0));
    let count = || {
        // SAFETY: it is not, on purpose: two threads write.
        (0..1000).for_each(|n| unsafe { COUNT.0.get().write_volatile(n) });
    };
    if wanted() {
        std::thread::scope(|scope| [scope.spawn(count), scope.spawn(count)].map(|thread| thread.join().unwrap()));
    }
}

#[test]
#[ignore = "a fault on purpose"]
fn overflow() {
    let bytes = black_box(vec![1_u8; 100]);
    let behind = bytes.as_ptr().wrapping_add(100);
    if wanted() {
        // SAFETY: it is not, on purpose.
        black_box(unsafe { behind.read_volatile() });
    }
}

#[test]
#[ignore = "a fault on purpose"]
fn leak() {
    if wanted() {
        mem::forget(black_box(vec![1_u8; 1000]));
    }
}

/// The same overflow by code that was loaded.
#[test]
#[ignore = "a fault on purpose"]
fn overflow_in_code() {
    let mut builder = Builder::new();
    builder.code(&[0x8a, 0x07, 0x84, 0xc0, 0x74, 0x00, 0xc3][..]).function(0); // mov al, [rdi]; test al, al; jz +0; ret
    let identity = Identity::new("planted", *b"PLANTE", "1").unwrap();
    let module = Module::load(&builder.finish(&identity, &KEY).unwrap()).unwrap();
    // SAFETY: the code follows the C calling convention, takes a pointer and returns a byte.
    let read: extern "C" fn(*const u8) -> u8 = unsafe { transmute(module.function(0).unwrap()) };
    let bytes = black_box(vec![1_u8; 100]);
    assert_eq!(read(&raw const bytes[99]), 1);
    if wanted() {
        black_box(read(bytes.as_ptr().wrapping_add(100)));
    }
}

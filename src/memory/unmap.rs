//! Giving mappings back, also those that the system will not take back at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, TryLockError};

/// What the system would not take back.
static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());

/// How many of them there are.
static LEFT_COUNT: AtomicUsize = AtomicUsize::new(0);

struct Left(*mut u8, usize);

// SAFETY: the memory is nobody else's, and any thread may unmap it.
unsafe impl Send for Left {}

/// Unmaps whole pages. What the system will not unmap, because a mapping would be split and there are too many, is
/// emptied, and tried again when there is something else to unmap.
///
/// # Safety
///
/// The pages must be the caller's, and nobody may use them any more.
pub(super) unsafe fn give_back(start: *mut u8, length: usize) {
    if unmap(&Left(start, length)) {
        if LEFT_COUNT.load(Ordering::Relaxed) > 0 {
            retry();
        }
        return;
    }
    // SAFETY: the pages are the caller's, who gives them up. Their contents go, and no mapping has to be split for it.
    unsafe { libc::madvise(start.cast(), length, libc::MADV_DONTNEED) };
    // Addresses are lost if there is no memory to remember them, or another thread is here: in a child of a fork, it may
    // have been so for ever.
    let mut left = match LEFT.try_lock() {
        Ok(left) => left,
        Err(TryLockError::Poisoned(left)) => left.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    if left.try_reserve(1).is_ok() {
        left.push(Left(start, length));
        LEFT_COUNT.store(left.len(), Ordering::Relaxed);
    }
}

/// Unmaps what was left, up to the first that still cannot be.
fn retry() {
    // Whoever holds it does the same.
    let Ok(mut left) = LEFT.try_lock() else { return };
    while let Some(last) = left.pop() {
        if !unmap(&last) {
            left.push(last);
            break;
        }
    }
    LEFT_COUNT.store(left.len(), Ordering::Relaxed);
}

fn unmap(left: &Left) -> bool {
    // SAFETY: the pages were given up to this file by `give_back`, once, and are unmapped once.
    unsafe { libc::munmap(left.0.cast(), left.1) == 0 }
}

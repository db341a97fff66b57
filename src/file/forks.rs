//! State that threads share, and what becomes of it in a child of a fork.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// State of one process, under a mutex that may be held when the process forks: in the child nobody gives it back then.
///
/// Nothing that is done with the state may leave half of it undone, if it panics.
#[derive(Debug)]
pub(crate) struct OfProcess<T> {
    /// Which process the state is of: zero, until somebody had it.
    process: AtomicU32,
    state: Mutex<T>,
}

impl<T> OfProcess<T> {
    /// Returns state of whichever process asks for it first.
    pub(crate) const fn new(state: T) -> Self {
        Self { process: AtomicU32::new(0), state: Mutex::new(state) }
    }

    /// Returns state of this process.
    pub(crate) fn here(state: T) -> Self {
        Self { process: AtomicU32::new(process::id()), state: Mutex::new(state) }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the state is this process's, and no child's that has not had it yet.
    pub(crate) fn is_here(&self) -> bool {
        let process = process::id();
        let known = self.process.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed);
        known.is_ok() || known == Err(process)
    }

    /// Returns the state, or `None` in a child of a fork that was made while another thread had it. A child's first
    /// call has it changed by `in_child`.
    pub(crate) fn lock(&self, in_child: impl FnOnce(&mut T)) -> Option<MutexGuard<'_, T>> {
        if self.is_here() {
            return Some(self.state.lock().unwrap_or_else(PoisonError::into_inner));
        }
        self.try_lock(in_child)
    }

    /// Does the same, and returns `None` as well if another thread has the state.
    pub(crate) fn try_lock(&self, in_child: impl FnOnce(&mut T)) -> Option<MutexGuard<'_, T>> {
        let is_here = self.is_here();
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let process = process::id();
        if !is_here && self.process.swap(process, Ordering::Relaxed) != process {
            in_child(&mut state);
        }
        Some(state)
    }
}

//! State of this process and not of its children.

use std::io::{self, ErrorKind};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// State behind a mutex that another thread may hold when the process forks: in the child nobody gives it back then.
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

    /// Returns the state, which in a child `in_child` has to make the child's first.
    ///
    /// # Errors
    ///
    /// Those of `in_child`; in a child before its first call has returned, [`ErrorKind::WouldBlock`] if another thread
    /// has the state, or had it at the fork.
    pub(crate) fn lock(&self, in_child: impl FnOnce(&mut T) -> io::Result<()>) -> io::Result<MutexGuard<'_, T>> {
        let here = process::id();
        let known = self.process.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed);
        if known.is_ok() || known == Err(here) {
            return Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(ErrorKind::WouldBlock.into()),
        };
        if self.process.load(Ordering::Relaxed) != here {
            in_child(&mut state)?;
            self.process.store(here, Ordering::Relaxed);
        }
        Ok(state)
    }
}

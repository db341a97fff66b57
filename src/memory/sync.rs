//! What threads share by: of the standard library, or of the one that tries every order of their steps.

#[cfg(loom)]
pub(super) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(super) use std::sync::{Mutex, MutexGuard, atomic};

//! Files: the system calls that open an entry, publish one, remove one, and lock a byte. None of them waits for another
//! process.

mod call;
mod forks;
mod lock;
mod modes;
mod publish;
mod remove;
mod tag;
mod temporary;
mod trust;

pub(crate) use call::{FileId, create_directory, failed, is_directory, look, names, open, read_at, resolved, touch};
pub(crate) use forks::OfProcess;
pub(crate) use lock::{Lock, are_locks_local, lock_within, try_lock};
#[cfg(not(unix))]
pub(crate) use modes::Modes;
#[cfg(unix)]
pub use modes::Modes;
pub(crate) use publish::{Aside, Sync, create_aside, publish, sync_aside, sync_directory, write_aside};
pub(crate) use remove::{remove, remove_read, remove_unchanged};
pub(crate) use tag::tag;
pub(crate) use temporary::{LOCK, TALLY, remove_directory, sweep, time};
#[cfg(unix)]
pub use trust::Trust;
pub(crate) use trust::Trusted;

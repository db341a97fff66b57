//! Files: the system calls that open an entry, publish one, remove one, and lock a byte. None of them waits for another process.

mod call;
mod lock;
mod modes;
mod publish;
mod remove;
mod temporary;

pub(crate) use call::{FileId, create_directory, failed, id_of, names, open, read_at};
pub(crate) use lock::{Lock, are_locks_local, try_lock};
#[cfg(not(unix))]
pub(crate) use modes::Modes;
#[cfg(unix)]
pub use modes::Modes;
pub(crate) use publish::publish;
pub(crate) use remove::{remove, remove_read};
pub(crate) use temporary::sweep;

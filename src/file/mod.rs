//! Files: the system calls that open an entry, publish one, and remove one. None of them waits for another process.

mod call;
mod modes;
mod publish;
mod remove;
mod temporary;
mod trust;

pub(crate) use call::{FileId, create_directory, failed, names, open, read_at};
#[cfg(not(unix))]
pub(crate) use modes::Modes;
#[cfg(unix)]
pub use modes::Modes;
pub(crate) use publish::{Aside, Sync, publish, sync_aside, sync_directory, write_aside};
pub(crate) use remove::{remove, remove_read};
pub(crate) use temporary::sweep;
#[cfg(unix)]
pub use trust::Trust;
pub(crate) use trust::Trusted;

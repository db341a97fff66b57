//! The only floor with `unsafe`: mapping files, making code executable, asking the system for a limit, and locking a
//! byte of a file.
//!
//! Code that is copied goes through two types: [`WritableCode`] can be written and not executed, [`CodeMemory`] can be
//! executed and not written. No page is ever both. Between the two stand the caller's checks, which read the very bytes
//! that will run, or that memory of this crate's own is copied from.
//!
//! | code | lies in |
//! |---|---|
//! | small, copied | the arena, beside that of other modules; without memory files, pages of its own |
//! | large, copied | pages of its own; where written memory may not be executed, a memory file of its own, or pages that macOS gives for it |
//! | in place | its file |
//! | with data or imports beside it | an image: pages of its own, or its file's, and pages of its own behind them |

#![expect(unsafe_code, reason = "this is the room for it; every block carries its proof")]

mod access;
#[cfg(target_os = "linux")]
mod arena;
mod code;
mod coherence;
mod counted;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod filesystem;
#[cfg(target_os = "linux")]
mod free;
#[cfg(target_os = "macos")]
mod hardened;
mod image;
mod limits;
mod map;
mod mappings;
#[cfg(target_os = "linux")]
mod memory_file;
#[cfg(test)]
#[cfg(loom)]
mod orders;
mod pages;
mod readers;
mod record;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod sealed;
mod shared;
mod start;
mod sync;
#[cfg(unix)]
mod unmap;
mod unwind;

#[cfg(not(target_os = "linux"))]
use elsewhere as arena;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
use elsewhere as memory_file;
#[cfg(target_os = "macos")]
use hardened as memory_file;

pub use access::Access;
pub(crate) use access::{Check, Mode, Unchanging};
pub(crate) use code::{CodeMemory, WritableCode, keep_apart};
pub(crate) use counted::Counted;
pub(crate) use filesystem::{is_local, is_local_on};
pub(crate) use image::{ImageParts, WritableImage};
pub(crate) use limits::{most_bytes_of_a_file, most_open_files};
pub(crate) use map::FileMap;
pub(crate) use mappings::{are_scarce, explained};
pub(crate) use memory_file::is_hardened;
pub(crate) use pages::{Pages, WritablePages};
pub(crate) use record::{try_lock_byte, unlock_byte};
pub(crate) use shared::{Shared, Writing};
pub(crate) use start::Start;

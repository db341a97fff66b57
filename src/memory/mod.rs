//! The only room with `unsafe`: mapping files, making code executable, and asking the system for a limit.
//!
//! Code that is copied goes through two types: [`WritableCode`] can be written and not executed, [`CodeMemory`] can be
//! executed and not written. No page is ever both. Between the two stand the caller's checks, which read the very bytes that
//! will run.

#![expect(unsafe_code, reason = "this is the room for it; every block carries its proof")]

mod access;
mod code;
mod coherence;
mod counted;
mod limits;
mod map;
#[cfg(test)]
#[cfg(loom)]
mod orders;
mod pages;
mod readers;
mod shared;
mod sync;

pub use access::Access;
pub(crate) use access::{Check, Mode, Unchanging};
pub(crate) use code::{CodeMemory, WritableCode};
pub(crate) use counted::Counted;
pub(crate) use limits::{most_bytes_of_a_file, most_open_files};
pub(crate) use map::FileMap;
pub(crate) use pages::{Pages, WritablePages};
pub(crate) use shared::{Shared, Writing};

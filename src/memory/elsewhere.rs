//! What only Linux has: without it, code lies in pages of its own.

#[cfg(not(target_os = "macos"))]
use std::io::{self, ErrorKind};

use super::start::Start;

pub(super) enum Room {}

impl Room {
    pub(super) const fn is_for(_: usize) -> bool {
        false
    }

    pub(super) const fn of(_: &[u8], _: Start) -> Option<Self> {
        None
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        match *self {}
    }
}

/// Returns whether this program may execute nothing but what the system has given it for that.
#[cfg(not(target_os = "macos"))]
pub(crate) const fn is_hardened() -> bool {
    false
}

#[cfg(not(target_os = "macos"))]
pub(super) enum Sealed {}

#[cfg(not(target_os = "macos"))]
impl Sealed {
    pub(super) fn copy(_: &[u8]) -> io::Result<Self> {
        Err(ErrorKind::Unsupported.into())
    }

    pub(super) const fn bytes(&self) -> &[u8] {
        match *self {}
    }
}

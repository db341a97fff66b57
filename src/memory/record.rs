//! Locks of a byte of a file, which the kernel takes from a process that dies.

use std::fs::File;
use std::io;

/// Locks a byte of a file that is open for writing, and returns whether this process has it. Nobody is waited for.
///
/// The lock is the process's: threads do not exclude each other, a child of a fork has none, and closing *any*
/// descriptor of the file gives all of them up.
///
/// # Errors
///
/// Those of the system, and [`io::ErrorKind::Unsupported`] where there are no such locks.
pub(crate) fn try_lock_byte(file: &File, byte: u32) -> io::Result<bool> {
    imp::try_lock_byte(file, byte)
}

/// Gives up the lock of a byte.
pub(crate) fn unlock_byte(file: &File, byte: u32) -> io::Result<()> {
    imp::unlock_byte(file, byte)
}

#[cfg(unix)]
mod imp {
    use std::fs::File;
    use std::io::{self, ErrorKind};
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    pub(super) fn try_lock_byte(file: &File, byte: u32) -> io::Result<bool> {
        match set(file, byte, libc::F_WRLCK.into()) {
            Ok(()) => Ok(true),
            // What systems say of a lock that another process has.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn unlock_byte(file: &File, byte: u32) -> io::Result<()> {
        set(file, byte, libc::F_UNLCK.into())
    }

    /// `kind` is of the width that all systems' numbers fit.
    #[allow(
        clippy::unnecessary_fallible_conversions,
        reason = "the width of an offset, and of a number, is the system's"
    )]
    fn set(file: &File, byte: u32, kind: i64) -> io::Result<()> {
        // SAFETY: the structure is made of integers, of which zero is a value.
        let mut lock = unsafe { MaybeUninit::<libc::flock>::zeroed().assume_init() };
        lock.l_type = kind.try_into().ok().ok_or(ErrorKind::InvalidInput)?;
        lock.l_whence = libc::SEEK_SET.try_into().ok().ok_or(ErrorKind::InvalidInput)?;
        lock.l_start = byte.try_into().ok().ok_or(ErrorKind::InvalidInput)?;
        lock.l_len = 1;
        // SAFETY: the structure is there to be read.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(not(unix))]
mod imp {
    use std::fs::File;
    use std::io::{self, ErrorKind};

    pub(super) fn try_lock_byte(_: &File, _: u32) -> io::Result<bool> {
        Err(ErrorKind::Unsupported.into())
    }

    pub(super) fn unlock_byte(_: &File, _: u32) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

//! A lock among processes, which is tried and never waited for, and which the system takes back when its holder ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::call::failed;
use super::modes::{self, Modes};
use crate::error::Error;
use crate::memory::is_local;

/// A lock that is held. A process that is forked meanwhile holds it, too, until it ends or executes another program.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock that a file stands for, which stays; `None` if somebody else has it.
    ///
    /// On a file system that is not of this machine, where even trying may wait for ever, everybody gets it.
    pub(crate) fn try_take(path: &Path, modes: Option<Modes>) -> Result<Option<Self>, Error> {
        let mut options = OpenOptions::new();
        // To be written to: else some file systems lock nothing.
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        }
        let file = options.open(path).map_err(failed("open", path))?;
        // Somebody else's has its mode.
        let _ = modes::set_of_file(&file, modes);
        if !is_local(&file) {
            return Ok(Some(Self { _file: file }));
        }
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed("lock", path)(error)),
        }
    }
}

//! Publishing: a file is written under a name of its own, and renamed once it is whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::call::failed;
use super::modes::Modes;
use super::temporary::{self, ATTEMPTS};
use crate::error::Error;
use crate::memory::most_bytes_of_a_file;

/// Puts a file of `length` bytes in place whole: nobody sees a part of it, and after a power cut it is there or it is not, as far
/// as the file system offers to sync.
///
/// Whatever `path` led to is replaced, a directory excepted. `temporaries` is a directory of the same file system.
///
/// # Errors
///
/// [`Error::Io`]; nothing is left of the temporary file then, and `path` is as it was - unless the last step, syncing the
/// directory, is the one that failed.
pub(crate) fn publish(
    path: &Path,
    temporaries: &Path,
    modes: Option<Modes>,
    length: u64,
    write: impl Fn(&File) -> io::Result<()>,
) -> Result<(), Error> {
    if length > most_bytes_of_a_file() {
        // Writing on would be a signal that ends the process.
        return Err(failed("write", path)(ErrorKind::FileTooLarge.into()));
    }
    let mut left = ATTEMPTS;
    loop {
        left = left.saturating_sub(1);
        match write_and_rename(path, temporaries, modes, &write) {
            // The process was stopped until the file was swept, or somebody has removed the directories.
            Err(Error::Io { source, .. }) if left > 0 && source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) => return path.parent().map_or(Ok(()), sync_directory),
        }
    }
}

fn write_and_rename(
    path: &Path,
    temporaries: &Path,
    modes: Option<Modes>,
    write: impl Fn(&File) -> io::Result<()>,
) -> Result<(), Error> {
    let (temporary, file) = temporary::create(temporaries, modes)?;
    let published = write(&file)
        .and_then(|()| unless_not_offered(file.sync_all()))
        .map_err(failed("write", &temporary))
        .and_then(|()| fs::rename(&temporary, path).map_err(failed("rename", &temporary)));
    if published.is_err() {
        // The reason to report is the first one; a file that stays is swept later.
        let _ = fs::remove_file(&temporary);
    }
    published
}

/// Makes what was renamed in a directory survive a power cut.
///
/// A directory may be one that this user can write to and not read; it is not synced then.
fn sync_directory(path: &Path) -> Result<(), Error> {
    if !cfg!(unix) {
        return Ok(());
    }
    let synced = File::open(path).and_then(|directory| unless_not_offered(directory.sync_all()));
    match synced {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(failed("sync", path)),
    }
}

/// Takes a sync that the file system does not offer for done: there is nothing that a writer could do about it.
fn unless_not_offered(synced: io::Result<()>) -> io::Result<()> {
    match synced {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

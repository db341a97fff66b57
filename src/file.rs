//! Files: the system calls that open an entry, publish one, and remove what is left over.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Opens a regular file for reading and returns it with its length, or `None` if there is nothing of that name.
///
/// A link is not followed, and a pipe is not waited for.
pub(crate) fn open(path: &Path) -> Result<Option<(File, u64)>, Error> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        #[cfg(unix)]
        // What O_NOFOLLOW says of a link, and what opening a socket says.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EMLINK | libc::ENXIO)) => {
            return Err(Error::NotAFile { path: path.into() });
        }
        Err(error) => return Err(failed("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("stat", path))?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.into() });
    }
    Ok(Some((file, metadata.len())))
}

/// Reads the bytes of a file from `at` on, wherever others are reading it.
pub(crate) fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, to, at);
    #[cfg(not(unix))]
    {
        let _ = (file, to, at);
        Err(ErrorKind::Unsupported.into())
    }
}

/// Creates a directory that only this user may enter, with those above it; it may be there already.
pub(crate) fn create_directory(path: &Path) -> Result<(), Error> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(failed("create", path))
}

/// Puts a file in place whole: nobody sees a part of it, and after a power cut it is there or it is not.
///
/// `temporary` stands in the directory of `path`, and names one that nobody else uses.
///
/// # Errors
///
/// [`Error::Io`]; nothing is left of the temporary file then, and `path` is as it was - unless the last step, syncing the
/// directory, is the one that failed.
pub(crate) fn publish(
    path: &Path,
    temporary: impl FnMut() -> PathBuf,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), Error> {
    let (temporary, file) = create_claimed(temporary, claim)?;
    let published = write(&file)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &temporary))
        .and_then(|()| fs::rename(&temporary, path).map_err(failed("rename", &temporary)));
    if published.is_err() {
        // The reason to report is the first one; a file that stays is swept later.
        let _ = fs::remove_file(&temporary);
    }
    published?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Creates a temporary file that the caller could claim, or after many attempts any: a sweep may take each as soon as it is
/// there, and it must end somewhere.
fn create_claimed(
    mut temporary: impl FnMut() -> PathBuf,
    claim: impl Fn(&File, &Path) -> bool,
) -> Result<(PathBuf, File), Error> {
    let mut attempts: u32 = 100;
    loop {
        let path = temporary();
        let file = create(&path)?;
        attempts = attempts.saturating_sub(1);
        if claim(&file, &path) || attempts == 0 {
            return Ok((path, file));
        }
        let _ = fs::remove_file(&path);
    }
}

/// Creates a file that was not there, for this user alone.
fn create(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(failed("create", path))
}

/// Locks a new temporary file, which tells [`sweep`] that its writer lives; returns `false` if a sweep was faster.
///
/// A file that cannot be locked is written all the same. At worst a sweep takes it for left over, and renaming it fails.
fn claim(file: &File, path: &Path) -> bool {
    let _ = file.lock();
    // Not by counting its names, of which some file systems say that there are none.
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Removes a temporary file if its writer is gone, and returns whether it did.
pub(crate) fn sweep(path: &Path) -> Result<bool, Error> {
    let file = match open(path) {
        Ok(Some((file, _))) => file,
        // Whatever it is, it is no writer's.
        Ok(None) | Err(Error::NotAFile { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => remove(path),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(failed("lock", path)(error)),
    }
}

/// Removes a file, and returns whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Returns the names in a directory that are text.
pub(crate) fn names(directory: &Path) -> Result<impl Iterator<Item = Result<String, Error>>, Error> {
    let path = directory.to_owned();
    let entries = fs::read_dir(directory).map_err(failed("list", directory))?;
    Ok(entries.filter_map(move |entry| match entry {
        Ok(entry) => entry.file_name().into_string().ok().map(Ok),
        Err(error) => Some(Err(failed("list", &path)(error))),
    }))
}

/// Makes what was renamed in a directory survive a power cut.
fn sync_directory(path: &Path) -> Result<(), Error> {
    if cfg!(unix) {
        File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))?;
    }
    Ok(())
}

/// Returns the error for a system call that failed on `path`.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_is_its_writers_while_that_lives_unless_a_sweep_was_faster() {
        let path = std::env::temp_dir().join(format!("jitcache-file-{}", std::process::id()));
        let file = create(&path).unwrap();
        assert!(claim(&file, &path));
        assert!(!sweep(&path).unwrap());
        drop(file);
        assert!(sweep(&path).unwrap());
        let file = create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!claim(&file, &path));
    }

    #[test]
    fn a_writer_that_can_claim_no_file_goes_on_with_one_and_leaves_no_other() {
        let directory = std::env::temp_dir().join(format!("jitcache-claims-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        for (refused, created) in [(0, 1), (1, 2), (99, 100), (u32::MAX, 100)] {
            let (made, asked) = (std::cell::Cell::new(0_u32), std::cell::Cell::new(0_u32));
            let name = || {
                made.set(made.get() + 1);
                directory.join(made.get().to_string())
            };
            let claim = |_: &File, _: &Path| {
                asked.set(asked.get() + 1);
                asked.get() > refused
            };
            let (path, _file) = create_claimed(name, claim).unwrap();
            assert_eq!(made.get(), created);
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
            fs::remove_file(path).unwrap();
        }
        fs::remove_dir(&directory).unwrap();
    }
}

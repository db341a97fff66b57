//! Publishing: a file is written under a name of its own, and renamed once it is whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::call::failed;
use super::modes::Modes;
use super::temporary::{self, ATTEMPTS};
use crate::error::Error;
use crate::memory::most_bytes_of_a_file;

/// When a file that is published survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// At once: until then nobody sees it, and it is there or it is not, as far as the file system offers to sync.
    Now,
    /// Whenever the system has written it: after a power cut before that, any part of it may be zeros, or missing.
    Later,
}

/// Puts a file of `length` bytes in place whole: no process sees a part of it.
///
/// Whatever `path` led to is replaced, a directory excepted. `temporaries` is a directory of the same file system.
///
/// # Errors
///
/// [`Error::Io`]; nothing is left of the temporary file then, and `path` is as it was - unless the last step, syncing
/// the directory, is the one that failed.
pub(crate) fn publish(
    path: &Path,
    temporaries: &Path,
    modes: Option<Modes>,
    sync: Sync,
    length: u64,
    write: impl Fn(&File) -> io::Result<()>,
) -> Result<(), Error> {
    let mut left = ATTEMPTS;
    loop {
        left = left.saturating_sub(1);
        let written = write_aside(temporaries, modes, sync, length, &write);
        let published = written.and_then(|(aside, file)| {
            drop(file);
            aside.rename(path)
        });
        match published {
            // The process was stopped until the file was swept, or somebody has removed the directories.
            Err(Error::Io { source, .. }) if left > 0 && source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(()) if sync == Sync::Later => return Ok(()),
            Ok(()) => return path.parent().map_or(Ok(()), sync_directory),
        }
    }
}

/// A file that is written and has not got its name yet. If it never gets one, it is removed.
#[derive(Debug)]
pub(crate) struct Aside {
    temporary: PathBuf,
}

/// Writes a file of `length` bytes under a name of its own in `temporaries`, and returns it open.
///
/// # Errors
///
/// [`Error::Io`]; nothing is left of the file then.
pub(crate) fn write_aside(
    temporaries: &Path,
    modes: Option<Modes>,
    sync: Sync,
    length: u64,
    write: impl Fn(&File) -> io::Result<()>,
) -> Result<(Aside, File), Error> {
    if length > most_bytes_of_a_file() {
        // Writing on would be a signal that ends the process.
        return Err(failed("write", temporaries)(ErrorKind::FileTooLarge.into()));
    }
    let (aside, file) = create_aside(temporaries, modes)?;
    write(&file)
        .and_then(|()| if sync == Sync::Now { unless_not_offered(file.sync_all()) } else { Ok(()) })
        .map_err(failed("write", &aside.temporary))?;
    Ok((aside, file))
}

/// Creates a file under a name of its own in a directory, for whoever writes it himself.
pub(crate) fn create_aside(directory: &Path, modes: Option<Modes>) -> Result<(Aside, File), Error> {
    temporary::create(directory, modes).map(|(temporary, file)| (Aside { temporary }, file))
}

impl Aside {
    /// Syncs what was written to the file, gives it its name, and syncs the directory.
    pub(crate) fn publish(self, file: &File, path: &Path) -> Result<(), Error> {
        unless_not_offered(file.sync_all()).map_err(failed("sync", &self.temporary))?;
        self.rename(path)?;
        path.parent().map_or(Ok(()), sync_directory)
    }

    /// Gives the file its name, over whatever that led to.
    pub(crate) fn rename(mut self, path: &Path) -> Result<(), Error> {
        replace(&self.temporary, path).map_err(failed("rename", &self.temporary))?;
        self.temporary.clear();
        Ok(())
    }
}

/// A file that is open can be replaced.
#[cfg(not(windows))]
fn replace(from: &Path, path: &Path) -> io::Result<()> {
    fs::rename(from, path)
}

/// A file that is open, or mapped, may not be replaced, but renamed: it is moved aside first, so that for a moment there
/// is nothing of that name. If the new one cannot take its place, it goes back.
#[cfg(windows)]
fn replace(from: &Path, path: &Path) -> io::Result<()> {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
    let mut left = ATTEMPTS;
    loop {
        left = left.saturating_sub(1);
        let error = match fs::rename(from, path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !path.is_dir() => error,
            done => return done,
        };
        let aside = from.parent().and_then(|temporaries| temporary::new_name(temporaries).ok());
        if let Some(aside) = aside
            && fs::rename(path, &aside).is_ok()
        {
            let replaced = fs::rename(from, path);
            if replaced.is_ok() {
                // It goes once nobody has it open, or is swept later.
                let _ = fs::remove_file(&aside);
                return replaced;
            }
            // Unless there is another one by now.
            let _ = if path.exists() { fs::remove_file(&aside) } else { fs::rename(&aside, path) };
        }
        if left == 0 {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            // A file that stays is swept later.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes files that were written survive a power cut, before they are renamed. The `first` of them is still open.
///
/// On Linux that is one sync of the file system, whatever else it has to write: of a thousand files of 1 KB, each sync
/// of its own would take thirty times as long, since each waits for the journal. What the system could not write since
/// the first was opened is an error, though somebody else may have been told.
pub(crate) fn sync_aside<'a>(
    asides: impl IntoIterator<Item = &'a Aside>,
    first: File,
    temporaries: &Path,
) -> Result<(), Error> {
    #[cfg(target_os = "linux")]
    {
        drop(asides);
        unless_not_offered(rustix::fs::syncfs(&first).map_err(io::Error::from)).map_err(failed("sync", temporaries))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (first, temporaries);
        asides.into_iter().try_for_each(|Aside { temporary }| {
            // Windows syncs what may be written to.
            let file = File::options().read(true).write(cfg!(windows)).open(temporary);
            file.and_then(|file| unless_not_offered(file.sync_all())).map_err(failed("sync", temporary))
        })
    }
}

/// Makes what was renamed in a directory survive a power cut.
///
/// A directory may be one that this user can write to and not read; it is not synced then.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
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

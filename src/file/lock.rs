//! Locks among processes, of which one file holds many: each is of a byte, ends with the process that has it, and is
//! waited for by nobody.
//!
//! A process that closes any descriptor of a file loses all its locks there, and its own descriptors do not exclude
//! each other. So it has one descriptor of a file, for as long as it has a lock there, and a table tells its threads
//! apart.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{process, thread};

use super::call::{create_directory, failed};
use super::forks::OfProcess;
use super::modes::{self, Modes};
use crate::error::{Error, heap};
use crate::memory::{is_local, try_lock_byte, unlock_byte};

/// A lock, which ends when this falls, when the process ends, and in a child of a fork at once.
pub(crate) struct Lock {
    inode: Inode,
    byte: u32,
    /// Which process has it.
    process: u32,
}

/// What tells files apart: device and number.
type Inode = (u64, u64);

/// The files in which this process has locks.
struct Table(Vec<Opened>);

struct Opened {
    inode: Inode,
    file: File,
    /// The bytes that are locked. The file is closed with the last one.
    locked: Vec<u32>,
}

static TABLE: OfProcess<Table> = OfProcess::new(Table(Vec::new()));

/// How long is waited before a lock is tried again.
const PAUSE: Duration = Duration::from_millis(1);

/// Returns whether locks in a directory are the kernel's of this machine, or `None` if it cannot be opened.
pub(crate) fn are_locks_local(directory: &Path) -> Option<bool> {
    if !cfg!(unix) {
        return Some(false);
    }
    File::open(directory).ok().map(|directory| is_local(&directory))
}

/// Locks a byte of the file at `path`, which is made if need be, or returns `None` if another process or thread has it.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Memory`], and [`Error::NotAFile`] for a link and whatever is no regular file: then there is
/// no lock to be had.
pub(crate) fn try_lock(path: &Path, modes: Option<Modes>, byte: u32) -> Result<Option<Lock>, Error> {
    let Some(mut table) = TABLE.lock(Table::clear) else {
        return Err(failed("lock", path)(ErrorKind::WouldBlock.into()));
    };
    let opened = table.opened(path, modes)?;
    let inode = opened.inode;
    let locked = opened.try_lock(path, byte);
    table.close_unless_locked(inode);
    Ok(locked?.then(|| Lock { inode, byte, process: process::id() }))
}

/// Does the same, over and over for as long as there is patience, if locks in a directory are the kernel's of this
/// machine. Otherwise everybody goes on without one: there, even trying may wait for ever.
pub(crate) fn lock_within(
    patience: Duration,
    directory: &Path,
    path: &Path,
    modes: Option<Modes>,
    byte: u32,
) -> Result<Option<Option<Lock>>, Error> {
    if are_locks_local(directory) != Some(true) {
        return Ok(Some(None));
    }
    let since = Instant::now();
    loop {
        match try_lock(path, modes, byte)? {
            None if since.elapsed() >= patience => return Ok(None),
            None => thread::sleep(PAUSE),
            lock => return Ok(Some(lock)),
        }
    }
}

impl Table {
    /// A child of a fork has none of its parent's locks.
    fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the descriptor of a file.
    fn opened(&mut self, path: &Path, modes: Option<Modes>) -> Result<&mut Opened, Error> {
        // A name may lead to another file than before.
        let known =
            if self.0.is_empty() { None } else { fs::symlink_metadata(path).ok().and_then(|file| inode(&file)) };
        let at = match self.0.iter().position(|opened| Some(opened.inode) == known) {
            Some(at) => at,
            None => {
                heap::reserve(&mut self.0, 1)?;
                self.0.push(Opened::of(open(path, modes)?, path)?);
                self.0.len().saturating_sub(1)
            }
        };
        self.0.get_mut(at).ok_or_else(|| failed("lock", path)(ErrorKind::NotFound.into()))
    }

    fn close_unless_locked(&mut self, inode: Inode) {
        self.0.retain(|opened| opened.inode != inode || !opened.locked.is_empty());
    }
}

impl Opened {
    fn of(file: File, path: &Path) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(failed("stat", path))?;
        if !metadata.is_file() {
            return Err(Error::NotAFile { path: path.into() });
        }
        let inode = inode(&metadata).ok_or_else(|| failed("lock", path)(ErrorKind::Unsupported.into()))?;
        Ok(Self { inode, file, locked: Vec::new() })
    }

    fn try_lock(&mut self, path: &Path, byte: u32) -> Result<bool, Error> {
        heap::reserve(&mut self.locked, 1)?;
        let is_free = !self.locked.contains(&byte) && try_lock_byte(&self.file, byte).map_err(failed("lock", path))?;
        if is_free {
            self.locked.push(byte);
        }
        Ok(is_free)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(mut table) = (self.process == process::id()).then(|| TABLE.lock(Table::clear)).flatten() else {
            return;
        };
        if let Some(opened) = table.0.iter_mut().find(|opened| opened.inode == self.inode) {
            opened.locked.retain(|byte| *byte != self.byte);
            // Closing gives it up as well; if neither does, others wait for as long as they would for a process that is
            // stopped.
            let _ = if opened.locked.is_empty() { Ok(()) } else { unlock_byte(&opened.file, self.byte) };
        }
        table.close_unless_locked(self.inode);
    }
}

#[cfg(unix)]
fn inode(file: &Metadata) -> Option<Inode> {
    use std::os::unix::fs::MetadataExt;
    Some((file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Option<Inode> {
    None
}

/// Opens a file to lock, and makes it and its directory if need be, for this user alone unless `modes` say otherwise.
///
/// A link is not followed, and a pipe is not waited for. Nothing is ever written.
fn open(path: &Path, modes: Option<Modes>) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened.map_err(failed("open", path)),
    }
    path.parent().map_or(Ok(()), |directory| create_directory(directory, modes))?;
    match options.clone().create_new(true).open(path) {
        Ok(file) => modes::set_of_file(&file, modes).map(|()| file).map_err(failed("set the mode of", path)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(path).map_err(failed("open", path)),
        Err(error) => Err(failed("create", path)(error)),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn scratch(test: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("jitcache-lock-{test}-{}", process::id()));
        fs::create_dir(&directory).unwrap();
        directory
    }

    fn lock(path: &Path, byte: u32) -> Option<Lock> {
        try_lock(path, None, byte).unwrap()
    }

    #[test]
    fn a_byte_is_locked_once_and_free_when_its_lock_falls() {
        let directory = scratch("once");
        // Neither the file nor its directory is there.
        let path = directory.join("tmp/lock");
        let (first, other) = (lock(&path, 1).unwrap(), lock(&path, u32::MAX >> 1).unwrap());
        assert!(lock(&path, 1).is_none());
        assert!(lock(&directory.join("another"), 1).is_some());
        drop(first);
        let first = lock(&path, 1).unwrap();
        assert!(lock(&path, u32::MAX >> 1).is_none());
        drop((first, other));
        assert!(
            TABLE.lock(Table::clear).unwrap().0.iter().all(|opened| !opened.locked.is_empty()),
            "a file stays open for nothing"
        );
        assert_eq!(fs::read(&path).unwrap(), b"");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_takes_the_place_of_another_has_locks_of_its_own() {
        let directory = scratch("replaced");
        let path = directory.join("lock");
        let first = lock(&path, 1).unwrap();
        fs::rename(&path, directory.join("aside")).unwrap();
        let second = lock(&path, 1).unwrap();
        assert!(lock(&path, 1).is_none() && lock(&directory.join("aside"), 1).is_none());
        drop(first);
        assert!(lock(&path, 1).is_none());
        drop(second);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_file_is_not_locked() {
        let directory = scratch("odd");
        std::os::unix::fs::symlink(directory.join("elsewhere"), directory.join("link")).unwrap();
        for name in ["link", ""] {
            assert!(try_lock(&directory.join(name), None, 1).is_err(), "{name:?}");
        }
        assert!(!directory.join("elsewhere").exists());
        fs::remove_dir_all(directory).unwrap();
    }
}

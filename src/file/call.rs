//! The system calls on files that are one call each: opening and reading an entry, making a directory, listing and
//! unlinking.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::modes::{self, Modes};
use super::trust::Trusted;
use crate::error::Error;

/// Which file a name led to, as far as the system tells files apart.
///
/// The number of an inode is given again once nobody has the file open; hence the length and the time of the last
/// change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    #[cfg(unix)]
    inode: (u64, u64),
    /// In bytes.
    pub(crate) length: u64,
    pub(crate) modified: Option<SystemTime>,
}

impl FileId {
    pub(super) fn of(file: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            #[cfg(unix)]
            inode: (file.dev(), file.ino()),
            length: file.len(),
            modified: file.modified().ok(),
        }
    }

    /// Returns the number of the device that holds the file; 0 where the system has none.
    pub(crate) const fn device(&self) -> u64 {
        #[cfg(unix)]
        return self.inode.0;
        #[cfg(not(unix))]
        0
    }
}

/// Opens a regular file for reading and returns it with what tells it apart, or `None` if there is nothing of that
/// name.
///
/// A link is not followed, a pipe is not waited for, and what others than those who are trusted own or may write to is
/// refused.
pub(crate) fn open(path: &Path, trusted: &Trusted) -> Result<Option<(File, FileId)>, Error> {
    let file = match open_to_read(path) {
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
    trusted.check_file(path, &metadata)?;
    Ok(Some((file, FileId::of(&metadata))))
}

#[cfg(not(windows))]
fn open_to_read(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path)
}

/// A section whose pages may run is made of a file that was opened to be executed. Marking a file as used takes the
/// right to write its attributes: whoever has not got that may still read.
#[cfg(windows)]
fn open_to_read(path: &Path) -> io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    const READ_AND_EXECUTE: u32 = 0xa000_0000;
    const WRITE_ATTRIBUTES: u32 = 0x100;
    // A directory is opened, and so is a link, to find out that it is no file.
    const BACKUP_SEMANTICS_AND_REPARSE_POINT: u32 = 0x0220_0000;
    let mut options = OpenOptions::new();
    options.custom_flags(BACKUP_SEMANTICS_AND_REPARSE_POINT);
    match options.access_mode(READ_AND_EXECUTE | WRITE_ATTRIBUTES).open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => options.access_mode(READ_AND_EXECUTE).open(path),
        opened => opened,
    }
}

/// Tells what a regular file is, or `None` if there is nothing of that name, or something else.
pub(crate) fn look(path: &Path) -> Result<Option<FileId>, Error> {
    let found = if_there(fs::symlink_metadata(path), "stat", path)?;
    Ok(found.filter(Metadata::is_file).map(|found| FileId::of(&found)))
}

/// Returns whether a name leads to a directory, by no link, that only those who are trusted own and may write to.
pub(crate) fn is_directory(path: &Path, trusted: &Trusted) -> Result<bool, Error> {
    let found = if_there(fs::symlink_metadata(path), "stat", path)?;
    Ok(found.is_some_and(|found| found.is_dir() && trusted.check_file(path, &found).is_ok()))
}

/// A file is marked as used so often.
const TOUCH_EVERY: Duration = Duration::from_secs(60 * 60);

/// Marks a file as used now, by its modification time, unless it was in the last hour.
///
/// The clock is this machine's, which costs no system call; the mark is of the file system's.
pub(crate) fn touch(file: &File, id: FileId) {
    let age = |modified| SystemTime::now().duration_since(modified).unwrap_or_else(|ahead| ahead.duration());
    if id.modified.is_none_or(|modified| age(modified) <= TOUCH_EVERY) {
        return;
    }
    #[cfg(unix)]
    {
        use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens};
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = |access| Timestamps { last_access: time(access), last_modification: time(UTIME_NOW) };
        // Who may write to the file and does not own it may set both times or none. Where the system does not let it
        // either, the file only looks older than it is.
        let _ = futimens(file, &times(UTIME_OMIT)).or_else(|_| futimens(file, &times(UTIME_NOW)));
    }
    #[cfg(not(unix))]
    let _ = file.set_modified(SystemTime::now());
}

/// Reads the bytes of a file from `at` on, wherever others are reading it.
pub(crate) fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, to, at);
    #[cfg(windows)]
    {
        let mut filled = 0;
        while let Some(rest @ [_, ..]) = to.get_mut(filled..) {
            let offset = at.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match std::os::windows::fs::FileExt::seek_read(file, rest, offset) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled = usize::saturating_add(filled, read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
    #[cfg(not(any(unix, windows)))]
    {
        let _ = (file, to, at);
        Err(ErrorKind::Unsupported.into())
    }
}

/// Creates a directory with those above it, for this user alone unless `modes` say otherwise; it may be there already.
pub(crate) fn create_directory(path: &Path, modes: Option<Modes>) -> Result<(), Error> {
    let builder = {
        #[cfg_attr(not(unix), expect(unused_mut, reason = "there is no mode to set"))]
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
    };
    let mut created = builder.create(path);
    if let Some(parent) = path.parent()
        && created.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
    {
        create_directory(parent, modes)?;
        created = builder.create(path);
    }
    match created {
        Ok(()) => modes::set_of_directory(path, modes).map_err(failed("set the mode of", path)),
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(failed("create", path)(error)),
    }
}

/// Returns the path of a directory without the links in that of the one above it, if that is there.
pub(crate) fn resolved(directory: PathBuf) -> PathBuf {
    if !cfg!(unix) {
        return directory;
    }
    let above = directory.parent().and_then(|above| fs::canonicalize(above).ok());
    match (above, directory.file_name()) {
        (Some(above), Some(name)) => above.join(name),
        _ => directory,
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

/// Removes a file, and returns whether it was there.
pub(super) fn unlink(path: &Path) -> Result<bool, Error> {
    Ok(if_there(fs::remove_file(path), "remove", path)?.is_some())
}

/// Returns what a system call found, or `None` if there is nothing of that name.
pub(super) fn if_there<T>(found: io::Result<T>, action: &'static str, path: &Path) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(action, path)(error)),
    }
}

/// Returns the error for a system call that failed on `path`.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.into(), source }
}

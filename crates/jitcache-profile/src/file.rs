//! Files in directories that others may write to, too.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, geteuid, getrlimit};

/// Opens a file to append to, and makes it for this user alone if there is none.
///
/// No link is followed and no pipe waited for. A file that is another user's, or has a second name, which somebody else
/// may have given to a file of this user, is refused.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND;
    let guards = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags | guards, Mode::RUSR | Mode::WUSR)?);
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.uid() == geteuid().as_raw() && metadata.nlink() == 1 {
        return Ok(file);
    }
    let reason = format!("{} is no file of this user's alone", path.display());
    Err(io::Error::new(ErrorKind::PermissionDenied, reason))
}

/// Appends bytes by one call of the system, or by more if it takes fewer at a time.
///
/// A file that would get longer than the process may make one is left as it is: a signal would end the process.
pub(crate) fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    let added = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if let Some(most) = getrlimit(Resource::Fsize).current
        && file.metadata()?.len().saturating_add(added) > most
    {
        return Err(ErrorKind::FileTooLarge.into());
    }
    file.write_all(bytes)
}

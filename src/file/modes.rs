//! Who may use what is created: modes, which only Unix has.

use std::fs::File;
use std::io;
use std::path::Path;

/// The modes that a store gives its directories and files: exactly these, whatever the umask.
///
/// They count for what the store makes, temporary files included, and not for what is there: a directory that somebody
/// else has prepared stays as it is. Whoever may write there can have their code run by everybody who reads there.
#[cfg(unix)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// Mode of directories, such as `0o2770`.
    pub directories: u32,
    /// Mode of files, such as `0o660`.
    pub files: u32,
}

/// There are none to set.
#[cfg(not(unix))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Modes {}

#[cfg(unix)]
impl Modes {
    /// A group reads and writes, and nobody else. Entries belong to the group that the directory above the first one
    /// that is made belongs to, if that has its set-group-id bit, and otherwise to the group of the process that made
    /// it.
    pub const GROUP: Self = Self { directories: 0o2770, files: 0o660 };
}

/// Sets the mode of a directory that was just made.
pub(super) fn set_of_directory(path: &Path, modes: Option<Modes>) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(Modes { directories, .. }) = modes {
        return std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(directories));
    }
    let _ = (path, modes);
    Ok(())
}

/// Sets the mode of a file that was just made.
pub(super) fn set_of_file(file: &File, modes: Option<Modes>) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(Modes { files, .. }) = modes {
        return file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(files));
    }
    let _ = (file, modes);
    Ok(())
}

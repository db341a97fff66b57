//! Temporary files: a directory of their own, in which each attempt to write has a name that nobody else has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::call::{create_directory, failed, if_there, names, unlink};
use super::modes::{self, Modes};
use crate::error::Error;

/// The file beside temporary files of which bytes are locked, and the one that has what was counted: they stay.
pub(crate) const LOCK: &str = "lock";
pub(crate) const TALLY: &str = "tally";

/// How often a step is tried that others may undo: a directory can be removed as soon as it is there, and it must end
/// somewhere.
pub(super) const ATTEMPTS: u32 = 8;

/// A file that was not written to for so long is left over. A writer that was stopped for longer writes once more.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(60 * 60);

/// Creates a file under a new name, for this user alone unless `modes` say otherwise, and the directory if it is not
/// there.
pub(super) fn create(directory: &Path, modes: Option<Modes>) -> Result<(PathBuf, File), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut left = ATTEMPTS;
    loop {
        left = left.saturating_sub(1);
        let path = new_name(directory)?;
        let error = match options.open(&path) {
            Ok(file) => match modes::set_of_file(&file, modes) {
                Ok(()) => return Ok((path, file)),
                Err(error) => {
                    unlink(&path)?;
                    return Err(failed("set the mode of", &path)(error));
                }
            },
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::AlreadyExists if left > 0 => {}
            ErrorKind::NotFound if left > 0 => create_directory(directory, modes)?,
            _ => return Err(failed("create", &path)(error)),
        }
    }
}

/// Returns a path that nobody has used.
///
/// It is of the system's randomness: all that a process knows itself, its fork knows too.
pub(super) fn new_name(directory: &Path) -> Result<PathBuf, Error> {
    let nonce = getrandom::u64().map_err(|error| failed("name a file in", directory)(error.into()))?;
    Ok(directory.join(format!("{nonce:016x}")))
}

fn is_name(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Removes the temporary files that are left over in a directory, and returns how many there were.
///
/// # Errors
///
/// [`Error::Io`]; whatever could be removed is removed.
pub(crate) fn sweep(directory: &Path, modes: Option<Modes>) -> Result<usize, Error> {
    match if_there(fs::symlink_metadata(directory), "stat", directory)? {
        None => return Ok(0),
        Some(found) if found.is_dir() => {}
        // In a directory that a link leads to, such names may be anybody's.
        Some(_) => return Err(failed("list", directory)(ErrorKind::NotADirectory.into())),
    }
    let (mut swept, mut now, mut result) = (0, None, Ok(()));
    for name in names(directory)? {
        let removed = match name {
            Ok(name) if is_name(&name) => sweep_one(&directory.join(name), directory, modes, &mut now),
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        match removed {
            Ok(removed) => swept = usize::saturating_add(swept, removed.into()),
            Err(error) => result = Err(error),
        }
    }
    result.map(|()| swept)
}

/// Removes a directory of entries in which there is nothing but temporary files that are left over, and with it the
/// file of its locks and its tally. What stays is in nobody's way.
pub(crate) fn remove_directory(directory: &Path, modes: Option<Modes>) {
    let temporaries = directory.join("tmp");
    if sweep(&temporaries, modes).is_ok()
        && has_only(directory, &["tmp"]).unwrap_or(false)
        && has_only(&temporaries, &[LOCK, TALLY]).unwrap_or(false)
    {
        for path in [LOCK, TALLY].map(|name| temporaries.join(name)) {
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
                let _ = unlink(&path);
            }
        }
    }
    let _ = fs::remove_dir(temporaries);
    let _ = fs::remove_dir(directory);
}

/// Returns whether there is nothing in a directory but what has one of those names.
fn has_only(directory: &Path, names: &[&str]) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        if !names.iter().any(|name| entry.as_ref().is_ok_and(|entry| entry.file_name() == **name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a temporary file if it is left over, and returns whether it did.
fn sweep_one(path: &Path, directory: &Path, modes: Option<Modes>, now: &mut Option<SystemTime>) -> Result<bool, Error> {
    let modified = match if_there(fs::symlink_metadata(path), "stat", path)? {
        Some(file) if file.is_file() => file.modified().map_err(failed("stat", path))?,
        // Whatever it is, it is no writer's.
        _ => return Ok(false),
    };
    let now = match *now {
        Some(now) => now,
        // On a full disk no file can be made to ask.
        None => *now.insert(time(directory, modes).unwrap_or_else(|_| SystemTime::now())),
    };
    // A time that is to come was a clock's that went wrong.
    let age = now.duration_since(modified).unwrap_or_else(|ahead| ahead.duration());
    if age > LEFT_OVER_AFTER { unlink(path) } else { Ok(false) }
}

/// Returns the time by the clock of the file system, which gives files their times and need not be this machine's.
pub(crate) fn time(directory: &Path, modes: Option<Modes>) -> Result<SystemTime, Error> {
    let (path, file) = create(directory, modes)?;
    let time = file.metadata().and_then(|file| file.modified()).map_err(failed("stat", &path));
    unlink(&path)?;
    time
}

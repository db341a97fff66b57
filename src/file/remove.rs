//! Removing an entry, and no other file that has its name by then.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::call::{FileId, create_directory, failed, if_there, unlink};
use super::modes::Modes;
use super::temporary;
use crate::error::Error;

/// Removes a regular file, and returns whether it was there.
///
/// # Errors
///
/// [`Error::NotAFile`] for a link, a directory and anything else, which stays; [`Error::Io`] from the system.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match if_there(fs::symlink_metadata(path), "stat", path)? {
        Some(found) if !found.is_file() => Err(Error::NotAFile { path: path.into() }),
        Some(_) => unlink(path),
        None => Ok(false),
    }
}

/// Removes a file that is still the one that was looked at, and returns whether it was. A file
/// that takes the name between the look and the removal is removed as well.
pub(crate) fn remove_unchanged(path: &Path, seen: FileId) -> Result<bool, Error> {
    Ok(is_the_same(path, seen)? && unlink(path)?)
}

/// Removes the file that was read, and returns whether its name still led to it.
///
/// No system removes a name only if it leads to a certain file. So the file is renamed into `temporaries`, where nobody
/// else uses its name, and looked at once more: one that was published since the first look goes back. Readers miss it
/// until then, and if this process is killed before, the entry is gone, as after any removal.
pub(crate) fn remove_read(path: &Path, temporaries: &Path, modes: Option<Modes>, read: FileId) -> Result<bool, Error> {
    if !is_the_same(path, read)? {
        return Ok(false);
    }
    create_directory(temporaries, modes)?;
    let aside = temporary::new_name(temporaries)?;
    if if_there(fs::rename(path, &aside), "rename", path)?.is_none() {
        return Ok(false);
    }
    let is_the_same = is_the_same(&aside, read).unwrap_or(false);
    if !is_the_same {
        put_back(&aside, path)?;
    }
    // What stays is swept later.
    let _ = unlink(&aside);
    Ok(is_the_same)
}

/// Gives a file its name back, unless that is taken by then.
fn put_back(aside: &Path, path: &Path) -> Result<(), Error> {
    match fs::hard_link(aside, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // There are no links: whichever of two new entries stays, it is a new one.
        Err(_) => fs::rename(aside, path).map_err(failed("rename", aside)),
    }
}

fn is_the_same(path: &Path, read: FileId) -> Result<bool, Error> {
    let found = if_there(fs::symlink_metadata(path), "stat", path)?;
    Ok(found.is_some_and(|found| found.is_file() && FileId::of(&found) == read))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::file::{Trusted, open};

    /// A directory for temporary files and the path of an entry beside it.
    fn scratch(test: &str) -> (PathBuf, PathBuf) {
        let directory = std::env::temp_dir().join(format!("jitcache-{test}-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        (directory.join("tmp"), directory.join("entry"))
    }

    #[test]
    fn a_file_is_removed_if_it_is_the_one_that_was_read() {
        let (temporaries, path) = scratch("read");
        fs::write(&path, "bad").unwrap();
        let read = || open(&path, &Trusted::ANYONE).unwrap().unwrap().1;
        let bad = read();
        assert!(remove_read(&path, &temporaries, None, bad).unwrap());
        assert!(!path.exists());
        assert!(!remove_read(&path, &temporaries, None, bad).unwrap());

        let changes: [fn(&Path); 3] = [
            // Another file, of the same length, that was written at the same time.
            |path| {
                let modified = fs::metadata(path).unwrap().modified().unwrap();
                let other = path.with_extension("new");
                fs::write(&other, "new").unwrap();
                File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
                fs::rename(other, path).unwrap();
            },
            |path| {
                let later = SystemTime::now() + Duration::from_secs(5);
                File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
            },
            |path| {
                let modified = fs::metadata(path).unwrap().modified().unwrap();
                fs::write(path, "longer").unwrap();
                File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
            },
        ];
        // Where files have no numbers, one of the same length and time is the same.
        for change in changes.into_iter().skip(usize::from(!cfg!(unix))) {
            fs::write(&path, "bad").unwrap();
            let bad = read();
            change(&path);
            let changed = fs::read(&path).unwrap();
            assert!(!remove_read(&path, &temporaries, None, bad).unwrap());
            assert_eq!(fs::read(&path).unwrap(), changed);
        }
        assert_eq!(fs::read_dir(&temporaries).unwrap().count(), 0);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_file_goes_back_unless_there_is_a_newer_one() {
        let (aside, path) = scratch("back");
        fs::write(&aside, "new").unwrap();
        put_back(&aside, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        fs::write(&path, "newer").unwrap();
        fs::write(path.with_extension("aside"), "new").unwrap();
        put_back(&path.with_extension("aside"), &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        // There are no links of directories.
        fs::remove_file(&path).unwrap();
        fs::create_dir(path.with_extension("directory")).unwrap();
        put_back(&path.with_extension("directory"), &path).unwrap();
        assert!(path.is_dir());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}

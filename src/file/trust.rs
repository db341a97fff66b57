//! Whom a store trusts: who may own, and who may write to, what it reads.

#[cfg(unix)]
use std::fs;
use std::fs::Metadata;
use std::path::Path;

#[cfg(unix)]
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};
#[cfg(unix)]
use rustix::io::Errno;
#[cfg(unix)]
use rustix::process::{getegid, geteuid, getgroups};

use crate::error::Error;

/// Whose directories and entries a store takes. Whoever can write to them can have their code run.
///
/// Checked are the directory of the entries, which must be no link, and every directory above it, those that links in
/// the given root lead to included, when the store is opened; and every entry when it is read. A directory above may be
/// one in which anybody makes files if it has the sticky bit, as `/tmp` has it: nobody can exchange there what is
/// another's.
///
/// A group of the same number as the owner is taken for the owner: many systems give every user such a group. Access
/// control lists are not looked at. In a user namespace that has no root, as some sandboxes are, the root of the file
/// system belongs to nobody who is trusted: such an engine says [`Trust::Anyone`], or has its cache in memory.
#[cfg(unix)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// What this user or root owns, and nobody else may write to. Root trusts root alone.
    #[default]
    User,
    /// Also what belongs to a group of this process: whatever member owns it, and though all members may write to it.
    Group,
    /// Whatever is there: nothing is checked.
    Anyone,
}

/// A [`Trust`] with the user and the groups that this process had when its store was opened.
#[derive(Debug)]
pub(crate) struct Trusted {
    #[cfg(unix)]
    whom: Option<Whom>,
}

#[cfg(unix)]
#[derive(Debug)]
struct Whom {
    user: u32,
    groups: Vec<u32>,
}

impl Trusted {
    /// Trusts whatever is there.
    pub(crate) const ANYONE: Self = Self {
        #[cfg(unix)]
        whom: None,
    };

    /// Checks a file that was opened.
    pub(super) fn check_file(&self, path: &Path, file: &Metadata) -> Result<(), Error> {
        #[cfg(unix)]
        if let Some(whom) = &self.whom {
            use std::os::unix::fs::MetadataExt;
            return whom.check((file.uid(), file.gid(), file.mode()), false, || path.into());
        }
        let _ = (path, file);
        Ok(())
    }

    /// Checks a directory of entries and all those above it; one that is not there is left out.
    #[cfg(not(unix))]
    pub(crate) const fn check_directory(&self, _: &Path) -> Result<(), Error> {
        Ok(())
    }

    /// Checks the directories that a single file lies in.
    #[cfg(not(unix))]
    pub(crate) const fn check_above(&self, _: &Path) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(unix)]
impl Trusted {
    pub(crate) fn new(trust: Trust) -> Self {
        let user = geteuid().as_raw();
        let groups = || getgroups().unwrap_or_default().into_iter().chain([getegid()]).map(|group| group.as_raw());
        let whom = match trust {
            Trust::User => Some(Whom { user, groups: Vec::new() }),
            Trust::Group => Some(Whom { user, groups: groups().collect() }),
            Trust::Anyone => None,
        };
        Self { whom }
    }

    /// Checks a directory of entries and all those above it; one that is not there is left out.
    ///
    /// The directory is opened once, and what is above it is looked up from there: so these are the directories that it
    /// lies in, whatever becomes of the names in its path meanwhile.
    pub(crate) fn check_directory(&self, path: &Path) -> Result<(), Error> {
        self.check(path, false)
    }

    /// Checks the directories that a single file lies in. Nobody can take the file's name in a sticky directory, so the
    /// sticky bit is enough for all of them.
    pub(crate) fn check_above(&self, file: &Path) -> Result<(), Error> {
        file.parent().map_or(Ok(()), |directory| self.check(directory, true))
    }

    fn check(&self, path: &Path, is_above: bool) -> Result<(), Error> {
        let Some(whom) = &self.whom else { return Ok(()) };
        let (mut there, mut is_above) = (path, is_above);
        let directory = loop {
            let error = match openat(CWD, there, flags(is_above), Mode::empty()) {
                Ok(directory) => break directory,
                Err(error) => error,
            };
            if error == Errno::NOENT
                && let Some(parent) = there.parent()
            {
                (there, is_above) = (parent, true);
                continue;
            }
            let found = statat(CWD, there, AtFlags::SYMLINK_NOFOLLOW);
            return Err(match found {
                Ok(link) if !is_above && FileType::from_raw_mode(link.st_mode).is_symlink() => {
                    Error::Untrusted { path: there.into(), owner: link.st_uid, mode: bits(&link), rule: "is a link" }
                }
                _ => failed("open", there, error),
            });
        };
        let (mut name, mut steps, mut below) = (String::from("."), 0, None);
        loop {
            let found = statat(&directory, &name, AtFlags::empty()).map_err(|error| failed("stat", there, error))?;
            let id = (found.st_dev, found.st_ino);
            // Nothing is above the root of the file system but itself.
            if below.replace(id) == Some(id) {
                return Ok(());
            }
            whom.check((found.st_uid, found.st_gid, bits(&found)), is_above, || {
                let there = fs::canonicalize(there).unwrap_or_else(|_| there.into());
                there.ancestors().nth(steps).unwrap_or(&there).into()
            })?;
            name.push_str("/..");
            (steps, is_above) = (usize::saturating_add(steps, 1), true);
        }
    }
}

#[cfg(unix)]
impl Whom {
    /// Checks owner, group and mode; of what stands `above` others the sticky bit is enough.
    fn check(
        &self,
        (owner, group, mode): (u32, u32, u32),
        is_above: bool,
        path: impl FnOnce() -> std::path::PathBuf,
    ) -> Result<(), Error> {
        let is_sticky = is_above && mode & 0o1000 != 0;
        let is_of_group = self.groups.contains(&group);
        let rule = if owner != self.user && owner != 0 && !is_of_group {
            "belongs to neither this user nor root"
        } else if mode & 0o002 != 0 && !is_sticky {
            "can be written to by anyone"
        } else if mode & 0o020 != 0 && !is_sticky && group != owner && !is_of_group {
            "can be written to by its group"
        } else {
            return Ok(());
        };
        Err(Error::Untrusted { path: path(), owner, mode: mode & 0o7777, rule })
    }
}

/// How a directory is opened to look at it, and not into it where the system has a way.
#[cfg(unix)]
fn flags(follows: bool) -> OFlags {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let flags = flags | OFlags::PATH;
    if follows { flags } else { flags | OFlags::NOFOLLOW }
}

#[cfg(unix)]
fn failed(action: &'static str, path: &Path, error: Errno) -> Error {
    Error::Io { action, path: path.into(), source: error.into() }
}

#[cfg(unix)]
fn bits(found: &Stat) -> u32 {
    #[allow(clippy::useless_conversion, reason = "the width of a mode is the system's")]
    u32::from(found.st_mode)
}

//! What looking a key up comes to.

use crate::error::Error;
use crate::file::FileId;
use crate::words::Version;

/// What looking a key up came to. Each outcome has its own remedy.
#[derive(Debug)]
#[must_use = "what is not a hit has a remedy"]
#[non_exhaustive]
pub enum Lookup<T> {
    /// The entry is there and sound: use it.
    Hit(T),
    /// There is no entry: compile.
    Miss,
    /// Another version of the engine, which is given here, wrote the entry: compile, and put what was compiled in its
    /// place.
    Stale(Version),
    /// The entry is damaged or no entry at all, for the reason given: the same remedy.
    Rejected(Error),
    /// The entry has try tables in a layout that is not known, as the error tells: compile, and leave it to whoever
    /// knows.
    UnknownLayout(Error),
}

impl<T> Lookup<T> {
    /// Returns what was found, if it was found.
    #[must_use]
    pub fn hit(self) -> Option<T> {
        match self {
            Self::Hit(found) => Some(found),
            Self::Miss | Self::Stale(_) | Self::Rejected(_) | Self::UnknownLayout(_) => None,
        }
    }

    /// Goes on with what was found, if it was found.
    pub(crate) fn try_map<U>(self, go_on: impl FnOnce(T) -> Result<U, Error>) -> Result<Lookup<U>, Error> {
        Ok(match self {
            Self::Hit(found) => Lookup::Hit(go_on(found)?),
            Self::Miss => Lookup::Miss,
            Self::Stale(version) => Lookup::Stale(version),
            Self::Rejected(error) => Lookup::Rejected(error),
            Self::UnknownLayout(error) => Lookup::UnknownLayout(error),
        })
    }

    /// Takes what is wrong with an entry for an outcome, and leaves what is wrong with the machine an error.
    pub(super) fn of(found: Result<T, Error>) -> Result<Self, Error> {
        match found {
            Ok(found) => Ok(Self::Hit(found)),
            Err(Error::Stale { found, .. }) => Ok(Self::Stale(found)),
            Err(error) if error.is_rejection() => Ok(Self::Rejected(error)),
            Err(error @ Error::UnknownLayout { .. }) => Ok(Self::UnknownLayout(error)),
            Err(error) => Err(error),
        }
    }
}

/// What looking a key up came to, and which file of the store itself was read if one was and that is what is told.
pub(crate) type Found<T> = (Lookup<T>, Option<FileId>);

//! What a cache tells and counts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::words::Version;

/// What a cache had to do, or could not do, on the way to a module. It is told when all is done: see
/// [`Cache::on_event`](crate::Cache::on_event).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// There is no store, because it could not be opened, for the reason given. Told of the first key that is missed for it.
    Unopened(&'a Error),
    /// The entry was of another version, which is given here. What was compiled has taken its place, or it was removed; it
    /// stays if an [`Event::Unwritten`] or [`Event::Unremoved`] follows, the compiler failed, or the store is read only.
    Stale(&'a Version),
    /// The entry was wrong, for the reason given. What became of it is the same.
    Rejected(&'a Error),
    /// The entry is of an unknown layout, as the error tells, and was left as it is.
    UnknownLayout(&'a Error),
    /// The code was copied, though the store's [`Access`](crate::Access) has code run in place: the file system is not one of
    /// this machine or lets nothing run, mappings are scarce, or the code is not aligned in its file. Told of the first key only.
    NotInPlace,
    /// The entry could not be read, for the reason given.
    Unread(&'a Error),
    /// The entry could not be removed, for the reason given.
    Unremoved(&'a Error),
    /// The compiled module could not be stored, for the reason given.
    Unwritten(&'a Error),
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unopened(error) => write!(f, "store not opened: {error}"),
            Self::Stale(version) => write!(f, "entry stale: written by version {version}"),
            Self::Rejected(error) => write!(f, "entry rejected: {error}"),
            Self::UnknownLayout(error) => write!(f, "entry left: {error}"),
            Self::NotInPlace => f.write_str("code copied: it cannot run in place"),
            Self::Unread(error) => write!(f, "entry not read: {error}"),
            Self::Unremoved(error) => write!(f, "entry not removed: {error}"),
            Self::Unwritten(error) => write!(f, "entry not written: {error}"),
        }
    }
}

/// How often a cache did what. Returned by [`Cache::statistics`](crate::Cache::statistics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Modules that were in memory.
    pub memory_hits: u64,
    /// Modules that were loaded from the store.
    pub hits: u64,
    /// Modules of which the store had no entry.
    pub misses: u64,
    /// Modules of which the store had an entry of another version.
    pub stale: u64,
    /// Modules of which the store had a damaged entry.
    pub rejected: u64,
    /// Modules of which the store had an entry of an unknown layout.
    pub unknown_layouts: u64,
    /// What could not be done with the store, opening it included: see [`Event`].
    pub failures: u64,
}

/// The [`Statistics`] as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) memory_hits: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) unknown_layouts: AtomicU64,
    pub(crate) failures: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Statistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            memory_hits: read(&self.memory_hits),
            hits: read(&self.hits),
            misses: read(&self.misses),
            stale: read(&self.stale),
            rejected: read(&self.rejected),
            unknown_layouts: read(&self.unknown_layouts),
            failures: read(&self.failures),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_what_is_wrong_and_why() {
        let (version, error) = (Version::of(b"1"), Error::UnsupportedMachine);
        for (event, said) in [
            (Event::Unopened(&error), format!("store not opened: {error}")),
            (Event::Stale(&version), "entry stale: written by version \"1\"".to_owned()),
            (Event::Rejected(&error), format!("entry rejected: {error}")),
            (Event::UnknownLayout(&error), format!("entry left: {error}")),
            (Event::NotInPlace, "code copied: it cannot run in place".to_owned()),
            (Event::Unread(&error), format!("entry not read: {error}")),
            (Event::Unremoved(&error), format!("entry not removed: {error}")),
            (Event::Unwritten(&error), format!("entry not written: {error}")),
        ] {
            assert_eq!(event.to_string(), said);
        }
    }
}

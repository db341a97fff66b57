//! What a cache tells and counts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Error;
use crate::store::Statistics;
use crate::words::Version;

/// What a cache did, or could not do, on the way to a module. It is told when all is done: see
/// [`Cache::on_event`](crate::Cache::on_event). A module that was in memory is counted, and not told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// There is no store, because it could not be opened, for the reason given. Told of the first key that is missed
    /// for it.
    Unopened(&'a Error),
    /// The entry was of another version, which is given here. What was compiled has taken its place, or it was removed.
    /// It stays if an [`Event::Unwritten`] or [`Event::Unremoved`] follows, the compiler failed, or it is not to be
    /// replaced now: the store is read only or left alone, the entry is a base's, or what was compiled
    /// [waits](crate::Cache::with_write_behind).
    Stale(&'a Version),
    /// The entry was wrong, for the reason given. What became of it is the same; one that is not to be trusted is never
    /// removed.
    Rejected(&'a Error),
    /// The entry is of an unknown layout, as the error tells, and was left as it is.
    UnknownLayout(&'a Error),
    /// The code was copied, though the store's [`Access`](crate::Access) has code run in place: the file system is not
    /// one of this machine or lets nothing run, mappings are scarce, or the code is not aligned in its file. Told of
    /// the first key only.
    NotInPlace,
    /// The entry could not be read, for the reason given.
    Unread(&'a Error),
    /// The entry could not be removed, for the reason given.
    Unremoved(&'a Error),
    /// The compiled module could not be stored, for the reason given.
    Unwritten(&'a Error),
    /// For the reason given, the eighth of its kind in a row, the store is not read any more, or not written to, for a
    /// second. When that is over it is tried once more, and left alone for twice as long each time, up to a minute,
    /// until it answers. None of that is told.
    LeftAlone(&'a Error),
    /// The module was loaded from the store.
    Hit {
        /// Bytes of code.
        bytes: u64,
        /// How long looking it up and loading it took, and waiting for whoever might have compiled it.
        took: Duration,
    },
    /// The store had no entry.
    Miss,
    /// This thread waited for another thread or process that compiled the module. If [`Event::Compiled`] follows, it
    /// waited in vain.
    Waited {
        /// How long.
        took: Duration,
    },
    /// The module was compiled.
    Compiled {
        /// How long the compiler took.
        took: Duration,
    },
    /// The module went out of memory: see [`Cache::with_memory_budget`](crate::Cache::with_memory_budget).
    Evicted {
        /// Bytes of code.
        bytes: u64,
    },
    /// The compiled module was stored.
    Stored {
        /// Length of the file.
        bytes: u64,
        /// How long writing and syncing it took.
        took: Duration,
    },
    /// Entries went out of the store for its [`budget`](crate::StoreOptions::budget), when the module was stored.
    Trimmed {
        /// How many.
        entries: u64,
        /// Length of their files.
        bytes: u64,
        /// How long counting and removing took.
        took: Duration,
    },
}

impl Event<'_> {
    /// Returns whether something went wrong, or not as it was asked for. The others are the life of a cache.
    #[must_use]
    pub const fn is_trouble(&self) -> bool {
        !matches!(
            self,
            Self::Hit { .. }
                | Self::Miss
                | Self::Waited { .. }
                | Self::Compiled { .. }
                | Self::Evicted { .. }
                | Self::Stored { .. }
                | Self::Trimmed { .. }
        )
    }
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
            Self::LeftAlone(error) => write!(f, "store left alone for a while: {error}"),
            Self::Hit { bytes, took } => write!(f, "{bytes} bytes of code loaded in {took:?}"),
            Self::Miss => f.write_str("no entry"),
            Self::Waited { took } => write!(f, "waited {took:?} for another compilation"),
            Self::Compiled { took } => write!(f, "compiled in {took:?}"),
            Self::Evicted { bytes } => write!(f, "{bytes} bytes of code out of memory"),
            Self::Stored { bytes, took } => write!(f, "{bytes} bytes stored in {took:?}"),
            Self::Trimmed { entries, bytes, took } => {
                write!(f, "{entries} entries of {bytes} bytes removed in {took:?} to make room")
            }
        }
    }
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
    pub(crate) waits: AtomicU64,
    pub(crate) compilations: AtomicU64,
    /// In nanoseconds.
    pub(crate) compiling: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) bytes_loaded: AtomicU64,
    pub(crate) bytes_stored: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) trimmed: AtomicU64,
    pub(crate) bytes_trimmed: AtomicU64,
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
            waits: read(&self.waits),
            compilations: read(&self.compilations),
            compiling: Duration::from_nanos(read(&self.compiling)),
            stored: read(&self.stored),
            bytes_loaded: read(&self.bytes_loaded),
            bytes_stored: read(&self.bytes_stored),
            evicted: read(&self.evicted),
            trimmed: read(&self.trimmed),
            bytes_trimmed: read(&self.bytes_trimmed),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
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
            (Event::LeftAlone(&error), format!("store left alone for a while: {error}")),
        ] {
            assert_eq!(event.to_string(), said);
            assert!(event.is_trouble());
        }
        let took = Duration::from_millis(3);
        for (event, said) in [
            (Event::Hit { bytes: 7, took }, "7 bytes of code loaded in 3ms"),
            (Event::Miss, "no entry"),
            (Event::Waited { took }, "waited 3ms for another compilation"),
            (Event::Compiled { took }, "compiled in 3ms"),
            (Event::Evicted { bytes: 7 }, "7 bytes of code out of memory"),
            (Event::Stored { bytes: 7, took }, "7 bytes stored in 3ms"),
            (Event::Trimmed { entries: 2, bytes: 7, took }, "2 entries of 7 bytes removed in 3ms to make room"),
        ] {
            assert_eq!(event.to_string(), said);
            assert!(!event.is_trouble());
        }
    }
}

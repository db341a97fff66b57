//! Room on disk: the bytes that an engine's entries take under a root, in the directories of all its versions.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::entry::Identity;
use crate::error::{Error, heap};
use crate::file::{self, FileId, Modes, Trusted};
use crate::words::Key;

/// What was removed to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// Entries that were removed.
    pub entries: u64,
    /// Their length, in bytes.
    pub bytes: u64,
    /// Length of the entries that are left, in bytes.
    pub left: u64,
}

impl Trimmed {
    /// Returns what was removed by one and then the other.
    pub(super) const fn and(self, then: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(then.entries),
            bytes: self.bytes.saturating_add(then.bytes),
            left: then.left,
        }
    }
}

/// The directory of another version of the engine, or of another target. Returned by
/// [`Store::other_versions`](crate::Store::other_versions).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherVersion {
    /// Its path.
    pub directory: PathBuf,
    /// How many entries it has.
    pub entries: u64,
    /// Their length, in bytes.
    pub bytes: u64,
    /// When one of them was last used, to the hour, if there is any.
    pub used: Option<SystemTime>,
}

/// Part of the budget that a process puts before it counts again what is there.
const COUNT_EVERY: u64 = 16;

/// Part of the budget that a process puts at most before it counts first: how much, is left to chance. So of many that
/// end soon few count, each of which has to look at every entry, and all together put that part between two counts.
const COUNT_FIRST: u64 = 64;

/// How long a put waits for the process that removes: as long as that takes, as a rule, so that nobody outruns it.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// How long a put goes on removing: on a disk that is busy each removal may take milliseconds.
pub(super) const LONGEST: Duration = Duration::from_secs(1);

/// How often is counted again after something was removed: others may go on putting, and it must end somewhere.
const ROUNDS: u32 = 4;

/// An entry's time that is so far ahead was a clock's that went wrong.
const AHEAD: Duration = Duration::from_secs(60 * 60);

/// What a store may take, and when to look whether it does.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    /// Bytes that were put since what is there was counted.
    put: AtomicU64,
}

impl Budget {
    /// Returns a budget of so many bytes, of which nobody knows yet how many are taken.
    pub(super) fn new(bytes: u64) -> Self {
        // Without chance, it is at the first put.
        Self::by_chance(bytes, getrandom::u64().unwrap_or(0))
    }

    fn by_chance(bytes: u64, chance: u64) -> Self {
        let [first, every] = [COUNT_FIRST, COUNT_EVERY].map(|part| bytes.checked_div(part).unwrap_or(0));
        let left = chance.checked_rem(first).unwrap_or(0);
        Self { bytes, put: AtomicU64::new(every.saturating_sub(left)) }
    }

    /// Adds what was put, and returns whether to count.
    pub(super) fn put(&self, bytes: u64) -> bool {
        let put = self.put.load(Ordering::Relaxed).saturating_add(bytes);
        let is_time = put > self.bytes.checked_div(COUNT_EVERY).unwrap_or(0);
        // What threads put at the same time may be counted once; the next one looks again.
        self.put.store(if is_time { 0 } else { put }, Ordering::Relaxed);
        is_time
    }

    /// Has the next put count again.
    pub(super) fn look_again(&self) {
        self.put.store(self.bytes, Ordering::Relaxed);
    }

    /// Has a put count again before long, though not the next one: who removes now may be stopped.
    pub(super) fn look_soon(&self) {
        let [first, every] = [COUNT_FIRST, COUNT_EVERY].map(|part| self.bytes.checked_div(part).unwrap_or(0));
        self.put.store(every.saturating_sub(first), Ordering::Relaxed);
    }

    /// Returns the length above which is trimmed, and that which is left then, in bytes.
    pub(super) const fn bounds(&self) -> (u64, u64) {
        (self.bytes, self.bytes.saturating_sub(self.bytes.div_ceil(4)))
    }
}

/// The entries of an engine under a root.
pub(super) struct Room<'s> {
    pub(super) root: &'s Path,
    /// The directory of the store's own entries.
    pub(super) own: &'s Path,
    pub(super) identity: &'s Identity,
    pub(super) trusted: &'s Trusted,
    pub(super) modes: Option<Modes>,
}

/// An entry that could be removed.
struct Candidate {
    /// Its place in the list of directories.
    directory: usize,
    key: Key,
    file: FileId,
}

/// All entries, with the directories that they are in; the store's own is the last one, if it is there.
#[derive(Default)]
struct Counted {
    directories: Vec<PathBuf>,
    entries: Vec<Candidate>,
    bytes: u64,
}

impl Room<'_> {
    /// Removes entries until `most` bytes are left, if there are more than `above`: those of other versions first, and
    /// of each kind the least recently used. Returns `None` if another process is about it, and still is after
    /// `patience`; without a lock, where none can be had, several do it at a time. After `longest` it removes no more.
    pub(super) fn trim(
        &self,
        above: u64,
        most: u64,
        patience: Duration,
        longest: Duration,
    ) -> Result<Option<Trimmed>, Error> {
        let path = self.root.join(format!("{}.lock", self.identity.name()));
        let lock = file::lock_within(patience, self.root, &path, self.modes, 0).unwrap_or(Some(None));
        let Some(_lock) = lock else { return Ok(None) };
        let (mut trimmed, since) = (Trimmed::default(), Instant::now());
        let is_over = || since.elapsed() >= longest;
        // Once more for what others have put meanwhile.
        for round in 0..ROUNDS {
            if round > 0 && is_over() {
                break;
            }
            let counted = self.count()?;
            trimmed.left = counted.bytes;
            if counted.bytes <= above {
                break;
            }
            self.remove_least_used(counted, most, is_over, &mut trimmed)?;
        }
        Ok(Some(trimmed))
    }

    fn remove_least_used(
        &self,
        mut counted: Counted,
        most: u64,
        is_over: impl Fn() -> bool,
        trimmed: &mut Trimmed,
    ) -> Result<(), Error> {
        // On a full disk no file can be made to ask for the time.
        let now = file::time(&self.own.join("tmp"), self.modes).unwrap_or_else(|_| SystemTime::now());
        let own = counted.directories.iter().position(|directory| directory == self.own);
        counted.entries.sort_unstable_by_key(|entry| {
            let used = entry.file.modified.filter(|used| !used.duration_since(now).is_ok_and(|ahead| ahead > AHEAD));
            // What is too long to stay goes first: removing others would be in vain.
            let may_stay = entry.file.length <= most;
            (may_stay, may_stay && Some(entry.directory) == own, used)
        });
        let mut result = Ok(());
        for entry in &counted.entries {
            if trimmed.left <= most {
                break;
            }
            let Some(directory) = counted.directories.get(entry.directory) else { continue };
            let path = directory.join(entry.key.to_string());
            // One that was used or replaced since it was counted stays.
            match file::remove_unchanged(&path, entry.file) {
                Ok(true) => {
                    trimmed.entries = trimmed.entries.saturating_add(1);
                    trimmed.bytes = trimmed.bytes.saturating_add(entry.file.length);
                    trimmed.left = trimmed.left.saturating_sub(entry.file.length);
                }
                // Somebody else has removed it.
                Ok(false) if matches!(file::look(&path), Ok(None)) => {
                    trimmed.left = trimmed.left.saturating_sub(entry.file.length);
                }
                Ok(false) => {}
                Err(error) => result = Err(error),
            }
            if is_over() {
                break;
            }
        }
        for directory in counted.directories.iter().filter(|directory| *directory != self.own) {
            file::remove_directory(directory, self.modes);
        }
        result
    }

    /// Returns the directories of other versions, with what is in them.
    pub(super) fn others(&self) -> Result<Vec<OtherVersion>, Error> {
        let counted = self.count()?;
        let other =
            |directory: &PathBuf| OtherVersion { directory: directory.clone(), entries: 0, bytes: 0, used: None };
        let mut others: Vec<_> =
            counted.directories.iter().filter(|directory| *directory != self.own).map(other).collect();
        for entry in &counted.entries {
            if let Some(other) = others.get_mut(entry.directory) {
                other.entries = other.entries.saturating_add(1);
                other.bytes = other.bytes.saturating_add(entry.file.length);
                other.used = other.used.max(entry.file.modified);
            }
        }
        Ok(others)
    }

    /// Removes the entries of another version, and its directory unless something else is in it.
    pub(super) fn remove(&self, directory: &Path) -> Result<Trimmed, Error> {
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if directory == self.own || directory.parent() != Some(self.root) || !self.identity.owns_directory(name) {
            return Err(Error::Invalid { what: "directory", rule: "must be that of another version of the engine" });
        }
        let mut counted = Counted::default();
        self.count_in(directory, &mut counted)?;
        let mut trimmed = Trimmed::default();
        for entry in &counted.entries {
            if file::remove_unchanged(&directory.join(entry.key.to_string()), entry.file)? {
                trimmed.entries = trimmed.entries.saturating_add(1);
                trimmed.bytes = trimmed.bytes.saturating_add(entry.file.length);
            }
        }
        trimmed.left = counted.bytes.saturating_sub(trimmed.bytes);
        file::remove_directory(directory, self.modes);
        Ok(trimmed)
    }

    fn count(&self) -> Result<Counted, Error> {
        let mut counted = Counted::default();
        for directory in self.other_directories()? {
            self.count_in(&directory?, &mut counted)?;
        }
        self.count_in(self.own, &mut counted)?;
        Ok(counted)
    }

    /// Returns what has a name as the directories of the engine's other versions and targets have, whatever it is.
    fn other_directories(&self) -> Result<impl Iterator<Item = Result<PathBuf, Error>>, Error> {
        let names = file::names(self.root)?
            .filter(|name| name.as_ref().map_or(true, |name| self.identity.owns_directory(name)));
        let directories = names.map(|name| Ok(self.root.join(name?)));
        Ok(directories.filter(|directory| directory.as_ref().map_or(true, |directory| directory != self.own)))
    }

    /// Returns the directories of the engine that are taken, the store's own in front if it is there.
    pub(super) fn directories(&self) -> Result<Vec<PathBuf>, Error> {
        let mut directories = Vec::new();
        if !self.root.exists() {
            return Ok(directories);
        }
        for directory in iter::once(Ok(self.own.to_owned())).chain(self.other_directories()?) {
            let directory = directory?;
            if self.is_taken(&directory)? {
                heap::reserve(&mut directories, 1)?;
                directories.push(directory);
            }
        }
        Ok(directories)
    }

    /// Returns whether entries of a directory are taken: it is no link, and one of those who are trusted.
    fn is_taken(&self, directory: &Path) -> Result<bool, Error> {
        file::is_directory(directory, self.trusted)
    }

    /// Counts the entries of a directory, unless it is none, a link, or not one of those who are trusted. What cannot be
    /// looked at does not count: it cannot be removed either.
    fn count_in(&self, directory: &Path, counted: &mut Counted) -> Result<(), Error> {
        if !self.is_taken(directory)? {
            return Ok(());
        }
        let place = counted.directories.len();
        heap::reserve(&mut counted.directories, 1)?;
        counted.directories.push(directory.to_owned());
        let Ok(names) = file::names(directory) else { return Ok(()) };
        for name in names {
            let Ok(key) = name?.parse::<Key>() else { continue };
            if let Ok(Some(file)) = file::look(&directory.join(key.to_string())) {
                heap::reserve(&mut counted.entries, 1)?;
                counted.entries.push(Candidate { directory: place, key, file });
                counted.bytes = counted.bytes.saturating_add(file.length);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::super::Store;
    use super::*;
    use crate::entry::Builder;

    #[test]
    fn one_at_a_time_makes_room_and_nobody_waits_longer_than_it_has_patience() {
        let root = std::env::temp_dir().join(format!("jitcache-room-{}", std::process::id()));
        let store = Store::open(&root, Identity::new("room", *b"ROOMS\0", "1").unwrap()).unwrap();
        let lock = file::try_lock(&root.join("room.lock"), None, 0).unwrap().unwrap();
        assert!(store.trim_to(0).unwrap().is_none());
        drop(lock);
        assert_eq!(store.trim_to(0).unwrap(), Some(Trimmed::default()));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_somebody_else_has_removed_meanwhile_counts_as_removed() {
        let root = std::env::temp_dir().join(format!("jitcache-room-two-{}", std::process::id()));
        let identity = Identity::new("room", *b"ROOMS\0", "1").unwrap();
        let store = Store::open(&root, identity.clone()).unwrap();
        for n in 0..8 {
            let key = Key::from_bytes([n; 32]);
            store.put(&key, &Builder::new().finish(&identity, &key).unwrap()).unwrap();
        }
        let counted = || store.room().count().unwrap();
        let (first, second) = (counted(), counted());
        let most = first.bytes / 2;
        for (counted, removed) in [(first, 4), (second, 0)] {
            let mut trimmed = Trimmed { left: counted.bytes, ..Trimmed::default() };
            store.room().remove_least_used(counted, most, || false, &mut trimmed).unwrap();
            assert_eq!((trimmed.entries, trimmed.left), (removed, most));
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn who_has_no_time_removes_one_entry_and_the_next_put_goes_on() {
        let root = std::env::temp_dir().join(format!("jitcache-room-slow-{}", std::process::id()));
        let identity = Identity::new("room", *b"ROOMS\0", "1").unwrap();
        let store = Store::open(&root, identity.clone()).unwrap();
        for n in 0..3 {
            let key = Key::from_bytes([n; 32]);
            store.put(&key, &Builder::new().finish(&identity, &key).unwrap()).unwrap();
        }
        for left in [2, 1, 0, 0] {
            store.room().trim(0, 0, Duration::ZERO, Duration::ZERO).unwrap().unwrap();
            assert_eq!(store.list().unwrap().count(), left);
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn it_is_left_to_chance_when_a_process_counts_first_and_then_it_does_for_each_sixteenth() {
        for chance in 0..100 {
            let budget = Budget::by_chance(1600, chance);
            let first = (1..=25).find(|_| budget.put(1)).unwrap();
            assert_eq!(first, chance % 25 + 1);
            assert_eq!([50, 50, 1].map(|put| budget.put(put)), [false, false, true]);
        }
        assert!([0, 1, 63].map(Budget::new).iter().all(|budget| budget.put(1)));
        let budget = Budget::by_chance(1600, 24);
        budget.look_soon();
        assert_eq!([25, 1, 100].map(|put| budget.put(put)), [false, true, false]);
        budget.look_again();
        assert!(budget.put(1) && !budget.put(1));
    }
}

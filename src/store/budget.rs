//! Keeping a store to its budget, and what else its engine has under the root.

use std::time::{Duration, Instant};

use super::Store;
use super::room::{LONGEST, OtherVersion, PATIENCE, Room, Trimmed};
use crate::error::Error;

impl Store {
    /// Makes room if it is time to, after so many bytes were put, and returns what was removed, if anybody counted.
    pub(crate) fn keep_to_budget(&self, put: u64) -> Option<Trimmed> {
        let (budget, since) = (self.budget.as_ref().filter(|budget| budget.put(put))?, Instant::now());
        let (above, most) = budget.bounds();
        // The entry is there; what cannot be removed now is tried again later. `trim_to` tells why.
        let Some(trimmed) = self.room().trim(above, most, PATIENCE, LONGEST).ok()? else {
            budget.look_soon();
            return None;
        };
        if trimmed.left > above && since.elapsed() >= LONGEST {
            budget.look_again();
        }
        Some(trimmed)
    }

    pub(super) fn room(&self) -> Room<'_> {
        Room {
            root: self.directory.parent().unwrap_or(&self.directory),
            own: &self.directory,
            identity: &self.identity,
            trusted: &self.trusted,
            modes: self.modes,
        }
    }

    /// Removes entries of this engine until there are `bytes` of them under the root: those of other versions and
    /// targets first, then the least recently used, as [`StoreOptions::budget`](crate::StoreOptions::budget) has it
    /// done by itself.
    ///
    /// Returns what was removed, or `None` if another process is removing entries.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::Io`] and [`Error::Memory`] from the system, and whatever could be removed is
    /// removed.
    pub fn trim_to(&self, bytes: u64) -> Result<Option<Trimmed>, Error> {
        self.check_writable()?;
        self.room().trim(bytes, bytes, Duration::ZERO, Duration::MAX)
    }

    /// Returns the directories of other versions of this engine, and of other targets, under the root.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn other_versions(&self) -> Result<Vec<OtherVersion>, Error> {
        self.room().others()
    }

    /// Removes the entries of another version, and its directory if nothing else is in it.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::Invalid`] if it is no other version of this store's; [`Error::Io`] and
    /// [`Error::Memory`] from the system.
    pub fn remove_version(&self, version: &OtherVersion) -> Result<Trimmed, Error> {
        self.check_writable()?;
        self.room().remove(&version.directory)
    }
}

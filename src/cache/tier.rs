//! The way of a module through the tiers: memory, store, compiler; and what is told of it.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::Cache;
use super::event::{Event, add, count};
use super::kept::{self, Kept};
use super::trouble::{Telling, Trouble, nanoseconds};
use crate::entry::{Builder, Entry};
use crate::error::Error;
use crate::load::Module;
use crate::store::{Found, Lookup, Store, Trimmed};
use crate::words::Key;

/// What came of a module that was compiled: whether it is in memory, and whether in the store.
pub(super) struct Added {
    module: Result<Arc<Module>, Error>,
    stored: Option<Result<Stored, Error>>,
}

/// How many bytes were stored, and how long that took.
pub(super) struct Stored {
    bytes: u64,
    took: Duration,
}

impl Cache {
    /// Returns a module that is in memory.
    pub(super) fn kept(&self, key: &Key) -> Option<Arc<Module>> {
        let module = self.modules()?.get(key)?;
        count(&self.counters.memory_hits);
        Some(module)
    }

    /// Looks into the store, and keeps what is found there.
    pub(super) fn look_up(&self, key: &Key) -> Result<Found<Arc<Module>>, Error> {
        let Some(store) = &self.store else { return Ok((Lookup::Miss, None)) };
        let found = if self.reads.is_left_alone() { store.find_in_bases(key) } else { store.find(key) };
        // What a base has says nothing about the store.
        if !self.reads.is_left_alone() && !matches!(found, Err(_) | Ok((Lookup::Hit(_), None))) {
            self.reads.succeeded();
        }
        found.and_then(|(found, file)| Ok((found.try_map(|module| self.keep(key, module))?, file)))
    }

    /// Counts what was found in the end, however often it was looked for.
    pub(super) fn count_found<T>(&self, found: &Result<Found<T>, Error>) {
        if !matches!(found, Ok((Lookup::Hit(_), _))) {
            self.tallied.notice_fork(&self.counters);
        }
        match found {
            Ok((Lookup::Hit(_), _)) => count(&self.counters.hits),
            Ok((Lookup::Miss, _)) | Err(_) => count(&self.counters.misses),
            Ok(_) => {}
        }
    }

    /// Tells, once, that code does not run in place though it was asked for.
    pub(super) fn tell_place(&self, key: &Key, module: &Module) {
        let is_copied = !module.is_in_place() && !module.code().is_empty();
        if is_copied
            && self.store.as_ref().is_some_and(Store::runs_in_place)
            && !self.is_place_told.swap(true, Ordering::Relaxed)
        {
            self.hook.tell(key, Event::NotInPlace);
        }
    }

    /// Settles what was found and no put follows: removes what is bad, and tells it. Where the system failed, it is a
    /// miss.
    pub(super) fn settle<T>(&self, key: &Key, found: Result<Found<T>, Error>) -> Lookup<T> {
        let removed = match (self.store_to_write(), &found) {
            (Some(store), Ok((Lookup::Stale(_) | Lookup::Rejected(_), Some(file)))) => store.remove_read(key, *file),
            _ => Ok(false),
        };
        self.tell_found(key, &found);
        if let Err(error) = removed {
            self.tell(&self.counters.failures, key, Event::Unremoved(&error));
        }
        found.map_or(Lookup::Miss, |(found, _)| found)
    }

    /// Stores what was compiled if it `is_storable`, and then loads it, which may be refused.
    pub(super) fn publish(&self, key: &Key, compiled: &mut Builder<'_>, is_storable: bool) -> Added {
        let entry = match compiled.finish_to_load(&self.identity, key) {
            Ok(entry) => entry,
            Err(error) => return Added { module: Err(error), stored: None },
        };
        let waits = || self.behind.push(key, &entry, self.patience);
        let store = self.writable().filter(|_| is_storable && !waits() && !self.writes.is_left_alone());
        let stored = store.map(|store| self.put(store, key, &entry));
        Added { module: Module::load_with(&entry, &self.linker).and_then(|module| self.keep(key, module)), stored }
    }

    pub(super) fn put(&self, store: &Store, key: &Key, entry: &Entry<'_>) -> Result<Stored, Error> {
        let since = Instant::now();
        store.publish(key, entry)?;
        self.writes.succeeded();
        Ok(Stored { bytes: entry.length(), took: since.elapsed() })
    }

    /// Returns the store, unless it is read only.
    pub(super) fn writable(&self) -> Option<&Store> {
        self.store.as_ref().filter(|store| !store.is_read_only())
    }

    /// Returns the store, unless nothing is to be written to it now.
    pub(super) fn store_to_write(&self) -> Option<&Store> {
        self.writable().filter(|_| !self.writes.is_left_alone())
    }

    /// Keeps a module in memory, unless another thread was faster: then that thread's module is the one.
    fn keep(&self, key: &Key, module: Module) -> Result<Arc<Module>, Error> {
        let Some(mut modules) = self.modules() else { return Ok(Arc::new(module)) };
        if let Some(kept) = modules.get(key) {
            return Ok(kept);
        }
        modules.reserve()?;
        let module = Arc::new(module);
        self.registry.insert(Arc::clone(&module))?;
        modules.insert(*key, Arc::clone(&module));
        Ok(module)
    }

    /// Takes modules out of memory that are above the budget, and tells it.
    pub(super) fn trim(&self) {
        let evicted = self.modules().map_or_else(Vec::new, |mut modules| modules.trim());
        for (_, module) in &evicted {
            self.registry.remove(module);
        }
        for (key, module) in evicted {
            let bytes = kept::bytes(&module);
            drop(module);
            self.tell(&self.counters.evicted, &key, Event::Evicted { bytes });
        }
    }

    /// Returns the modules in memory. A child of a fork has those of its parent, unless another thread was here then.
    pub(super) fn modules(&self) -> Option<MutexGuard<'_, Kept>> {
        self.modules.lock(|_| ())
    }

    /// Tells what was found, once all is done about it.
    pub(super) fn tell_found<T>(&self, key: &Key, found: &Result<Found<T>, Error>) {
        let counters = &self.counters;
        let (counter, event) = match (found, &self.unopened) {
            (Err(error), _) => return self.tell_failure(key, &self.reads, error, Event::Unread(error)),
            (Ok((Lookup::Stale(version), _)), _) => (&counters.stale, Event::Stale(version)),
            (Ok((Lookup::Rejected(error), _)), _) => (&counters.rejected, Event::Rejected(error)),
            (Ok((Lookup::UnknownLayout(error), _)), _) => (&counters.unknown_layouts, Event::UnknownLayout(error)),
            (Ok((Lookup::Miss, _)), Some(unopened)) if !unopened.is_told.swap(true, Ordering::Relaxed) => {
                (&counters.failures, Event::Unopened(&unopened.error))
            }
            (Ok((Lookup::Miss, _)), _) => return self.hook.tell(key, Event::Miss),
            (Ok((Lookup::Hit(_), _)), _) => return,
        };
        self.tell(counter, key, event);
    }

    /// Tells of a module that was found in the store.
    pub(super) fn tell_hit(&self, key: &Key, module: &Module, since: Option<Instant>) {
        let bytes = kept::bytes(module);
        add(&self.counters.bytes_loaded, bytes);
        if let Some(since) = since.filter(|_| self.hook.is_set()) {
            self.hook.tell(key, Event::Hit { bytes, took: since.elapsed() });
        }
        self.tell_place(key, module);
        self.trim();
    }

    pub(super) fn tell_waited(&self, key: &Key, waited: Option<Duration>) {
        if let Some(took) = waited {
            self.tell(&self.counters.waits, key, Event::Waited { took });
        }
    }

    pub(super) fn tell_compiled(&self, key: &Key, took: Duration) {
        add(&self.counters.compiling, nanoseconds(took));
        self.tell(&self.counters.compilations, key, Event::Compiled { took });
    }

    /// Tells of a failure of the store, unless it is left alone for so many of them.
    fn tell_failure(&self, key: &Key, trouble: &Trouble, error: &Error, event: Event<'_>) {
        count(&self.counters.failures);
        match if is_trouble(error) { trouble.failed() } else { trouble.failed_once() } {
            Telling::Failure => self.hook.tell(key, event),
            Telling::LeftAlone => self.hook.tell(key, Event::LeftAlone(error)),
            Telling::Nothing => {}
        }
    }

    /// Tells whether a module was stored, if it was to be, and returns it.
    pub(super) fn tell_added(&self, key: &Key, added: Added) -> Result<Arc<Module>, Error> {
        if let Some(stored) = added.stored {
            self.tell_stored(key, stored);
        }
        self.trim();
        self.tallied.add_at_times(&self.counters, self.store_to_write());
        added.module
    }

    pub(super) fn tell_stored(&self, key: &Key, stored: Result<Stored, Error>) {
        match stored {
            Err(error) => self.tell_failure(key, &self.writes, &error, Event::Unwritten(&error)),
            Ok(Stored { bytes, took }) => {
                add(&self.counters.bytes_stored, bytes);
                self.tell(&self.counters.stored, key, Event::Stored { bytes, took });
                self.keep_to_budget(key, bytes);
            }
        }
    }

    /// Makes room in the store for what was put, if it is time to: nobody who wants the module waits for that.
    fn keep_to_budget(&self, key: &Key, put: u64) {
        let since = Instant::now();
        let trimmed = self.store.as_ref().and_then(|store| store.keep_to_budget(put));
        let Some(Trimmed { entries: entries @ 1.., bytes, .. }) = trimmed else { return };
        add(&self.counters.trimmed, entries);
        add(&self.counters.bytes_trimmed, bytes);
        self.hook.tell(key, Event::Trimmed { entries, bytes, took: since.elapsed() });
    }

    fn tell(&self, counter: &AtomicU64, key: &Key, event: Event<'_>) {
        count(counter);
        self.hook.tell(key, event);
    }
}

/// Returns whether an error says something of the store, and not of one entry alone.
fn is_trouble(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if !matches!(source.kind(), ErrorKind::IsADirectory | ErrorKind::FileTooLarge))
}

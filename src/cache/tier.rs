//! The way of a module through the tiers: memory, store, compiler; and what is told of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Cache;
use super::event::{Event, add, count};
use super::kept::{self, Kept};
use super::trouble::{Telling, Trouble, nanoseconds};
use crate::entry::Builder;
use crate::error::Error;
use crate::load::Module;
use crate::store::{Found, Lookup, Store, Trimmed};
use crate::words::Key;

/// What came of a module that was compiled: whether it is in memory, and whether in the store.
pub(super) struct Added {
    module: Result<Arc<Module>, Error>,
    stored: Result<Option<Stored>, Error>,
}

/// How many bytes were stored, and how long that took; and what was removed for them.
struct Stored {
    bytes: u64,
    took: Duration,
    trimmed: Option<(Trimmed, Duration)>,
}

impl Cache {
    /// Returns a module that is in memory.
    pub(super) fn kept(&self, key: &Key) -> Option<Arc<Module>> {
        let module = self.modules().get(key)?;
        count(&self.counters.memory_hits);
        Some(module)
    }

    /// Looks into the store, and keeps what is found there.
    pub(super) fn look_up(&self, key: &Key) -> Result<Found<Arc<Module>>, Error> {
        let store = self.store.as_ref().filter(|_| !self.reads.is_left_alone());
        let found = store.map_or(Ok((Lookup::Miss, None)), |store| store.find(key));
        if store.is_some() && found.is_ok() {
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
            Err(error) => return Added { module: Err(error), stored: Ok(None) },
        };
        let (store, since) = (self.store_to_write().filter(|_| is_storable), Instant::now());
        let stored = store.map_or(Ok(None), |store| {
            let trimmed = store.put_and_trim(key, &entry)?;
            self.writes.succeeded();
            let took = since.elapsed().saturating_sub(trimmed.map_or(Duration::ZERO, |(_, took)| took));
            Ok(Some(Stored { bytes: entry.length(), took, trimmed }))
        });
        Added { module: Module::load_with(&entry, &self.linker).and_then(|module| self.keep(key, module)), stored }
    }

    /// Returns the store, unless nothing is to be written to it.
    pub(super) fn store_to_write(&self) -> Option<&Store> {
        self.store.as_ref().filter(|store| !store.is_read_only() && !self.writes.is_left_alone())
    }

    /// Keeps a module in memory, unless another thread was faster: then that thread's module is the one.
    fn keep(&self, key: &Key, module: Module) -> Result<Arc<Module>, Error> {
        let mut modules = self.modules();
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
        let evicted = self.modules().trim();
        for (_, module) in &evicted {
            self.registry.remove(module);
        }
        for (key, module) in evicted {
            let bytes = kept::bytes(&module);
            drop(module);
            self.tell(&self.counters.evicted, &key, Event::Evicted { bytes });
        }
    }

    pub(super) fn modules(&self) -> MutexGuard<'_, Kept> {
        // A thread that panicked here was about to return: the map is whole.
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
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
        match if matches!(error, Error::Io { .. }) { trouble.failed() } else { Telling::Failure } {
            Telling::Failure => self.hook.tell(key, event),
            Telling::LeftAlone => self.hook.tell(key, Event::LeftAlone(error)),
            Telling::Nothing => {}
        }
    }

    /// Tells whether a module was stored, and returns it.
    pub(super) fn tell_added(&self, key: &Key, added: Added) -> Result<Arc<Module>, Error> {
        match added.stored {
            Err(error) => self.tell_failure(key, &self.writes, &error, Event::Unwritten(&error)),
            Ok(Some(Stored { bytes, took, trimmed })) => {
                add(&self.counters.bytes_stored, bytes);
                self.tell(&self.counters.stored, key, Event::Stored { bytes, took });
                self.tell_trimmed(key, trimmed);
            }
            Ok(None) => {}
        }
        self.trim();
        self.tallied.add_at_times(&self.counters, self.store_to_write());
        added.module
    }

    fn tell_trimmed(&self, key: &Key, trimmed: Option<(Trimmed, Duration)>) {
        let Some((Trimmed { entries: entries @ 1.., bytes, .. }, took)) = trimmed else { return };
        add(&self.counters.trimmed, entries);
        add(&self.counters.bytes_trimmed, bytes);
        self.hook.tell(key, Event::Trimmed { entries, bytes, took });
    }

    fn tell(&self, counter: &AtomicU64, key: &Key, event: Event<'_>) {
        count(counter);
        self.hook.tell(key, event);
    }
}

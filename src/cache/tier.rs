//! The way of a module through the tiers: memory, store, compiler; and what is told of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Cache;
use super::event::{Event, count};
use crate::entry::Builder;
use crate::error::{Error, heap};
use crate::load::Module;
use crate::store::{Found, Lookup, Store};
use crate::words::Key;

/// What came of a module that was compiled: whether it is in memory, and whether in the store.
pub(super) struct Added {
    module: Result<Arc<Module>, Error>,
    stored: Result<(), Error>,
}

impl Cache {
    /// Returns a module that is in memory.
    pub(super) fn kept(&self, key: &Key) -> Option<Arc<Module>> {
        let module = self.modules().get(key).map(Arc::clone)?;
        count(&self.counters.memory_hits);
        Some(module)
    }

    /// Looks into the store, and keeps what is found there.
    pub(super) fn look_up(&self, key: &Key) -> Result<Found<Arc<Module>>, Error> {
        let found = self.store.as_ref().map_or(Ok((Lookup::Miss, None)), |store| store.find(key));
        let found = found.and_then(|(found, file)| Ok((found.try_map(|module| self.keep(key, module))?, file)));
        match &found {
            Ok((Lookup::Hit(_), _)) => count(&self.counters.hits),
            Ok((Lookup::Miss, _)) | Err(_) => count(&self.counters.misses),
            Ok(_) => {}
        }
        found
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

    /// Settles what was found and no put follows: removes what is bad, and tells it. Where the system failed, it is a miss.
    pub(super) fn settle<T>(&self, key: &Key, found: Result<Found<T>, Error>) -> Lookup<T> {
        let removed = match (&self.store, &found) {
            (Some(store), Ok((Lookup::Stale(_) | Lookup::Rejected(_), Some(file)))) if !store.is_read_only() => {
                store.remove_read(key, *file)
            }
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
            Err(error) => return Added { module: Err(error), stored: Ok(()) },
        };
        let store = self.store.as_ref().filter(|store| is_storable && !store.is_read_only());
        let stored = store.map_or(Ok(()), |store| store.put(key, &entry));
        Added { module: Module::load_with(&entry, &self.linker).and_then(|module| self.keep(key, module)), stored }
    }

    /// Keeps a module in memory, unless another thread was faster: then that thread's module is the one.
    fn keep(&self, key: &Key, module: Module) -> Result<Arc<Module>, Error> {
        let mut modules = self.modules();
        if let Some(kept) = modules.get(key) {
            return Ok(Arc::clone(kept));
        }
        let count = modules.len().saturating_add(1);
        modules.try_reserve(1).map_err(heap::refused::<(Key, Arc<Module>)>(count))?;
        let module = Arc::new(module);
        self.registry.insert(Arc::clone(&module))?;
        modules.insert(*key, Arc::clone(&module));
        Ok(module)
    }

    pub(super) fn modules(&self) -> MutexGuard<'_, HashMap<Key, Arc<Module>>> {
        // A thread that panicked here was about to return: the map is whole.
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was found, once all is done about it.
    pub(super) fn tell_found<T>(&self, key: &Key, found: &Result<Found<T>, Error>) {
        let counters = &self.counters;
        let (counter, event) = match (found, &self.unopened) {
            (Ok((Lookup::Stale(version), _)), _) => (&counters.stale, Event::Stale(version)),
            (Ok((Lookup::Rejected(error), _)), _) => (&counters.rejected, Event::Rejected(error)),
            (Ok((Lookup::UnknownLayout(error), _)), _) => (&counters.unknown_layouts, Event::UnknownLayout(error)),
            (Err(error), _) => (&counters.failures, Event::Unread(error)),
            (Ok((Lookup::Miss, _)), Some(unopened)) if !unopened.is_told.swap(true, Ordering::Relaxed) => {
                (&counters.failures, Event::Unopened(&unopened.error))
            }
            (Ok((Lookup::Hit(_) | Lookup::Miss, _)), _) => return,
        };
        self.tell(counter, key, event);
    }

    /// Tells whether a module could not be stored, and returns it.
    pub(super) fn tell_added(&self, key: &Key, added: Added) -> Result<Arc<Module>, Error> {
        if let Err(error) = added.stored {
            self.tell(&self.counters.failures, key, Event::Unwritten(&error));
        }
        added.module
    }

    fn tell(&self, counter: &AtomicU64, key: &Key, event: Event<'_>) {
        count(counter);
        self.hook.tell(key, event);
    }
}

//! The whole: modules in memory, over entries on disk, over the compiler.

mod event;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::entry::{Builder, Identity};
use crate::error::{Error, heap};
use crate::load::{Location, Module};
use crate::registry::Registry;
use crate::store::{Found, Lookup, Store};
use crate::words::Key;
use event::{Counters, count};
pub use event::{Event, Statistics};

/// What becomes of an entry that is stale or rejected.
#[derive(Clone, Copy)]
enum Remedy {
    /// A put follows, which takes its place.
    Replace,
    Remove,
}

type Hook = Box<dyn Fn(&Key, Event<'_>) + Send + Sync>;

/// A cache of modules: those in use in memory, the others in a [`Store`].
///
/// It never makes an engine fail: whatever is wrong with an entry or the directory, the engine compiles, and the reason
/// goes to the hook of [`Cache::on_event`] and into the [`Statistics`]. Threads may share it.
///
/// ```
/// use jitcache::{Cache, Error, Identity, Key};
///
/// # let root = std::env::temp_dir().join(format!("jitcache-cache-{}", std::process::id()));
/// let cache = Cache::open(&root, Identity::new("myjit", *b"MYJIT\0", "1.4.2")?)?;
/// let key = Key::of(cache.identity()).source(b"fn main() {}").finish();
/// let module = cache.get_or_compile(&key, |entry| {
///     entry.code(vec![0xc3]).function(0); // what the compiler made
///     Ok::<(), Error>(())
/// })?;
/// assert_eq!(module.code(), [0xc3]);
/// # std::fs::remove_dir_all(&root).unwrap();
/// # Ok::<(), jitcache::Error>(())
/// ```
pub struct Cache {
    identity: Identity,
    store: Option<Store>,
    modules: Mutex<HashMap<Key, Arc<Module>>>,
    registry: Registry,
    hook: Option<Hook>,
    counters: Counters,
}

impl Cache {
    /// Returns a cache over the directory of `identity` under `root`, whose entries are read: see [`Store::open`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory cannot be created; the engine may go on with [`Cache::in_memory`].
    pub fn open(root: impl AsRef<Path>, identity: Identity) -> Result<Self, Error> {
        Store::open(root, identity).map(Self::over)
    }

    /// Returns a cache over a store, which may be one that maps its entries.
    ///
    /// ```no_run
    /// use jitcache::{Access, Cache, Error, Identity, Store};
    ///
    /// fn open(root: &str, identity: Identity) -> Result<Cache, Error> {
    ///     // SAFETY: this directory is written by jitcache alone, which replaces files and never edits one in place.
    ///     let access = unsafe { Access::map() };
    ///     Ok(Cache::over(Store::open(root, identity)?.with_access(access)))
    /// }
    /// ```
    #[must_use]
    pub fn over(store: Store) -> Self {
        let cache = Self::in_memory(store.identity().clone());
        Self { store: Some(store), ..cache }
    }

    /// Returns a cache that keeps nothing on disk.
    #[must_use]
    pub fn in_memory(identity: Identity) -> Self {
        Self {
            identity,
            store: None,
            modules: Mutex::default(),
            registry: Registry::new(),
            hook: None,
            counters: Counters::default(),
        }
    }

    /// Sets what is told of every [`Event`], once, by the thread that meets it.
    #[must_use]
    pub fn on_event(mut self, hook: impl Fn(&Key, Event<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Returns the module of a key: from memory, or else from the store, or else compiled by `compile` and stored.
    ///
    /// `compile` hands its results to the builder it is given. Two threads that ask for the same key at the same time may
    /// both compile; both get the module of the one that was first. A module stays in memory
    /// alone if its try tables have no known layout, or those of its entry in the store, which is left as it is: see
    /// [`Revision::Unknown`](crate::Revision::Unknown).
    ///
    /// # Errors
    ///
    /// Those of `compile`; [`Error::Unwritable`] if what it built is no entry; [`Error::Memory`] and
    /// [`Error::UnsupportedMachine`] if code cannot be made executable. Nothing that is wrong with the store is an error.
    pub fn get_or_compile<'c, E: From<Error>>(
        &self,
        key: &Key,
        compile: impl FnOnce(&mut Builder<'c>) -> Result<(), E>,
    ) -> Result<Arc<Module>, E> {
        let add = match self.look_up(key, Remedy::Replace) {
            Lookup::Hit(module) => return Ok(module),
            Lookup::UnknownLayout(_) => Self::add_in_memory,
            Lookup::Miss | Lookup::Stale(_) | Lookup::Rejected(_) => Self::add,
        };
        let mut builder = Builder::new();
        compile(&mut builder)?;
        Ok(add(self, key, &mut builder)?)
    }

    /// Returns the module of a key from memory, or else from the store.
    ///
    /// What is stale or rejected is removed, if it is a regular file and still the one that was read; what is of an unknown
    /// layout is left. Where the system fails, the outcome is a miss.
    pub fn get(&self, key: &Key) -> Lookup<Arc<Module>> {
        self.look_up(key, Remedy::Remove)
    }

    fn look_up(&self, key: &Key, remedy: Remedy) -> Lookup<Arc<Module>> {
        if let Some(module) = self.modules().get(key) {
            count(&self.counters.memory_hits);
            return Lookup::Hit(Arc::clone(module));
        }
        let Some(store) = &self.store else {
            count(&self.counters.misses);
            return Lookup::Miss;
        };
        match self.taken(store, key, store.find(key), remedy) {
            Lookup::Hit(module) => match self.keep(key, module) {
                Ok(module) => {
                    count(&self.counters.hits);
                    Lookup::Hit(module)
                }
                Err(error) => {
                    count(&self.counters.misses);
                    self.unread(key, &error)
                }
            },
            Lookup::Miss => {
                count(&self.counters.misses);
                Lookup::Miss
            }
            Lookup::Stale(version) => Lookup::Stale(version),
            Lookup::Rejected(error) => Lookup::Rejected(error),
            Lookup::UnknownLayout(error) => Lookup::UnknownLayout(error),
        }
    }

    /// Checks every byte of the entry of a key in the store, of which a load leaves the source map for when it is used.
    ///
    /// What is stale or rejected is removed as by [`Cache::get`], so that the next process compiles it. To be called for a module that has no
    /// [`Module::source_map`] though it should.
    pub fn verify(&self, key: &Key) -> Lookup<()> {
        let Some(store) = &self.store else { return Lookup::Miss };
        self.taken(store, key, store.find_and_verify(key), Remedy::Remove)
    }

    /// Takes what was found in the store: tells what is stale or rejected, once it is removed if it is to be; where the system
    /// fails, it is a miss.
    fn taken<T>(&self, store: &Store, key: &Key, found: Result<Found<T>, Error>, remedy: Remedy) -> Lookup<T> {
        let (found, file) = match found {
            Ok(found) => found,
            Err(error) => return self.unread(key, &error),
        };
        let (counter, event) = match &found {
            Lookup::Stale(version) => (&self.counters.stale, Event::Stale(version)),
            Lookup::Rejected(error) => (&self.counters.rejected, Event::Rejected(error)),
            Lookup::UnknownLayout(error) => {
                self.tell(&self.counters.unknown_layouts, key, Event::UnknownLayout(error));
                return found;
            }
            Lookup::Hit(_) | Lookup::Miss => return found,
        };
        let removed = match (remedy, file) {
            (Remedy::Remove, Some(file)) => store.remove_read(key, file),
            _ => Ok(false),
        };
        self.tell(counter, key, event);
        if let Err(error) = removed {
            self.tell(&self.counters.failures, key, Event::Unremoved(&error));
        }
        found
    }

    /// Adds a module that was compiled, to memory and to the store, and returns it.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::finish`] and [`Module::load`]. Nothing that is wrong with the store is an error.
    pub fn add(&self, key: &Key, compiled: &mut Builder<'_>) -> Result<Arc<Module>, Error> {
        let entry = compiled.finish_to_load(&self.identity, key)?;
        let module = self.keep(key, Module::load(&entry)?)?;
        if let Some(store) = &self.store
            && let Err(error) = store.put(key, &entry)
        {
            self.tell(&self.counters.failures, key, Event::Unwritten(&error));
        }
        Ok(module)
    }

    /// Adds a module that must not be written, such as one whose code holds addresses of this process.
    ///
    /// # Errors
    ///
    /// Those of [`Cache::add`].
    pub fn add_in_memory(&self, key: &Key, compiled: &mut Builder<'_>) -> Result<Arc<Module>, Error> {
        self.keep(key, Module::load(&compiled.finish_to_load(&self.identity, key)?)?)
    }

    /// Takes a module out of memory, and returns it if it was there. Its entry stays in the store.
    ///
    /// No program counter is found in it any more; its code is unmapped when the last [`Arc`] of it is dropped. For that of the
    /// cache see [`Registry`].
    pub fn remove(&self, key: &Key) -> Option<Arc<Module>> {
        let module = self.modules().remove(key)?;
        self.registry.remove(&module);
        Some(module)
    }

    /// Returns where the program counter `pc` is, by the rules of [`Module::locate`]. A signal handler may call this: see
    /// [`Registry`].
    #[must_use]
    pub fn locate(&self, pc: usize) -> Option<Location> {
        self.registry.locate(pc)
    }

    /// Returns where the instruction at `pc` is, by the rules of [`Module::locate_instruction`]. A signal handler may call this:
    /// see [`Registry`].
    #[must_use]
    pub fn locate_instruction(&self, pc: usize) -> Option<Location> {
        self.registry.locate_instruction(pc)
    }

    /// Returns whose modules these are: what [`Key::of`] takes.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the modules in memory by their addresses.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the store, if there is one.
    #[must_use]
    pub const fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Returns how often the cache did what since it was opened.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.counters.read()
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

    /// Tells an entry that could not be read, which is a miss.
    fn unread<T>(&self, key: &Key, error: &Error) -> Lookup<T> {
        self.tell(&self.counters.failures, key, Event::Unread(error));
        Lookup::Miss
    }

    fn tell(&self, counter: &AtomicU64, key: &Key, event: Event<'_>) {
        count(counter);
        if let Some(hook) = &self.hook {
            hook(key, event);
        }
    }

    fn modules(&self) -> MutexGuard<'_, HashMap<Key, Arc<Module>>> {
        // A thread that panicked here was about to return: the map is whole.
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("store", &self.store)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

//! The whole: modules in memory, over entries on disk, over the compiler.

mod behind;
mod event;
mod flight;
mod flush;
mod hook;
mod kept;
mod processes;
mod tallied;
mod tally;
mod tier;
mod trouble;

use std::fmt;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::entry::{Builder, Identity, Recipe, Wanted};
use crate::error::Error;
use crate::file::OfProcess;
use crate::load::{Linker, Location, Module};
use crate::registry::Registry;
use crate::store::{Explanation, Lookup, Statistics, Store};
use crate::words::Key;
use behind::Behind;
use event::Counters;
pub use event::Event;
use flight::{Flights, Processes, Seat};
use hook::Hook;
use kept::Kept;
use tallied::Tallied;
use trouble::Trouble;

/// A cache of modules: those in use in memory, the others in a [`Store`].
///
/// It never makes an engine fail: whatever is wrong with an entry or the directory, the engine compiles, and the reason
/// goes to the hook of [`Cache::on_event`] and into the [`Statistics`]. Threads may share it.
///
/// A child of `fork` has its parent's modules, and compiles on its own; what waits for [`Cache::flush`] is left to the
/// parent. If another thread was in the cache at the moment of the fork, the child may find nothing in memory and keep
/// nothing there: it loads and compiles then, and waits for nobody.
///
/// A module stays in memory until [`Cache::forget`] takes it out or [`Cache::with_memory_budget`] has it go. That a
/// compiler failed is not kept: it is tried again each time. What a module costs in memory and mappings stands at
/// [`Module`].
///
/// ```
/// use jitcache::{Cache, Error, Identity, Key};
///
/// # let root = std::env::temp_dir().join(format!("jitcache-cache-{}", std::process::id()));
/// let cache = Cache::open_or_in_memory(&root, Identity::new("myjit", *b"MYJIT\0", "1.4.2")?);
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
    linker: Linker,
    unopened: Option<Unopened>,
    /// Whether [`Event::NotInPlace`] was told.
    is_place_told: AtomicBool,
    modules: OfProcess<Kept>,
    flights: Flights,
    patience: Duration,
    processes: Processes,
    is_strict: bool,
    registry: Registry,
    hook: Hook,
    counters: Counters,
    tallied: Tallied,
    behind: Behind,
    /// How reading from the store goes, and how writing does.
    reads: Trouble,
    writes: Trouble,
}

/// Why there is no store.
struct Unopened {
    error: Error,
    is_told: AtomicBool,
}

/// How long a thread waits for somebody else's compilation unless the engine says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cache {
    /// Returns a cache over the directory of `identity` under `root`, whose entries are read: see [`Store::open`].
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`]. [`Cache::open_or_in_memory`] goes on without the directory.
    pub fn open(root: impl AsRef<Path>, identity: Identity) -> Result<Self, Error> {
        Store::open(root, identity).map(Self::over)
    }

    /// Returns a cache over the directory of `identity` under `root`, or one in memory if that cannot be opened.
    ///
    /// [`Cache::unopened`] tells why; so does [`Event::Unopened`], when the first module is missed for it.
    #[must_use]
    pub fn open_or_in_memory(root: impl AsRef<Path>, identity: Identity) -> Self {
        Self::over_or_in_memory(Store::open(root, identity.clone()), identity)
    }

    /// Does the same with a store that was opened in another way.
    ///
    /// ```
    /// use jitcache::{Access, Cache, Identity, Store};
    ///
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let below_a_file = std::env::current_exe().unwrap().join("cache");
    /// let store = Store::open(below_a_file, identity.clone());
    /// let store = store.map(|store| store.with_access(Access::READ.with_limit(1 << 20)));
    /// let cache = Cache::over_or_in_memory(store, identity);
    /// assert!(cache.unopened().is_some() && cache.store().is_none());
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    #[must_use]
    pub fn over_or_in_memory(store: Result<Store, Error>, identity: Identity) -> Self {
        match store {
            Ok(store) => Self::over(store),
            Err(error) => {
                let mut cache = Self::in_memory(identity);
                cache.unopened = Some(Unopened { error, is_told: AtomicBool::new(false) });
                cache
            }
        }
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
        let mut cache = Self::in_memory(store.identity().clone());
        cache.linker = store.linker().clone();
        cache.store = Some(store);
        cache
    }

    /// Returns a cache that keeps nothing on disk.
    #[must_use]
    pub fn in_memory(identity: Identity) -> Self {
        Self {
            identity,
            store: None,
            linker: Linker::default(),
            unopened: None,
            is_place_told: AtomicBool::new(false),
            modules: OfProcess::new(Kept::default()),
            flights: Flights::new(),
            patience: PATIENCE,
            processes: Processes::default(),
            is_strict: false,
            registry: Registry::new(),
            hook: Hook::default(),
            counters: Counters::default(),
            tallied: Tallied::new(),
            behind: Behind::new(),
            reads: Trouble::default(),
            writes: Trouble::default(),
        }
    }

    /// Sets what is called with every [`Event`], once, by the thread that meets it.
    ///
    /// All that the call is for is done by then: what is bad was removed or replaced, the module is in memory, those
    /// who wait for it go on, and no lock is held. So the hook may use the cache; what it meets there itself is
    /// counted, and not told, by whichever cache. A panic in it ends there.
    #[must_use]
    pub fn on_event(mut self, hook: impl Fn(&Key, Event<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Hook::new(hook);
        self
    }

    /// Sets what entries are bound to that import anything, in memory and in the store.
    ///
    /// A name without an address is an [`Error::UnboundImport`]: the entry in the store is not at fault, so it is
    /// missed and not removed, and what is compiled then fails in the same way if it imports the same.
    #[must_use]
    pub fn with_linker(mut self, linker: Linker) -> Self {
        self.store = self.store.take().map(|store| store.with_linker(linker.clone()));
        self.linker = linker;
        self
    }

    /// Sets how long a thread waits in [`Cache::get_or_compile`] while another, of this process or not, compiles the
    /// same key; it is ten seconds otherwise. After that it compiles, too. With zero, nobody waits.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets whether [`Cache::get_or_compile`] also waits while another process compiles the same key. Otherwise it does
    /// where locks are to be relied upon: on Unix, if the directory of the store lies on a file system of this machine.
    /// Nobody waits over a store that is read only, nor a process whose last put failed or that
    /// [writes behind](Cache::with_write_behind): one after the other would compile what none finds.
    ///
    /// A process that compiles has a lock, of a byte of the file `tmp/lock` in the directory, which ends with the
    /// process, and which a child of `fork` does not have. The others try to get it, after pauses of 1 to 16 ms, and
    /// look whether the module is there. None waits in the kernel, nor for longer than [`Cache::with_patience`] has it,
    /// such as for a process that is stopped. A hit takes no lock.
    #[must_use]
    pub const fn with_waiting_for_processes(mut self, wait: bool) -> Self {
        self.processes.wait = Some(wait);
        self
    }

    /// Sets how many bytes of code are kept in memory, of modules that nobody else holds; there is no bound otherwise.
    ///
    /// Above it, the least recently used ones of which the cache has the only [`Arc`] go, until seven eighths are left,
    /// as by [`Cache::forget`]: so whoever runs code must hold its module. What others hold counts, and stays. It takes
    /// a walk over all modules, once for an eighth of the budget that was added.
    #[must_use]
    pub fn with_memory_budget(mut self, bytes: u64) -> Self {
        self.modules.get_mut().budget = bytes;
        self
    }

    /// Returns a cache that never compiles and never writes, for a store that was filled before, such as in an image.
    /// [`Cache::open`] has made the directory by then; [`StoreOptions::read_only`](crate::StoreOptions::read_only) makes
    /// none.
    ///
    /// [`Cache::get_or_compile`] returns [`Error::NotCompiled`] where it would compile: the events tell why. Whatever
    /// would change the store is an [`Error::ReadOnly`]. [`Cache::add`] keeps a module in memory alone.
    ///
    /// ```
    /// use jitcache::{Builder, Cache, Error, Identity, Key, Store};
    ///
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let key = Key::of(&identity).source(b"fn main() {}").finish();
    /// let cache = Cache::over(Store::options(identity).read_only().open("/usr/lib/myjit/cache")?).strict();
    /// let compile = |_: &mut Builder<'_>| -> Result<(), Error> { unreachable!() };
    /// assert!(matches!(cache.get_or_compile(&key, compile), Err(Error::NotCompiled { .. })));
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.store = self.store.take().map(Store::into_read_only);
        self.is_strict = true;
        self
    }

    /// Returns the module of a [`Key`] or a [`Recipe`]: from memory, or else from the store, or else compiled by
    /// `compile` and stored.
    ///
    /// `compile` hands its results to the builder it is given, which has the recipe. Of the threads that ask for the
    /// same key at the same time, one looks into the store and compiles, and the others wait for it, for as long as
    /// [`Cache::with_patience`] has it; if its compiler fails or panics, the next one tries. Processes do the same: see
    /// [`Cache::with_waiting_for_processes`]. A compiler may ask for other modules. It compiles such a module itself if
    /// its compiler waits for this one, or might: it is in another process, or this thread compiles for another cache.
    ///
    /// What was compiled is stored first and made executable then, so that an engine which is refused executable memory
    /// finds it in its next process. A module stays in memory alone if its try tables have no known layout, or those of
    /// its entry in the store, which is left as it is: see [`Revision::Unknown`](crate::Revision::Unknown).
    ///
    /// # Errors
    ///
    /// Those of `compile`; [`Error::NotCompiled`] from a cache that is [`strict`](Cache::strict); [`Error::Unwritable`]
    /// if what it built is no entry; [`Error::Memory`] and [`Error::UnsupportedMachine`] if code cannot be made
    /// executable. Nothing that is wrong with the store is an error.
    ///
    /// # Panics
    ///
    /// If `compile` does.
    pub fn get_or_compile<'k, 'c, E: From<Error>>(
        &self,
        wanted: impl Into<Wanted<'k>>,
        compile: impl FnOnce(&mut Builder<'c>) -> Result<(), E>,
    ) -> Result<Arc<Module>, E> {
        let Wanted { key, recipe } = wanted.into();
        if let Some(module) = self.kept(key) {
            return Ok(module);
        }
        let since = Instant::now();
        let (lead, has_waited) = match self.flights.join(key, since, self.patience, || self.kept(key)) {
            Seat::Passenger(module) => {
                self.tell_waited(key, Some(since.elapsed()));
                return Ok(module);
            }
            Seat::Pilot { lead, has_waited } => (lead, has_waited),
        };
        let looked = self.look_up_or_lock(key, lead.as_ref(), since);
        let waited = (has_waited || looked.has_waited).then(|| since.elapsed());
        self.count_found(&looked.found);
        let (is_left, found) = match looked.found {
            Ok((Lookup::Hit(module), _)) => {
                drop((looked.lock, lead));
                self.tell_waited(key, waited);
                self.tell_hit(key, &module, Some(since));
                return Ok(module);
            }
            found => (matches!(found, Ok((Lookup::UnknownLayout(_), Some(_)))), found),
        };
        if self.is_strict {
            drop(lead);
            self.tell_waited(key, waited);
            self.tell_found(key, &found);
            return Err(Error::NotCompiled { key: *key }.into());
        }
        let (mut builder, compiling) = (Builder::new(), Instant::now());
        let mut took = None;
        let added = catch_unwind(AssertUnwindSafe(|| compile(&mut builder))).map(|compiled| {
            compiled.map(|()| {
                took = Some(compiling.elapsed());
                if let Some(recipe) = recipe {
                    builder.recipe(recipe);
                }
                self.publish(key, &mut builder, !is_left)
            })
        });
        drop((looked.lock, lead));
        self.tell_waited(key, waited);
        self.tell_found(key, &found);
        if let Some(took) = took {
            self.tell_compiled(key, took);
        }
        let added = added.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(self.tell_added(key, added)?)
    }

    /// Returns the module of a key from memory, or else from the store.
    ///
    /// What is stale or rejected is removed, if it is a regular file of somebody who is trusted and still the one that
    /// was read; what is of an unknown layout is left, and so is what is only too long for this store. Where the system fails, the outcome is a miss. Nobody is waited for, not even who
    /// compiles it.
    pub fn get(&self, key: &Key) -> Lookup<Arc<Module>> {
        if let Some(module) = self.kept(key) {
            return Lookup::Hit(module);
        }
        let since = self.hook.is_set().then(Instant::now);
        let found = self.look_up(key);
        self.count_found(&found);
        let found = self.settle(key, found);
        if let Lookup::Hit(module) = &found {
            self.tell_hit(key, module, since);
        }
        found
    }

    /// Tells why there is no entry of a recipe, as [`Store::explain`] does; of a cache without a store, nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Store::explain`].
    pub fn explain(&self, recipe: &Recipe) -> Result<Explanation, Error> {
        self.store.as_ref().map_or_else(|| Ok(Explanation::default()), |store| store.explain(recipe))
    }

    /// Checks every byte of the entry of a key in the store, of which a load leaves the source map for when it is used.
    ///
    /// What is stale or rejected is removed as by [`Cache::get`], so that the next process compiles it. To be called
    /// for a module that has no [`Module::source_map`] though it should.
    pub fn verify(&self, key: &Key) -> Lookup<()> {
        match &self.store {
            Some(store) => self.settle(key, store.find_and_verify(key)),
            None => Lookup::Miss,
        }
    }

    /// Adds a module that was compiled, to the store and to memory, and returns it. If the key has a module in memory,
    /// that one stays there and is returned: see [`Cache::forget`].
    ///
    /// # Errors
    ///
    /// Those of [`Builder::finish`] and [`Module::load`]; in the latter case it is in the store. Nothing that is wrong
    /// with the store is an error.
    pub fn add(&self, key: &Key, compiled: &mut Builder<'_>) -> Result<Arc<Module>, Error> {
        self.tell_added(key, self.publish(key, compiled, true))
    }

    /// Adds a module that must not be written, such as one whose code holds addresses of this process.
    ///
    /// # Errors
    ///
    /// Those of [`Cache::add`].
    pub fn add_in_memory(&self, key: &Key, compiled: &mut Builder<'_>) -> Result<Arc<Module>, Error> {
        self.tell_added(key, self.publish(key, compiled, false))
    }

    /// Takes a module out of memory, and returns it if it was there. Its entry stays in the store.
    ///
    /// No program counter is found in it any more; its code is unmapped when the last [`Arc`] of it is dropped. For
    /// that of the cache see [`Registry`].
    pub fn forget(&self, key: &Key) -> Option<Arc<Module>> {
        let module = self.modules()?.remove(key)?;
        self.registry.remove(&module);
        Some(module)
    }

    /// Takes a module out of memory and its entry out of the store, and returns whether either was there.
    ///
    /// # Errors
    ///
    /// Those of [`Store::remove`]; the module is out of memory then.
    pub fn remove(&self, key: &Key) -> Result<bool, Error> {
        let was_kept = self.forget(key).is_some() | self.behind.discard(key, self.patience);
        Ok(self.store.as_ref().map_or(Ok(false), |store| store.remove(key))? || was_kept)
    }

    /// Returns where the program counter `pc` is, by the rules of [`Module::locate`]. A signal handler may call this:
    /// see [`Registry`].
    #[must_use]
    pub fn locate(&self, pc: usize) -> Option<Location> {
        self.registry.locate(pc)
    }

    /// Returns where the instruction at `pc` is, by the rules of [`Module::locate_instruction`]. A signal handler may
    /// call this: see [`Registry`].
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

    /// Returns why there is no store, if it was to be opened and could not be: see [`Cache::open_or_in_memory`].
    #[must_use]
    pub fn unopened(&self) -> Option<&Error> {
        self.unopened.as_ref().map(|unopened| &unopened.error)
    }

    /// Returns how often the cache did what since it was opened.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.counters.read()
    }
}

/// A panic leaves nothing half done: compilers and hooks, which may panic, are called with no lock held.
impl UnwindSafe for Cache {}
impl RefUnwindSafe for Cache {}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("store", &self.store)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}

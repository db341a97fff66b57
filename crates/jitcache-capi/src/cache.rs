//! The cache: memory over directory over compiler.

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::time::Duration;

use jitcache::{Linker, Lookup, Store, StoreOptions};

use crate::builder::Builder;
use crate::error::{Failure, call, text};
use crate::identity::{Identity, Key};
use crate::module::{Location, Module};

/// A cache of modules.
#[derive(Debug)]
pub struct Cache(jitcache::Cache);

/// What is called with every event: its text, and whether it is trouble. The text lives until it returns.
pub type OnEvent =
    Option<unsafe extern "C" fn(data: *mut c_void, key: *const Key, text: *const c_char, is_trouble: bool)>;

/// Returns the address of what the engine calls by a name, or null.
pub type Resolve = Option<unsafe extern "C" fn(data: *mut c_void, name: *const c_char) -> *const c_void>;

/// Compiles into a builder, and returns 0, or a number that tells the engine why it could not.
pub type Compile = Option<unsafe extern "C" fn(data: *mut c_void, builder: *mut Builder) -> i32>;

/// How a cache is opened. All zeros is what is usual.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether a directory that cannot be opened leaves a cache in memory, which tells why by an event.
    pub or_in_memory: bool,
    /// Whether nothing is ever compiled or written: what is not there is an error.
    pub is_strict: bool,
    /// Bytes of code in memory above which modules go that nobody has; 0 for any number.
    pub memory_budget: u64,
    /// Bytes that the entries of this engine may take in the directory, all its versions together; 0 for any number.
    pub budget: u64,
    /// Bytes of compiled entries that may wait in memory for `jitcache_flush`; 0 if each is stored at once.
    pub write_behind: u64,
    /// How long one waits for another thread or process that compiles, in milliseconds; 0 for ten seconds.
    pub patience: u64,
    /// Told of every event, by whatever thread; may be null.
    pub on_event: OnEvent,
    /// Has the addresses of imports; may be null if code imports nothing.
    pub resolve: Resolve,
    /// Handed to both.
    pub data: *mut c_void,
}

/// The engine's own, which it has promised to be of use to any thread.
#[derive(Clone, Copy)]
struct Data(*mut c_void);

// SAFETY: the engine promises that its functions may be called with it by any thread.
unsafe impl Send for Data {}
// SAFETY: the same.
unsafe impl Sync for Data {}

impl Data {
    const fn get(self) -> *mut c_void {
        self.0
    }
}

/// Opens the cache in a directory that nobody else can write to, or in memory alone if `root` is null; `options` may be
/// null. It is to be freed by `jitcache_cache_free`.
///
/// # Safety
///
/// As told at the top; the functions of the options may be called by any thread, with their data, until the cache is
/// freed, and do not unwind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_cache_open(
    root: *const c_char,
    identity: *const Identity,
    options: *const Options,
    cache: *mut *mut Cache,
) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (identity, options) = unsafe { ((*identity).0.clone(), options.as_ref()) };
        let opened = if root.is_null() {
            jitcache::Cache::in_memory(identity)
        } else {
            // SAFETY: as the caller promises.
            let root = unsafe { text(root)? };
            let store = match options {
                Some(options) => stored(&identity, options),
                None => Store::options(identity.clone()),
            };
            let store = store.open(root);
            match options.is_some_and(|options| options.or_in_memory) {
                true => jitcache::Cache::over_or_in_memory(store, identity),
                false => jitcache::Cache::over(store?),
            }
        };
        let opened = match options {
            Some(options) => configured(opened, options),
            None => opened,
        };
        // SAFETY: as the caller promises.
        unsafe { cache.write(Box::into_raw(Box::new(Cache(opened)))) };
        Ok(())
    })
}

fn stored(identity: &jitcache::Identity, options: &Options) -> StoreOptions {
    let mut store = Store::options(identity.clone());
    if options.is_strict {
        store = store.read_only();
    }
    if options.budget > 0 {
        store = store.budget(options.budget);
    }
    store
}

fn configured(mut cache: jitcache::Cache, options: &Options) -> jitcache::Cache {
    let data = Data(options.data);
    if options.is_strict {
        cache = cache.strict();
    }
    if options.memory_budget > 0 {
        cache = cache.with_memory_budget(options.memory_budget);
    }
    cache = cache.with_write_behind(options.write_behind);
    if options.patience > 0 {
        cache = cache.with_patience(Duration::from_millis(options.patience));
    }
    if let Some(resolve) = options.resolve {
        cache = cache.with_linker(Linker::new(move |name| {
            let name = CString::new(name).ok()?;
            // SAFETY: the engine promises that it may be called so; the text lives until it returns.
            let address = unsafe { resolve(data.get(), name.as_ptr()) };
            (!address.is_null()).then(|| address.cast())
        }));
    }
    if let Some(on_event) = options.on_event {
        cache = cache.on_event(move |key, event| {
            let (key, text) = (Key { bytes: *key.as_bytes() }, CString::new(event.to_string()).unwrap_or_default());
            // SAFETY: the engine promises that it may be called so; key and text live until it returns.
            unsafe { on_event(data.get(), &key, text.as_ptr(), event.is_trouble()) };
        });
    }
    cache
}

/// Frees a cache; null is nothing. Modules stay until they are freed.
///
/// # Safety
///
/// As told at the top, and no code runs but that of modules that were not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_cache_free(cache: *mut Cache) {
    if !cache.is_null() {
        // SAFETY: it came out of a box, and nobody uses it any more.
        drop(unsafe { Box::from_raw(cache) });
    }
}

/// Returns the module of a key from memory, or from the directory, or compiles it and stores what comes of that. One
/// thread or process compiles, and those who want the same wait for it, within bounds.
///
/// # Safety
///
/// As told at the top; `compile` does not unwind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_get_or_compile(
    cache: *const Cache,
    key: *const Key,
    compile: Compile,
    data: *mut c_void,
    module: *mut *mut Module,
) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (cache, key) = unsafe { (&(*cache).0, (*key).key()) };
        let found = cache.get_or_compile(&key, |builder| {
            let compile = compile.ok_or(Failure::NoCompiler)?;
            let mut handed = Builder(std::mem::take(builder));
            // SAFETY: the engine promises that it may be called so, and uses the builder until it returns.
            let number = unsafe { compile(data, &mut handed) };
            *builder = handed.0;
            if number == 0 { Ok(()) } else { Err(Failure::NotCompiled(number)) }
        })?;
        // SAFETY: as the caller promises.
        unsafe { module.write(Box::into_raw(Box::new(Module(found)))) };
        Ok(())
    })
}

/// Stores the entries that wait for it, and returns how many were stored. To be called by a thread that has nothing
/// better to do; freeing the cache does it, too.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_flush(cache: *const Cache) -> u64 {
    let mut stored = 0;
    call(|| {
        // SAFETY: as the caller promises.
        stored = unsafe { &(*cache).0 }.flush();
        Ok(())
    });
    stored
}

/// Returns the module of a key from memory or from the directory, or null. Nobody is waited for.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_get(cache: *const Cache, key: *const Key) -> *mut Module {
    let mut found = ptr::null_mut();
    call(|| {
        // SAFETY: as the caller promises.
        let (cache, key) = unsafe { (&(*cache).0, (*key).key()) };
        if let Lookup::Hit(module) = cache.get(&key) {
            found = Box::into_raw(Box::new(Module(module)));
        }
        Ok(())
    });
    found
}

/// Removes a module from memory, and its entry from the directory.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_remove(cache: *const Cache, key: *const Key) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (cache, key) = unsafe { (&(*cache).0, (*key).key()) };
        cache.remove(&key)?;
        Ok(())
    })
}

/// Finds the place of a program counter, a return address if it `is_return` and otherwise that of an instruction, and
/// returns whether it is in a module of the cache. May be called by a signal handler.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_locate(
    cache: *const Cache,
    pc: *const c_void,
    is_return: bool,
    location: *mut Location,
) -> bool {
    // SAFETY: as the caller promises.
    let cache = unsafe { &(*cache).0 };
    let found = if is_return { cache.locate(pc.addr()) } else { cache.locate_instruction(pc.addr()) };
    if let Some(found) = &found {
        // SAFETY: as the caller promises.
        unsafe { location.write(Location::of(found)) };
    }
    found.is_some()
}

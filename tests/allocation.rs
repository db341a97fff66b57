//! A view allocates nothing, no file makes any call allocate more than it could need, and what grows with a file or
//! with what an engine hands in is an error where there is no memory for it.
//!
//! A binary of its own, because it counts, and fails, through the global allocator.

#![allow(
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a global allocator is unsafe to write, as mapping files is, and tests compute with numbers they have chosen"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::{fs, ptr};

use jitcache::entry::CatchClause;
use jitcache::{
    Access, Builder, Cache, Entry, Error, FileBytes, Identity, Key, Lookup, MacKey, Module, Registry, Sealing, Store,
};

const KEY: Key = Key::from_bytes([7; 32]);

struct Counting;

thread_local! {
    /// Bytes that this thread has allocated, freed or not.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
    /// Bytes that this thread has allocated and not freed.
    static HELD: Cell<usize> = const { Cell::new(0) };
    static FAULT: Cell<Fault> = const { Cell::new(Fault::NONE) };
}

/// Which of this thread's allocations fail.
#[derive(Clone, Copy)]
struct Fault {
    /// Those of more bytes than this,
    above: usize,
    /// except for the first so many,
    passing: usize,
    /// and after so many none any more.
    failing: usize,
}

impl Fault {
    const NONE: Self = Self { above: usize::MAX, passing: 0, failing: 0 };

    /// Tells whether the next allocation, of that length, fails.
    fn strikes(&mut self, length: usize) -> bool {
        if length <= self.above {
            return false;
        }
        let strikes = self.passing == 0 && self.failing > 0;
        let count = if strikes { &mut self.failing } else { &mut self.passing };
        *count = count.saturating_sub(1);
        strikes
    }
}

// SAFETY: everything that does not fail is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut fault = FAULT.get();
        let strikes = fault.strikes(layout.size());
        FAULT.set(fault);
        if strikes {
            return ptr::null_mut();
        }
        ALLOCATED.set(ALLOCATED.get() + layout.size());
        HELD.set(HELD.get().wrapping_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns how many bytes `call` allocates.
fn allocated<T>(call: impl FnOnce() -> T) -> usize {
    let before = ALLOCATED.get();
    drop(black_box(call()));
    ALLOCATED.get() - before
}

fn identity() -> Identity {
    Identity::new("allocation", *b"ALLOC\0", "1").unwrap()
}

/// An entry with every part, of the given length at least.
fn sound(length: usize, identity: &Identity) -> Vec<u8> {
    let mut builder = Builder::new();
    builder.code(vec![0xcc; length.max(1)]).function(0).source(0, 5);
    builder.try_table(&[CatchClause { kind: 2, tag: 0 }]);
    builder.finish(identity, &KEY).unwrap().to_vec()
}

#[test]
fn the_view_of_a_file_allocates_nothing() {
    for (length, identity) in [(1, identity()), (1 << 20, identity()), (99, identity().with_sealing(Sealing::Plain))] {
        let file = sound(length, &identity);
        let used = allocated(|| {
            let entry = Entry::parse(&file, &identity).unwrap();
            entry.verify().unwrap();
            black_box((entry.code(), entry.functions().iter().sum::<u64>(), entry.functions().containing(0)));
            let map = entry.source_map().unwrap();
            black_box((map.iter().count(), map.before_return(7), map.at_instruction(7)));
            entry.try_tables().flatten().flat_map(|table| table.clauses()).count()
        });
        assert_eq!(used, 0);
    }
}

#[test]
fn looking_a_program_counter_up_allocates_nothing_not_even_when_the_source_map_is_checked() {
    for sealing in [Sealing::Plain, Sealing::Checksum, Sealing::Mac(MacKey::new([7; 32]))] {
        let identity = identity().with_sealing(sealing);
        let module = Module::load_file(sound(100, &identity).into(), &identity, &KEY).unwrap();
        let pc = module.address_range().start + 1;
        assert_eq!(allocated(|| assert_eq!(module.locate(pc).unwrap().source, Some(5))), 0, "{}", identity.sealing());
    }
}

#[test]
fn no_file_of_64_bytes_makes_any_call_allocate_more_than_4_kib() {
    let identity = identity().with_sealing(Sealing::Plain).with_function_alignment(1).unwrap();
    let mut builder = Builder::new();
    builder.code(vec![0xcc; 3]).function(0).source(0, 5);
    let sound = builder.finish(&identity, &KEY).unwrap().to_vec();
    assert_eq!(sound.len(), 64);
    let mut most = 0;
    // Every byte with every value, and every run of eight bytes as a hostile number.
    let hostile = [0, 1, 63, 64, 65, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX];
    let bytes = (0..64).flat_map(|at| (0..=255).map(move |byte| (at, vec![byte])));
    let numbers = (0..57).flat_map(|at| hostile.map(|number: u64| (at, number.to_le_bytes().to_vec())));
    for (at, damage) in bytes.chain(numbers) {
        let mut file = sound.clone();
        file[at..at + damage.len()].copy_from_slice(&damage);
        let read = FileBytes::from(file.clone());
        let parse = allocated(|| Entry::parse(&file, &identity).map(drop));
        let verify = allocated(|| Entry::parse(&file, &identity).and_then(|entry| entry.verify()));
        let load = allocated(|| Module::load_file(read, &identity, &KEY).map(drop));
        let view = Entry::parse(&file, &identity);
        let copy = allocated(|| view.as_ref().map(|entry| Module::load(entry).map(drop)).ok());
        most = most.max(parse).max(verify).max(load).max(copy);
    }
    assert!(most > 0, "errors do allocate: otherwise nothing was counted");
    assert!(most <= 4096, "{most} bytes");
}

/// What the library allocates whatever a file says and an engine hands in is at most this long: the buffer of a put is.
const FIXED: usize = 8 * 1024;

/// Makes the allocations of more than `above` bytes fail in `call`, for every k the k-th alone and all from the k-th
/// on, and returns how often one did.
///
/// Each time the outcome must be an error that says so, or success all the same; nothing stays allocated, and the next
/// attempt succeeds.
fn withstands(case: &str, above: usize, call: impl Fn() -> Result<(), Error>) -> usize {
    // What the library keeps for small code, it keeps for all threads: as much as the tests need at a time is there
    // before.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (file, identity) = (sound(1, &identity()), identity());
        let entry = Entry::parse(&file, &identity).unwrap();
        let _modules: Vec<_> = (0..1000).map(|_| Module::load(&entry).unwrap()).collect();
    });
    call().unwrap();
    let (held, mut strikes) = (HELD.get(), 0);
    for failing in [1, usize::MAX] {
        for passing in 0.. {
            FAULT.set(Fault { above, passing, failing });
            let outcome = call();
            let struck = FAULT.replace(Fault::NONE).failing < failing;
            let case = format!("{case}, {passing} of more than {above} bytes passing, {failing} failing");
            match &outcome {
                Ok(()) => {}
                Err(Error::Memory { action: "allocate", length, .. }) if struck => {
                    assert!(*length > above as u64, "{case}")
                }
                Err(error) => panic!("{case}: {error:?}"),
            }
            drop((outcome, case));
            assert_eq!(HELD.get(), held, "bytes stay allocated");
            call().unwrap();
            assert_eq!(HELD.get(), held, "bytes stay allocated");
            if !struck {
                break;
            }
            strikes += 1;
        }
    }
    println!("{case}: {strikes} allocations failed");
    strikes
}

/// Does something in a call that is the test's own, and does not fail.
fn spared<T>(call: impl FnOnce() -> T) -> T {
    let fault = FAULT.replace(Fault::NONE);
    let result = call();
    FAULT.set(fault);
    result
}

/// A directory that is removed with all that is in it when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("jitcache-allocation-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every kind of sealing, with functions that are aligned in the file and ones that have to be copied for it.
fn identities() -> Vec<Identity> {
    let sealings = [Sealing::Plain, Sealing::Checksum, Sealing::Mac(MacKey::new([7; 32]))];
    let sealed = sealings.map(|sealing| identity().with_sealing(sealing));
    let aligned = sealed.clone().map(|identity| identity.with_alignment_in_file(16).unwrap());
    sealed.into_iter().map(|identity| identity.with_function_alignment(16).unwrap()).chain(aligned).collect()
}

/// What an engine hands in for an entry every part of which has more than `length` bytes.
fn parts<'a>(identity: &Identity, length: u64, code: &'a [u8], builder: &mut Builder<'a>) {
    builder.code(code);
    for n in 0..=length / 8 {
        builder.function(n * 16);
    }
    for n in 0..=length / 16 {
        builder.source(n, n * 3);
    }
    let length = length as usize;
    let (clauses, section) = spared(|| (vec![CatchClause { kind: 2, tag: 0 }; length / 5 + 1], vec![7; length + 1]));
    builder.try_table(&clauses);
    if *identity.sealing() != Sealing::Plain {
        builder.section(1, false, &section);
    }
}

/// The code for such an entry.
fn code(length: u64) -> Vec<u8> {
    vec![0xcc; length as usize * 2 + 1]
}

/// Lengths of every part of an entry: with one it is too small to be mapped or read into pages, with the other it is
/// not.
const LENGTHS: [u64; 2] = [9 * 1024, 17 * 1024];

#[test]
fn an_entry_is_loaded_by_every_door_or_there_is_an_error_that_says_that_memory_ran_out() {
    let scratch = Scratch::new("doors");
    let path = scratch.0.join("entry");
    let mut strikes = 0;
    // SAFETY: the file is replaced only when nothing that was opened from it is alive.
    let map = unsafe { Access::map() };
    // SAFETY: the same.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: the same, and it is whole and sound.
    let unchecked = unsafe { Access::in_place_unchecked() };
    for (identity, length) in identities()
        .into_iter()
        .flat_map(|identity| [0, LENGTHS[0], 65 * 1024].map(|length| (identity.clone(), length)))
    {
        let code = code(length);
        let mut builder = Builder::new();
        parts(&identity, length, &code, &mut builder);
        let file = builder.finish(&identity, &KEY).unwrap().to_vec();
        fs::write(&path, &file).unwrap();
        // A hasher has its length whatever it hashes, and so have the counts of what is shared.
        let is_mac = matches!(identity.sealing(), Sealing::Mac(_));
        let above = if is_mac { 2048 } else { 0 };
        let case = |how: &str| format!("{how}, {}, {:?}, {length}", identity.sealing(), identity.alignment());
        strikes += withstands(&case("view"), above, || {
            let entry = Entry::parse(&file, &identity)?;
            entry.verify()?;
            Module::load(&entry).map(drop)
        });
        for (how, access) in [("read", Access::READ), ("map", map), ("in place", in_place), ("unchecked", unchecked)] {
            let is_shared = file.len() >= 64 * 1024 || ["in place", "unchecked"].contains(&how);
            let above = if is_shared { above.max(256) } else { above };
            strikes += withstands(&case(how), above, || {
                let module = Module::load_file(FileBytes::open(&path, access)?.unwrap(), &identity, &KEY)?;
                assert!(module.code().ends_with(&code));
                assert_eq!(module.functions().len() as u64, length / 8 + 1);
                assert_eq!(module.source_map().unwrap().len() as u64, length / 16 + 1);
                Ok(())
            });
        }
    }
    assert!(strikes > 0);
}

#[test]
fn a_store_that_has_no_memory_for_an_entry_says_so_and_does_everything_else() {
    let scratch = Scratch::new("store");
    for identity in identities() {
        for length in LENGTHS {
            let code = code(length);
            let mut builder = Builder::new();
            parts(&identity, length, &code, &mut builder);
            let entry = builder.finish(&identity, &KEY).unwrap();
            let store = Store::open(&scratch.0, identity.clone()).unwrap();
            let loads = |call: &dyn Fn() -> Result<(), Error>| withstands("load", FIXED, call) > 0;
            let never = |how: &str, call: &dyn Fn() -> Result<(), Error>| assert_eq!(withstands(how, FIXED, call), 0);
            never("open", &|| Store::open(&scratch.0, identity.clone()).map(drop));
            never("put", &|| store.put(&KEY, &entry));
            never("sweep", &|| store.sweep().map(drop));
            never("list", &|| store.list().map(|keys| assert_eq!(keys.count(), 1)));
            let found = |lookup: Lookup<Module>| assert!(lookup.hit().unwrap().code().ends_with(&code));
            assert!(loads(&|| store.load(&KEY).map(found)));
            // A large file is read into pages, which are no allocations.
            assert_eq!(loads(&|| store.get(&KEY).map(|lookup| drop(lookup.hit().unwrap()))), length == LENGTHS[0]);
            never("remove", &|| store.remove(&KEY).map(drop));
        }
    }
}

#[test]
#[cfg(unix)]
fn a_source_map_that_was_left_in_its_file_is_read_or_memory_ran_out() {
    let scratch = Scratch::new("rows");
    let length = 1 << 20;
    let (identity, code) = (identity(), code(length));
    let mut builder = Builder::new();
    parts(&identity, length, &code, &mut builder);
    let store = Store::open(&scratch.0, identity.clone()).unwrap();
    store.put(&KEY, &builder.finish(&identity, &KEY).unwrap()).unwrap();
    let module = store.load(&KEY).unwrap().hit().unwrap();
    let start = module.address_range().start;
    let strikes = withstands("rows", FIXED, || {
        let module = spared(|| store.load(&KEY).unwrap().hit().unwrap());
        let checked = module.check_source_map();
        let source = spared(|| module.locate_instruction(module.address_range().start + 9).unwrap().source);
        assert_eq!(source, Some(27));
        checked
    });
    assert_eq!(strikes, 2);
    // Once it is there, as little is allocated as for any other.
    module.check_source_map().unwrap();
    assert_eq!(allocated(|| module.locate_instruction(start + 9)), 0);
}

#[test]
fn an_engine_gets_its_module_or_an_error_that_says_that_memory_ran_out() {
    let scratch = Scratch::new("cache");
    for identity in identities() {
        for length in LENGTHS {
            let code = code(length);
            let mut builder = Builder::new();
            parts(&identity, length, &code, &mut builder);
            builder.finish(&identity, &KEY).unwrap();
            let store = Store::open(&scratch.0, identity.clone()).unwrap();
            let run = |cache: &Cache| {
                let module = cache.get_or_compile(&KEY, |entry| {
                    spared(|| *entry = builder.clone());
                    Ok::<(), Error>(())
                })?;
                assert!(module.code().ends_with(&code));
                assert!(cache.locate(module.address_range().start).is_some());
                Ok(())
            };
            let open = || Cache::open(&scratch.0, identity.clone());
            let compiled = withstands("compiled", FIXED, || {
                spared(|| store.remove(&KEY))?;
                run(&open()?)
            });
            run(&open().unwrap()).unwrap();
            let loaded = withstands("loaded", FIXED, || run(&open()?));
            assert!(compiled > 0 && loaded > 0, "{compiled} {loaded}");
        }
    }
}

/// With pointers of 32 bits a node is no larger than a module.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_module_that_memory_has_no_room_for_beside_the_others_is_not_added_and_they_are_found() {
    let identity = identity();
    let add = |cache: &Cache, n: u8| {
        let mut builder = Builder::new();
        spared(|| builder.code(&[0xcc; 3][..]).function(0));
        cache.add(&Key::from_bytes([n; 32]), &mut builder)
    };
    // The map of the keys is full, and grows, and so do one, two or more nodes of the registry.
    for modules in [14, 28, 56, 112] {
        // A module has less.
        let strikes = withstands(&format!("module {modules}"), 512, || {
            let (cache, others) = spared(|| {
                let cache = Cache::in_memory(identity.clone());
                let others: Vec<_> = (0..modules).map(|n| add(&cache, n).unwrap().address_range().start).collect();
                (cache, others)
            });
            let added = add(&cache, modules);
            assert!(others.iter().all(|&pc| cache.locate(pc).is_some()));
            assert_eq!(cache.get(&Key::from_bytes([modules; 32])).hit().is_some(), added.is_ok());
            assert!(added.as_ref().map_or(true, |module| cache.locate(module.address_range().start).is_some()));
            added.map(drop)
        });
        assert!(strikes >= 4, "{modules}: {strikes}");
    }
}

#[test]
fn a_module_is_removed_without_memory_and_given_up_once_there_is_some() {
    let load = |n: u8| {
        let mut builder = Builder::new();
        builder.code(vec![n; 64]).function(0);
        Arc::new(Module::load(&builder.finish(&identity(), &KEY).unwrap()).unwrap())
    };
    let registry = Registry::new();
    let modules: Vec<_> = (0..100).map(load).collect();
    let starts: Vec<_> = modules.iter().map(|module| module.address_range().start).collect();
    modules.iter().for_each(|module| registry.insert(Arc::clone(module)).unwrap());
    let is_found = |at: usize| registry.locate(starts[at]).is_some_and(|found| found.module == modules[at].id());
    let owners = || modules.iter().map(Arc::strong_count).sum::<usize>();

    // Every allocation of a removal fails, the first one or another.
    let mut removed = 0;
    for passing in 0.. {
        let all = Fault { above: 0, passing, failing: usize::MAX };
        FAULT.set(all);
        assert!(registry.remove(&modules[removed]), "{removed}");
        let has_failed = FAULT.replace(Fault::NONE).failing < usize::MAX;
        removed += 1;
        assert!((0..100).all(|at| is_found(at) == (at >= removed)), "{removed}");
        assert!(!registry.remove(&modules[removed - 1]));
        if !has_failed {
            break;
        }
    }
    assert!(removed > 2, "{removed}");
    // The last removal had memory, and gave up all of them.
    assert_eq!(owners(), 200 - removed);

    FAULT.set(Fault { above: 0, passing: 0, failing: usize::MAX });
    assert!((50..90).all(|at| registry.remove(&modules[at])));
    FAULT.set(Fault::NONE);
    assert_eq!(owners(), 200 - removed);
    assert!((0..100).all(|at| is_found(at) == ((removed..50).contains(&at) || at >= 90)));
    // What is added again is found, and whatever is added gives up the others.
    registry.insert(Arc::clone(&modules[60])).unwrap();
    assert!(is_found(60) && !is_found(61));
    assert_eq!(owners(), 200 - removed - 39);
}

#[test]
fn a_builder_says_when_it_is_finished_that_memory_ran_out() {
    for (identity, length) in identities().into_iter().zip(LENGTHS.into_iter().cycle()) {
        let code = code(length);
        let strikes = withstands("builder", 2048, || {
            let mut builder = Builder::new();
            parts(&identity, length, &code, &mut builder);
            builder.finish(&identity, &KEY).map(drop)
        });
        assert!(strikes > 8, "{strikes}");
    }
}

#[test]
fn adding_or_removing_one_of_many_modules_copies_little_of_what_is_known_of_the_others() {
    let identity = identity();
    let mut builder = Builder::new();
    builder.code(vec![0xcc; 64]).function(0);
    let entry = builder.finish(&identity, &KEY).unwrap();
    let registry = Registry::new();
    let modules: Vec<_> = (0..8192).map(|_| Arc::new(Module::load(&entry).unwrap())).collect();
    let mut most = 0;
    for module in &modules {
        let module = Arc::clone(module);
        most = most.max(allocated(|| registry.insert(module).unwrap()));
    }
    for module in modules.iter().rev() {
        most = most.max(allocated(|| assert!(registry.remove(module))));
    }
    assert!(most > 0 && most < 16 << 10, "{most}");
}

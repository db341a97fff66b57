//! The cache: an engine is never worse off with it than without.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use jitcache::entry::Locals;
use jitcache::error::{Bound, Field};
use jitcache::{Access, Builder, Cache, Entry, Error, Event, Identity, Key, Lookup, Revision, Statistics, Store};

use crate::generate::add_try_table;
use crate::machine;
use crate::scratch::Scratch;

fn identity() -> Identity {
    Identity::new("cache", *b"CACHE\0", "1").unwrap()
}

fn key(n: u16) -> Key {
    Key::of(&identity()).source(&n.to_le_bytes()).finish()
}

/// A cache over a directory that notes its events.
struct Engine {
    cache: Cache,
    events: Arc<Mutex<Vec<String>>>,
    compiled: AtomicU32,
}

impl Engine {
    fn over(cache: Cache) -> Self {
        let events: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&events);
        let cache = cache.on_event(move |_, event| {
            let name = match event {
                Event::Unopened(_) => "unopened",
                Event::Stale(_) => "stale",
                Event::Rejected(_) => "rejected",
                Event::UnknownLayout(_) => "unknown layout",
                Event::Unread(_) => "unread",
                Event::Unremoved(_) => "unremoved",
                Event::Unwritten(_) => "unwritten",
                event if event.is_trouble() => "new",
                _ => return,
            };
            noted.lock().unwrap().push(name.to_owned());
        });
        Self { cache, events, compiled: AtomicU32::new(0) }
    }

    fn start(scratch: &Scratch) -> Self {
        Self::over(Cache::open(scratch.path(), identity()).unwrap())
    }

    /// Returns what the module of `n` computes, and whether it had to be compiled.
    fn run(&self, n: u16) -> (i32, bool) {
        self.run_with(n, &[])
    }

    /// Does the same for a module that has try tables, each with these locals.
    fn run_with(&self, n: u16, tables: &[Option<Locals>]) -> (i32, bool) {
        let before = self.compiled.load(Ordering::Relaxed);
        let module = self.cache.get_or_compile(&key(n), |entry| {
            self.compiled.fetch_add(1, Ordering::Relaxed);
            *entry = machine::builder(n);
            tables.iter().for_each(|&locals| add_try_table(entry, locals, &[]));
            Ok::<(), Error>(())
        });
        (machine::next(&module.unwrap()), self.compiled.load(Ordering::Relaxed) > before)
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn path(&self, n: u16) -> PathBuf {
        self.cache.store().unwrap().path(&key(n))
    }
}

#[test]
fn code_survives_a_restart() {
    let scratch = Scratch::new();
    let first = Engine::start(&scratch);
    assert_eq!(first.run(1), (2, true));
    assert_eq!(first.run(1), (2, false));
    let statistics = first.cache.statistics();
    assert_eq!((statistics.misses, statistics.memory_hits, statistics.hits), (1, 1, 0));

    let second = Engine::start(&scratch);
    assert_eq!(second.run(1), (2, false));
    assert_eq!(second.run(2), (3, true));
    let statistics = second.cache.statistics();
    assert_eq!((statistics.misses, statistics.memory_hits, statistics.hits), (1, 0, 1));

    // SAFETY: nobody changes the files of this test in place.
    let mapped = Store::open(scratch.path(), identity()).unwrap().with_access(unsafe { Access::map() });
    assert_eq!(Engine::over(Cache::over(mapped)).run(2), (3, false));
    assert!(first.events().is_empty() && second.events().is_empty());
}

#[test]
fn a_source_map_that_is_found_damaged_when_it_is_used_is_compiled_again_by_the_next_process() {
    let scratch = Scratch::new();
    let engine = Engine::start(&scratch);
    assert!(matches!(engine.cache.verify(&key(1)), Lookup::Miss));
    engine.run(1);
    assert!(matches!(engine.cache.verify(&key(1)), Lookup::Hit(())));
    let path = engine.path(1);
    let sound = fs::read(&path).unwrap();
    let rows = Entry::parse(&sound, &identity()).unwrap().code_range().end + 13;
    let mut damaged = sound.clone();
    damaged[usize::try_from(rows).unwrap()] ^= 1;
    fs::write(&path, &damaged).unwrap();

    let engine = Engine::start(&scratch);
    assert_eq!(engine.run(1), (2, false), "the code is sound");
    let module = engine.cache.get(&key(1)).hit().unwrap();
    assert!(module.source_map().is_none() && path.exists());
    assert!(matches!(engine.cache.verify(&key(1)), Lookup::Rejected(Error::Checksum { field: Field::SourceMap, .. })));
    assert!(!path.exists());
    assert!(matches!(engine.cache.verify(&key(1)), Lookup::Miss));
    assert_eq!(engine.events(), ["rejected"]);
    let statistics = engine.cache.statistics();
    assert_eq!((statistics.rejected, statistics.misses, statistics.hits), (1, 0, 1));

    let next = Engine::start(&scratch);
    assert_eq!(next.run(1), (2, true));
    assert_eq!(fs::read(&path).unwrap(), sound);
    assert!(matches!(Cache::in_memory(identity()).verify(&key(1)), Lookup::Miss));
}

#[test]
fn a_bad_entry_is_removed_and_rebuilt_and_told_once() {
    let scratch = Scratch::new();
    Engine::start(&scratch).run(1);
    let path = Engine::start(&scratch).path(1);
    let sound = fs::read(&path).unwrap();
    let mut stale = sound.clone();
    stale[7] = b'0';
    let mut flipped = sound.clone();
    flipped[70] ^= 1;
    for (file, event) in [(&stale[..], "stale"), (&flipped, "rejected"), (b"", "rejected"), (&sound[..99], "rejected")]
    {
        fs::write(&path, file).unwrap();
        let engine = Engine::start(&scratch);
        assert!(engine.cache.get(&key(1)).hit().is_none());
        assert!(!path.exists());
        assert_eq!(engine.run(1), (2, true));
        assert_eq!(engine.events(), [event]);
        assert_eq!(fs::read(&path).unwrap(), sound);
        assert_eq!(Engine::start(&scratch).run(1), (2, false));
    }
}

const TABLES: [(Revision, [Option<Locals>; 2]); 2] =
    [(Revision::CatchClauses, [None; 2]), (Revision::Locals, [Some(Locals { count: 2, reuse: false }); 2])];

#[test]
fn an_entry_of_an_unknown_layout_is_left_as_it_is_and_told_and_the_engine_compiles() {
    for identity in [Identity::wazero("dev").unwrap(), identity().with_revision(Revision::Unknown)] {
        for (known, tables) in TABLES {
            let scratch = Scratch::new();
            let knowing = Cache::open(scratch.path(), identity.clone().with_revision(known)).unwrap();
            let knowing = Engine::over(knowing);
            assert_eq!(knowing.run_with(1, &tables), (2, true));
            let path = knowing.path(1);
            let written = fs::read(&path).unwrap();
            for tables in [&tables[..], &[]] {
                let engine = Engine::over(Cache::open(scratch.path(), identity.clone()).unwrap());
                assert!(matches!(engine.cache.verify(&key(1)), Lookup::UnknownLayout(_)));
                match engine.cache.get(&key(1)) {
                    Lookup::UnknownLayout(Error::UnknownLayout { found: 2, .. }) => {}
                    other => panic!("{other:?}"),
                }
                assert_eq!(engine.run_with(1, tables), (2, true));
                assert_eq!(engine.run_with(1, tables), (2, false), "it is in memory");
                assert_eq!(engine.events(), ["unknown layout"; 3]);
                let Statistics { unknown_layouts, stale, rejected, misses, failures, .. } = engine.cache.statistics();
                assert_eq!([unknown_layouts, stale, rejected, misses, failures], [3, 0, 0, 0, 0]);
                assert_eq!(fs::read(&path).unwrap(), written);
            }
            let knowing = Cache::open(scratch.path(), identity.clone().with_revision(known)).unwrap();
            assert_eq!(Engine::over(knowing).run_with(1, &tables), (2, false));
        }
    }
}

#[test]
fn what_a_base_has_in_an_unknown_layout_is_compiled_once_and_stored_on_top() {
    let identity = identity().with_revision(Revision::Unknown);
    let (base, scratch) = (Scratch::new(), Scratch::new());
    let knowing = Cache::open(base.path(), identity.clone().with_revision(TABLES[0].0)).unwrap();
    assert_eq!(Engine::over(knowing).run_with(1, &TABLES[0].1), (2, true));
    let start = || {
        let store = |root: &Scratch| Store::open(root.path(), identity.clone()).unwrap();
        Engine::over(Cache::over(store(&scratch).with_base(store(&base)).unwrap()))
    };
    let engine = start();
    assert_eq!((engine.run(1), engine.events()), ((2, true), vec!["unknown layout".to_owned()]));
    let engine = start();
    assert_eq!((engine.run(1), engine.events()), ((2, false), Vec::<String>::new()));
}

#[test]
fn a_module_whose_try_tables_have_no_known_layout_stays_in_memory_and_one_without_any_is_stored() {
    for (_, tables) in TABLES {
        let scratch = Scratch::new();
        let start = || Engine::over(Cache::open(scratch.path(), Identity::wazero("dev").unwrap()).unwrap());
        let engine = start();
        assert_eq!(engine.run_with(1, &tables), (2, true));
        assert_eq!(engine.run_with(1, &tables), (2, false));
        let module = engine.cache.get(&key(1)).hit().unwrap();
        assert_eq!(module.try_tables().map(|table| table.unwrap().locals()).collect::<Vec<_>>(), tables);
        assert_eq!((engine.events(), engine.path(1).exists()), (vec!["unwritten".to_owned()], false));
        assert_eq!(engine.run(2), (3, true));
        assert!(engine.events().is_empty());
        let engine = start();
        assert_eq!((engine.run_with(1, &tables), engine.run(2)), ((2, true), (3, false)));
    }
    // What no layout has is a mistake of the engine.
    let cache = Cache::in_memory(Identity::wazero("dev").unwrap());
    let mut builder = machine::builder(1);
    builder.try_table(&[]).try_table_with_locals(Locals { count: 0, reuse: false }, &[]);
    assert!(matches!(cache.add(&key(1), &mut builder), Err(Error::Unwritable { field: Field::LocalCount, .. })));
}

#[test]
fn a_bad_entry_stays_until_a_put_takes_its_place_and_where_none_follows_is_gone_when_it_is_told() {
    let scratch = Scratch::new();
    let path = Engine::start(&scratch).path(1);
    let (told, at_telling) = (Arc::new(AtomicU32::new(0)), path.clone());
    let noted = Arc::clone(&told);
    let cache = Cache::open(scratch.path(), identity()).unwrap().on_event(move |_, event| {
        assert!(matches!(event, Event::Rejected(_)));
        noted.fetch_add(if at_telling.exists() { 1 } else { 100 }, Ordering::Relaxed);
    });
    let bad = || fs::write(&path, "bad").unwrap();
    bad();
    let compiled = cache.get_or_compile(&key(1), |entry| {
        assert_eq!(fs::read(&path).unwrap(), b"bad");
        *entry = machine::builder(1);
        Ok::<(), Error>(())
    });
    drop(compiled.unwrap());
    assert!(matches!(cache.verify(&key(1)), Lookup::Hit(())));
    assert_eq!(told.swap(0, Ordering::Relaxed), 1);
    drop(cache.forget(&key(1)).unwrap());
    for _ in 0..2 {
        bad();
        assert!(matches!(cache.get(&key(1)), Lookup::Rejected(_)));
        bad();
        assert!(matches!(cache.verify(&key(1)), Lookup::Rejected(_)));
        assert!(!path.exists());
        fs::remove_dir_all(path.with_file_name("tmp")).unwrap();
    }
    assert_eq!(told.load(Ordering::Relaxed), 400);
}

#[test]
fn a_directory_that_vanishes_costs_no_entry_from_the_next_compilation_on() {
    let scratch = Scratch::new();
    let engine = Engine::start(&scratch);
    engine.run(1);
    fs::remove_dir_all(scratch.path()).unwrap();
    assert_eq!((engine.run(1), engine.run(2)), ((2, false), (3, true)));
    assert_eq!(Engine::start(&scratch).run(2), (3, false));
    assert!(engine.events().is_empty());
}

#[test]
fn a_directory_that_cannot_be_used_costs_no_module() {
    let scratch = Scratch::new();
    let engine = Engine::start(&scratch);
    let directory = engine.cache.store().unwrap().directory().to_owned();
    fs::create_dir(engine.path(1)).unwrap();
    assert_eq!(engine.run(1), (2, true));
    assert_eq!(engine.events(), ["rejected", "unwritten"]);
    fs::remove_dir_all(directory.join("tmp")).unwrap();
    fs::write(directory.join("tmp"), "a file where the temporary files belong").unwrap();
    assert_eq!(engine.run(2), (3, true));
    assert_eq!(engine.events(), ["unwritten"]);
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "a file where the directory was").unwrap();
    assert_eq!(engine.run(3), (4, true));
    // On Windows there is nothing of that name, as where the directory is missing.
    let events = if cfg!(windows) { &["unwritten"][..] } else { &["unread", "unwritten"] };
    assert_eq!(engine.events(), events);
    assert_eq!(engine.cache.statistics().failures, 2 + events.len() as u64);
    assert_eq!((engine.run(1), engine.run(2), engine.run(3)), ((2, false), (3, false), (4, false)));
}

#[test]
fn an_entry_that_is_too_long_to_be_read_is_not_written() {
    let (identity, mut builder) = (identity(), machine::builder(1));
    let entry = builder.finish(&identity, &key(1)).unwrap();
    let length = entry.length();
    assert_eq!(length, entry.to_vec().len() as u64);
    let scratch = Scratch::new();
    for (limit, events) in [(length - 1, &["unwritten"][..]), (length, &[])] {
        let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(Access::READ.with_limit(limit));
        let engine = Engine::over(Cache::over(store));
        assert_eq!(engine.run(1), (2, true));
        assert_eq!(
            (engine.events(), engine.path(1).exists()),
            (events.iter().map(|&event| event.into()).collect(), events.is_empty())
        );
    }
    let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(Access::READ.with_limit(length - 1));
    match store.put(&key(1), &entry) {
        Err(Error::Unwritable { field: Field::File, expected: Bound::AtMost(limit), found }) => {
            assert_eq!((limit, found), (length - 1, length));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_compiler_that_fails_is_reported_as_it_is_and_leaves_nothing() {
    let scratch = Scratch::new();
    let engine = Engine::start(&scratch);
    #[derive(Debug)]
    enum Failure {
        Syntax,
        Cache(Error),
    }
    impl From<Error> for Failure {
        fn from(error: Error) -> Self {
            Self::Cache(error)
        }
    }
    let failed = engine.cache.get_or_compile(&key(1), |_| Err(Failure::Syntax));
    assert!(matches!(failed, Err(Failure::Syntax)));
    let failed = engine.cache.get_or_compile(&key(1), |entry| {
        entry.function(5);
        Ok(())
    });
    assert!(matches!(failed, Err(Failure::Cache(Error::Unwritable { .. }))));
    assert!(!engine.path(1).exists());
    assert_eq!(engine.run(1), (2, true));
}

#[test]
fn what_must_not_be_written_stays_in_memory() {
    let scratch = Scratch::new();
    let engine = Engine::start(&scratch);
    let module = engine.cache.add_in_memory(&key(1), &mut machine::builder(1)).unwrap();
    assert_eq!(engine.run(1), (2, false));
    assert!(engine.cache.registry().module(module.address_range().start).is_some());
    assert!(!engine.path(1).exists());

    let engine = Engine::over(Cache::in_memory(identity()));
    assert_eq!(engine.run(1), (2, true));
    assert_eq!(engine.run(1), (2, false));
}

#[test]
fn a_module_that_is_forgotten_is_no_longer_found_and_comes_back_from_the_store() {
    let scratch = Scratch::new();
    let engine = Engine::start(&scratch);
    engine.run(1);
    let Lookup::Hit(module) = engine.cache.get(&key(1)) else { panic!() };
    let pc = module.address_range().start + 17;
    assert_eq!(engine.cache.locate(pc).unwrap().source, Some(200));
    assert_eq!(engine.cache.locate_instruction(pc - 1).unwrap().source, Some(200));
    let forgotten = engine.cache.forget(&key(1)).unwrap();
    assert!(Arc::ptr_eq(&forgotten, &module));
    assert!(engine.cache.forget(&key(1)).is_none());
    assert_eq!(engine.cache.locate(pc), None);
    assert_eq!(machine::next(&module), 2, "it is mapped while it is held");
    assert_eq!(Arc::strong_count(&module), 2);
    assert_eq!(engine.run(1), (2, false));
}

#[test]
fn code_lent_by_the_engine_is_not_copied_into_the_builder() {
    let code = machine::code(1);
    let cache = Cache::in_memory(identity());
    let module = cache.get_or_compile(&key(1), |entry: &mut Builder<'_>| {
        entry.code(&code[..]).function(0);
        Ok::<(), Error>(())
    });
    assert_eq!(module.unwrap().code(), code);
}

#[test]
fn threads_get_the_same_module_of_the_same_key() {
    let scratch = Scratch::new();
    let engine = Engine::start(&scratch);
    let modules: Vec<Vec<_>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let get = |n| {
                        engine.cache.get_or_compile(&key(n), |entry| {
                            *entry = machine::builder(n);
                            Ok::<(), Error>(())
                        })
                    };
                    (0..20).map(|n| get(n).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (n, module) in modules[0].iter().enumerate() {
        assert_eq!(machine::constant(module), n as i32);
        assert!(modules.iter().all(|modules| Arc::ptr_eq(&modules[n], module)));
    }
    let statistics = engine.cache.statistics();
    assert_eq!(statistics.memory_hits + statistics.hits + statistics.misses, 80);
}

#[test]
fn a_strict_cache_neither_compiles_nor_writes() {
    let scratch = Scratch::new();
    let engine = Engine::start(&scratch);
    engine.run(1);
    let rejected = engine.path(2);
    fs::write(&rejected, "damaged").unwrap();
    let files = || fs::read_dir(rejected.parent().unwrap()).unwrap().count();
    let before = files();
    let strict = Engine::over(Cache::open(scratch.path(), identity()).unwrap().strict());
    assert_eq!(strict.run(1), (2, false));
    for (n, event) in [(2, Some("rejected")), (3, None)] {
        let compile = |_: &mut Builder<'_>| -> Result<(), Error> { panic!("it compiles") };
        let error = strict.cache.get_or_compile(&key(n), compile).unwrap_err();
        assert!(matches!(error, Error::NotCompiled { key: found } if found == key(n)), "{error}");
        assert!(error.to_string().contains(&key(n).to_string()));
        assert_eq!(strict.events(), event.map(str::to_owned).into_iter().collect::<Vec<_>>());
    }
    assert!(matches!(strict.cache.get(&key(2)), Lookup::Rejected(_)));
    assert!(matches!(strict.cache.remove(&key(2)), Err(Error::ReadOnly { .. })));
    strict.cache.add(&key(4), &mut machine::builder(4)).unwrap();
    assert_eq!((files(), fs::read(&rejected).unwrap()), (before, b"damaged".to_vec()));
}

#[test]
fn modules_that_nobody_holds_go_out_of_memory_the_least_recently_used_first() {
    let length = machine::builder(0).finish(&identity(), &key(0)).unwrap().code().len() as u64;
    let add = |cache: &Cache, n| cache.add(&key(n), &mut machine::builder(n)).unwrap();
    let is_kept = |cache: &Cache, n| matches!(cache.get(&key(n)), Lookup::Hit(_));
    let cache = Cache::in_memory(identity()).with_memory_budget(8 * length);
    let held = add(&cache, 0);
    let addresses: Vec<_> = (1..8).map(|n| add(&cache, n).address_range().start).collect();
    assert!((0..8).all(|n| is_kept(&cache, n)) && is_kept(&cache, 1));
    // One more: two go, and not those that are held or were asked for.
    drop(add(&cache, 8));
    assert_eq!(cache.statistics().evicted, 2);
    assert!(cache.locate(addresses[1]).is_none() && cache.locate(addresses[2]).is_none());
    assert!([0, 1, 4, 5, 6, 7, 8].into_iter().all(|n| is_kept(&cache, n)));
    assert!(!is_kept(&cache, 2) && !is_kept(&cache, 3));
    // What is held stays, however much it is, and goes when it is not.
    let many: Vec<_> = (10..40).map(|n| add(&cache, n)).collect();
    assert!((10..40).all(|n| is_kept(&cache, n)) && is_kept(&cache, 0) && !is_kept(&cache, 8));
    assert_eq!(machine::constant(&many[7]), 17);
    drop((many, held));
    drop((add(&cache, 50), add(&cache, 51)));
    assert_eq!((0..100).filter(|&n| is_kept(&cache, n)).count(), 7);
}

//! What a hook is told, when, and that it can do no harm.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use jitcache::{Access, Builder, Cache, Error, Event, Identity, Key, Lookup, Module, Store};

use crate::machine;
use crate::scratch::Scratch;

const KEY: Key = Key::from_bytes([5; 32]);

fn identity() -> Identity {
    Identity::new("hook", *b"HOOK\0\0", "1").unwrap()
}

fn open(scratch: &Scratch) -> (Cache, PathBuf) {
    let store = Store::open(scratch.path(), identity()).unwrap();
    let path = store.path(&KEY);
    (Cache::over(store).with_patience(Duration::MAX), path)
}

fn get(cache: &Cache) -> Arc<Module> {
    let module = cache.get_or_compile(&KEY, |entry| {
        *entry = machine::builder(1);
        Ok::<(), Error>(())
    });
    module.unwrap()
}

/// The ways to make a store fail, and what is told then.
fn spoil(path: &Path, how: &str) {
    match how {
        "rejected" => fs::write(path, "damaged").unwrap(),
        "unwritten" => {
            let directory = path.parent().unwrap();
            fs::remove_dir_all(directory).unwrap();
            fs::write(directory, "a file where the directory was").unwrap();
        }
        _ => {
            let sound = machine::builder(1).finish(&identity(), &KEY).unwrap().to_vec();
            fs::write(path, [&sound[..7], b"0", &sound[8..]].concat()).unwrap();
        }
    }
}

#[test]
fn a_hook_is_told_when_all_is_done_and_others_need_not_wait_for_it() {
    for how in ["rejected", "stale"] {
        let (scratch, told) = (Scratch::new(), Arc::new(Mutex::new(Vec::new())));
        let (cache, path) = open(&scratch);
        let (us, noted) = (Arc::new(OnceLock::<Cache>::new()), Arc::clone(&told));
        // A hook that kept its cache alive would keep itself alive.
        let (cache_of_hook, path_of_hook) = (Arc::downgrade(&us), path.clone());
        let cache = cache.on_event(move |key, event| {
            if !event.is_trouble() {
                return;
            }
            let us = cache_of_hook.upgrade().unwrap();
            let cache = us.get().unwrap();
            // By another thread, which would wait for whatever lock or flight this one is in, for ever.
            let look = || {
                let is_kept = cache.forget(key).is_some();
                get(cache);
                is_kept
            };
            let is_kept = thread::scope(|scope| scope.spawn(look).join().unwrap());
            let stored = fs::read(&path_of_hook).unwrap_or_default();
            noted.lock().unwrap().push((event.to_string(), is_kept, stored));
        });
        let cache = us.get_or_init(|| cache);
        spoil(&path, how);
        get(cache);
        let sound = machine::builder(1).finish(&identity(), &KEY).unwrap().to_vec();
        match &told.lock().unwrap()[..] {
            [(event, true, stored)] => assert!(event.contains(how) && *stored == sound, "{event}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_hook_that_panics_costs_nothing_but_itself() {
    // On Windows there is nothing to be read below a file.
    for (how, events) in [("rejected", 1), ("stale", 1), ("unwritten", if cfg!(windows) { 1 } else { 2 })] {
        let scratch = Scratch::new();
        let (cache, path) = open(&scratch);
        let told = Arc::new(Mutex::new(0));
        let noted = Arc::clone(&told);
        let cache = cache.on_event(move |_, event| {
            *noted.lock().unwrap() += u32::from(event.is_trouble());
            panic!("the hook's own")
        });
        spoil(&path, how);
        let module = get(&cache);
        assert!(Arc::ptr_eq(&module, &get(&cache)), "{how}");
        assert_eq!(*told.lock().unwrap(), events, "{how}");
        let store = Store::open(scratch.path(), identity());
        assert_eq!(store.is_ok_and(|store| store.load(&KEY).unwrap().hit().is_some()), how != "unwritten");
    }
    // Where nothing takes its place, what is bad is gone.
    let scratch = Scratch::new();
    let (cache, path) = open(&scratch);
    let cache = cache.on_event(|_, _| panic!("the hook's own"));
    spoil(&path, "rejected");
    assert!(matches!(cache.get(&KEY), Lookup::Rejected(_)));
    assert!(!path.exists());
}

#[test]
fn a_hook_that_uses_a_cache_is_not_told_of_that() {
    let (scratch, told) = (Scratch::new(), Arc::new(Mutex::new(Vec::new())));
    let (cache, path) = open(&scratch);
    let (us, noted) = (Arc::new(OnceLock::<Cache>::new()), Arc::clone(&told));
    // A hook that kept its cache alive would keep itself alive.
    let (cache_of_hook, path_of_hook) = (Arc::downgrade(&us), path.clone());
    let cache = cache.on_event(move |key, event| {
        if !event.is_trouble() {
            return;
        }
        noted.lock().unwrap().push(event.to_string());
        let us = cache_of_hook.upgrade().unwrap();
        let cache = us.get().unwrap();
        drop(cache.forget(key));
        spoil(&path_of_hook, "rejected");
        get(cache);
    });
    let cache = us.get_or_init(|| cache);
    for rejected in [2, 4] {
        drop(cache.forget(&KEY));
        spoil(&path, "stale");
        get(cache);
        let statistics = cache.statistics();
        assert_eq!((statistics.stale, statistics.rejected), (rejected / 2, rejected / 2));
    }
    let told = told.lock().unwrap();
    assert!(matches!(&told[..], [one, two] if one.contains("stale") && two.contains("stale")), "{told:?}");
}

#[test]
fn what_is_bad_is_told_even_if_its_compiler_fails_or_panics() {
    for panics in [false, true] {
        let (scratch, told) = (Scratch::new(), Arc::new(Mutex::new(Vec::new())));
        let (cache, path) = open(&scratch);
        let noted = Arc::clone(&told);
        let cache = cache.on_event(move |_, event| {
            if event.is_trouble() {
                noted.lock().unwrap().push(event.to_string());
            }
        });
        spoil(&path, "rejected");
        let failed = catch_unwind(AssertUnwindSafe(|| {
            cache.get_or_compile(&KEY, |_| {
                assert!(!panics, "the compiler's own");
                Err(Error::UnsupportedMachine)
            })
        }));
        assert_eq!(failed.is_err(), panics);
        assert!(failed.is_err() || failed.is_ok_and(|failed| failed.is_err()));
        assert!(matches!(&told.lock().unwrap()[..], [event] if event.contains("rejected")));
        assert_eq!(fs::read(&path).unwrap(), b"damaged", "nothing has taken its place");
    }
}

#[test]
fn a_root_that_cannot_be_opened_leaves_a_cache_in_memory_which_says_why_once() {
    let scratch = Scratch::new();
    fs::write(scratch.path().join("file"), "").unwrap();
    let roots = [scratch.path().join("file"), scratch.path().join("file/cache"), scratch.path().join("x".repeat(300))];
    for root in roots.into_iter().chain(cfg!(target_os = "linux").then(|| "/proc/nobody/.cache".into())) {
        assert!(Cache::open(&root, identity()).is_err());
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&told);
        let cache = Cache::open_or_in_memory(&root, identity()).on_event(move |key, event| {
            if !event.is_trouble() {
                return;
            }
            assert!(matches!(event, Event::Unopened(Error::Io { .. })));
            noted.lock().unwrap().push((*key, event.to_string()));
        });
        let why = cache.unopened().unwrap().to_string();
        assert!(cache.store().is_none() && told.lock().unwrap().is_empty());
        let module = get(&cache);
        assert!(Arc::ptr_eq(&module, &get(&cache)));
        assert!(matches!(cache.get(&Key::from_bytes([6; 32])), Lookup::Miss));
        assert_eq!(*told.lock().unwrap(), [(KEY, format!("store not opened: {why}"))], "{}", root.display());
        assert_eq!((cache.statistics().failures, cache.statistics().misses), (1, 2));
    }
    let cache = Cache::open_or_in_memory(scratch.path(), identity());
    assert!(cache.unopened().is_none() && cache.store().is_some());
}

#[test]
fn that_code_does_not_run_in_place_though_it_was_to_is_told_once() {
    let scratch = Scratch::new();
    // SAFETY: nobody changes a file.
    let in_place = unsafe { Access::in_place() };
    // In front of the code stand 24 bytes and 8 for each function: of two functions it is not aligned to 16, of one it
    // is.
    let apart = Identity::new("place", *b"PLACE\0", "1.2.3").unwrap().with_function_alignment(16).unwrap();
    let inside = Identity::new("place", *b"PLACE\0", "1.2.4").unwrap();
    for (identity, functions, told) in [(&apart, 2, 1), (&apart, 1, 0), (&inside, 2, 0)] {
        let keys = [1, 2].map(|n| Key::of(identity).source(&[functions, n]).finish());
        let mut builder = Builder::new();
        builder.code(vec![0xcc; 64]);
        for function in 0..u64::from(functions) {
            builder.function(function * 16);
        }
        let store = Store::open(scratch.path(), identity.clone()).unwrap();
        keys.iter().for_each(|key| store.put(key, &builder.finish(identity, key).unwrap()).unwrap());
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let cache = Cache::over(store.with_access(in_place)).on_event(move |_, event| {
            if event.is_trouble() {
                heard.lock().unwrap().push(event.to_string());
            }
        });
        for key in &keys {
            assert_eq!(cache.get(key).hit().unwrap().is_in_place(), told == 0);
            cache.forget(key);
            let compile = |_: &mut Builder<'_>| -> Result<(), Error> { panic!("it is there") };
            assert_eq!(cache.get_or_compile(key, compile).unwrap().is_in_place(), told == 0);
        }
        assert_eq!(*events.lock().unwrap(), vec!["code copied: it cannot run in place"; told], "{functions}");
    }
}

#[test]
fn the_life_of_a_module_is_told_and_counted() {
    let scratch = Scratch::new();
    let life = |get: &dyn Fn(&Cache)| {
        let told = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&told);
        let (cache, _) = open(&scratch);
        let cache = cache.on_event(move |key, event| {
            assert_eq!(*key, KEY);
            let told = match event {
                Event::Hit { bytes, .. } => format!("hit {bytes}"),
                Event::Stored { bytes, .. } => format!("stored {bytes}"),
                Event::Compiled { took } => format!("compiled {}", took >= Duration::from_millis(20)),
                event => event.to_string(),
            };
            noted.lock().unwrap().push(told);
        });
        get(&cache);
        (std::mem::take(&mut *told.lock().unwrap()), cache.statistics())
    };
    let slowly = |cache: &Cache| {
        let module = cache.get_or_compile(&KEY, |entry| {
            thread::sleep(Duration::from_millis(20));
            *entry = machine::builder(1);
            Ok::<(), Error>(())
        });
        drop((module.unwrap(), get(cache)));
    };
    let length = machine::builder(1).finish(&identity(), &KEY).unwrap().to_vec().len() as u64;
    let code = machine::builder(1).finish(&identity(), &KEY).unwrap().code().len() as u64;
    let (told, statistics) = life(&slowly);
    assert_eq!(told, ["no entry", "compiled true", &format!("stored {length}")]);
    assert_eq!((statistics.misses, statistics.compilations, statistics.stored), (1, 1, 1));
    assert_eq!((statistics.bytes_stored, statistics.memory_hits, statistics.hit_rate()), (length, 1, Some(0.0)));
    assert!(statistics.compiling >= Duration::from_millis(20));
    for look in [&slowly as &dyn Fn(&Cache), &|cache| drop(cache.get(&KEY).hit().unwrap())] {
        let (told, statistics) = life(look);
        assert_eq!(told, [format!("hit {code}")]);
        assert_eq!((statistics.hits, statistics.bytes_loaded, statistics.compilations), (1, code, 0));
        assert_eq!(statistics.hit_rate(), Some(1.0));
    }
}

#[test]
fn whoever_waited_is_told_for_how_long() {
    let (scratch, told) = (Scratch::new(), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&told);
    let (cache, _) = open(&scratch);
    let cache = cache.on_event(move |_, event| {
        if let Event::Waited { took } = event {
            noted.lock().unwrap().push(took);
        }
    });
    thread::scope(|scope| {
        let compiled = cache.get_or_compile(&KEY, |entry| {
            scope.spawn(|| get(&cache));
            thread::sleep(Duration::from_millis(50));
            *entry = machine::builder(1);
            Ok::<(), Error>(())
        });
        compiled.unwrap();
    });
    assert_eq!(told.lock().unwrap().len(), 1);
    assert_eq!((cache.statistics().waits, cache.statistics().compilations), (1, 1));
}

#[test]
fn a_store_that_fails_over_and_over_is_left_alone_and_that_is_told_once() {
    let (scratch, told) = (Scratch::new(), Arc::new(Mutex::new(Vec::new())));
    let (cache, path) = open(&scratch);
    spoil(&path, "unwritten");
    let noted = Arc::clone(&told);
    let cache = cache.on_event(move |_, event| match event {
        Event::Unread(_) => noted.lock().unwrap().push("unread"),
        Event::Unwritten(_) => noted.lock().unwrap().push("unwritten"),
        Event::LeftAlone(Error::Io { .. }) => noted.lock().unwrap().push("left alone"),
        _ => {}
    });
    for n in 0..20 {
        let module = cache.get_or_compile(&Key::from_bytes([n; 32]), |entry| {
            *entry = machine::builder(1);
            Ok::<(), Error>(())
        });
        module.unwrap();
    }
    let counted = |what| told.lock().unwrap().iter().filter(|told| **told == what).count();
    let expected = if cfg!(windows) { [0, 7, 1] } else { [7, 7, 2] };
    assert_eq!([counted("unread"), counted("unwritten"), counted("left alone")], expected);
    assert!(cache.statistics().failures >= expected.iter().sum::<usize>() as u64);
    // There is a directory again, and the pause ends.
    fs::remove_file(path.parent().unwrap()).unwrap();
    let mut n = 100;
    while cache.statistics().stored == 0 {
        thread::sleep(Duration::from_millis(50));
        drop(cache.get_or_compile(&Key::from_bytes([n; 32]), |entry| {
            *entry = machine::builder(1);
            Ok::<(), Error>(())
        }));
        n += 1;
    }
    assert_eq!(counted("left alone"), expected[2]);
}

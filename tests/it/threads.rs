//! Threads that compile, load, store, remove and sweep the same few modules at once, and look program counters up: each
//! finds what its key determines.

use std::sync::{Arc, Mutex};
use std::thread;

use jitcache::{Access, Builder, Cache, Error, Identity, Key, Lookup, Module, Store};

use crate::machine::{self, AFTER_CALL};
use crate::scratch::Scratch;

const THREADS: u64 = 8;
const KEYS: u64 = 3;
/// Of every thread; `JITCACHE_LONG=1` makes it a hundred times as many.
const STEPS: u64 = 400;

fn identity() -> Identity {
    Identity::new("threads", *b"THREAD", "1").unwrap().with_alignment_in_file(16).unwrap()
}

fn key(n: u16) -> Key {
    Key::of(&identity()).source(&n.to_le_bytes()).finish()
}

fn builder(n: u16) -> Builder<'static> {
    let mut builder = machine::builder(n);
    builder.metadata(&n.to_le_bytes());
    builder
}

fn get(cache: &Cache, n: u16) -> Arc<Module> {
    let module = cache.get_or_compile(&key(n), |entry| {
        *entry = builder(n);
        Ok::<(), Error>(())
    });
    module.unwrap()
}

/// Checks that a module is that of `n`, by running it, and that the program counters in it are found in it or nowhere.
fn check(cache: &Cache, n: u16, module: &Arc<Module>) {
    assert_eq!((machine::constant(module), machine::next(module)), (i32::from(n), i32::from(n) + 1));
    assert_eq!(module.metadata(), Some(&n.to_le_bytes()[..]));
    let pc = module.function(0).unwrap() as usize + AFTER_CALL as usize;
    for location in [cache.locate_instruction(pc), module.locate_instruction(pc)].into_iter().flatten() {
        assert_eq!((location.function, location.source), (Some(2), Some(310)));
    }
    // Nothing else is mapped at its addresses while it is held.
    assert!(cache.registry().module(pc).is_none_or(|found| Arc::ptr_eq(&found, module)));
}

/// Works on a cache, in an order that the seed determines, and returns how many steps found or did something.
fn work(cache: &Cache, seed: u64, steps: u64) -> u64 {
    let store = cache.store().unwrap();
    let (mut random, mut done, mut held) = (seed, 0, None::<(u16, Arc<Module>)>);
    for _ in 0..steps {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (n, what) = ((random >> 33) % KEYS, (random >> 48) % 16);
        let n = n as u16;
        match what {
            0..6 => {
                let module = get(cache, n);
                check(cache, n, &module);
                held = Some((n, module));
                done += 1;
            }
            6..9 => done += u64::from(cache.forget(&key(n)).is_some()),
            9 => {
                store.put(&key(n), &builder(n).finish(&identity(), &key(n)).unwrap()).unwrap();
                done += 1;
            }
            10 => done += u64::from(store.remove(&key(n)).unwrap()),
            11 => drop(store.sweep().unwrap()),
            12 => match store.load(&key(n)).unwrap() {
                Lookup::Hit(module) => {
                    check(cache, n, &Arc::new(module));
                    done += 1;
                }
                Lookup::Miss => {}
                other => panic!("{other:?}"),
            },
            // Of a module that others may have taken out of the cache meanwhile.
            _ => held.iter().for_each(|(n, module)| check(cache, *n, module)),
        }
    }
    done
}

#[test]
fn whatever_threads_do_at_once_each_gets_what_its_key_determines() {
    let steps = STEPS * if std::env::var_os("JITCACHE_LONG").is_some() { 100 } else { 1 };
    // SAFETY: nobody changes a file of this test in place.
    let in_place = unsafe { Access::in_place() };
    for access in [Access::READ, in_place] {
        let scratch = Scratch::new();
        let events: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&events);
        let cache = Cache::over(Store::open(scratch.path(), identity()).unwrap().with_access(access));
        let cache = cache.on_event(move |_, event| {
            if event.is_trouble() {
                noted.lock().unwrap().push(event.to_string());
            }
        });
        let cache = &cache;
        let done: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || work(cache, seed, steps))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(events.lock().unwrap().is_empty(), "{events:?}");
        let statistics = cache.statistics();
        assert!(statistics.hits > 0 && statistics.misses > 0 && statistics.memory_hits > 0, "{statistics:?}");
        println!("{done} of {} steps found or did something; {statistics:?}", THREADS * steps);
        // Whoever is left in memory is found, and is the only one at its addresses.
        for n in 0..KEYS as u16 {
            let module = get(cache, n);
            check(cache, n, &module);
            assert!(Arc::ptr_eq(&cache.registry().module(module.address_range().start).unwrap(), &module));
            assert!(cache.forget(&key(n)).is_some());
            assert!(cache.registry().module(module.address_range().start).is_none());
        }
    }
}

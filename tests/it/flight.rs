//! Single flight: threads that want the same module compile it once, and none waits for ever.
//!
//! Where a cache has all the patience there is, a test that hangs has failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use jitcache::{Cache, Error, Identity, Key, Module, Store};

use crate::machine;
use crate::scratch::Scratch;

fn identity() -> Identity {
    Identity::new("flight", *b"FLIGHT", "1").unwrap()
}

fn key(n: u16) -> Key {
    Key::of(&identity()).source(&n.to_le_bytes()).finish()
}

fn patient() -> Cache {
    Cache::in_memory(identity()).with_patience(Duration::MAX)
}

/// Gets the module of `n`, which takes `compiling` to compile.
fn get(cache: &Cache, n: u16, compiling: impl FnOnce()) -> Arc<Module> {
    let module = cache.get_or_compile(&key(n), |entry| {
        compiling();
        *entry = machine::builder(n);
        Ok::<(), Error>(())
    });
    let module = module.unwrap();
    assert_eq!(machine::constant(&module), i32::from(n));
    module
}

#[test]
fn of_64_threads_that_want_a_module_one_compiles_it() {
    let scratch = Scratch::new();
    let stored = Cache::open(scratch.path(), identity()).unwrap().with_patience(Duration::MAX);
    for cache in [patient(), stored] {
        let (compiled, ready) = (AtomicU32::new(0), Barrier::new(64));
        let modules: Vec<_> = thread::scope(|scope| {
            let wants = || {
                ready.wait();
                get(&cache, 1, || {
                    compiled.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(200));
                })
            };
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(wants)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(compiled.into_inner(), 1);
        assert!(modules.iter().all(|module| Arc::ptr_eq(module, &modules[0])));
        let statistics = cache.statistics();
        assert_eq!((statistics.misses, statistics.memory_hits), (1, 63));
    }
}

#[test]
fn compilers_of_two_caches_that_want_each_others_modules_do_not_wait_for_each_other() {
    let (caches, ready) = ([patient(), patient()], Barrier::new(2));
    thread::scope(|scope| {
        for (mine, others) in [(&caches[0], &caches[1]), (&caches[1], &caches[0])] {
            let ready = &ready;
            scope.spawn(move || {
                get(mine, 1, || {
                    ready.wait();
                    drop(get(others, 1, || ()));
                })
            });
        }
    });
}

#[test]
fn if_a_compiler_fails_or_panics_the_next_one_tries() {
    let (cache, compiled, ready) = (patient(), AtomicU32::new(0), Barrier::new(8));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let wants = || {
            ready.wait();
            let get = || {
                cache.get_or_compile(&key(1), |entry| {
                    let nth = compiled.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(50));
                    assert!(nth != 1, "the compiler panics");
                    *entry = machine::builder(1);
                    if nth == 0 { Err(Error::UnsupportedMachine) } else { Ok(()) }
                })
            };
            catch_unwind(AssertUnwindSafe(get))
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(wants)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(compiled.into_inner(), 3);
    let panicked = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let failed = outcomes.iter().flatten().filter(|outcome| outcome.is_err()).count();
    assert_eq!((outcomes.len(), panicked, failed), (8, 1, 1));
}

#[test]
fn a_compiler_may_want_another_module_and_even_its_own() {
    let (cache, mut inner) = (patient(), None);
    let outer = get(&cache, 1, || {
        get(&cache, 2, || {});
        inner = Some(get(&cache, 1, || {}));
    });
    assert!(Arc::ptr_eq(&outer, &inner.unwrap()), "the first one is the one");
    assert_eq!(cache.statistics().misses, 3);
}

#[test]
fn compilers_that_want_each_others_modules_do_not_wait_for_each_other() {
    for count in [2, 3, 5] {
        let (cache, compiled, all_compile) = (patient(), AtomicU32::new(0), Barrier::new(count.into()));
        thread::scope(|scope| {
            for n in 0..count {
                let (cache, compiled, all_compile) = (&cache, &compiled, &all_compile);
                scope.spawn(move || {
                    get(cache, n, || {
                        all_compile.wait();
                        get(cache, (n + 1) % count, || _ = compiled.fetch_add(1, Ordering::Relaxed));
                    })
                });
            }
        });
        // Whoever is the last to ask would close the circle.
        assert!(compiled.into_inner() >= 1, "{count}");
    }
}

#[test]
fn whoever_has_waited_long_enough_compiles() {
    let (cache, compiled) = (Cache::in_memory(identity()).with_patience(Duration::from_millis(20)), AtomicU32::new(0));
    let ((starts, started), (release, released)) = (channel(), channel::<()>());
    thread::scope(|scope| {
        let cache = &cache;
        let slow = scope.spawn(move || {
            get(cache, 1, || {
                starts.send(()).unwrap();
                released.recv().unwrap();
            })
        });
        started.recv().unwrap();
        let modules: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| get(cache, 1, || _ = compiled.fetch_add(1, Ordering::Relaxed))))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(compiled.into_inner() >= 1);
        release.send(()).unwrap();
        let slow = slow.join().unwrap();
        assert!(modules.iter().all(|module| Arc::ptr_eq(module, &slow)));
    });
}

#[test]
fn without_patience_nobody_waits() {
    let (cache, both_compile) = (Cache::in_memory(identity()).with_patience(Duration::ZERO), Barrier::new(2));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| get(&cache, 1, || _ = both_compile.wait()));
        }
    });
    assert_eq!(cache.statistics().misses, 2);
}

#[test]
fn of_two_caches_over_a_directory_one_waits_for_the_other() {
    let scratch = Scratch::new();
    let caches = [0, 1].map(|_| Cache::open(scratch.path(), identity()).unwrap().with_patience(Duration::MAX));
    if !cfg!(unix) {
        return;
    }
    let (compiled, ready) = (AtomicU32::new(0), Barrier::new(2));
    thread::scope(|scope| {
        for cache in &caches {
            scope.spawn(|| {
                ready.wait();
                get(cache, 1, || {
                    compiled.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(50));
                })
            });
        }
    });
    assert_eq!(compiled.into_inner(), 1);
    let statistics = caches.map(|cache| cache.statistics());
    assert_eq!(statistics.map(|each| each.misses).iter().sum::<u64>(), 1);
    assert_eq!(statistics.map(|each| each.hits).iter().sum::<u64>(), 1);
}

#[test]
fn where_nothing_is_published_or_waiting_is_off_caches_do_not_wait_for_each_other() {
    let open = |scratch: &Scratch| Store::open(scratch.path(), identity());
    for (case, store) in
        [open, |scratch: &Scratch| Store::options(identity()).read_only().open(scratch.path())].iter().enumerate()
    {
        let scratch = Scratch::new();
        let caches = [0, 1].map(|_| {
            let cache = Cache::over(store(&scratch).unwrap()).with_patience(Duration::MAX);
            if case == 0 { cache.with_waiting_for_processes(false) } else { cache }
        });
        let both_compile = Barrier::new(2);
        thread::scope(|scope| {
            caches.each_ref().map(|cache| _ = scope.spawn(|| get(cache, 1, || _ = both_compile.wait())))
        });
    }
}

#[test]
fn a_directory_that_vanishes_while_somebody_compiles_has_nobody_wait() {
    let scratch = Scratch::new();
    let caches = [0, 1].map(|_| Cache::open(scratch.path(), identity()).unwrap().with_patience(Duration::MAX));
    let [first, second] = &caches;
    get(first, 1, || {
        std::fs::remove_dir_all(first.store().unwrap().directory()).unwrap();
        thread::scope(|scope| _ = scope.spawn(|| get(second, 1, || {})));
    });
    assert_eq!(first.statistics().failures + second.statistics().failures, 0);
}

#[test]
fn caches_whose_puts_have_failed_do_not_wait_for_each_other() {
    let scratch = Scratch::new();
    let caches = [0, 1].map(|_| Cache::open(scratch.path(), identity()).unwrap().with_patience(Duration::MAX));
    for n in [1, 2] {
        std::fs::create_dir(caches[0].store().unwrap().path(&key(n))).unwrap();
    }
    caches.iter().for_each(|cache| drop(get(cache, 1, || {})));
    let both_compile = Barrier::new(2);
    thread::scope(|scope| caches.each_ref().map(|cache| _ = scope.spawn(|| get(cache, 2, || _ = both_compile.wait()))));
    assert_eq!(caches.map(|cache| cache.statistics().failures), [2, 2]);
}

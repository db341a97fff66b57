//! Write-behind: what was compiled waits until it is flushed, and is then in the store as if it had not waited.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use jitcache::{Builder, Cache, Error, Event, Identity, Key, Lookup};

use crate::machine;
use crate::scratch::Scratch;

fn identity() -> Identity {
    Identity::new("behind", *b"BEHIND", "1").unwrap()
}

fn key(n: u16) -> Key {
    Key::of(&identity()).source(&n.to_le_bytes()).finish()
}

fn open(scratch: &Scratch, most: u64) -> Cache {
    Cache::open(scratch.path(), identity()).unwrap().with_write_behind(most)
}

/// Returns what the module of a key computes.
fn get(cache: &Cache, n: u16) -> i32 {
    let module = cache.get_or_compile(&key(n), |entry| {
        *entry = machine::builder(n);
        Ok::<(), Error>(())
    });
    machine::next(&module.unwrap())
}

/// How many entries are in the store, all of which must be sound.
fn stored(cache: &Cache) -> usize {
    let store = cache.store().unwrap();
    let keys = store.list().unwrap().map(|key| store.verify(&key.unwrap()).unwrap());
    keys.inspect(|found| assert!(matches!(found, Lookup::Hit(())), "{found:?}")).count()
}

#[test]
fn what_waits_is_stored_by_a_flush_and_by_whatever_drops_the_cache() {
    let scratch = Scratch::new();
    let cache = open(&scratch, 1 << 20);
    assert_eq!([1, 2, 3].map(|n| get(&cache, n)), [2, 3, 4]);
    assert_eq!((stored(&cache), cache.statistics().stored), (0, 0));
    assert_eq!((cache.flush(), cache.flush()), (3, 0));
    assert_eq!((stored(&cache), cache.statistics().stored), (3, 3));
    get(&cache, 4);
    drop(cache);
    let next = open(&scratch, 0);
    assert_eq!([1, 2, 3, 4].map(|n| get(&next, n)), [2, 3, 4, 5]);
    assert_eq!((next.statistics().hits, next.flush()), (4, 0));
}

#[test]
fn what_is_too_much_to_wait_is_stored_at_once() {
    let length = machine::builder(1).finish(&identity(), &key(1)).unwrap().length();
    for (most, at_once) in [(0, 4), (length - 1, 4), (length, 3), (3 * length + 1, 1), (4 * length, 0)] {
        let scratch = Scratch::new();
        let cache = open(&scratch, most);
        (1..5).for_each(|n| assert_eq!(get(&cache, n), i32::from(n) + 1));
        assert_eq!(stored(&cache), at_once, "{most}");
        cache.flush();
        // There is room again for what comes then.
        get(&cache, 5);
        assert_eq!(stored(&cache), if most < length { 5 } else { 4 }, "{most}");
    }
}

#[test]
fn what_is_removed_while_it_waits_does_not_come_back() {
    let scratch = Scratch::new();
    let cache = open(&scratch, 1 << 20);
    get(&cache, 1);
    get(&cache, 2);
    drop(cache.forget(&key(1)));
    assert!(cache.remove(&key(1)).unwrap() && !cache.remove(&key(1)).unwrap());
    assert_eq!((cache.flush(), stored(&cache)), (1, 1));
}

#[test]
fn of_what_waits_under_one_key_the_last_is_stored() {
    let scratch = Scratch::new();
    let cache = open(&scratch, 1 << 20);
    for constant in [7, 8] {
        cache.add(&key(1), &mut machine::builder(constant)).unwrap();
        drop(cache.forget(&key(1)));
    }
    assert_eq!(cache.flush(), 2);
    assert_eq!(machine::next(&cache.get(&key(1)).hit().unwrap()), 9);
}

#[test]
fn what_is_too_much_to_wait_is_not_replaced_by_an_older_one_that_does() {
    let scratch = Scratch::new();
    let length = machine::builder(1).finish(&identity(), &key(1)).unwrap().length();
    let cache = open(&scratch, length);
    for constant in [7, 8] {
        cache.add(&key(1), &mut machine::builder(constant)).unwrap();
        drop(cache.forget(&key(1)));
    }
    assert_eq!(cache.flush(), 0);
    assert_eq!(machine::next(&cache.get(&key(1)).hit().unwrap()), 9);
}

#[test]
fn who_writes_behind_does_not_wait_for_other_processes() {
    let scratch = Scratch::new();
    let (one, other) = (open(&scratch, 0), open(&scratch, 1 << 20).with_waiting_for_processes(true));
    let module = one.get_or_compile(&key(1), |entry| {
        // Another thread, as one that compiles waits for nobody.
        thread::scope(|scope| assert_eq!(scope.spawn(|| get(&other, 1)).join().unwrap(), 2));
        *entry = machine::builder(1);
        Ok::<(), Error>(())
    });
    drop(module.unwrap());
    assert_eq!(other.statistics().waits, 0);
}

#[test]
fn threads_compile_flush_and_remove_at_once_and_nothing_is_lost_or_comes_back() {
    const UNITS: u16 = 400;
    let scratch = Scratch::new();
    let cache = &open(&scratch, 1 << 14);
    let (is_over, flushed) = (&AtomicBool::new(false), &AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    flushed.fetch_add(cache.flush(), Ordering::Relaxed);
                    thread::yield_now();
                }
            });
        }
        let compilers: Vec<_> = (0..4_u16)
            .map(|thread| {
                scope.spawn(move || {
                    for n in (thread..UNITS).step_by(4) {
                        assert_eq!(get(cache, n), i32::from(n) + 1);
                        if n % 8 == 0 {
                            assert!(cache.remove(&key(n)).unwrap());
                            assert!(!cache.store().unwrap().path(&key(n)).exists(), "{n}");
                        }
                    }
                })
            })
            .collect();
        compilers.into_iter().for_each(|compiler| compiler.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
    });
    cache.flush();
    assert!(flushed.load(Ordering::Relaxed) > 0, "nothing waited");
    let keys: Vec<_> = (0..UNITS).filter(|n| n % 8 != 0).map(key).collect();
    assert_eq!(stored(cache), keys.len());
    assert!(keys.iter().all(|key| cache.store().unwrap().path(key).exists()));
}

#[test]
fn what_cannot_be_stored_is_told_and_what_comes_after_waits_until_the_store_answers() {
    let scratch = Scratch::new();
    let told: Arc<Mutex<Vec<&str>>> = Arc::default();
    let noted = Arc::clone(&told);
    let cache = open(&scratch, 1 << 20).on_event(move |_, event| {
        noted.lock().unwrap().push(match event {
            Event::Unwritten(_) => "unwritten",
            Event::LeftAlone(_) => "left alone",
            Event::Stored { .. } => "stored",
            _ => return,
        });
    });
    (0..12).for_each(|n| assert_eq!(get(&cache, n), i32::from(n) + 1));
    let directory = cache.store().unwrap().directory().to_owned();
    fs::rename(&directory, directory.with_extension("aside")).unwrap();
    fs::write(&directory, "no directory").unwrap();
    assert_eq!(cache.flush(), 0);
    let mut expected = vec!["unwritten"; 7];
    expected.push("left alone");
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), expected);
    fs::remove_file(&directory).unwrap();
    fs::rename(directory.with_extension("aside"), &directory).unwrap();
    assert_eq!(cache.flush(), 0, "it is left alone for a second");
    assert_eq!(get(&cache, 12), 13);
    thread::sleep(Duration::from_millis(1100));
    assert_eq!((cache.flush(), stored(&cache)), (5, 5));
    assert_eq!(*told.lock().unwrap(), ["stored"; 5]);
}

#[test]
fn a_cache_that_is_dropped_while_its_store_is_left_alone_tries_once_more() {
    let scratch = Scratch::new();
    let cache = open(&scratch, 1 << 20);
    (0..12).for_each(|n| assert_eq!(get(&cache, n), i32::from(n) + 1));
    let directory = cache.store().unwrap().directory().to_owned();
    fs::rename(&directory, directory.with_extension("aside")).unwrap();
    fs::write(&directory, "no directory").unwrap();
    assert_eq!(cache.flush(), 0);
    fs::remove_file(&directory).unwrap();
    drop(cache);
    assert_eq!(stored(&open(&scratch, 0)), 4);
}

#[test]
fn what_no_store_takes_is_told_when_it_is_flushed() {
    let scratch = Scratch::new();
    let told = Arc::new(AtomicU64::new(0));
    let noted = Arc::clone(&told);
    let store = jitcache::Store::open(scratch.path(), identity()).unwrap();
    let store = store.with_access(jitcache::Access::READ.with_limit(4096));
    let cache = Cache::over(store).with_write_behind(1 << 20).on_event(move |_, event| {
        noted.fetch_add(event.is_trouble().into(), Ordering::Relaxed);
    });
    cache.add(&key(1), Builder::new().code(vec![0xcc; 5000]).function(0)).unwrap();
    assert_eq!((told.load(Ordering::Relaxed), cache.flush(), told.load(Ordering::Relaxed)), (0, 0, 1));
}

//! The tally of a directory: all that its caches count, whoever is killed and whatever becomes of the file.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use jitcache::{Cache, Error, Identity, Key, Statistics, Store};

use crate::machine;
use crate::scratch::Scratch;

const LENGTH: usize = 144;

fn identity() -> Identity {
    Identity::new("tally", *b"TALLY\0", "1").unwrap()
}

fn open(root: &Path) -> Cache {
    Cache::open(root, identity()).unwrap().on_event(|key, event| assert!(!event.is_trouble(), "{key}: {event}"))
}

fn get(cache: &Cache, n: u16) {
    let compiled = cache.get_or_compile(&Key::of(&identity()).source(&n.to_le_bytes()).finish(), |entry| {
        *entry = machine::builder(n);
        Ok::<(), Error>(())
    });
    drop(compiled.unwrap());
}

fn tally(root: &Path) -> Statistics {
    Store::options(identity()).read_only().open(root).unwrap().tally().unwrap()
}

fn path(root: &Path) -> PathBuf {
    root.join(identity().directory_name()).join("tmp/tally")
}

/// Not a test: opens a cache over and over, and gets two modules.
#[test]
#[ignore = "run by other tests, in processes of its own"]
fn worker() {
    let (Some(root), Ok(rounds)) = (env::var_os("JITCACHE_TEST_TALLY"), env::var("JITCACHE_TEST_TALLY_ROUNDS")) else {
        return;
    };
    for _ in 0..rounds.parse::<u64>().unwrap() {
        let cache = open(Path::new(&root));
        (0..2).for_each(|n| get(&cache, n));
    }
}

fn start(root: &Path, rounds: u64) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["tally::worker", "--exact", "--ignored"]).env("JITCACHE_TEST_TALLY", root);
    command.env("JITCACHE_TEST_TALLY_ROUNDS", rounds.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn what_all_processes_count_is_added_up() {
    let scratch = Scratch::new();
    let root = scratch.path();
    assert_eq!(tally(root), Statistics::default());
    for starts in 1..4 {
        assert!(start(root, 1).wait().unwrap().success());
        let tally = tally(root);
        assert_eq!((tally.misses, tally.compilations, tally.stored, tally.hits), (2, 2, 2, 2 * (starts - 1)));
        assert!(tally.time_saved().unwrap() == tally.compiling * (starts - 1) as u32 && tally.bytes_stored > 0);
    }
    let cache = open(root);
    get(&cache, 0);
    assert_eq!(tally(root).hits, 4, "a hit writes nothing");
    assert_eq!((cache.tally().unwrap().hits, tally(root).hits), (5, 5));
    get(&cache, 1);
    assert_eq!(cache.statistics().hits, 2);
    drop(cache);
    assert_eq!((tally(root).hits, tally(root).hit_rate()), (6, Some(0.75)));
    assert_eq!(Cache::in_memory(identity()).tally().unwrap(), Statistics::default());
}

#[test]
fn a_cache_that_goes_on_compiling_adds_what_it_counts_before_it_is_dropped() {
    let scratch = Scratch::new();
    let cache = open(scratch.path());
    let compiled = (0..u16::MAX).find(|&n| {
        get(&cache, n);
        thread::sleep(Duration::from_millis(1));
        tally(scratch.path()).compilations > 0
    });
    let tally = tally(scratch.path());
    assert_eq!(tally.compilations, u64::from(compiled.unwrap()) + 1);
    assert_eq!(tally, cache.statistics());
}

/// Where nothing can be locked, those who count at the same time may lose what one of them adds.
#[test]
#[cfg(unix)]
fn caches_that_count_at_the_same_time_lose_nothing_before_they_are_dropped() {
    const ROUNDS: u16 = 40;
    let scratch = Scratch::new();
    let caches = [0, 1, 2, 3].map(|_| open(scratch.path()));
    thread::scope(|scope| {
        for cache in &caches {
            scope.spawn(move || {
                for n in 0..ROUNDS {
                    get(cache, n);
                    assert!(cache.tally().unwrap().misses <= u64::from(ROUNDS));
                }
            });
        }
    });
    let counted = caches.each_ref().map(Cache::statistics);
    caches.into_iter().for_each(drop);
    let sum = |number: fn(&Statistics) -> u64| counted.iter().map(number).sum::<u64>();
    let tally = tally(scratch.path());
    assert_eq!((tally.hits, tally.misses), (sum(|each| each.hits), sum(|each| each.misses)));
    assert_eq!((tally.stored, tally.bytes_loaded), (sum(|each| each.stored), sum(|each| each.bytes_loaded)));
    assert_eq!(counted.iter().map(|each| each.compiling).sum::<Duration>(), tally.compiling);
}

#[test]
#[cfg(unix)]
fn processes_that_are_killed_while_they_count_leave_what_was_counted() {
    let scratch = Scratch::new();
    let root = scratch.path();
    start(root, 1).wait().unwrap();
    let (mut workers, mut hits) = ([start(root, u64::MAX), start(root, u64::MAX)], 0);
    for round in 0..40 {
        let begun = hits;
        while hits < begun + 20 {
            let tally = tally(root);
            assert!(tally.hits >= hits && tally.misses == 2, "{tally:?} after {hits} hits");
            hits = tally.hits;
        }
        let worker = &mut workers[round % 2];
        assert!(worker.try_wait().unwrap().is_none(), "a worker ends only if something is wrong");
        worker.kill().unwrap();
        worker.wait().unwrap();
        *worker = start(root, u64::MAX);
    }
    for mut worker in workers {
        let _ = (worker.kill(), worker.wait());
    }
}

#[test]
fn a_tally_that_is_cut_or_changed_counts_nothing_and_is_begun_anew() {
    let scratch = Scratch::new();
    let root = scratch.path();
    get(&open(root), 1);
    let sound = fs::read(path(root)).unwrap();
    assert_eq!(sound.len(), LENGTH);
    let cuts = (0..LENGTH).map(|length| sound[..length].to_vec());
    let flips = (0..LENGTH).map(|at| {
        let mut flipped = sound.clone();
        flipped[at] ^= 1 << (at % 8);
        flipped
    });
    for bytes in cuts.chain(flips).chain([vec![0; LENGTH], vec![0xff; LENGTH], [&sound[..], &sound[..]].concat()]) {
        fs::write(path(root), &bytes).unwrap();
        assert_eq!(tally(root), Statistics::default());
        get(&open(root), 1);
        assert_eq!((tally(root).hits, tally(root).misses), (1, 0));
    }
    fs::write(path(root), &sound).unwrap();
    get(&open(root), 1);
    assert_eq!((tally(root).hits, tally(root).misses), (1, 1));
}

#[test]
fn what_is_no_file_costs_the_engine_nothing() {
    let scratch = Scratch::new();
    let root = scratch.path();
    get(&open(root), 1);
    fs::remove_file(path(root)).unwrap();
    fs::create_dir(path(root)).unwrap();
    get(&open(root), 1);
    assert_eq!(tally(root), Statistics::default());
    fs::remove_dir(path(root)).unwrap();
    #[cfg(unix)]
    {
        // The link goes, and what it leads to stays.
        fs::write(root.join("elsewhere"), "another's").unwrap();
        std::os::unix::fs::symlink(root.join("elsewhere"), path(root)).unwrap();
        assert_eq!(tally(root), Statistics::default());
        get(&open(root), 1);
        assert_eq!(fs::read(root.join("elsewhere")).unwrap(), b"another's");
    }
    #[cfg(not(unix))]
    get(&open(root), 1);
    assert_eq!(tally(root).hits, 1);
}

#[cfg(unix)]
#[test]
fn a_tally_of_another_user_or_that_anybody_may_write_to_counts_nothing() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use crate::shared::is_root;

    let scratch = Scratch::new();
    let root = scratch.path();
    get(&open(root), 1);
    let owner = fs::metadata(path(root)).unwrap().uid();
    for is_anothers in [false, true] {
        if !is_anothers {
            fs::set_permissions(path(root), fs::Permissions::from_mode(0o666)).unwrap();
        } else if is_root("tally of another user") {
            chown(path(root), Some(54_321), Some(54_321)).unwrap();
        } else {
            return;
        }
        assert_eq!(tally(root), Statistics::default());
        get(&open(root), 1);
        let found = fs::metadata(path(root)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777, tally(root).hits), (owner, 0o600, 1));
    }
}

#[test]
fn a_store_that_only_reads_writes_no_tally_and_one_that_vanished_is_not_made_again() {
    let scratch = Scratch::new();
    let root = scratch.path();
    let reader = || Cache::over(Store::options(identity()).read_only().open(root).unwrap());
    get(&reader(), 1);
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    get(&open(root), 1);
    let before = fs::read(path(root)).unwrap();
    for cache in [reader(), open(root).strict()] {
        get(&cache, 1);
        assert_eq!((cache.tally().unwrap().hits, tally(root).hits), (1, 0));
        drop(cache);
        assert_eq!(fs::read(path(root)).unwrap(), before);
    }
    let cache = open(root);
    get(&cache, 1);
    fs::remove_dir_all(root.join(identity().directory_name())).unwrap();
    drop(cache);
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_removed_with_its_version_takes_its_tally_along() {
    let scratch = Scratch::new();
    let root = scratch.path();
    get(&open(root), 1);
    let store = Store::open(root, Identity::new("tally", *b"TALLY\0", "2").unwrap()).unwrap();
    let directory = root.join(identity().directory_name());
    let remove = || store.remove_version(&store.other_versions().unwrap()[0]).unwrap();
    assert!(path(root).exists());
    // What is not the store's stays, and then the rest with it.
    fs::write(directory.join("tmp/notes"), "another's").unwrap();
    assert_eq!(remove().entries, 1);
    assert!(path(root).exists() && directory.join("tmp/notes").exists());
    fs::rename(directory.join("tmp/notes"), directory.join("notes")).unwrap();
    assert_eq!(remove().entries, 0);
    assert!(path(root).exists());
    fs::remove_file(directory.join("notes")).unwrap();
    assert_eq!(remove().entries, 0);
    assert!(!directory.exists());
}

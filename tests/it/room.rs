//! The budget of a store: held, by removing what is least in use and nothing that is not the engine's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use jitcache::{Builder, Cache, Error, Event, Identity, Key, Lookup, Store};

use crate::scratch::Scratch;

const BUDGET: u64 = 100_000;
/// Nothing that the tests put is longer.
const LONGEST: u64 = 9_000;
const HOUR: Duration = Duration::from_secs(3600);

fn identity(version: &str) -> Identity {
    Identity::new("room", *b"ROOM\0\0", version).unwrap()
}

/// The name of a version's directory.
fn own(version: &str) -> String {
    identity(version).directory_name()
}

fn key(identity: &Identity, n: u64) -> Key {
    Key::of(identity).source(&n.to_le_bytes()).finish()
}

fn code(n: u64) -> Vec<u8> {
    (0..100 + n * 977 % 8000).map(|at| (at * n) as u8).collect()
}

fn open(root: &Path, version: &str) -> Store {
    Store::options(identity(version)).budget(BUDGET).open(root).unwrap()
}

fn put(store: &Store, n: u64) {
    let (identity, mut builder) = (store.identity(), Builder::new());
    builder.code(code(n)).function(0);
    store.put(&key(identity, n), &builder.finish(identity, &key(identity, n)).unwrap()).unwrap();
}

/// Loads an entry, which must be the right one, and returns whether it is there.
fn load(store: &Store, n: u64) -> bool {
    match store.load(&key(store.identity(), n)).unwrap() {
        Lookup::Hit(module) => {
            assert_eq!(module.code(), code(n));
            true
        }
        Lookup::Miss => false,
        other => panic!("{n}: {other:?}"),
    }
}

fn set_time(path: &Path, to: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(to).unwrap();
}

/// The entries under a root by path: their length and when they were used.
fn entries(root: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut entries = BTreeMap::new();
    for directory in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        let is_ours = [own("1"), own("2"), "room-3.1-x-arm64-darwin".to_owned()].map(|name| root.join(name));
        if !is_ours.contains(&directory) {
            continue;
        }
        for entry in fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_str().unwrap();
            let is_entry = name.parse::<Key>().is_ok();
            if let Some(found) = fs::symlink_metadata(&entry).ok().filter(|found| is_entry && found.is_file()) {
                entries.insert(entry, (found.len(), found.modified().unwrap()));
            }
        }
    }
    entries
}

fn bytes(entries: &BTreeMap<PathBuf, (u64, SystemTime)>) -> u64 {
    entries.values().map(|entry| entry.0).sum()
}

/// Makes what is not the engine's, or no entry, and returns what it is: paths with what is read there.
fn strangers(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let hexadecimal = "0123456789abcdef".repeat(4);
    let (one, two) = (own("1"), own("2"));
    for directory in [
        "elsewhere",
        "other-1-amd64-linux",
        "room-1-mips-linux",
        "room-amd64-linux",
        "roomy-1-amd64-linux",
        &format!("{one}/subdirectory"),
        &format!("{one}/tmp"),
        &two,
    ] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let mut strangers = BTreeMap::new();
    for name in [
        "room.txt".to_owned(),
        hexadecimal.clone(),
        format!("elsewhere/{hexadecimal}"),
        format!("other-1-amd64-linux/{hexadecimal}"),
        format!("room-1-mips-linux/{hexadecimal}"),
        format!("room-amd64-linux/{hexadecimal}"),
        format!("roomy-1-amd64-linux/{hexadecimal}"),
        format!("{one}/subdirectory/{hexadecimal}"),
        format!("{one}/{hexadecimal}0"),
        format!("{one}/{}", hexadecimal.to_uppercase()),
        format!("{one}/{}.stats", &hexadecimal[..58]),
        format!("{one}/tmp/README"),
        format!("{two}/README"),
    ] {
        fs::write(root.join(&name), vec![7; 30_000]).unwrap();
        strangers.insert(root.join(name), vec![7; 30_000]);
    }
    #[cfg(unix)]
    for (name, to) in
        [("room-1.2-amd64-linux", &root.join("elsewhere")), (&format!("{one}/{hexadecimal}"), &root.join("room.txt"))]
    {
        std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        assert!(fs::symlink_metadata(root.join(name)).unwrap().is_symlink());
    }
    strangers
}

fn are_untouched(strangers: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, content) in strangers {
        assert!(fs::read(path).is_ok_and(|found| found == *content), "{}", path.display());
    }
}

fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// What a trim may have done between two looks: only if there was too much; other versions first, the least used first;
/// as far as three quarters, and no further.
fn is_rightly_trimmed(
    before: &BTreeMap<PathBuf, (u64, SystemTime)>,
    after: &BTreeMap<PathBuf, (u64, SystemTime)>,
    put: u64,
    own: &Path,
) {
    let gone: Vec<_> = before.iter().filter(|(path, _)| !after.contains_key(*path)).collect();
    if gone.is_empty() {
        return;
    }
    let most = BUDGET - BUDGET / 4;
    assert!(bytes(before) + put > BUDGET, "{} and {put}: nothing had to go", bytes(before));
    assert!(bytes(after) <= most, "{} are left", bytes(after));
    let rank = |path: &Path, used: SystemTime| {
        let is_ahead = used > SystemTime::now() + HOUR;
        (path.starts_with(own), (!is_ahead).then_some(used))
    };
    let last = gone.iter().map(|(path, (_, used))| rank(path, *used)).max().unwrap();
    let length_of_last = gone.iter().filter(|(path, (_, used))| rank(path, *used) == last).map(|entry| entry.1.0).max();
    assert!(bytes(after) + length_of_last.unwrap() > most, "more than needed is gone");
    for (path, (_, used)) in after.iter().filter(|(path, _)| before.contains_key(*path)) {
        assert!(rank(path, *used) >= last, "{} was to go before others", path.display());
    }
}

#[test]
fn the_budget_is_held_by_removing_what_is_least_in_use_whatever_the_clocks_do() {
    let (mut trims, start) = (0, SystemTime::now());
    for seed in 0..6_u64 {
        let (scratch, mut state) = (Scratch::new(), seed);
        let root = scratch.path();
        let strangers = strangers(root);
        // Two processes of one version, and one of another.
        let mut stores = [open(root, "1"), open(root, "1"), open(root, "2")];
        // What a version that is gone has left.
        let left = root.join("room-3.1-x-arm64-darwin");
        fs::create_dir(&left).unwrap();
        for n in 0..5_u64 {
            fs::write(left.join(key(&identity("3.1-x"), n).to_string()), vec![0; 1000]).unwrap();
        }
        for _ in 0..250 {
            let before = entries(root);
            let store = &stores[usize::try_from(random(&mut state, 3)).unwrap()];
            let n = random(&mut state, 120);
            let path = store.path(&key(store.identity(), n));
            match random(&mut state, 10) {
                0..=4 => {
                    put(store, n);
                    let after = entries(root);
                    let put = after[&path].0;
                    let without: BTreeMap<_, _> = before
                        .iter()
                        .filter(|(old, _)| **old != path)
                        .map(|(path, entry)| (path.clone(), *entry))
                        .collect();
                    is_rightly_trimmed(&without, &after, put, store.directory());
                    trims += u32::from(after.len() < before.len());
                }
                5 | 6 => {
                    let was_there = before.contains_key(&path);
                    assert_eq!(load(store, n), was_there);
                    // A hit marks what was not used in the last hour, or is ahead.
                    if let Some((_, used)) = before.get(&path) {
                        let age = start.duration_since(*used).unwrap_or_else(|ahead| ahead.duration());
                        let is_marked = fs::metadata(&path).unwrap().modified().unwrap() != *used;
                        assert_eq!(is_marked, age > HOUR, "{age:?}");
                    }
                }
                // The clock jumps, for a few of the entries.
                7 => {
                    for path in before.keys().filter(|_| random(&mut state, 4) == 0).collect::<Vec<_>>() {
                        let hours = random(&mut state, 2000) as u32 + 2;
                        let ahead = random(&mut state, 3) == 0;
                        set_time(path, if ahead { start + HOUR * hours } else { start - HOUR * hours });
                    }
                }
                8 => drop(store.remove(&key(store.identity(), n)).unwrap()),
                // A process ends, in the middle of a put or not, and another takes its place.
                _ => {
                    let directory = store.directory().join("tmp");
                    fs::create_dir_all(&directory).unwrap();
                    fs::write(directory.join(format!("{n:016x}")), [0; 500]).unwrap();
                    stores[0] = open(root, "1");
                }
            }
            let overshoot = 3 * (BUDGET / 16 + LONGEST);
            assert!(bytes(&entries(root)) <= BUDGET + overshoot, "{}", bytes(&entries(root)));
            are_untouched(&strangers);
        }
    }
    assert!(trims > 20, "{trims}");
}

#[test]
fn other_versions_are_found_and_removed_with_their_directories() {
    let scratch = Scratch::new();
    let root = scratch.path();
    let [one, two] = ["1", "2"].map(|version| open(root, version));
    assert_eq!(two.other_versions().unwrap().len(), 1);
    for n in 0..4 {
        put(&one, n);
    }
    put(&two, 1);
    let strangers = strangers(root);
    let before = entries(root);
    let of_one = || before.iter().filter(|(path, _)| path.starts_with(one.directory()));
    let [other] = &two.other_versions().unwrap()[..] else { panic!() };
    assert_eq!((&*other.directory, other.entries), (one.directory(), 4));
    assert_eq!(
        (other.bytes, other.used),
        (of_one().map(|entry| entry.1.0).sum(), of_one().map(|entry| entry.1.1).max())
    );
    let trimmed = two.remove_version(other).unwrap();
    assert_eq!((trimmed.entries, trimmed.bytes, trimmed.left), (4, other.bytes, 0));
    are_untouched(&strangers);
    assert!(load(&two, 1) && one.directory().is_dir());
    // Without what is not the engine's, the directory goes as well.
    for path in strangers.keys() {
        fs::remove_file(path).unwrap();
    }
    #[cfg(unix)]
    fs::remove_file(one.directory().join("0123456789abcdef".repeat(4))).unwrap();
    fs::remove_dir(one.directory().join("subdirectory")).unwrap();
    two.remove_version(other).unwrap();
    assert!(!one.directory().exists());
    put(&one, 1);
    assert!(load(&one, 1));

    for directory in [two.directory(), root, &root.join("other-1-amd64-linux"), &root.join("elsewhere")] {
        let mut wrong = other.clone();
        wrong.directory = directory.into();
        assert!(matches!(two.remove_version(&wrong), Err(Error::Invalid { .. })), "{}", directory.display());
    }
}

/// Where a file that is mapped keeps its name until it is not, it takes its room for as long.
#[test]
#[cfg(not(windows))]
fn room_is_made_on_demand_and_what_is_loaded_meanwhile_stays_in_use() {
    let scratch = Scratch::new();
    // SAFETY: nobody changes the files of this test in place.
    let access = unsafe { jitcache::Access::in_place() };
    let store = Store::open(scratch.path(), identity("1")).unwrap().with_access(access);
    for n in 0..40 {
        put(&store, n);
        set_time(&store.path(&key(store.identity(), n)), SystemTime::now() - HOUR * (100 - n as u32));
    }
    let loaded = store.load(&key(store.identity(), 0)).unwrap().hit().unwrap();
    set_time(&store.path(&key(store.identity(), 0)), SystemTime::now() - HOUR * 200);
    let before = bytes(&entries(scratch.path()));
    let trimmed = store.trim_to(before / 2).unwrap().unwrap();
    assert_eq!(trimmed.bytes + trimmed.left, before);
    assert_eq!(trimmed.left, bytes(&entries(scratch.path())));
    assert!(trimmed.left <= before / 2 && !load(&store, 0) && load(&store, 39));
    assert_eq!(loaded.code(), code(0));
    assert_eq!(store.trim_to(before).unwrap().unwrap().entries, 0);
    assert_eq!(store.trim_to(0).unwrap().unwrap().left, 0);
    let reader = Store::options(identity("1")).read_only().open(scratch.path()).unwrap();
    assert!(matches!(reader.trim_to(0), Err(Error::ReadOnly { .. })));
}

#[test]
fn what_is_longer_than_what_may_stay_is_not_put_and_nothing_goes_for_it() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "1");
    let most = BUDGET - BUDGET / 4;
    let put_long = |store: &Store, length: u64| {
        let (identity, mut builder) = (store.identity(), Builder::new());
        builder.code(vec![0xcc; usize::try_from(length).unwrap()]).function(0);
        let key = key(identity, 1000 + length);
        store.put(&key, &builder.finish(identity, &key).unwrap())
    };
    (0..4).for_each(|n| put(&store, n));
    let before = entries(scratch.path());
    let refused = put_long(&store, most);
    let is_told = |error: &Error| matches!(error, Error::Unwritable { found, .. } if *found > most);
    assert!(refused.as_ref().is_err_and(is_told), "{refused:?}");
    // What somebody has put who has no budget is the first to go.
    put_long(&Store::open(scratch.path(), identity("1")).unwrap(), BUDGET).unwrap();
    (0..20).for_each(|n| put(&store, n));
    let after = entries(scratch.path());
    assert!(before.keys().all(|path| after.contains_key(path)) && bytes(&after) < BUDGET);
}

#[test]
fn a_batch_holds_the_budget_however_much_it_puts_at_once() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "1");
    let mut batch = store.batch();
    let mut total = 0;
    for n in 0..200 {
        let (identity, mut builder) = (store.identity(), Builder::new());
        builder.code(code(n)).function(0);
        let entry = builder.finish(identity, &key(identity, n)).unwrap();
        total += entry.length();
        batch.put(&key(identity, n), &entry).unwrap();
    }
    let trimmed = batch.finish().unwrap().unwrap();
    let left = bytes(&entries(scratch.path()));
    assert!(total > 4 * BUDGET && left <= BUDGET + BUDGET / 16 + LONGEST, "{left} of {total}");
    assert_eq!(trimmed.bytes + left, total);
}

#[test]
fn a_lock_that_cannot_be_had_and_a_disk_without_room_keep_nobody_from_making_room() {
    let scratch = Scratch::new();
    let store = open(scratch.path(), "1");
    (0..10).for_each(|n| put(&store, n));
    // Whoever may write to the root can take the name of the lock; and no file is made where one is in the way.
    let lock = scratch.path().join("room.lock");
    let _ = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
    fs::remove_dir_all(store.directory().join("tmp")).unwrap();
    fs::write(store.directory().join("tmp"), "in the way").unwrap();
    let trimmed = store.trim_to(20_000).unwrap().unwrap();
    assert!(trimmed.entries > 0 && trimmed.left <= 20_000 && trimmed.left == bytes(&entries(scratch.path())));
}

#[test]
fn processes_that_put_one_small_entry_each_hold_the_budget_together() {
    let (scratch, mut total) = (Scratch::new(), 0);
    for round in 0.. {
        let store = open(scratch.path(), "1");
        let key = key(store.identity(), total);
        store.put(&key, &Builder::new().finish(store.identity(), &key).unwrap()).unwrap();
        total += fs::metadata(store.path(&key)).unwrap().len();
        // That nobody counts in a quarter of the budget has a chance of one in millions.
        assert!(round % 10 > 0 || bytes(&entries(scratch.path())) <= BUDGET + BUDGET / 4);
        if total > 3 * BUDGET {
            break;
        }
    }
}

#[test]
fn a_cache_tells_what_went_out_of_its_store_to_make_room() {
    let scratch = Scratch::new();
    let told = Arc::new(Mutex::new((0, 0)));
    let cache = Cache::over(open(scratch.path(), "1")).on_event({
        let told = Arc::clone(&told);
        move |_, event| {
            if let Event::Trimmed { entries, bytes, .. } = event {
                let mut told = told.lock().unwrap();
                *told = (told.0 + entries, told.1 + bytes);
            }
        }
    });
    for n in 0..60 {
        let compile = |builder: &mut Builder<'_>| {
            builder.code(code(n)).function(0);
            Ok::<(), Error>(())
        };
        cache.get_or_compile(&key(&identity("1"), n), compile).unwrap();
    }
    let (statistics, left) = (cache.statistics(), entries(scratch.path()));
    assert_eq!(*told.lock().unwrap(), (statistics.trimmed, statistics.bytes_trimmed));
    assert_eq!(statistics.trimmed, 60 - u64::try_from(left.len()).unwrap());
    assert_eq!(statistics.bytes_trimmed, statistics.bytes_stored - bytes(&left));
    assert!(statistics.trimmed > 0);
}

#[test]
fn a_store_that_only_reads_marks_nothing_as_used() {
    let scratch = Scratch::new();
    let (store, reader) =
        (open(scratch.path(), "1"), Store::options(identity("1")).read_only().open(scratch.path()).unwrap());
    put(&store, 1);
    let path = store.path(&key(store.identity(), 1));
    let long_ago = SystemTime::UNIX_EPOCH + HOUR;
    set_time(&path, long_ago);
    assert!(load(&reader, 1));
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
    assert!(load(&store, 1));
    if cfg!(unix) {
        assert!(fs::metadata(&path).unwrap().modified().unwrap() > SystemTime::now() - HOUR);
    }
}

/// Not a test: puts and loads until it is killed.
#[test]
#[ignore = "run by another test, in processes of its own"]
fn worker() {
    let Some(root) = env::var_os("JITCACHE_TEST_ROOM") else { return };
    let store = open(Path::new(&root), "1");
    let mut state = u64::from(std::process::id());
    loop {
        let n = random(&mut state, 120);
        if !load(&store, n) {
            put(&store, n);
        }
    }
}

#[test]
fn processes_that_are_killed_while_they_make_room_leave_it_held() {
    let scratch = Scratch::new();
    let strangers = strangers(scratch.path());
    let start = || {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["room::worker", "--exact", "--ignored"]).env("JITCACHE_TEST_ROOM", scratch.path());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let (mut workers, begin) = ([start(), start(), start(), start()], Instant::now());
    let mut most = 0;
    for round in 0.. {
        thread::sleep(Duration::from_millis(40));
        most = most.max(bytes(&entries(scratch.path())));
        are_untouched(&strangers);
        let worker = &mut workers[round % 4];
        assert!(worker.try_wait().unwrap().is_none(), "a worker ends only if something is wrong");
        worker.kill().unwrap();
        worker.wait().unwrap();
        if begin.elapsed() > Duration::from_secs(3) {
            break;
        }
        *worker = start();
    }
    for mut worker in workers {
        let _ = (worker.kill(), worker.wait());
    }
    // All that they want is five times as much. On a busy machine one may wait in vain for another to make room.
    assert!(most > BUDGET / 2 && most <= 2 * BUDGET, "{most}");
    // The lock has died with its holders.
    assert_eq!(open(scratch.path(), "1").trim_to(0).unwrap().unwrap().left, 0);
    are_untouched(&strangers);
}

/// Not a test: prints where the caches of a program are.
#[test]
#[ignore = "run by another test, in processes of its own"]
fn place() {
    println!("place: {:?}", jitcache::default_root("room").map_err(|error| error.name()));
}

#[cfg(target_os = "linux")]
#[test]
fn the_customary_root_is_found_with_and_without_a_home_and_an_xdg_directory() {
    use std::os::unix::process::CommandExt;
    // SAFETY: this changes no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    for (home, xdg, user, expected) in [
        (Some("/home/of"), None, None, "Ok(\"/home/of/.cache/room\")"),
        (Some("/home/of"), Some("/caches"), None, "Ok(\"/caches/room\")"),
        // Those that are relative are to be ignored.
        (Some("/home/of"), Some("caches"), None, "Ok(\"/home/of/.cache/room\")"),
        (Some("/home/of"), Some(""), None, "Ok(\"/home/of/.cache/room\")"),
        (Some("home"), None, None, "Err(\"io\")"),
        (None, Some("/caches"), Some(54_321), "Ok(\"/caches/room\")"),
        // A user whom the system has no name for.
        (None, None, Some(54_321), "Err(\"io\")"),
    ] {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["room::place", "--exact", "--ignored", "--nocapture"]);
        for (name, value) in [("HOME", home), ("XDG_CACHE_HOME", xdg)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        match user {
            Some(_) if !is_root => continue,
            Some(user) => drop(command.gid(user).uid(user)),
            None => {}
        }
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(said.contains(&format!("place: {expected}\n")), "{home:?} {xdg:?} {user:?}: {said}");
    }
    for name in ["", ".", "..", "a/b", "/a", "a/"] {
        assert!(matches!(jitcache::default_root(name), Err(Error::Invalid { .. })), "{name}");
    }
}

#[test]
fn a_root_that_is_made_is_tagged_and_one_that_was_there_is_not() {
    let scratch = Scratch::new();
    let tag = |root: &Path| fs::read(root.join("CACHEDIR.TAG")).unwrap_or_default();
    let root = scratch.path().join("deeper/root");
    for _ in 0..2 {
        drop(open(&root, "1"));
        assert!(tag(&root).starts_with(b"Signature: 8a477f597d28d172789f06886806bc55\n"));
    }
    fs::remove_file(root.join("CACHEDIR.TAG")).unwrap();
    drop((open(&root, "2"), open(scratch.path(), "1")));
    assert_eq!((tag(&root), tag(scratch.path()), tag(root.parent().unwrap())), Default::default());
    let nowhere = scratch.path().join("nowhere");
    drop(Store::options(identity("1")).read_only().open(&nowhere).unwrap());
    assert!(!nowhere.exists());
}

//! The directory: what is published is found, and what is not ours is left alone.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{env, thread};

use jitcache::entry::{CatchClause, Locals};
use jitcache::{
    Access, Arch, Builder, Cache, CpuFeatures, Durability, Entry, Error, FileBytes, Identity, Key, Lookup, MacKey,
    Module, Registry, Revision, Sealing, Store, Verified,
};

use crate::generate::add_try_table;
use crate::machine;
use crate::scratch::Scratch;

/// Of whatever processor: a child may run on the one, and its parent under a tool that has another.
fn identity() -> Identity {
    Identity::new("store", *b"STORE\0", "1").unwrap().with_cpu(CpuFeatures::baseline(Arch::host()))
}

fn key(n: u8) -> Key {
    Key::of(&identity()).source(&[n]).finish()
}

fn constant(store: &Store, key: &Key) -> i32 {
    machine::constant(&store.load(key).unwrap().hit().unwrap())
}

/// Likewise while others put the entry: on Windows a file that is open is moved aside first, and missed until the next has its name.
fn constant_while_it_is_put(store: &Store, key: &Key) -> i32 {
    let mut left = if cfg!(windows) { 10_000 } else { 0 };
    loop {
        match store.load(key).unwrap() {
            Lookup::Miss if left > 0 => thread::sleep(Duration::from_millis(1)),
            found => return machine::constant(&found.hit().unwrap()),
        }
        left -= 1;
    }
}

fn put(store: &Store, key: &Key, constant: u16) {
    store.put(key, &machine::builder(constant).finish(&identity(), key).unwrap()).unwrap();
}

/// What is in the directory and in that of the temporary files, which is not listed itself.
fn names(store: &Store) -> Vec<String> {
    let within = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let temporary = within(&store.directory().join("tmp")).into_iter().map(|name| format!("tmp/{name}"));
    let mut names = within(store.directory());
    names.retain(|name| name != "tmp");
    names.extend(temporary);
    names.sort();
    names
}

/// Writes a file that was last changed so many seconds from now.
fn write_at(path: &Path, seconds: i64) {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    let file = File::create(path).unwrap();
    file.set_modified(if seconds < 0 { now - by } else { now + by }).unwrap();
}

/// Runs an ignored test of this file in a process of its own.
fn process(test: &str, root: &Path, directory: &Path) -> std::process::Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored"]).env("JITCACHE_TEST_ROOT", root).current_dir(directory);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn passes(process: std::process::Child) {
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn what_was_put_is_found_by_another_store_and_is_gone_once_removed() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    assert!(matches!(store.load(&key(1)).unwrap(), Lookup::Miss));
    assert!(matches!(store.get(&key(1)).unwrap(), Lookup::Miss));
    put(&store, &key(1), 7);
    put(&store, &key(2), 8);
    put(&store, &key(2), 9);

    let store = Store::open(scratch.path(), identity()).unwrap();
    assert_eq!((constant(&store, &key(1)), constant(&store, &key(2))), (7, 9));
    let file = store.get(&key(1)).unwrap().hit().unwrap();
    assert_eq!(Entry::parse(&file, &identity()).unwrap().code(), machine::code(7));
    let mut listed = store.list().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let mut expected = vec![key(1), key(2)];
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);

    assert!(store.remove(&key(1)).unwrap());
    assert!(!store.remove(&key(1)).unwrap());
    assert!(matches!(store.load(&key(1)).unwrap(), Lookup::Miss));
    assert_eq!(names(&store), [key(2).to_string()]);
}

#[test]
fn what_is_verified_is_the_entry_with_its_bytes_and_damage_is_found_that_a_get_does_not_look_for() {
    let scratch = Scratch::new();
    for sealing in [Sealing::Plain, Sealing::Checksum, Sealing::Mac(MacKey::new([7; 32]))] {
        let identity = identity().with_sealing(sealing).with_build_id(b"built today").unwrap();
        let sections = *identity.sealing() != Sealing::Plain;
        // SAFETY: nobody changes the files of this test in place while they are mapped.
        for access in [Access::READ, unsafe { Access::map() }, unsafe { Access::in_place() }] {
            for size in [0, 100_000] {
                let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(access);
                assert!(matches!(store.get_verified(&key(9)).unwrap(), Lookup::Miss));
                let mut builder = machine::builder(7);
                add_try_table(&mut builder, None, &[CatchClause { kind: 1, tag: 5 }]);
                (1000..1000 + size).for_each(|n| _ = builder.source(n, n));
                builder.code([machine::code(7), vec![0xcc; 200_000]].concat());
                if sections {
                    builder.section(3, false, b"three").metadata(b"more");
                }
                let entry = builder.finish(&identity, &key(1)).unwrap();
                store.put(&key(1), &entry).unwrap();
                let verified = store.get_verified(&key(1)).unwrap().hit().unwrap();
                // Wherever it is moved.
                let verified = Box::new(verified);
                let found = verified.entry();
                assert_eq!(found, entry);
                assert_eq!((found.to_vec(), found.length()), (entry.to_vec(), entry.length()));
                assert_eq!((found.code_range(), found.padding()), (entry.code_range(), entry.padding()));
                assert_eq!((found.section(3), found.metadata()), (entry.section(3), entry.metadata()));
                found.verify().unwrap();
                assert_eq!((found.key(), found.try_tables().count()), (sections.then_some(key(1)), 1));
                let mut again = Builder::from(&found);
                assert_eq!(again.finish(&identity, &key(1)).unwrap().to_vec(), entry.to_vec());
                let module = Module::load_file(verified.into_file(), &identity, &key(1)).unwrap();
                assert_eq!(machine::constant(&module), 7);
                // A file that is mapped may be one that nobody can replace.
                drop(module);

                let mut damaged = entry.to_vec();
                let at = usize::try_from(entry.code_range().end - 1).unwrap();
                damaged[at] ^= 1;
                store.remove(&key(1)).unwrap();
                fs::write(store.path(&key(1)), damaged).unwrap();
                assert!(matches!(store.get(&key(1)).unwrap(), Lookup::Hit(_)));
                assert!(matches!(store.get_verified(&key(1)).unwrap(), Lookup::Rejected(_)));
                store.remove(&key(1)).unwrap();
            }
        }
    }
}

#[test]
fn what_is_removed_is_out_of_memory_and_store_and_what_is_forgotten_out_of_memory_alone() {
    let scratch = Scratch::new();
    let cache = Cache::open(scratch.path(), identity()).unwrap();
    let add = |cache: &Cache| cache.add(&key(1), &mut machine::builder(7)).unwrap();
    let (module, path) = (add(&cache), cache.store().unwrap().path(&key(1)));
    assert!(Arc::ptr_eq(&cache.forget(&key(1)).unwrap(), &module) && path.exists());
    assert!(cache.get(&key(1)).hit().is_some());
    assert!(cache.remove(&key(1)).unwrap() && !path.exists());
    assert!(matches!(cache.get(&key(1)), Lookup::Miss));
    assert!(!cache.remove(&key(1)).unwrap());
    fs::create_dir(&path).unwrap();
    let module = cache.add_in_memory(&key(1), &mut machine::builder(7)).unwrap();
    assert!(matches!(cache.remove(&key(1)), Err(Error::NotAFile { .. })));
    assert!(cache.locate(module.address_range().start).is_none(), "it is out of memory all the same");
    let cache = Cache::in_memory(identity());
    add(&cache);
    assert!(cache.remove(&key(1)).unwrap() && !cache.remove(&key(1)).unwrap());
}

#[test]
fn types_are_shared_between_threads_and_across_panics() {
    fn is_shared<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    is_shared::<Cache>();
    is_shared::<Store>();
    is_shared::<Module>();
    is_shared::<Verified>();
    is_shared::<FileBytes>();
    is_shared::<Entry<'_>>();
    is_shared::<Builder<'_>>();
    is_shared::<Identity>();
    is_shared::<Key>();
    is_shared::<Access>();
    fn is_sent<T: Send + Sync>() {}
    is_sent::<Registry>();
    is_sent::<Error>();
    is_sent::<Lookup<Module>>();
    is_sent::<jitcache::Result<()>>();
}

#[test]
fn the_layout_is_that_of_wazero() {
    let scratch = Scratch::new();
    let identity = Identity::wazero("v1.9.0").unwrap();
    let store = Store::open(scratch.path(), identity.clone()).unwrap();
    let mut builder = Builder::new();
    builder.code(vec![0xcc; 16]).function(0);
    store.put(&key(1), &builder.finish(&identity, &key(1)).unwrap()).unwrap();
    let path = scratch.path().join(format!("wazero-v1.9.0-{}/{}", identity.target(), key(1)));
    assert_eq!(fs::read(&path).unwrap(), builder.finish(&identity, &key(1)).unwrap().to_vec());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(store.directory()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn stale_and_rejected_entries_are_told_apart_from_hits_and_misses() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    put(&store, &key(1), 7);
    let path = store.path(&key(1));
    let sound = fs::read(&path).unwrap();
    let mut stale = sound.clone();
    stale[7] = b'0';
    fs::write(&path, &stale).unwrap();
    assert!(matches!(store.get(&key(1)).unwrap(), Lookup::Stale(version) if version.as_bytes() == b"0"));
    assert!(matches!(store.load(&key(1)).unwrap(), Lookup::Stale(version) if version.as_bytes() == b"0"));
    let mut damaged = sound.clone();
    damaged[60] ^= 1;
    for (file, name) in
        [(&damaged[..], "checksum"), (&sound[..50], "code"), (b"", "magic"), (b"what is this?", "magic")]
    {
        fs::write(&path, file).unwrap();
        match store.load(&key(1)).unwrap() {
            Lookup::Rejected(error) => assert!(error.to_string().starts_with(name), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(store.load(&key(1)).unwrap(), Lookup::Rejected(Error::NotAFile { .. })));
}

#[test]
fn an_entry_of_another_identity_is_not_put() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    for other in [Identity::new("store", *b"STORE\0", "2"), Identity::new("store", *b"OTHER\0", "1")] {
        let other = other.unwrap();
        let outcome = store.put(&key(1), &machine::builder(1).finish(&other, &key(1)).unwrap());
        assert!(matches!(outcome, Err(Error::Invalid { what: "entry", .. })), "{outcome:?}");
    }
    assert!(names(&store).is_empty());
}

#[test]
fn an_entry_that_readers_of_the_store_would_read_in_another_revision_is_not_put() {
    const REVISIONS: [Revision; 4] = [Revision::SourceMap, Revision::CatchClauses, Revision::Locals, Revision::Unknown];
    for (ours, tables, is_put) in [
        (Revision::SourceMap, 0, [true, false, false, false]),
        (Revision::CatchClauses, 0, [false, true, true, true]),
        (Revision::Locals, 0, [false, true, true, true]),
        (Revision::Unknown, 0, [false, true, true, true]),
        (Revision::CatchClauses, 1, [false, true, false, false]),
        (Revision::Locals, 1, [false, false, true, false]),
    ] {
        let plain = identity().with_sealing(Sealing::Plain);
        let writer = plain.clone().with_revision(ours);
        let mut builder = machine::builder(1);
        let locals = (ours == Revision::Locals).then_some(Locals { count: 1, reuse: false });
        (0..tables).for_each(|_| add_try_table(&mut builder, locals, &[]));
        let entry = builder.finish(&writer, &key(1)).unwrap();
        for (theirs, is_put) in REVISIONS.into_iter().zip(is_put) {
            let scratch = Scratch::new();
            let store = Store::open(scratch.path(), plain.clone().with_revision(theirs)).unwrap();
            match store.put(&key(1), &entry) {
                Ok(()) => {
                    assert!(is_put, "{ours:?} {tables} {theirs:?}");
                    assert!(matches!(store.verify(&key(1)).unwrap(), Lookup::Hit(())));
                    assert_eq!(store.load(&key(1)).unwrap().hit().unwrap().try_tables().count(), tables);
                }
                Err(error) => {
                    let expected = if theirs == Revision::Unknown && tables > 0 { "unwritable" } else { "invalid" };
                    assert_eq!((is_put, error.name()), (false, expected), "{ours:?} {tables} {theirs:?}");
                    assert!(names(&store).is_empty());
                }
            }
        }
    }
}

#[test]
fn temporary_files_are_swept_an_hour_after_the_last_write_and_nothing_else_ever() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    assert_eq!(store.sweep().unwrap(), 0, "there is no such directory yet");
    put(&store, &key(1), 7);
    const DAY: i64 = 24 * 3600;
    let left_over = [("tmp/0123456789abcdef", -3700), ("tmp/1123456789abcdef", -DAY), ("tmp/2123456789abcdef", 3700)];
    let stay = [
        ("tmp/3123456789abcdef", 0),
        ("tmp/4123456789abcdef", -3500),
        ("tmp/5123456789abcdef", 3500),
        ("tmp/0123456789ABCDEF", -DAY),
        ("tmp/0123456789abcdef0", -DAY),
        ("tmp/0123456789abcde", -DAY),
        ("tmp/notes.txt", -DAY),
        (&format!("{}.1234567890.tmp", key(2)), -DAY), // wazero's
        ("0123456789abcdef", -DAY),
        ("notes.txt", -DAY),
    ];
    // Where names that differ in case are one, that would be one of the others.
    let stay = stay.iter().filter(|(name, _)| !cfg!(windows) || !name.ends_with('F'));
    for (name, seconds) in left_over.iter().chain(stay.clone()) {
        write_at(&store.directory().join(name), *seconds);
    }
    assert_eq!(store.sweep().unwrap(), left_over.len());
    let mut expected: Vec<_> = stay.map(|(name, _)| (*name).to_owned()).chain([key(1).to_string()]).collect();
    expected.sort();
    assert_eq!(names(&store), expected);
    assert_eq!(store.list().unwrap().count(), 1);

    write_at(&store.directory().join(left_over[0].0), left_over[0].1);
    put(&store, &key(1), 7);
    assert!(names(&store).contains(&left_over[0].0.to_owned()), "only the first put of a store sweeps");
    put(&Store::open(scratch.path(), identity()).unwrap(), &key(1), 7);
    assert_eq!(names(&store), expected, "the first put of a store sweeps");
}

#[test]
fn what_stands_where_the_temporary_files_belong_is_left_alone() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    let temporaries = store.directory().join("tmp");
    fs::write(&temporaries, "a file").unwrap();
    let outcome = store.put(&key(1), &machine::builder(1).finish(&identity(), &key(1)).unwrap());
    assert!(matches!(outcome, Err(Error::Io { action: "create", .. })), "{outcome:?}");
    let is_no_directory =
        |outcome| matches!(outcome, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotADirectory);
    assert!(is_no_directory(store.sweep()));
    assert_eq!(fs::read(&temporaries).unwrap(), b"a file");
    #[cfg(unix)]
    {
        let elsewhere = scratch.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        write_at(&elsewhere.join("0123456789abcdef"), -7200);
        fs::remove_file(&temporaries).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &temporaries).unwrap();
        assert!(is_no_directory(store.sweep()));
        put(&store, &key(1), 7);
        assert!(elsewhere.join("0123456789abcdef").exists());
        assert_eq!(constant(&store, &key(1)), 7);
    }
}

#[test]
fn a_put_that_fails_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    let path = store.path(&key(1));
    fs::create_dir(&path).unwrap();
    let outcome = store.put(&key(1), &machine::builder(1).finish(&identity(), &key(1)).unwrap());
    assert!(matches!(outcome, Err(Error::Io { action: "rename", .. })), "{outcome:?}");
    assert_eq!(names(&store), [key(1).to_string()]);
}

#[test]
fn a_directory_that_vanishes_is_made_again_by_the_next_put() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path().join("cache"), identity()).unwrap();
    put(&store, &key(1), 7);
    for vanishes in [scratch.path().join("cache"), store.directory().into(), store.directory().join("tmp")] {
        fs::remove_dir_all(vanishes).unwrap();
        put(&store, &key(2), 8);
        assert_eq!(constant(&store, &key(2)), 8);
    }
    fs::remove_dir_all(store.directory()).unwrap();
    assert!(matches!(store.load(&key(2)).unwrap(), Lookup::Miss));
    assert!(store.list().is_err());
    assert_eq!(store.sweep().unwrap(), 0);
    assert!(!store.directory().exists(), "only a put makes it");
}

/// Not a test: what the next one runs in another process.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn wanderer() {
    let Some(elsewhere) = env::var_os("JITCACHE_TEST_ROOT") else { return };
    let (store, here) = (Store::open("cache", identity()).unwrap(), Store::open("", identity()).unwrap());
    assert!(store.directory().is_absolute() && here.directory().is_absolute());
    env::set_current_dir(elsewhere).unwrap();
    put(&store, &key(1), 7);
    put(&here, &key(1), 8);
    assert_eq!((constant(&store, &key(1)), constant(&here, &key(1))), (7, 8));
}

#[test]
fn a_relative_root_is_that_of_the_directory_in_which_the_store_was_opened() {
    let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
    passes(process("store::wanderer", elsewhere.path(), scratch.path()));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    let (store, here) = ("cache", "");
    for (root, expected) in [(store, 7), (here, 8)] {
        let store = Store::open(scratch.path().join(root), identity()).unwrap();
        assert_eq!(constant(&store, &key(1)), expected);
    }
}

#[test]
#[cfg(unix)]
fn a_link_in_the_root_leads_nowhere_else_once_the_store_is_open() {
    let scratch = Scratch::new();
    let [link, here, elsewhere] = ["link", "here", "elsewhere"].map(|name| scratch.path().join(name));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&here, &link).unwrap();
    let store = Store::open(link.join("root"), identity()).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    store.put(&key(1), &machine::builder(7).finish(&identity(), &key(1)).unwrap()).unwrap();
    assert_eq!(constant(&store, &key(1)), 7);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(store.directory().starts_with(fs::canonicalize(&here).unwrap()));
}

#[test]
fn an_entry_that_is_only_too_long_for_one_reader_stays_for_the_others() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    store.put(&key(1), &machine::builder(7).finish(&identity(), &key(1)).unwrap()).unwrap();
    let short = Store::open(scratch.path(), identity()).unwrap().with_access(jitcache::Access::READ.with_limit(10));
    let cache = jitcache::Cache::over(short);
    assert!(matches!(cache.get(&key(1)), Lookup::Rejected(_)) && matches!(cache.verify(&key(1)), Lookup::Rejected(_)));
    assert_eq!(constant(&store, &key(1)), 7);
}

#[test]
#[cfg(unix)]
fn a_put_takes_the_place_of_what_is_no_regular_file_which_nobody_else_removes() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    let cache = jitcache::Cache::open(scratch.path(), identity()).unwrap();
    let (path, other) = (store.path(&key(1)), scratch.path().join("another's"));
    fs::write(&other, "precious").unwrap();
    for what in ["link", "dangling link", "pipe", "directory"] {
        match what {
            "link" => std::os::unix::fs::symlink(&other, &path).unwrap(),
            "dangling link" => std::os::unix::fs::symlink("/nowhere at all", &path).unwrap(),
            "pipe" => {
                let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
                // SAFETY: the path is a string that ends with a zero.
                assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
            }
            _ => fs::create_dir(&path).unwrap(),
        }
        let rejected = |found: Lookup<()>| matches!(found, Lookup::Rejected(Error::NotAFile { .. }));
        assert!(rejected(cache.verify(&key(1))), "{what}");
        assert!(matches!(cache.get(&key(1)), Lookup::Rejected(Error::NotAFile { .. })), "{what}");
        assert!(matches!(store.remove(&key(1)), Err(Error::NotAFile { .. })), "{what}");
        assert!(fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()), "{what}");
        if what != "directory" {
            put(&store, &key(1), 7);
            assert_eq!(constant(&store, &key(1)), 7, "{what}");
            assert!(store.remove(&key(1)).unwrap());
        }
    }
    assert_eq!(fs::read(&other).unwrap(), b"precious");
    assert_eq!(cache.statistics().failures, 0);
}

#[test]
fn threads_that_put_sweep_and_load_the_same_keys_see_whole_entries() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    thread::scope(|scope| {
        for thread in 0..4_u16 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..25_u16 {
                    let n = (round % 5) as u8;
                    put(store, &key(n), u16::from(n) * 100 + thread);
                    store.sweep().unwrap();
                    let found = constant_while_it_is_put(store, &key(n));
                    assert_eq!(found / 100, i32::from(n));
                }
            });
        }
    });
    assert_eq!(names(&store).len(), 5);
}

/// Not a test: what the next one runs in other processes.
#[test]
#[ignore = "run by another test, in processes of its own"]
fn writer() {
    let Some(root) = env::var_os("JITCACHE_TEST_ROOT") else { return };
    let store = Store::open(root, identity()).unwrap();
    for round in 0..30_u16 {
        let n = (round % 3) as u8;
        put(&store, &key(n), u16::from(n) * 100 + round);
        assert_eq!(constant_while_it_is_put(&store, &key(n)) / 100, i32::from(n));
    }
}

#[test]
fn processes_that_share_a_directory_see_whole_entries() {
    let scratch = Scratch::new();
    let writers: Vec<_> = (0..4).map(|_| process("store::writer", scratch.path(), scratch.path())).collect();
    writers.into_iter().for_each(passes);
    let store = Store::open(scratch.path(), identity()).unwrap();
    assert_eq!(names(&store).len(), 3);
}

#[test]
fn a_batch_is_published_when_it_is_finished_and_leaves_nothing_if_it_is_not() {
    for durability in [Durability::Lazy, Durability::Synced] {
        let scratch = Scratch::new();
        let store = Store::options(identity()).durability(durability).open(scratch.path()).unwrap();
        let put = |batch: &mut jitcache::Batch<'_>, n: u8, constant| {
            batch.put(&key(n), &machine::builder(constant).finish(&identity(), &key(n)).unwrap()).unwrap();
        };
        let temporaries = || std::fs::read_dir(store.directory().join("tmp")).unwrap().count();
        let mut batch = store.batch();
        for n in 1..100 {
            put(&mut batch, n, n.into());
        }
        put(&mut batch, 1, 200);
        assert_eq!((store.list().unwrap().count(), temporaries()), (0, 100));
        batch.finish().unwrap();
        assert_eq!((store.list().unwrap().count(), temporaries()), (99, 0));
        for n in 1..100 {
            let module = store.load(&key(n)).unwrap().hit().unwrap();
            assert_eq!(machine::constant(&module), if n == 1 { 200 } else { n.into() });
        }
        let mut batch = store.batch();
        put(&mut batch, 100, 1);
        let refused = batch.put(&key(101), &machine::builder(1).finish(&identity(), &key(102)).unwrap());
        assert!(matches!(refused, Err(Error::Key { .. })));
        drop(batch);
        assert_eq!((store.list().unwrap().count(), temporaries()), (99, 0));
        store.batch().finish().unwrap();
    }
}

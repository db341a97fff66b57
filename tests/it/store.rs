//! The directory: what is published is found, and what is not ours is left alone.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::{env, thread};

use jitcache::{Builder, Entry, Error, Identity, Key, Locals, Lookup, Revision, Sealing, Store};

use crate::generate::add_try_table;
use crate::machine;
use crate::scratch::Scratch;

fn identity() -> Identity {
    Identity::new("store", *b"STORE\0", "1").unwrap()
}

fn key(n: u8) -> Key {
    Key::of(&identity()).source(&[n]).finish()
}

fn constant(store: &Store, key: &Key) -> i32 {
    machine::constant(&store.load(key).unwrap().hit().unwrap())
}

fn put(store: &Store, key: &Key, constant: u16) {
    store.put(key, &machine::builder(constant).finish(&identity(), key).unwrap()).unwrap();
}

fn names(store: &Store) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(store.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
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
fn the_temporary_files_of_dead_writers_are_swept_and_nothing_else() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    put(&store, &key(1), 7);
    let dead = format!("{}.0123456789abcdef.tmp", key(2));
    let alive = format!("{}.fedcba9876543210.tmp", key(2));
    let foreign = [
        format!("{}.1234567890.tmp", key(2)), // wazero's
        format!("{}.0123456789ABCDEF.tmp", key(2)),
        format!("{}.0123456789abcdef.tmp.tmp", key(2)),
        format!("{}.0123456789abcdef", key(2)),
        "0123.0123456789abcdef.tmp".to_owned(),
        "notes.txt".to_owned(),
    ];
    for name in foreign.iter().chain([&dead, &alive]) {
        fs::write(store.directory().join(name), "?").unwrap();
    }
    let lock = File::open(store.directory().join(&alive)).unwrap();
    lock.lock().unwrap();

    assert_eq!(store.sweep().unwrap(), 1);
    let mut expected: Vec<_> = foreign.iter().cloned().chain([key(1).to_string(), alive.clone()]).collect();
    expected.sort();
    assert_eq!(names(&store), expected);
    assert_eq!(store.list().unwrap().count(), 1);

    drop(lock);
    put(&Store::open(scratch.path(), identity()).unwrap(), &key(3), 1);
    assert!(!names(&store).contains(&alive), "the first put of a store sweeps");
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

    fs::remove_dir_all(store.directory()).unwrap();
    let outcome = store.put(&key(1), &machine::builder(1).finish(&identity(), &key(1)).unwrap());
    assert!(matches!(outcome, Err(Error::Io { action: "create", .. })), "{outcome:?}");
    assert!(matches!(store.load(&key(1)).unwrap(), Lookup::Miss));
    assert!(store.list().is_err());
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
                    let found = constant(store, &key(n));
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
        assert_eq!(constant(&store, &key(n)) / 100, i32::from(n));
    }
}

#[test]
fn processes_that_share_a_directory_see_whole_entries() {
    let scratch = Scratch::new();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            Command::new(env::current_exe().unwrap())
                .args(["store::writer", "--exact", "--ignored"])
                .env("JITCACHE_TEST_ROOT", scratch.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
    let store = Store::open(scratch.path(), identity()).unwrap();
    assert_eq!(names(&store).len(), 3);
}

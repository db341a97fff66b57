//! A large source map that stays in its file until it is needed.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::thread;

use jitcache::error::Field;
use jitcache::{Access, Builder, Entry, Error, FileBytes, Identity, Lookup, MacKey, Module, Sealing, Store};

use crate::machine::{self, KEY};
use crate::scratch::Scratch;

/// The longest source map that is read with its file.
const MOST: u64 = 65_536;

/// Code behind that of the functions, in bytes: so much that it is most of a file.
const MORE: usize = 2_500_000;

/// Returns an empty store for each kind of seal, and the directory in which it is.
fn stores() -> impl Iterator<Item = (Scratch, Store)> {
    [Sealing::Plain, Sealing::Checksum, Sealing::Mac(MacKey::new([3; 32]))].into_iter().map(|sealing| {
        let identity = Identity::new("left", *b"LEFT\0\0", "1").unwrap().with_sealing(sealing);
        let scratch = Scratch::new();
        let store = Store::open(scratch.path(), identity).unwrap();
        (scratch, store)
    })
}

/// Publishes code of which each of the first `rows` bytes has a row of its own, and what seals can hold behind them.
fn put(store: &Store, rows: u64) {
    let mut builder = Builder::new();
    builder.code([machine::code(7), vec![0xcc; MORE]].concat());
    for offset in machine::FUNCTIONS {
        builder.function(offset);
    }
    for code in 0..rows {
        builder.source(code, code * 3);
    }
    if *store.identity().sealing() != Sealing::Plain {
        builder.metadata(b"behind");
    }
    store.put(&KEY, &builder.finish(store.identity(), &KEY).unwrap()).unwrap();
}

fn load(store: &Store) -> Module {
    match store.load(&KEY).unwrap() {
        Lookup::Hit(module) => module,
        other => panic!("{other:?}"),
    }
}

/// Returns whether the file is open: to be asked while no other test opens it.
#[cfg(target_os = "linux")]
fn is_open(path: &std::path::Path) -> bool {
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    open.into_iter().any(|file| file == path)
}

fn source(module: &Module, code: usize) -> Option<u64> {
    module.locate_instruction(module.address_range().start + code).unwrap().source
}

fn unchecked() -> Access {
    // SAFETY: only files that are read are changed here.
    unsafe { Access::in_place_unchecked() }
}

#[test]
#[cfg(target_os = "linux")]
fn a_large_source_map_is_left_in_its_file_which_stays_open_and_nothing_else_is() {
    for (scratch, store) in stores() {
        // SAFETY: nobody changes the file while the module lives.
        let map = unsafe { Access::map() };
        // SAFETY: the same.
        let in_place = unsafe { Access::in_place() };
        for (rows, access, is_left) in [
            (MOST, Access::READ, false),
            (MOST + 1, Access::READ, true),
            (MOST + 1, map, false),
            (MOST + 1, in_place, false),
            (MOST, unchecked(), false),
            (MOST + 1, unchecked(), true),
        ] {
            put(&store, rows);
            let identity = store.identity().clone();
            let store = Store::open(scratch.path(), identity).unwrap().with_access(access);
            let module = load(&store);
            assert_eq!(is_open(&store.path(&KEY)), is_left, "{rows}");
            assert_eq!(machine::next(&module), 8);
            assert_eq!(module.code().len(), machine::code(7).len() + MORE);
            let metadata = (*store.identity().sealing() != Sealing::Plain).then_some(&b"behind"[..]);
            assert_eq!(module.metadata(), metadata);
            let last = usize::try_from(rows).unwrap() - 1;
            assert_eq!((source(&module, 0), source(&module, last)), (Some(0), Some(rows * 3 - 3)));
            assert_eq!(module.source_map().unwrap().len(), last + 1);
            module.check_source_map().unwrap();
            assert!(!is_open(&store.path(&KEY)), "what was read stays open");
            drop(module);
            assert!(!is_open(&store.path(&KEY)));
        }
    }
}

#[test]
fn a_source_map_that_was_left_is_that_of_its_module_whatever_becomes_of_the_name() {
    for ((_scratch, store), access) in
        stores().zip([Access::READ, Access::READ, unchecked()]).chain(stores().map(|store| (store, unchecked())))
    {
        let store = store.with_access(access);
        put(&store, 2 * MOST);
        let (removed, replaced, together) = (load(&store), load(&store), load(&store));
        put(&store, MOST);
        assert_eq!(replaced.source_map().unwrap().len(), 131_072);
        store.remove(&KEY).unwrap();
        assert_eq!(source(&removed, 1000), Some(3000));
        thread::scope(|scope| {
            let lookups: Vec<_> = (0..4).map(|_| scope.spawn(|| source(&together, 131_071))).collect();
            lookups.into_iter().for_each(|found| assert_eq!(found.join().unwrap(), Some(393_213)));
        });
    }
}

#[test]
fn a_file_that_is_changed_after_its_load_changes_no_source_position() {
    for (_scratch, store) in stores() {
        put(&store, 2 * MOST);
        let Lookup::Hit(file) = store.get(&KEY).unwrap() else { panic!("it was put") };
        let entry = Entry::parse(&file, store.identity()).unwrap();
        entry.verify().unwrap();
        let rows = entry.code_range().end + 13;
        let (read, late, cut) = (load(&store), load(&store), load(&store));
        assert_eq!(source(&read, 5), Some(15));

        let mut changed = OpenOptions::new().write(true).open(store.path(&KEY)).unwrap();
        changed.seek(SeekFrom::Start(rows + 5 * 16)).unwrap();
        changed.write_all(&[16]).unwrap();
        assert_eq!(source(&read, 5), Some(15), "it was read before");
        match (store.identity().sealing(), late.check_source_map()) {
            // It has nothing to tell by.
            (Sealing::Plain, checked) => {
                checked.unwrap();
                assert_eq!(source(&late, 5), Some(16));
            }
            (Sealing::Checksum, Err(Error::Checksum { field: Field::SourceMap, at, .. })) => {
                assert_eq!((at, source(&late, 5)), (rows, None));
            }
            (Sealing::Mac(_), Err(Error::Forged { .. })) => assert_eq!(source(&late, 5), None),
            (_, other) => panic!("{other:?}"),
        }
        changed.set_len(rows + 16).unwrap();
        assert!(matches!(cut.check_source_map(), Err(Error::Io { action: "read", .. })));
        assert_eq!((source(&cut, 5), cut.source_map()), (None, None));
        assert_eq!(machine::next(&cut), 8);
    }
}

#[test]
fn a_file_that_ends_in_its_source_map_is_rejected_though_nobody_reads_that() {
    for (_scratch, store) in stores() {
        put(&store, 2 * MOST);
        let whole = fs::read(store.path(&KEY)).unwrap();
        let end = Entry::parse(&whole, store.identity()).unwrap().code_range().end;
        for length in [end, end + 12, end + 13, end + 16 * MOST, whole.len() as u64 - 1] {
            File::options().write(true).open(store.path(&KEY)).unwrap().set_len(length).unwrap();
            assert!(matches!(store.load(&KEY).unwrap(), Lookup::Rejected(_)), "{length}");
            fs::write(store.path(&KEY), &whole).unwrap();
        }
        // More rows than the file has, up to numbers that no arithmetic takes.
        for rows in [2 * MOST + 1, u64::MAX / 16, u64::MAX / 16 + 1, u64::MAX] {
            let mut file = whole.clone();
            let at = usize::try_from(end).unwrap() + 5;
            file[at..at + 8].copy_from_slice(&rows.to_le_bytes());
            fs::write(store.path(&KEY), &file).unwrap();
            assert!(matches!(store.load(&KEY).unwrap(), Lookup::Rejected(_)), "{rows}");
        }
    }
}

#[test]
fn code_that_cannot_run_where_a_large_source_map_was_left_has_that_beside_it() {
    let identity = Identity::new("left", *b"LEFT\0\0", "1").unwrap().with_function_alignment(16).unwrap();
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(unchecked());
    // All of a short map is executable, so that it is not kept.
    for more in [100_000, 600_000] {
        let mut builder = Builder::new();
        builder.code([machine::code(7), vec![0xcc; more]].concat());
        for offset in machine::FUNCTIONS {
            builder.function(offset);
        }
        for code in 0..70_000 {
            builder.source(code, code * 3);
        }
        store.put(&KEY, &builder.finish(&identity, &KEY).unwrap()).unwrap();
        let module = load(&store);
        assert!(!module.is_in_place());
        assert_eq!(machine::next(&module), 8);
        assert_eq!(source(&module, 100), Some(300));
    }
}

#[test]
fn whoever_opens_a_file_has_all_of_it() {
    for (_scratch, store) in stores() {
        put(&store, 2 * MOST);
        let whole = fs::read(store.path(&KEY)).unwrap();
        assert!(*FileBytes::open(&store.path(&KEY), Access::READ).unwrap().unwrap() == whole[..]);
        assert!(*store.get(&KEY).unwrap().hit().unwrap() == whole[..]);
    }
}

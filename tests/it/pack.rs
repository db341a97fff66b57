//! Packs and layers: an entry is found whole or not at all, whatever the file is, and bases are asked and never
//! changed.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use jitcache::error::{Bound, Field};
use jitcache::{
    Access, Arch, Base, Builder, Cache, CpuFeatures, Entry, Error, Identity, Key, Linker, Lookup, MacKey, Module, Os,
    Pack, Sealing, Store, Target,
};

use crate::machine;
use crate::naive;
use crate::scratch::Scratch;

/// Of whatever processor: a child may run on the one, and its parent under a tool that has another.
fn identity() -> Identity {
    Identity::new("pack", *b"PACK\0\0", "1").unwrap().with_cpu(CpuFeatures::baseline(Arch::host()))
}

fn key(n: u16) -> Key {
    Key::of(&identity()).source(&n.to_le_bytes()).finish()
}

fn put(store: &Store, n: u16, constant: u16) {
    let entry = &mut machine::builder(constant);
    store.put(&key(n), &entry.finish(store.identity(), &key(n)).unwrap()).unwrap();
}

fn accesses() -> [Access; 4] {
    // SAFETY: a test that changes a file that is mapped replaces it.
    let map = unsafe { Access::map() };
    // SAFETY: as above.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: as above, and all code of a pack is checked.
    let unchecked = unsafe { Access::in_place_unchecked() };
    [Access::READ, map, in_place, unchecked]
}

/// Writes a pack of an identity with the entries 0 to `count`, of which each returns ten times its number.
fn packed(scratch: &Scratch, identity: &Identity, count: u16) -> PathBuf {
    let store = Store::open(scratch.path().join("packed"), identity.clone()).unwrap();
    for n in 0..count {
        put(&store, n, 10 * n);
    }
    let path = scratch.path().join("all.pack");
    assert_eq!(store.write_pack(&path).unwrap(), count.into());
    path
}

fn open(path: &Path, access: Access) -> Pack {
    Pack::open(path, &identity(), access).unwrap().unwrap()
}

/// An entry of a pack, and where it lies.
type Place = ([u8; 32], Range<usize>);

/// Where the parts of a pack lie, as SPEC.md has it: what is in front of the entries, each entry, and the index.
fn places(file: &[u8], identity: &Identity) -> (Range<usize>, Vec<Place>, Range<usize>) {
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let start = 8 + 6 + 1 + identity.version().as_bytes().len() + 4;
    let footer = file.len() - 49;
    let index = footer - 48 * number(footer)..footer;
    let rows = file[index.clone()].chunks(48).map(|row| {
        let at = row.as_ptr().addr() - file.as_ptr().addr();
        (row[..32].try_into().unwrap(), number(at + 32)..number(at + 32).wrapping_add(number(at + 40)))
    });
    let rows = rows.collect();
    (0..start, rows, index)
}

/// Gives a pack the digest that it has to have, under the key that everybody knows.
fn sign(file: &mut [u8]) {
    let (start, _, index) = places(file, &identity());
    let end = file.len();
    let mac = naive::mac(b"pack", &[0; 32], &[&file[start], &file[index.start..end - 32]].concat());
    file[end - 32..].copy_from_slice(&mac);
}

#[test]
fn a_pack_is_laid_out_as_the_specification_has_it() {
    let scratch = Scratch::new();
    let identity = identity().with_target(Target { arch: Arch::Arm64, os: Os::Darwin });
    let path = packed(&scratch, &identity, 5);
    let file = fs::read(&path).unwrap();
    let (start, rows, index) = places(&file, &identity);
    assert_eq!(file[start.clone()], b"JITPACK1PACK\0\0\x011\x02\0\x02\0"[..]);
    let mut end = start.end;
    let mut in_order: Vec<_> = rows.iter().map(|(_, place)| place.clone()).collect();
    in_order.sort_by_key(|place| place.start);
    for place in in_order {
        assert_eq!(place.start, end.next_multiple_of(16));
        assert!(file[end..place.start].iter().all(|byte| *byte == 0));
        end = place.end;
    }
    assert_eq!((index.start, rows.len()), (end, 5));
    assert!(rows.is_sorted_by(|one, other| one.0 < other.0));
    let store = Store::open(scratch.path().join("packed"), identity).unwrap();
    for (key, place) in rows {
        assert_eq!(fs::read(store.path(&Key::from_bytes(key))).unwrap(), file[place]);
    }
    let footer = &file[index.end..];
    assert_eq!(footer[..17], [&5_u64.to_le_bytes()[..], &(file.len() as u64).to_le_bytes(), &[0]].concat());
    let mut signed = file.clone();
    sign(&mut signed);
    assert_eq!(signed, file);
}

#[test]
fn what_is_packed_is_found_by_every_access_and_nothing_else_is() {
    for sealing in [Sealing::Checksum, Sealing::Mac(MacKey::new([7; 32]))] {
        for identity in [identity(), identity().with_function_alignment(16).unwrap()] {
            let identity = identity.with_sealing(sealing.clone());
            for count in [0, 1, 40] {
                let scratch = Scratch::new();
                let path = packed(&scratch, &identity, count);
                for access in accesses() {
                    let pack = Pack::open(&path, &identity, access).unwrap().unwrap();
                    let mut keys: Vec<_> = (0..count).map(key).collect();
                    keys.sort_unstable();
                    assert_eq!(pack.list().collect::<Vec<_>>(), keys);
                    for n in 0..count {
                        let module = pack.load(&key(n)).unwrap().hit().unwrap();
                        assert_eq!(machine::constant(&module), i32::from(10 * n));
                        assert_eq!(module.source_map().unwrap().len(), 4);
                        assert_eq!(pack.get_verified(&key(n)).unwrap().hit().unwrap().entry().key(), Some(key(n)));
                        let file = pack.get(&key(n)).unwrap().hit().unwrap();
                        let module = Module::load_file(file, &identity, &key(n)).unwrap();
                        assert_eq!(machine::constant(&module), i32::from(10 * n));
                    }
                    assert!(matches!(pack.load(&key(count)).unwrap(), Lookup::Miss));
                    assert!(matches!(pack.get_verified(&key(count)).unwrap(), Lookup::Miss));
                }
            }
        }
    }
}

#[test]
fn entries_lie_so_that_code_is_aligned_in_the_pack_as_in_its_own_file() {
    for alignment in [1, 16, 256, 4096] {
        let scratch = Scratch::new();
        let identity = identity().with_alignment_in_file(alignment).unwrap();
        let store = Store::open(scratch.path().join("store"), identity.clone()).unwrap();
        for n in 0..5 {
            let entry = &mut Builder::new();
            let entry = entry.code(vec![0xcc; 100 + usize::from(n)]).function(0);
            store.put(&key(n), &entry.finish(&identity, &key(n)).unwrap()).unwrap();
        }
        let path = scratch.path().join("all.pack");
        store.write_pack(&path).unwrap();
        let (_, rows, _) = places(&fs::read(&path).unwrap(), &identity);
        assert!(rows.iter().all(|(_, place)| (place.start as u64).is_multiple_of(alignment.max(16))), "{alignment}");
        let pack = Pack::open(&path, &identity, Access::READ).unwrap().unwrap();
        assert!((0..5).all(|n| pack.load(&key(n)).unwrap().hit().unwrap().code().len() == 100 + usize::from(n)));
        // Whoever wants more alignment than the writer had is told.
        let stricter = identity.with_alignment_in_file(4096).unwrap();
        let stricter = Pack::open(&path, &stricter, Access::READ);
        let rejected = matches!(stricter, Err(Error::Value { field: Field::EntryOffset, .. }));
        assert_eq!(rejected, alignment < 4096, "{alignment}");
    }
}

#[test]
fn a_pack_holds_what_is_sound_and_takes_the_place_of_another() {
    let scratch = Scratch::new();
    let path = packed(&scratch, &identity(), 4);
    let before = open(&path, Access::READ);
    let store = Store::options(identity()).read_only().open(scratch.path().join("packed")).unwrap();
    let mut damaged = fs::read(store.path(&key(0))).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(store.path(&key(0)), damaged).unwrap();
    fs::copy(store.path(&key(2)), store.path(&key(1))).unwrap();
    fs::write(store.directory().join("other"), "no entry").unwrap();
    assert_eq!(store.write_pack(&path).unwrap(), 2);
    let pack = open(&path, Access::READ);
    let found = |pack: &Pack| [0, 1, 2, 3].map(|n| pack.load(&key(n)).unwrap().hit().is_some());
    assert_eq!((found(&pack), found(&before)), ([false, false, true, true], [true; 4]));
    let names = fs::read_dir(scratch.path()).unwrap().count();
    // What is open and cannot be replaced there lies aside.
    let aside = usize::from(cfg!(windows));
    assert_eq!(names, 2 + aside, "the store and the pack, and nothing of writing it");
}

#[test]
fn whoever_cannot_use_a_pack_is_told_why() {
    let scratch = Scratch::new();
    let path = packed(&scratch, &identity(), 3);
    let error = |identity: &Identity| Pack::open(&path, identity, Access::READ).unwrap_err();
    let named = |magic: &[u8; 6], version: &str| Identity::new("pack", *magic, version).unwrap();
    assert!(matches!(error(&named(b"PACK\0\0", "2")), Error::Stale { at: 15, .. }));
    assert!(matches!(error(&named(b"OTHER\0", "1")), Error::Magic { at: 8, .. }));
    let other = if Arch::host() == Arch::Arm64 { Arch::Amd64 } else { Arch::Arm64 };
    let foreign = identity().with_target(Target { arch: other, os: Os::host() });
    assert!(matches!(error(&foreign), Error::Target { at: 16, .. }));
    let mac = identity().with_sealing(Sealing::Mac(MacKey::new([1; 32])));
    assert!(matches!(error(&mac), Error::Value { field: Field::DigestKind, .. }));
    let plain = identity().with_sealing(Sealing::Plain);
    assert!(matches!(error(&plain), Error::Invalid { .. }));
    let plain = Store::open(scratch.path(), plain).unwrap();
    assert!(matches!(plain.write_pack(scratch.path().join("plain")), Err(Error::Invalid { .. })));
    assert!(!scratch.path().join("plain").exists());

    let entry = Store::open(scratch.path().join("packed"), identity()).unwrap().path(&key(0));
    let short = scratch.path().join("short");
    fs::write(&short, "JIT").unwrap();
    for access in accesses() {
        let open = |path: &Path| Pack::open(path, &identity(), access);
        assert!(open(&scratch.path().join("none")).unwrap().is_none());
        assert!(matches!(open(&entry), Err(Error::NotAPack { at: 0, .. })));
        assert!(matches!(open(&short), Err(Error::Truncated { field: Field::PackMagic, found: 3, .. })));
        assert!(matches!(open(scratch.path()), Err(Error::NotAFile { .. })));
        let limited = Pack::open(&path, &identity(), access.with_limit(100));
        assert!(matches!(limited, Err(Error::Value { field: Field::File, expected: Bound::AtMost(100), .. })));
    }
    let one = identity().with_sealing(Sealing::Mac(MacKey::new([1; 32])));
    let scratch = Scratch::new();
    let path = packed(&scratch, &one, 1);
    let two = one.with_sealing(Sealing::Mac(MacKey::new([2; 32])));
    assert!(matches!(Pack::open(&path, &two, Access::READ), Err(Error::Forged { .. })));
}

#[cfg(unix)]
#[test]
fn a_pack_that_others_can_write_to_is_taken_only_by_those_who_trust_them() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let path = packed(&scratch, &identity(), 1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(Pack::open(&path, &identity(), Access::READ), Err(Error::Untrusted { mode: 0o666, .. })));
    let pack = Pack::open_trusting(&path, &identity(), Access::READ, jitcache::Trust::Anyone).unwrap().unwrap();
    assert!(pack.load(&key(0)).unwrap().hit().is_some());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let Err(Error::Untrusted { path, .. }) = Pack::open(&path, &identity(), Access::READ) else { panic!() };
    assert_eq!(path, fs::canonicalize(scratch.path()).unwrap());
}

/// Opens a pack that somebody has changed, and checks that each key is what it was, or rejected, or missed; returns for
/// how many keys it is what it was, or `None` if the pack does not open.
fn outcome(path: &Path, access: Access, count: u16) -> Option<u16> {
    let pack = match Pack::open(path, &identity(), access) {
        Ok(pack) => pack.unwrap(),
        Err(error) => {
            assert!(error.is_rejection() || error.is_stale(), "{error}");
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let hits = (0..count).map(|n| match pack.load(&key(n)).unwrap() {
        Lookup::Hit(module) => {
            assert_eq!(
                (module.code(), pack.get_verified(&key(n)).unwrap().hit().is_some()),
                (&machine::code(10 * n)[..], true)
            );
            1
        }
        Lookup::Miss | Lookup::Stale(_) | Lookup::Rejected(_) => 0,
        other => panic!("{other:?}"),
    });
    Some(hits.sum())
}

#[test]
fn a_flip_of_any_byte_is_found_by_the_pack_or_by_the_entry_or_is_in_the_padding() {
    let scratch = Scratch::new();
    let path = packed(&scratch, &identity(), 3);
    let file = fs::read(&path).unwrap();
    let (start, rows, index) = places(&file, &identity());
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        let changed = scratch.path().join("changed");
        fs::write(&changed, &flipped).unwrap();
        let is_around = start.contains(&at) || at >= index.start;
        let is_within = rows.iter().any(|(_, place)| place.contains(&at));
        // The rows of the source map are checked when they are used: that is what `get_verified` is for.
        let [read, mapped] = [accesses()[0], accesses()[1]].map(|access| {
            let pack = Pack::open(&changed, &identity(), access);
            let verified = |n| pack.as_ref().unwrap().as_ref().unwrap().get_verified(&key(n)).unwrap().hit().is_some();
            match (&pack, is_around) {
                (Err(error), true) => assert!(error.is_rejection() || error.is_stale(), "{at}: {error}"),
                (Ok(_), false) => {
                    let sound = (0..3).filter(|n| verified(*n)).count();
                    assert_eq!(sound, if is_within { 2 } else { 3 }, "{at}");
                    for n in 0..3 {
                        if let Lookup::Hit(module) = pack.as_ref().unwrap().as_ref().unwrap().load(&key(n)).unwrap() {
                            assert_eq!(module.code(), machine::code(10 * n));
                        }
                    }
                }
                (pack, _) => panic!("{at}: {pack:?}"),
            }
            pack.is_ok()
        });
        assert_eq!(read, mapped);
    }
}

#[test]
fn a_cut_and_what_is_appended_are_found() {
    let scratch = Scratch::new();
    let path = packed(&scratch, &identity(), 2);
    let file = fs::read(&path).unwrap();
    let changed = scratch.path().join("changed");
    for length in 0..file.len() {
        fs::write(&changed, &file[..length]).unwrap();
        for access in [accesses()[0], accesses()[1]] {
            assert_eq!(outcome(&changed, access, 2), None, "{length}");
        }
    }
    fs::write(&changed, [&file[..], &[0]].concat()).unwrap();
    assert_eq!(outcome(&changed, Access::READ, 2), None);
    // A pack that gets shorter while it is open.
    fs::write(&changed, &file).unwrap();
    let pack = open(&changed, Access::READ);
    fs::OpenOptions::new().write(true).open(&changed).unwrap().set_len(40).unwrap();
    for n in 0..2 {
        assert!(matches!(pack.load(&key(n)).unwrap(), Lookup::Rejected(Error::Truncated { .. })));
    }
}

#[test]
fn an_index_that_somebody_made_leads_to_no_other_code_and_to_no_memory() {
    let scratch = Scratch::new();
    let path = packed(&scratch, &identity(), 3);
    let file = fs::read(&path).unwrap();
    let (_, rows, index) = places(&file, &identity());
    let changed = scratch.path().join("changed");
    let row = |n: usize| index.start + 48 * n;
    let first = rows.iter().min_by_key(|(_, place)| place.start).unwrap().1.clone();
    let exchange = |file: &mut [u8], from: usize| {
        let (one, other) = file.split_at_mut(row(1));
        one[row(0) + from..].swap_with_slice(&mut other[from..48]);
    };
    let number = |at: usize, value: u64| move |file: &mut [u8]| file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    type Change<'a> = Box<dyn Fn(&mut [u8]) + 'a>;
    let table: Vec<(&str, Change<'_>, Option<u16>)> = vec![
        ("nothing", Box::new(|_| {}), Some(3)),
        ("two entries exchanged", Box::new(|file| exchange(file, 32)), Some(1)),
        ("two rows exchanged", Box::new(|file| exchange(file, 0)), None),
        ("a key twice", Box::new(|file| file.copy_within(row(0)..row(0) + 48, row(1))), None),
        (
            "all rows of one entry",
            Box::new(|file| {
                file.copy_within(row(0) + 32..row(0) + 48, row(1) + 32);
                file.copy_within(row(0) + 32..row(0) + 48, row(2) + 32);
            }),
            Some(1),
        ),
        ("an entry of no length", Box::new(number(row(0) + 40, 0)), Some(2)),
        ("an entry a byte short", Box::new(|file| file[row(0) + 40] -= 1), Some(2)),
        ("an entry that begins later", Box::new(number(row(0) + 32, first.start as u64 + 16)), None),
        ("an entry in the start", Box::new(number(row(0) + 32, 0)), None),
        ("an entry that is not aligned", Box::new(number(row(0) + 32, first.start as u64 + 1)), None),
        ("an entry in the index", Box::new(number(row(0) + 32, (index.start as u64).next_multiple_of(16) + 16)), None),
        ("an entry far away", Box::new(number(row(0) + 32, 1 << 40)), None),
        ("an entry at the end of all numbers", Box::new(number(row(0) + 32, u64::MAX - 15)), None),
        ("an entry into the index", Box::new(number(row(0) + 40, (index.start - first.start) as u64 + 1)), None),
        ("an entry of a terabyte", Box::new(number(row(0) + 40, 1 << 40)), None),
        ("an entry of all there is", Box::new(number(row(0) + 40, u64::MAX)), None),
    ];
    for (name, change, expected) in table {
        let mut hostile = file.clone();
        change(&mut hostile);
        sign(&mut hostile);
        fs::write(&changed, hostile).unwrap();
        for access in accesses() {
            // Where an entry begins later, its length need not leave the file.
            let found = outcome(&changed, access, 3);
            let is_expected = found == expected || name == "an entry that begins later" && found == Some(2);
            assert!(is_expected, "{name}: {found:?}");
        }
    }
    for count in [0, 1, 2, 4, 1 << 40, u64::MAX, u64::MAX / 48 + 1] {
        let mut hostile = file.clone();
        let at = hostile.len() - 49;
        hostile[at..at + 8].copy_from_slice(&count.to_le_bytes());
        fs::write(&changed, hostile).unwrap();
        for access in accesses() {
            assert_eq!(outcome(&changed, access, 3), None, "{count}");
        }
    }
}

/// What a layer has of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    Nothing,
    Sound,
    Damaged,
    Stale,
}

const ALL: [Has; 4] = [Has::Nothing, Has::Sound, Has::Damaged, Has::Stale];

/// Makes a store with an entry of key 0, and returns its root.
fn layer(root: PathBuf, has: Has, constant: u16) -> PathBuf {
    let store = Store::open(&root, identity()).unwrap();
    match has {
        Has::Nothing => {}
        Has::Sound => put(&store, 0, constant),
        Has::Damaged => {
            put(&store, 0, constant);
            let mut file = fs::read(store.path(&key(0))).unwrap();
            let digest = file.len() - 9;
            file[digest] ^= 1;
            fs::write(store.path(&key(0)), file).unwrap();
        }
        Has::Stale => {
            let older = Identity::new("pack", *b"PACK\0\0", "0").unwrap().with_cpu(CpuFeatures::baseline(Arch::host()));
            let entry = machine::builder(constant).finish(&older, &key(0)).unwrap().to_vec();
            fs::write(store.path(&key(0)), entry).unwrap();
        }
    }
    root
}

/// Makes a pack with an entry of key 0. No writer makes one of a bad entry.
fn pack_layer(scratch: &Scratch, has: Has, constant: u16) -> PathBuf {
    let store = Store::open(scratch.path().join("to pack"), identity()).unwrap();
    if has != Has::Nothing {
        put(&store, 0, constant);
    }
    let path = scratch.path().join("base.pack");
    store.write_pack(&path).unwrap();
    let mut file = fs::read(&path).unwrap();
    let (_, rows, _) = places(&file, &identity());
    for (_, place) in rows {
        match has {
            Has::Damaged => file[place.end - 9] ^= 1,
            Has::Stale => file[place.start + 7] ^= 1,
            Has::Nothing | Has::Sound => {}
        }
    }
    fs::write(&path, file).unwrap();
    path
}

/// Every file below a directory with its bytes and the time of its last change.
fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            files.push((path.clone(), fs::read(&path).unwrap(), modified));
        }
    }
    files.sort();
    files
}

#[test]
fn layers_are_asked_in_order_and_what_none_has_is_compiled_and_put_on_top() {
    for own in ALL {
        for base in ALL {
            for packed in ALL {
                let scratch = Scratch::new();
                let below = scratch.path().join("below");
                let base_root = layer(below.clone(), base, 2);
                let pack = pack_layer(&scratch, packed, 3);
                fs::rename(&pack, below.join("base.pack")).unwrap();
                let before = content(&below);
                let root = layer(scratch.path().join("own"), own, 1);
                let store = || {
                    let store = Store::open(&root, identity()).unwrap();
                    // A base that could be written to.
                    let store = store.with_base(Store::open(&base_root, identity()).unwrap()).unwrap();
                    store.with_base(open(&below.join("base.pack"), Access::READ)).unwrap()
                };
                let row = (own, base, packed);
                let expected = [own, base, packed].iter().position(|has| *has == Has::Sound).map(|at| at as i32 + 1);
                let told = [own, base, packed].into_iter().find(|has| *has != Has::Nothing).unwrap_or(Has::Nothing);

                let found = store().load(&key(0)).unwrap();
                match (&found, expected) {
                    (Lookup::Hit(module), Some(constant)) => assert_eq!(machine::constant(module), constant, "{row:?}"),
                    (found, None) => assert!(
                        matches!(
                            (found, told),
                            (Lookup::Miss, Has::Nothing)
                                | (Lookup::Rejected(_), Has::Damaged)
                                | (Lookup::Stale(_), Has::Stale)
                        ),
                        "{row:?}: {found:?}"
                    ),
                    (found, _) => panic!("{row:?}: {found:?}"),
                }
                let is_hit = expected.is_some();
                // No digest is looked at.
                let has_any = [own, base, packed].iter().any(|has| matches!(has, Has::Sound | Has::Damaged));
                assert_eq!(store().get(&key(0)).unwrap().hit().is_some(), has_any, "{row:?}");
                assert_eq!(store().get_verified(&key(0)).unwrap().hit().is_some(), is_hit, "{row:?}");
                assert_eq!(store().verify(&key(0)).unwrap().hit().is_some(), is_hit, "{row:?}");

                // What `get` removes is the store's own.
                assert_eq!(Cache::over(store()).get(&key(0)).hit().is_some(), is_hit, "{row:?}");
                let stays = own == Has::Sound || own != Has::Nothing && is_hit;
                assert_eq!(store().path(&key(0)).exists(), stays, "{row:?}");
                let cache = Cache::over(store());
                let module = cache.get_or_compile(&key(0), |entry| {
                    *entry = machine::builder(4);
                    Ok::<(), Error>(())
                });
                assert_eq!(machine::constant(&module.unwrap()), expected.unwrap_or(4), "{row:?}");
                assert_eq!(cache.statistics().compilations, u64::from(!is_hit), "{row:?}");
                let own_now = Store::open(&root, identity()).unwrap().load(&key(0)).unwrap().hit();
                let own_expected = if is_hit { (own == Has::Sound).then_some(1) } else { Some(4) };
                assert_eq!(own_now.map(|module| machine::constant(&module)), own_expected, "{row:?}");
                assert!(store().remove(&key(0)).unwrap() == (stays || !is_hit), "{row:?}");
                assert!(content(&below) == before, "{row:?}: a base was changed");
            }
        }
    }
}

#[test]
fn a_base_is_of_the_same_identity_and_may_have_bases_itself() {
    let scratch = Scratch::new();
    let path = packed(&scratch, &identity(), 1);
    let other = identity().with_build_id(b"other").unwrap();
    let store = || Store::open(scratch.path().join("own"), other.clone()).unwrap();
    assert!(matches!(store().with_base(open(&path, Access::READ)), Err(Error::Invalid { .. })));
    let base = Store::open(scratch.path().join("packed"), identity()).unwrap();
    assert!(matches!(store().with_base(base), Err(Error::Invalid { .. })));

    let middle = Store::open(scratch.path().join("middle"), identity()).unwrap();
    let middle = middle.with_base(open(&path, Access::READ)).unwrap();
    let top = Store::open(scratch.path().join("top"), identity()).unwrap().with_base(middle).unwrap();
    assert!(top.load(&key(0)).unwrap().hit().is_some());
    assert!(matches!(top.load(&key(1)).unwrap(), Lookup::Miss));
    assert_eq!(top.list().unwrap().count(), 0);
}

#[test]
fn what_imports_anything_is_bound_by_the_linker_of_the_store_on_top() {
    let scratch = Scratch::new();
    let own = |name: &str| Store::open(scratch.path().join(name), identity()).unwrap();
    let entry = &mut Builder::new();
    entry.code(machine::code(1)).function(0).import("there");
    own("base").put(&key(0), &entry.finish(&identity(), &key(0)).unwrap()).unwrap();
    own("base").write_pack(scratch.path().join("base.pack")).unwrap();
    let linker = || Linker::new(|name| (name == "there").then_some(std::ptr::dangling()));
    let pack = || open(&scratch.path().join("base.pack"), Access::READ);
    assert!(matches!(pack().load(&key(0)), Err(Error::UnboundImport { .. })));
    assert!(pack().load_with(&key(0), &linker()).unwrap().hit().is_some());
    for base in [Base::from(own("base")), Base::from(pack())] {
        let store = own("top").with_base(base).unwrap();
        assert!(matches!(store.load(&key(0)), Err(Error::UnboundImport { .. })));
        assert!(store.with_linker(linker()).load(&key(0)).unwrap().hit().is_some());
    }
}

#[test]
fn a_strict_cache_finds_what_its_base_has_and_compiles_nothing() {
    let scratch = Scratch::new();
    let path = packed(&scratch, &identity(), 1);
    let none = Store::options(identity()).read_only().open(scratch.path().join("none")).unwrap();
    let cache = Cache::over(none.with_base(open(&path, Access::READ)).unwrap()).strict();
    let get = |n| cache.get_or_compile(&key(n), |_: &mut Builder<'_>| -> Result<(), Error> { panic!("it compiles") });
    assert_eq!(machine::constant(&get(0).unwrap()), 0);
    assert!(matches!(get(1), Err(Error::NotCompiled { .. })));
    assert!(!scratch.path().join("none").exists());
}

#[test]
fn another_process_finds_what_is_in_a_pack() {
    let scratch = Scratch::new();
    packed(&scratch, &identity(), 20);
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["pack::reads_a_pack", "--exact", "--ignored"]).env("JITCACHE_TEST_ROOT", scratch.path());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "a process of another test"]
fn reads_a_pack() {
    let Some(root) = env::var_os("JITCACHE_TEST_ROOT") else { return };
    for access in accesses() {
        let pack = open(&Path::new(&root).join("all.pack"), access);
        for n in 0..20 {
            assert_eq!(machine::constant(&pack.load(&key(n)).unwrap().hit().unwrap()), i32::from(10 * n));
        }
    }
}

/// Prints what each of 50 000 units of 1 KB costs, out of a store and out of a pack, and checks that mappings stay few.
#[test]
#[ignore = "it writes 100 MB, and takes a while"]
fn many_small_units_take_few_mappings() {
    const UNITS: u32 = 50_000;
    let scratch = Scratch::new();
    let store = Store::open(scratch.path().join("store"), identity()).unwrap();
    let key = |n: u32| Key::of(&identity()).source(&n.to_le_bytes()).finish();
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let since = Instant::now();
        work();
        println!("{what}: {:.2} us each", since.elapsed().as_secs_f64() * 1e6 / f64::from(UNITS));
    };
    timed("put", &mut || {
        for n in 0..UNITS {
            let entry = &mut Builder::new();
            let code = [machine::code(n as u16), vec![0xcc; 960]].concat();
            store
                .put(&key(n), &entry.code(code).function(0).function(16).finish(&identity(), &key(n)).unwrap())
                .unwrap();
        }
    });
    let path = scratch.path().join("units.pack");
    timed("write_pack", &mut || assert_eq!(store.write_pack(&path).unwrap(), UNITS.into()));
    println!("{} bytes", fs::metadata(&path).unwrap().len());
    let keys: Vec<_> = (0..UNITS).map(key).collect();
    let check = |name: &str, cache: &Cache| {
        #[cfg(target_os = "linux")]
        let before = crate::maps::count();
        timed(name, &mut || keys.iter().for_each(|key| assert!(cache.get(key).hit().is_some())));
        #[cfg(target_os = "linux")]
        {
            let more = crate::maps::count() - before;
            println!("{name}: {more} mappings");
            assert!(more < 200);
        }
    };
    check("Cache::get from the store", &Cache::over(store));
    for (name, access) in ["read", "mapped"].into_iter().zip(accesses()) {
        let mut pack = None;
        let since = Instant::now();
        pack.replace(open(&path, access));
        println!("open, {name}: {:.0} us", since.elapsed().as_secs_f64() * 1e6);
        let pack = pack.unwrap();
        timed(&format!("Pack::load alone, {name}"), &mut || {
            keys.iter().for_each(|key| assert!(pack.load(key).unwrap().hit().is_some()));
        });
        let none = Store::options(identity()).read_only().open(scratch.path().join("none")).unwrap();
        check(&format!("Cache::get from the pack, {name}"), &Cache::over(none.with_base(pack).unwrap()));
    }
}

#[test]
fn a_pack_of_any_engine_tells_its_version_target_and_sealing_and_hands_out_what_it_holds() {
    let nobody = MacKey::new([0; 32]);
    for sealing in [Sealing::Checksum, Sealing::Mac(MacKey::new([7; 32]))] {
        let scratch = Scratch::new();
        let target = Target { arch: Arch::Riscv64, os: Os::Freebsd };
        let identity = identity().with_target(target).with_sealing(sealing.clone());
        let identity = identity.with_cpu(CpuFeatures::baseline(target.arch)).with_build_id(b"of its own").unwrap();
        let store = Store::open(scratch.path().join("packed"), identity.clone()).unwrap();
        let file = Builder::new().code(&[1, 2, 3, 4][..]).function(0).finish(&identity, &key(1)).unwrap().to_vec();
        store.put(&key(1), &Entry::parse(&file, &identity).unwrap()).unwrap();
        let path = scratch.path().join("all.pack");
        store.write_pack(&path).unwrap();
        for access in accesses() {
            let mac_key = if let Sealing::Mac(key) = &sealing { key } else { &nobody };
            let pack = Pack::open_any(&path, "other", mac_key, access).unwrap().unwrap();
            let found = pack.identity();
            assert_eq!(found.directory_name(), format!("other-1-{target}"));
            assert_eq!((found.magic(), found.sealing()), (identity.magic(), identity.sealing()));
            assert_eq!(&pack.bytes(&key(1)).unwrap().unwrap()[..], file);
            assert!(pack.bytes(&key(2)).unwrap().is_none());
            // What only an entry tells, the pack does not.
            assert!(matches!(pack.get(&key(1)).unwrap(), Lookup::Rejected(Error::BuildId { .. })));
        }
        if sealing != Sealing::Checksum {
            let refused = Pack::open_any(&path, "other", &nobody, Access::READ);
            assert!(matches!(refused, Err(Error::Forged { .. })), "{refused:?}");
        }
        // Every length, and every byte of what is around the entries: refused, and never a panic.
        let whole = fs::read(&path).unwrap();
        let (start, _, index) = places(&whole, &identity);
        for at in start.chain(index.start..whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(Pack::open_any(&path, "other", &nobody, Access::READ).is_err(), "{at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(Pack::open_any(&path, "other", &nobody, Access::READ).is_err(), "{at}");
        }
        fs::remove_file(&path).unwrap();
        assert!(Pack::open_any(&path, "other", &nobody, Access::READ).unwrap().is_none());
    }
}

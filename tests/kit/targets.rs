//! What the fuzz targets do with their input: here, so that `cargo test` replays the inputs that are kept.

use std::fs;
use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use jitcache::{
    Access, Cache, Entry, Error, FileBytes, Identity, Key, Linker, Lookup, Module, Revision, Sealing, Store,
};

use super::generate::{KNOWN, Parts};
use super::mend::repair;
use super::oracle::compare;
use super::scratch::Scratch;

/// Versions of wazero, one of each revision.
const WAZERO: [&str; 4] = ["v1.9.0", "v1.12.0", "v1.12.1-0.20260714071631-236c2458ed22+dirty", "dev"];

/// Any bytes are parsed and verified without a panic, to the same outcome as by the naive reader.
pub fn deserialize(file: &[u8]) {
    // Made once: a run takes little longer than making them.
    static OF_WAZERO: LazyLock<[Identity; 4]> = LazyLock::new(|| WAZERO.map(|v| Identity::wazero(v).unwrap()));
    static OTHERS: LazyLock<[Identity; 6]> = LazyLock::new(|| {
        let sealed = Identity::new("fuzz", *b"FUZZED", "1").unwrap().with_sections(&KNOWN);
        let plain = sealed.clone().with_sealing(Sealing::Plain);
        let [map, locals, unknown] = [Revision::SourceMap, Revision::Locals, Revision::Unknown]
            .map(|revision| plain.clone().with_revision(revision));
        [sealed.clone(), sealed.with_revision(Revision::Locals), plain, map, locals, unknown]
    });
    OF_WAZERO.iter().for_each(|identity| compare(file, identity));
    // The same bytes behind a header that fits, so that the fuzzer need not find one.
    let file = [b"FUZZED\x011", file].concat();
    OTHERS.iter().for_each(|identity| compare(&file, identity));
}

/// A valid entry is damaged or left as it is, its length, checksum and digest repaired: past them, the naive reader
/// still agrees.
pub fn structured(bytes: &[u8]) {
    let mut from = Unstructured::new(bytes);
    let Ok(parts) = Parts::take(&mut from) else { return };
    let mut file = parts.file();
    damage(&mut file, &mut from);
    repair(&mut file, &parts.identity);
    compare(&file, &parts.identity);
}

/// What the loader makes executable is what the entry holds; nothing is run.
pub fn load(file: &[u8]) {
    static IDENTITIES: LazyLock<Vec<Identity>> = LazyLock::new(|| {
        let wazero = WAZERO.map(Identity::wazero).into_iter();
        wazero.chain([Identity::new("fuzz", *b"FUZZED", "1")]).map(Result::unwrap).collect()
    });
    for identity in IDENTITIES.iter() {
        let parsed = Entry::parse(file, identity);
        match Module::load_file_with(file.to_vec().into(), identity, &key_of(file, identity), &linker()) {
            Ok(module) => assert_holds(&module, &parsed.expect("what was loaded can be parsed")),
            Err(error) => {
                if matches!(error, Error::UnboundImport { .. }) {
                    continue;
                }
                let is_left = matches!(error, Error::UnknownLayout { .. });
                assert!(error.is_rejection() || error.is_stale() || is_left, "{error}");
                assert!(parsed.and_then(|entry| entry.verify()).is_err());
            }
        }
    }
}

/// A damaged entry in a file comes to the same through every door as it does from memory; nothing is run.
pub fn place(bytes: &[u8]) {
    static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);
    let mut from = Unstructured::new(bytes);
    let Ok(parts) = Parts::take(&mut from) else { return };
    let identity = &parts.identity;
    let mut file = parts.file();
    damage(&mut file, &mut from);
    // Files are read into the pages in which they run from 64 KiB on.
    if from.arbitrary().unwrap_or(false) {
        stretch(&mut file, 64 * 1024);
    }
    if from.ratio(3, 4).unwrap_or(false) {
        repair(&mut file, identity);
    }
    let parsed = Entry::parse(&file, identity);
    let key = key_of(&file, identity);
    let mut store = Store::open(SCRATCH.path(), identity.clone()).unwrap().with_linker(linker());
    let path = store.path(&key);
    fs::write(&path, &file).unwrap();
    let load = |file| Module::load_file_with(file, identity, &key, &linker());
    let expected = load(file.clone().into());
    let is_sound = parsed.as_ref().is_ok_and(|entry| entry.verify().is_ok());
    assert!(!is_sound || matches!(expected, Ok(_) | Err(Error::UnboundImport { .. })));
    // SAFETY: the file is not written to again.
    let map = unsafe { Access::map() };
    // SAFETY: likewise.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: likewise, and it is used only if the entry was verified.
    let unchecked = unsafe { Access::in_place_unchecked() };
    for access in [Access::READ, map, in_place].into_iter().chain(is_sound.then_some(unchecked)) {
        let opened = FileBytes::open(&path, access).unwrap().expect("the file is there");
        assert!(*opened == file[..], "{access:?}");
        let opened = match load(opened) {
            Err(error @ Error::UnboundImport { .. }) => Err(error),
            Err(error @ Error::UnknownLayout { .. }) => Ok(Lookup::UnknownLayout(error)),
            Err(error) => Ok(Lookup::Rejected(error)),
            Ok(module) => Ok(Lookup::Hit(module)),
        };
        store = store.with_access(access);
        for (is_whole, found) in [(true, opened), (false, store.load(&key))] {
            match (found, &expected) {
                (Ok(Lookup::Hit(module)), Ok(_)) => {
                    let entry = parsed.as_ref().expect("what was loaded can be parsed");
                    assert_holds(&module, entry);
                    let may_run_there = access == in_place || access == unchecked;
                    let is_aligned = identity.alignment().in_file && !entry.code().is_empty();
                    // Code that data lie beside is mapped once more, from its file.
                    let has_data = entry.imports().count() > 0 || entry.data() != [[]; 2];
                    assert!(module.is_in_place() || !(may_run_there && is_aligned) || is_whole && has_data);
                }
                (Ok(Lookup::Rejected(found) | Lookup::UnknownLayout(found)) | Err(found), Err(expected)) => {
                    assert_eq!(format!("{found} {found:?}"), format!("{expected} {expected:?}"), "{access:?}");
                }
                (Ok(Lookup::Stale(found)), Err(Error::Stale { found: expected, .. })) => assert_eq!(found, *expected),
                (found, _) => panic!("{access:?}: {found:?}, but from memory {expected:?}"),
            }
        }
    }
    fs::remove_file(path).unwrap();
}

/// Returns a linker that has an address for every name but one that the generator gives to imports.
fn linker() -> Linker {
    Linker::new(|name| (name != "throw").then_some(name.as_ptr()))
}

/// Returns the key that the entry in `file` is bound to, or any other.
fn key_of(file: &[u8], identity: &Identity) -> Key {
    Entry::parse(file, identity).ok().and_then(|entry| entry.key()).unwrap_or(Key::from_bytes([0; 32]))
}

/// What is executable is what the entry holds, its functions are where they should be, and are found there.
fn assert_holds(module: &Module, entry: &Entry<'_>) {
    assert_eq!(module.code(), entry.code());
    assert_eq!(module.functions(), entry.functions());
    match module.check_source_map() {
        Ok(()) => assert_eq!(module.source_map(), entry.source_map()),
        Err(error) => {
            assert_eq!((module.source_map(), error.is_rejection()), (None, true));
            assert!(entry.verify().is_err());
        }
    }
    assert_eq!(module.metadata(), entry.metadata());
    let start = module.address_range().start;
    for (i, offset) in entry.functions().iter().enumerate() {
        let address = module.function(i).expect("every function has an address") as usize;
        assert_eq!(address as u64, start as u64 + offset);
        assert_eq!(module.locate_instruction(address).expect("it is in the module").function, Some(i));
    }
}

/// A store, under operations, damage and reopening, holds what a map of its keys holds, or says why not.
pub fn store(bytes: &[u8]) {
    let _ = operate(&mut Unstructured::new(bytes));
}

fn operate(from: &mut Unstructured<'_>) -> Result<()> {
    let scratch = Scratch::new();
    let sealing = if from.arbitrary()? { Sealing::Checksum } else { Sealing::Plain };
    let identity = Identity::new("model", *b"MODEL\0", "1").unwrap().with_sealing(sealing);
    let linker = Linker::new(|name| Some(name.as_ptr()));
    let open = || Store::open(scratch.path(), identity.clone()).unwrap().with_linker(linker.clone());
    let mut store = open();
    let keys: [Key; 3] = [1, 2, 3].map(|n| Key::from_bytes([n; 32]));
    // The file that should be there under each key, and whether it is as it was put.
    let mut model: [Option<(Vec<u8>, bool)>; 3] = [None, None, None];
    for _ in 0..from.int_in_range(0..=12)? {
        let n = from.choose_index(keys.len())?;
        let (key, expected) = (&keys[n], &mut model[n]);
        match from.int_in_range(0..=6)? {
            0 | 1 => {
                let parts = Parts::take(from)?;
                let mut builder = parts.builder();
                let plain = identity.clone().with_sealing(Sealing::Plain);
                let identity = if parts.sections.is_empty() && parts.metadata.is_none() { &identity } else { &plain };
                let Ok(entry) = builder.finish(identity, key) else { continue };
                let sealed_as_the_store = identity.sealing() == store.identity().sealing();
                store.put(key, &entry).unwrap();
                *expected = Some((entry.to_vec(), sealed_as_the_store));
            }
            2 => {
                assert_eq!(store.remove(key).unwrap(), expected.is_some());
                *expected = None;
            }
            3 => store = open(),
            4 => {
                let Some((file, is_sound)) = expected else { continue };
                damage(file, from);
                std::fs::write(store.path(key), &file).unwrap();
                *is_sound = Entry::parse(file, &identity).is_ok_and(|entry| entry.verify().is_ok());
            }
            5 => {
                let temporaries = store.directory().join("tmp");
                std::fs::create_dir_all(&temporaries).unwrap();
                let left_over = temporaries.join(format!("{:016x}", from.arbitrary::<u64>()?));
                std::fs::File::create(left_over).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
                assert_eq!(store.sweep().unwrap(), 1);
            }
            _ => match (store.get(key).unwrap(), store.load(key).unwrap(), &*expected) {
                (Lookup::Miss, Lookup::Miss, None) => {}
                (Lookup::Hit(found), Lookup::Hit(module), Some((file, _))) => {
                    assert_eq!(&*found, &file[..]);
                    assert_eq!(module.code(), Entry::parse(file, &identity).unwrap().code());
                }
                (_, Lookup::Rejected(_) | Lookup::Stale(_), Some((_, false))) => {}
                other => panic!("{other:?}"),
            },
        }
        let listed = store.list().unwrap().collect::<std::result::Result<Vec<_>, Error>>().unwrap();
        assert_eq!(listed.len(), model.iter().flatten().count());
    }
    // Whatever the store has come to, an engine gets its module.
    let cache = Cache::over(open());
    for key in &keys {
        cache.get_or_compile(key, |_| Ok::<(), Error>(())).unwrap();
    }
    Ok(())
}

/// Puts `more` bytes of code into a file, wherever its header says that code begins, or else behind its end.
fn stretch(file: &mut Vec<u8>, more: usize) {
    let number = |at: usize| Some(u32::from_le_bytes(*file.get(at..)?.first_chunk()?) as usize);
    let body = 7 + usize::from(file.get(6).copied().unwrap_or(0));
    let code = number(body).map_or(usize::MAX, |functions| functions.saturating_mul(8).saturating_add(body + 12));
    if code <= file.len() {
        let length = u64::from_le_bytes(file[code - 8..code].try_into().unwrap()).wrapping_add(more as u64);
        file[code - 8..code].copy_from_slice(&length.to_le_bytes());
    }
    let at = code.min(file.len());
    file.splice(at..at, std::iter::repeat_n(0xcc, more));
}

/// Changes bytes and numbers, cuts and appends, as `from` has it.
fn damage(file: &mut Vec<u8>, from: &mut Unstructured<'_>) {
    for _ in 0..from.int_in_range(0..=4).unwrap_or(0) {
        let at = from.choose_index(file.len()).unwrap_or(0);
        let number: u64 = from.arbitrary().unwrap_or(0);
        let length = from.int_in_range(1..=8).unwrap_or(1).min(file.len() - at);
        file[at..at + length].copy_from_slice(&number.to_le_bytes()[..length]);
    }
    if from.ratio(1, 4).unwrap_or(false) {
        file.truncate(from.int_in_range(1..=file.len()).unwrap_or(1));
    }
    if from.ratio(1, 4).unwrap_or(false) {
        file.extend_from_slice(from.peek_bytes(from.len().min(16)).unwrap_or_default());
    }
}

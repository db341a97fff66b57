//! What the fuzz targets do with their input: here, so that `cargo test` replays the inputs that are kept.

use arbitrary::{Result, Unstructured};
use jitcache::{Cache, Entry, Error, Identity, Key, Lookup, Module, Revision, Sealing, Store};

use crate::generate::{MAC_KEY, Parts};
use crate::oracle::compare;
use crate::scratch::Scratch;

/// Any bytes are parsed and verified without a panic, to the same outcome as by the naive reader.
pub fn deserialize(file: &[u8]) {
    for version in ["v1.9.0", "v1.12.0"] {
        compare(file, &Identity::wazero(version).unwrap());
    }
    // The same bytes behind a header that fits, so that the fuzzer need not find one.
    let identity = Identity::new("fuzz", *b"FUZZED", "1").unwrap();
    let file = [b"FUZZED\x011", file].concat();
    compare(&file, &identity);
    let identity = identity.with_sealing(Sealing::Plain);
    compare(&file, &identity);
    compare(&file, &identity.with_revision(Revision::SourceMap));
}

/// A valid entry is damaged, its length, checksum and digest repaired: past them, the naive reader still agrees.
pub fn structured(bytes: &[u8]) {
    let mut from = Unstructured::new(bytes);
    let Ok(parts) = Parts::take(&mut from) else { return };
    let mut file = parts.file();
    compare(&file, &parts.identity);
    damage(&mut file, &mut from);
    repair(&mut file, &parts.identity);
    compare(&file, &parts.identity);
}

/// What the loader makes executable is what the entry holds; nothing is run.
pub fn load(file: &[u8]) {
    for identity in [Identity::wazero("v1.9.0"), Identity::wazero("v1.12.0"), Identity::new("fuzz", *b"FUZZED", "1")] {
        let identity = identity.unwrap();
        let parsed = Entry::parse(file, &identity);
        let key = parsed.as_ref().ok().and_then(Entry::key).unwrap_or(Key::from_bytes([0; 32]));
        let module = match Module::load_file(file.to_vec().into(), &identity, &key) {
            Ok(module) => module,
            Err(error) => {
                assert!(error.is_rejection() || error.is_stale(), "{error}");
                assert!(parsed.and_then(|entry| entry.verify()).is_err());
                continue;
            }
        };
        let entry = parsed.expect("what was loaded can be parsed");
        assert_eq!(module.code(), entry.code());
        assert_eq!(module.functions(), entry.functions());
        assert_eq!(module.source_map(), entry.source_map());
        assert_eq!(module.metadata(), entry.metadata());
        let start = module.address_range().start;
        for (i, offset) in entry.functions().iter().enumerate() {
            let address = module.function(i).expect("every function has an address") as usize;
            assert_eq!(address as u64, start as u64 + offset);
            assert_eq!(module.locate_instruction(address).expect("it is in the module").function, Some(i));
        }
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
    let open = || Store::open(scratch.path(), identity.clone()).unwrap();
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
                let temporary = store.directory().join(format!("{key}.{:016x}.tmp", from.arbitrary::<u64>()?));
                std::fs::write(temporary, b"left over").unwrap();
                store.sweep().unwrap();
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

/// Makes length, checksum and digest fit again what the fuzzer has changed.
fn repair(file: &mut [u8], identity: &Identity) {
    let length = file.len();
    let sealed = *identity.sealing() != Sealing::Plain && length > 89;
    if sealed {
        file[length - 49..length - 41].copy_from_slice(&(length as u64).to_le_bytes());
        file[length - 8..].copy_from_slice(b"JITSEAL1");
    }
    if let Ok(entry) = Entry::parse(file, identity) {
        let checksum = crc32c::crc32c(entry.code()).to_le_bytes();
        let at = entry.code_range().end as usize;
        file[at..at + 4].copy_from_slice(&checksum);
    }
    if sealed {
        let (covered, rest) = file.split_at_mut(length - 40);
        let digest = match identity.sealing() {
            Sealing::Mac(_) => *blake3::keyed_hash(&MAC_KEY, covered).as_bytes(),
            _ => std::array::from_fn(|i| crc32c::crc32c(covered).to_le_bytes().get(i).copied().unwrap_or(0)),
        };
        rest[..32].copy_from_slice(&digest);
    }
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

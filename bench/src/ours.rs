//! The ways of the crate.

use jitcache::{Access, Key, Lookup, Module, Store};

use crate::subject::{Seal, Subject};
use crate::way::{Kind, Loaded, Outcome, Way, way};

impl Loaded for Module {
    fn code(&self) -> Option<&[u8]> {
        Some(Module::code(self))
    }
}

// SAFETY: the stores of the benchmark are filled before any way is made, and only read afterwards.
const MAP: Access = unsafe { Access::map() };

// SAFETY: as above.
pub const IN_PLACE: Access = unsafe { Access::in_place() };

// SAFETY: as above; what the stores hold is what the builder made and checked.
const UNCHECKED: Access = unsafe { Access::in_place_unchecked() };

pub const WAYS: [(&str, Access, Seal); 10] = [
    ("read, plain", Access::READ, Seal::Plain),
    ("read, checksum", Access::READ, Seal::Checksum),
    ("read, MAC", Access::READ, Seal::Mac),
    ("map, plain", MAP, Seal::Plain),
    ("map, checksum", MAP, Seal::Checksum),
    ("map, MAC", MAP, Seal::Mac),
    ("in place, plain", IN_PLACE, Seal::Plain),
    ("in place, checksum", IN_PLACE, Seal::Checksum),
    ("in place, MAC", IN_PLACE, Seal::Mac),
    ("in place, unchecked", UNCHECKED, Seal::Checksum),
];

/// Returns how the way of that name reads.
pub fn access(way: &str) -> Outcome<Access> {
    let found = WAYS.into_iter().find(|(name, ..)| *name == way);
    found.map(|(_, access, _)| access).ok_or_else(|| format!("no way {way:?}").into())
}

pub fn ways(subject: &Subject, wanted: impl Fn(&str) -> bool) -> Outcome<Vec<Way>> {
    WAYS.into_iter()
        .filter(|(name, ..)| wanted(name))
        .map(|(name, access, seal)| {
            let store = subject.store(name, seal)?.with_access(access);
            let key = subject.key(&store);
            let runs_in_place = access != Access::READ && access != MAP;
            Ok(way(Kind::Ours, name, store.path(&key), move || {
                let module = found(&store, &key)?;
                // The crate copies what it cannot run in place, which would be another way under this one's name.
                if module.is_in_place() == runs_in_place {
                    Ok(module)
                } else {
                    Err(format!("{name}: it is not").into())
                }
            }))
        })
        .collect()
}

fn found(store: &Store, key: &Key) -> Outcome<Module> {
    match store.load(key)? {
        Lookup::Hit(module) => Ok(module),
        other => Err(format!("no hit: {other:?}").into()),
    }
}

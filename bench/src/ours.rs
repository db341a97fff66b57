//! The ways of the crate.

use std::num::NonZero;

use jitcache::{Access, Key, Lookup, Module, Store};

use crate::subject::{Seal, Subject};
use crate::ways::{Kind, Loaded, Outcome, Way, way};

impl Loaded for Module {
    fn code(&self) -> Option<&[u8]> {
        Some(Module::code(self))
    }
}

const TWO: NonZero<usize> = NonZero::new(2).unwrap();

pub fn ways(subject: &Subject) -> Outcome<Vec<Way>> {
    // SAFETY: the stores of the benchmark are filled before any way is made, and only read afterwards.
    let map = unsafe { Access::map() };
    // SAFETY: as above.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: as above; what the stores hold is what the builder made and checked.
    let unchecked = unsafe { Access::in_place_unchecked() };
    let ways = [
        ("read, plain", Access::READ, Seal::Plain),
        ("read, checksum", Access::READ, Seal::Checksum),
        ("read, MAC", Access::READ, Seal::Mac),
        ("map, plain", map, Seal::Plain),
        ("map, checksum", map, Seal::Checksum),
        ("map, MAC", map, Seal::Mac),
        ("in place, plain", in_place, Seal::Plain),
        ("in place, checksum", in_place, Seal::Checksum),
        ("in place, checksum, 2 threads", in_place.with_threads(TWO), Seal::Checksum),
        ("in place, MAC", in_place, Seal::Mac),
        ("in place, unchecked", unchecked, Seal::Checksum),
    ];
    ways.into_iter()
        .map(|(name, access, seal)| {
            let store = subject.store(seal)?.with_access(access);
            let key = subject.key(&store);
            let runs_in_place = access != Access::READ && access != map;
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

//! A store over others, which are only read.

use super::Store;
use super::base::{Base, Layer};
use super::lookup::{Found, Lookup};
use super::verified::Verified;
use crate::entry::Identity;
use crate::error::Error;
use crate::load::{FileBytes, Linker, Module};
use crate::words::Key;

impl Store {
    /// Has another store or a [`Pack`](crate::Pack) asked for what this store has not got, or has stale or damaged. Of
    /// many, the first is asked first.
    ///
    /// A base is only read, even if it could be written to. What is stale or damaged in one is looked for in the next,
    /// and compiled if none has it; what is compiled is put here, and found here from then on. Putting,
    /// removing, listing, the budget and [`Store::write_pack`] concern this store alone, never a base. What is bad here and sound
    /// in a base is a hit, and stays.
    ///
    /// ```
    /// use jitcache::{Builder, Cache, Identity, Key, Store};
    ///
    /// # let scratch = std::env::temp_dir().join(format!("jitcache-base-{}", std::process::id()));
    /// # let (image, root) = (scratch.join("image"), scratch.join("root"));
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// # let key = Key::of(&identity).source(b"fn main() {}").finish();
    /// # let entry = &mut Builder::new();
    /// # let entry = entry.code(&[0xc3][..]).function(0).finish(&identity, &key)?;
    /// # Store::open(&image, identity.clone())?.put(&key, &entry)?;
    /// let base = Store::options(identity.clone()).read_only().open(&image)?;
    /// let store = Store::open(&root, identity)?.with_base(base)?;
    /// assert!(store.load(&key)?.hit().is_some());
    /// # std::fs::remove_dir_all(&scratch).unwrap();
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if its identity is another one.
    pub fn with_base(mut self, base: impl Into<Base>) -> Result<Self, Error> {
        let base = base.into();
        if base.0.identity() != self.identity() {
            return Err(Error::Invalid { what: "base", rule: "must have the identity of the store" });
        }
        self.bases.push(base);
        Ok(self)
    }

    /// Loads from the bases alone, as if there were nothing here.
    pub(crate) fn find_in_bases(&self, key: &Key) -> Result<Found<Module>, Error> {
        self.or_in_bases(Ok((Lookup::Miss, None)), |base| base.load_with(key, self.linker()))
    }

    /// Asks the bases for what was not found here. If none has it, what was found here is told, or of a miss the first
    /// other outcome of a base; the file is one of this store in any case.
    pub(super) fn or_in_bases<T>(
        &self,
        found: Result<Found<T>, Error>,
        ask: impl Fn(&dyn Layer) -> Result<Lookup<T>, Error>,
    ) -> Result<Found<T>, Error> {
        if matches!(found, Ok((Lookup::Hit(_), _))) {
            return found;
        }
        let mut told = found;
        for base in &self.bases {
            match ask(&*base.0) {
                Ok(Lookup::Hit(hit)) => return Ok((Lookup::Hit(hit), None)),
                Ok(Lookup::Miss) => {}
                other if matches!(told, Ok((Lookup::Miss, _))) => told = other.map(|found| (found, None)),
                _ => {}
            }
        }
        told
    }
}

impl Layer for Store {
    fn identity(&self) -> &Identity {
        self.identity()
    }

    fn get(&self, key: &Key) -> Result<Lookup<FileBytes>, Error> {
        self.get(key)
    }

    fn get_verified(&self, key: &Key) -> Result<Lookup<Verified>, Error> {
        self.get_verified(key)
    }

    fn load_with(&self, key: &Key, linker: &Linker) -> Result<Lookup<Module>, Error> {
        Ok(self.find_with(key, linker)?.0)
    }
}

impl From<Store> for Base {
    fn from(store: Store) -> Self {
        Self(Box::new(store.into_read_only()))
    }
}

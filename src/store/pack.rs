//! A pack: the entries of a store in one file.

use std::fmt;
use std::path::Path;

use super::base::{Base, Layer};
use super::lookup::Lookup;
use super::verified::Verified;
use crate::entry::{Entry, Identity, MacKey, PackIndex};
use crate::error::{Error, heap};
#[cfg(unix)]
use crate::file::Trust;
use crate::file::{Trusted, failed};
use crate::format::Run;
use crate::load::{FileBytes, Linker, Module, PackFile};
use crate::memory::Access;
use crate::words::Key;

/// Many entries in one file, which nobody changes: what an image holds, or an engine with many small modules. Written
/// by [`Store::write_pack`](crate::Store::write_pack), and asked by itself or as a [`Base`] of a store.
///
/// Opening one checks its index, and takes a read of it or a map. Entries are read and checked when they are asked for,
/// each under its own seal, and their code is copied, whatever the access: with [`Access::READ`] each is read by one
/// system call, with any other it is copied from the one map by none.
///
/// ```
/// use jitcache::{Access, Builder, Identity, Key, Pack, Store};
///
/// # let root = std::env::temp_dir().join(format!("jitcache-pack-{}", std::process::id()));
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let store = Store::open(&root, identity.clone())?;
/// let key = Key::of(&identity).source(b"fn main() {}").finish();
/// store.put(&key, &Builder::new().code(&[0xc3][..]).function(0).finish(&identity, &key)?)?;
///
/// assert_eq!(store.write_pack(root.join("myjit.pack"))?, 1);
/// let pack = Pack::open(root.join("myjit.pack"), &identity, Access::READ)?.unwrap();
/// assert_eq!(pack.load(&key)?.hit().unwrap().code(), [0xc3]);
/// # std::fs::remove_dir_all(&root).unwrap();
/// # Ok::<(), jitcache::Error>(())
/// ```
pub struct Pack {
    identity: Identity,
    file: PackFile,
}

impl Pack {
    /// Opens a pack, or returns `None` if there is none: one that this user or root owns, and nobody else may write to,
    /// nor to the directories that it lies in, as [`Trust::User`](crate::Trust::User) has it.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`] for a pack of another version; [`Error::NotAPack`] for another file, and any rejection for one
    /// that is damaged or for another target; [`Error::Untrusted`]; [`Error::Value`] for one that is longer than
    /// [`Access::with_limit`] has it; [`Error::Invalid`] for an identity whose entries are plain; [`Error::Io`] and
    /// [`Error::Memory`] from the system.
    pub fn open(path: impl AsRef<Path>, identity: &Identity, access: Access) -> Result<Option<Self>, Error> {
        #[cfg(unix)]
        let trusted = Trusted::new(Trust::User);
        #[cfg(not(unix))]
        let trusted = Trusted::ANYONE;
        Self::of(path.as_ref(), access, &trusted, |_| Ok(identity.clone()))
    }

    /// Does the same, and takes what others are trusted with.
    ///
    /// # Errors
    ///
    /// Those of [`Pack::open`].
    #[cfg(unix)]
    pub fn open_trusting(
        path: impl AsRef<Path>,
        identity: &Identity,
        access: Access,
        trust: Trust,
    ) -> Result<Option<Self>, Error> {
        Self::of(path.as_ref(), access, &Trusted::new(trust), |_| Ok(identity.clone()))
    }

    /// Opens a pack of whichever version and target, for programs that look into any engine's: `engine` is its name,
    /// which no pack tells, and `mac_key` the key for one that is sealed with a MAC. Whoever owns it is trusted.
    ///
    /// What only entries tell, such as their build id, the [identity](Pack::identity) lacks: [`Pack::bytes`] has each
    /// for [`Identity::of_entry`].
    ///
    /// # Errors
    ///
    /// Those of [`Pack::open`] but [`Error::Stale`] and [`Error::Untrusted`].
    pub fn open_any(
        path: impl AsRef<Path>,
        engine: &str,
        mac_key: &MacKey,
        access: Access,
    ) -> Result<Option<Self>, Error> {
        Self::of(path.as_ref(), access, &Trusted::ANYONE, |file| PackIndex::identity(file, engine, mac_key))
    }

    fn of(
        path: &Path,
        access: Access,
        trusted: &Trusted,
        identify: impl FnOnce(Run<'_>) -> Result<Identity, Error>,
    ) -> Result<Option<Self>, Error> {
        let path = std::path::absolute(path).map_err(failed("find", path))?;
        trusted.check_above(&path)?;
        let file = PackFile::open(path, trusted, access, identify)?;
        Ok(file.map(|(file, identity)| Self { identity, file }))
    }

    /// Looks an entry up and makes its code executable, which is copied.
    ///
    /// # Errors
    ///
    /// Those of [`Store::load`](crate::Store::load).
    pub fn load(&self, key: &Key) -> Result<Lookup<Module>, Error> {
        self.load_with(key, &Linker::default())
    }

    /// Does the same for an entry that imports what `linker` has.
    ///
    /// # Errors
    ///
    /// Those of [`Store::load`](crate::Store::load).
    pub fn load_with(&self, key: &Key, linker: &Linker) -> Result<Lookup<Module>, Error> {
        self.look_up(key, |bytes| {
            let entry = Entry::parse(bytes, &self.identity)?;
            entry.check_key(key)?;
            Module::load_with(&entry, linker)
        })
    }

    /// Looks an entry up and returns its bytes, of which no digest was checked, as [`Store::get`](crate::Store::get)
    /// does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn get(&self, key: &Key) -> Result<Lookup<FileBytes>, Error> {
        self.look_up(key, |bytes| {
            Entry::parse(bytes, &self.identity)?.check_key(key)?;
            copy(bytes)
        })
    }

    /// Looks an entry up and checks every byte of it, as [`Entry::verify`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn get_verified(&self, key: &Key) -> Result<Lookup<Verified>, Error> {
        self.look_up(key, |bytes| Verified::of(copy(bytes)?, &self.identity, key))
    }

    /// Returns the bytes of an entry, sound or not, of which nothing was checked; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn bytes(&self, key: &Key) -> Result<Option<FileBytes>, Error> {
        let Some(place) = self.file.place(key) else { return Ok(None) };
        copy(&self.file.entry(&place)?).map(Some)
    }

    /// Returns the keys of all entries, sound or not, which rise.
    pub fn list(&self) -> impl Iterator<Item = Key> {
        self.file.keys()
    }

    /// Returns whose entries these are.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    fn look_up<T>(&self, key: &Key, take: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<Lookup<T>, Error> {
        let Some(place) = self.file.place(key) else { return Ok(Lookup::Miss) };
        Lookup::of(self.file.entry(&place).and_then(|bytes| take(&bytes)))
    }
}

fn copy(bytes: &[u8]) -> Result<FileBytes, Error> {
    let mut copied = Vec::new();
    heap::append(&mut copied, bytes)?;
    Ok(copied.into())
}

impl fmt::Debug for Pack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pack").field("path", &self.file.path()).finish_non_exhaustive()
    }
}

impl Layer for Pack {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn get(&self, key: &Key) -> Result<Lookup<FileBytes>, Error> {
        self.get(key)
    }

    fn get_verified(&self, key: &Key) -> Result<Lookup<Verified>, Error> {
        self.get_verified(key)
    }

    fn load_with(&self, key: &Key, linker: &Linker) -> Result<Lookup<Module>, Error> {
        self.load_with(key, linker)
    }
}

impl From<Pack> for Base {
    fn from(pack: Pack) -> Self {
        Self(Box::new(pack))
    }
}

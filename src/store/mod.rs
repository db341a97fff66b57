//! A directory of entries, which processes share.

mod base;
mod layers;
mod lock;
mod lookup;
mod options;
mod pack;
mod packing;
mod place;
mod room;
mod verified;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::entry::{Entry, Identity, Sealing};
use crate::error::{Bound, Error, Field};
#[cfg(unix)]
use crate::file::Trust;
use crate::file::{self, Aside, FileId, Modes, Sync, Trusted};
use crate::load::{FileBytes, Linker, Module, Source};
use crate::memory::{Access, Check, Mode};
use crate::words::Key;
pub use base::Base;
pub(crate) use lookup::Found;
pub use lookup::Lookup;
pub use options::{Durability, StoreOptions};
pub use pack::Pack;
pub use place::default_root;
use room::{Budget, PATIENCE, Room};
pub use room::{OtherVersion, Trimmed};
pub use verified::Verified;

/// The entries of one engine, one of its versions and one target, as files of a directory.
///
/// The layout is wazero's: `<root>/<name>-<version>-<arch>-<os>/<64 hexadecimal digits>`. Threads and processes may use
/// a directory at the same time; the last writer of an entry wins, and readers see one whole entry or the other.
///
/// Whoever can write to the directory can have their code run: [`Trust`](crate::Trust) says who may.
///
/// ```
/// use jitcache::{Builder, Identity, Key, Lookup, Store};
///
/// # let root = std::env::temp_dir().join(format!("jitcache-store-{}", std::process::id()));
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let store = Store::open(&root, identity.clone())?;
/// let key = Key::of(&identity).source(b"fn main() {}").finish();
/// assert!(matches!(store.load(&key)?, Lookup::Miss));
///
/// let mut builder = Builder::new();
/// builder.code(&[0xc3][..]).function(0);
/// store.put(&key, &builder.finish(&identity, &key)?)?;
/// assert!(matches!(store.load(&key)?, Lookup::Hit(_)));
/// # std::fs::remove_dir_all(&root).unwrap();
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    identity: Identity,
    access: Access,
    linker: Linker,
    modes: Option<Modes>,
    trusted: Trusted,
    durability: Durability,
    budget: Option<Budget>,
    is_read_only: bool,
    swept: AtomicBool,
    /// What is asked for what is not here, in order.
    bases: Vec<Base>,
}

/// Entries that are put together, with one sync for all. Returned by [`Store::batch`].
///
/// ```
/// use jitcache::{Builder, Identity, Key, Store};
///
/// # let root = std::env::temp_dir().join(format!("jitcache-batch-{}", std::process::id()));
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let store = Store::open(&root, identity.clone())?;
/// let mut batch = store.batch();
/// for unit in ["f", "g"] {
///     let key = Key::of(&identity).source(unit.as_bytes()).finish();
///     batch.put(&key, &Builder::new().code(&[0xc3][..]).function(0).finish(&identity, &key)?)?;
/// }
/// batch.finish()?;
/// assert_eq!(store.list()?.count(), 2);
/// # std::fs::remove_dir_all(&root).unwrap();
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is published before it is finished"]
pub struct Batch<'s> {
    store: &'s Store,
    written: Vec<(Key, Aside)>,
    bytes: u64,
}

impl Batch<'_> {
    /// Writes an entry, which is published by [`Batch::finish`]. What was given one key twice is the last one.
    ///
    /// # Errors
    ///
    /// Those of [`Store::put`].
    pub fn put(&mut self, key: &Key, entry: &Entry<'_>) -> Result<(), Error> {
        let store = self.store;
        store.prepare(key, entry)?;
        let aside = file::write_aside(&store.temporaries(), store.modes, Sync::Later, entry.length(), |file| {
            write(entry, file)
        })?;
        self.bytes = self.bytes.saturating_add(entry.length());
        self.written.push((*key, aside));
        Ok(())
    }

    /// Publishes all entries: after this returns, they survive a power cut, whatever the [`Durability`].
    ///
    /// On Linux that waits for all that the file system has to write, other programs' files included. An entry that was
    /// written more than an hour ago may have been swept by another process, which is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] from the system. If it is the sync that fails, nothing is published; otherwise all is that can be.
    pub fn finish(self) -> Result<(), Error> {
        let store = self.store;
        file::sync_aside(self.written.iter().map(|(_, aside)| aside), &store.temporaries())?;
        let mut result = Ok(());
        for (key, aside) in self.written {
            result = result.and(aside.rename(&store.path(&key)));
        }
        let result = result.and(file::sync_directory(&store.directory));
        store.keep_to_budget(self.bytes);
        result
    }
}

fn write(entry: &Entry<'_>, file: &std::fs::File) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    entry.write(&mut file)?;
    file.flush()
}

impl StoreOptions {
    /// Opens the directory of the identity under `root`, and creates it if need be, unless it is opened for reading alone.
    ///
    /// A root that is relative is that of now, whatever directory the process changes to. If the directory vanishes, the next
    /// put makes it again. A root that is made gets a `CACHEDIR.TAG`, by which programs know that it need not be kept or copied. A
    /// directory that is there may be one that this user cannot write to: then its entries are found, and a
    /// put is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Untrusted`] for a directory that the [`Trust`] forbids, and then nothing is created; [`Error::Io`] if the
    /// directory cannot be found or created, or one that was made does not take its mode.
    pub fn open(self, root: impl AsRef<Path>) -> Result<Store, Error> {
        let directory = root.as_ref().join(self.identity.directory_name());
        let directory = std::path::absolute(&directory).map_err(file::failed("find", &directory))?;
        #[cfg(unix)]
        let (trusted, modes) =
            (Trusted::new(self.trust), self.modes.or((self.trust == Trust::Group).then_some(Modes::GROUP)));
        #[cfg(not(unix))]
        let (trusted, modes) = (Trusted::ANYONE, self.modes);
        // Before anything is made: a directory of root's in another's place would be in that one's way.
        trusted.check_directory(&directory)?;
        if !self.is_read_only {
            let new_root = directory.parent().filter(|root| !root.exists());
            file::create_directory(&directory, modes)?;
            trusted.check_directory(&directory)?;
            if let Some(root) = new_root {
                file::tag(root, modes);
            }
        }
        Ok(Store {
            directory,
            identity: self.identity,
            access: Access::READ,
            linker: Linker::default(),
            modes,
            trusted,
            durability: self.durability,
            budget: self.budget.map(Budget::new),
            is_read_only: self.is_read_only,
            swept: AtomicBool::new(false),
            bases: Vec::new(),
        })
    }
}

impl Store {
    /// Opens the directory of `identity` under `root`, and creates it if need be, for this user alone: as
    /// [`StoreOptions::open`] does with nothing set.
    ///
    /// # Errors
    ///
    /// Those of [`StoreOptions::open`].
    pub fn open(root: impl AsRef<Path>, identity: Identity) -> Result<Self, Error> {
        Self::options(identity).open(root)
    }

    /// Returns how a store of `identity` is opened, to be set otherwise.
    pub const fn options(identity: Identity) -> StoreOptions {
        StoreOptions::new(identity)
    }

    /// Sets how entries are read; it is [`Access::READ`] otherwise.
    #[must_use]
    pub const fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets what entries are bound to that import anything; without this they cannot be loaded.
    #[must_use]
    pub fn with_linker(mut self, linker: Linker) -> Self {
        self.linker = linker;
        self
    }

    pub(crate) const fn linker(&self) -> &Linker {
        &self.linker
    }

    /// Returns whose entries these are.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns whether code is to run from the files of the store, and may lie in them so that it can.
    pub(crate) fn runs_in_place(&self) -> bool {
        self.access.runs_in_place() && self.identity.may_run_in_place()
    }

    /// Returns whether the store was opened by [`StoreOptions::read_only`].
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Takes the right to write away, as [`StoreOptions::read_only`] does.
    pub(crate) fn into_read_only(self) -> Self {
        Self { is_read_only: true, ..self }
    }

    /// Returns the directory that holds the entries.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Looks an entry up and returns the bytes of its file, which [`Entry::parse`] takes.
    ///
    /// Lengths, key and machine are checked, and no digest: that is up to the caller, with [`Entry::verify`], or to
    /// [`Store::get_verified`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn get(&self, key: &Key) -> Result<Lookup<FileBytes>, Error> {
        let found = self.look_up(key, |file| {
            let file = FileBytes::of(file, self.access)?;
            Entry::parse(&file, &self.identity)?.check_key(key)?;
            Ok(file)
        });
        Ok(self.or_in_bases(found, |base| base.get(key))?.0)
    }

    /// Looks an entry up and checks every byte of it, as [`Entry::verify`] does.
    ///
    /// ```
    /// use jitcache::{Builder, Identity, Key, Lookup, Store};
    ///
    /// # let root = std::env::temp_dir().join(format!("jitcache-verified-{}", std::process::id()));
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let store = Store::open(&root, identity.clone())?;
    /// let key = Key::of(&identity).source(b"fn main() {}").finish();
    /// store.put(&key, &Builder::new().code(&[0xc3][..]).function(0).finish(&identity, &key)?)?;
    ///
    /// let Lookup::Hit(verified) = store.get_verified(&key)? else { panic!("it was put") };
    /// assert_eq!(verified.entry().code(), [0xc3]);
    /// # std::fs::remove_dir_all(&root).unwrap();
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn get_verified(&self, key: &Key) -> Result<Lookup<Verified>, Error> {
        let found = self.look_up(key, |file| self.verified(key, file));
        Ok(self.or_in_bases(found, |base| base.get_verified(key))?.0)
    }

    /// Looks an entry up and makes its code executable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Memory`] and [`Error::UnsupportedMachine`] from the system; [`Error::UnboundImport`] for a name that the
    /// linker has no address for.
    pub fn load(&self, key: &Key) -> Result<Lookup<Module>, Error> {
        Ok(self.find(key)?.0)
    }

    /// Loads as [`Store::load`] does, and tells which file of this store it was.
    pub(crate) fn find(&self, key: &Key) -> Result<Found<Module>, Error> {
        self.find_with(key, &self.linker)
    }

    fn find_with(&self, key: &Key, linker: &Linker) -> Result<Found<Module>, Error> {
        let found = self.look_up(key, |file| Module::of_file(file, self.access, &self.identity, key, linker));
        self.or_in_bases(found, |base| base.load_with(key, linker))
    }

    /// Looks an entry up and checks every byte of it, as [`Entry::verify`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn verify(&self, key: &Key) -> Result<Lookup<()>, Error> {
        Ok(self.find_and_verify(key)?.0)
    }

    /// Checks as [`Store::verify`] does, and tells which file of this store it was.
    pub(crate) fn find_and_verify(&self, key: &Key) -> Result<Found<()>, Error> {
        let found = self.look_up(key, |file| self.verified(key, file).map(drop));
        self.or_in_bases(found, |base| base.get_verified(key)?.try_map(|_| Ok(())))
    }

    fn verified(&self, key: &Key, file: &Source<'_>) -> Result<Verified, Error> {
        Verified::of(FileBytes::of(file, self.access)?, &self.identity, key)
    }

    fn look_up<T>(&self, key: &Key, take: impl FnOnce(&Source<'_>) -> Result<T, Error>) -> Result<Found<T>, Error> {
        match Source::open(&self.path(key), &self.trusted) {
            Ok(None) => Ok((Lookup::Miss, None)),
            Ok(Some(file)) => {
                let found = Lookup::of(take(&file))?;
                if matches!(found, Lookup::Hit(_)) && !self.is_read_only {
                    file.touch();
                }
                Ok((found, Some(file.id)))
            }
            Err(error) => Ok((Lookup::of(Err(error))?, None)),
        }
    }

    /// Publishes an entry under a key: no process sees a part of it.
    ///
    /// That costs a file, which is created, written and renamed. With [`Durability::Synced`] the entry survives a power cut
    /// once this returns: then the file and its directory are synced, too, which takes most of the time. [`Store::batch`] does
    /// that once for many. Nothing is evicted unless the store has a [`budget`](StoreOptions::budget).
    ///
    /// It takes the place of whatever had its name, except for a directory. Nobody else is waited for, only the file system;
    /// one that offers no sync, of files or of directories, is not an error, and the entry may not survive there. The first call
    /// of a store also does what [`Store::sweep`] does.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::Io`], and the directory is as it was, unless syncing it was what failed: then the entry is in place, and may
    /// not survive a power cut. An entry that is longer than the process may write, `RLIMIT_FSIZE`, is one of them. What the
    /// store would reject when it reads is not written: [`Error::Invalid`] for an entry of another magic, version, sealing, MAC
    /// key or, if it is plain, target; [`Error::Unwritable`] for one that is larger than [`Access::with_limit`] has it or has try
    /// tables in a store of [`Revision::Unknown`](crate::Revision::Unknown); and whatever else reading would call it, such as
    /// [`Error::Target`], [`Error::CpuFeatures`], [`Error::BuildId`], [`Error::UnknownSection`] and [`Error::Key`].
    pub fn put(&self, key: &Key, entry: &Entry<'_>) -> Result<(), Error> {
        self.put_and_trim(key, entry).map(drop)
    }

    /// Puts as [`Store::put`] does, and tells what was removed to make room for it.
    pub(crate) fn put_and_trim(&self, key: &Key, entry: &Entry<'_>) -> Result<Option<Trimmed>, Error> {
        self.prepare(key, entry)?;
        file::publish(&self.path(key), &self.temporaries(), self.modes, self.sync(), entry.length(), |file| {
            write(entry, file)
        })?;
        Ok(self.keep_to_budget(entry.length()))
    }

    /// Makes room if it is time to, after so many bytes were put, and tells what was removed.
    fn keep_to_budget(&self, put: u64) -> Option<Trimmed> {
        let budget = self.budget.as_ref().filter(|budget| budget.put(put))?;
        let (above, most) = budget.bounds();
        // The entry is there; what cannot be removed now is tried again later. `trim_to` tells why.
        self.room().trim(above, most, PATIENCE).ok().flatten().filter(|trimmed| trimmed.entries > 0)
    }

    fn room(&self) -> Room<'_> {
        Room {
            root: self.directory.parent().unwrap_or(&self.directory),
            own: &self.directory,
            identity: &self.identity,
            trusted: &self.trusted,
            modes: self.modes,
        }
    }

    /// Removes entries of this engine until there are `bytes` of them under the root: those of other versions and targets
    /// first, then the least recently used, as [`StoreOptions::budget`] has it done by itself.
    ///
    /// Returns what was removed, or `None` if another process is removing entries.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::Io`] and [`Error::Memory`] from the system, and whatever could be removed is removed.
    pub fn trim_to(&self, bytes: u64) -> Result<Option<Trimmed>, Error> {
        self.check_writable()?;
        self.room().trim(bytes, bytes, Duration::ZERO)
    }

    /// Returns the directories of other versions of this engine, and of other targets, under the root.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn other_versions(&self) -> Result<Vec<OtherVersion>, Error> {
        self.room().others()
    }

    /// Removes the entries of another version, and its directory if nothing else is in it.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::Invalid`] if it is no other version of this store's; [`Error::Io`] and
    /// [`Error::Memory`] from the system.
    pub fn remove_version(&self, version: &OtherVersion) -> Result<Trimmed, Error> {
        self.check_writable()?;
        self.room().remove(&version.directory)
    }

    /// Begins to put many entries, of which none is seen before [`Batch::finish`] has synced them all at once.
    pub const fn batch(&self) -> Batch<'_> {
        Batch { store: self, written: Vec::new(), bytes: 0 }
    }

    /// Checks what is to be put, and sweeps once.
    fn prepare(&self, key: &Key, entry: &Entry<'_>) -> Result<(), Error> {
        self.check_writable()?;
        entry.check_identity(&self.identity)?;
        entry.check_key(key)?;
        let (limit, found) = (self.access.limit, entry.length());
        if found > limit {
            return Err(Error::Unwritable { field: Field::File, expected: Bound::AtMost(limit), found });
        }
        if !self.swept.swap(true, Ordering::Relaxed) {
            // What cannot be swept now is in nobody's way; `sweep` tells why.
            let _ = self.sweep();
        }
        Ok(())
    }

    /// Returns when a put is synced. What nobody checks must be whole before it has its name.
    fn sync(&self) -> Sync {
        let is_unchecked = matches!(self.access.mode, Mode::InPlace(_, Check::Unchecked));
        match (self.durability, self.identity.sealing()) {
            (Durability::Lazy, Sealing::Checksum | Sealing::Mac(_)) if !is_unchecked => Sync::Later,
            _ => Sync::Now,
        }
    }

    /// Removes an entry and returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::NotAFile`] for a link, a directory and anything else that is no regular file, which stays;
    /// [`Error::Io`] from the system.
    pub fn remove(&self, key: &Key) -> Result<bool, Error> {
        self.check_writable()?;
        file::remove(&self.path(key))
    }

    /// Removes an entry if it is still the file that was read, and returns whether it was.
    pub(crate) fn remove_read(&self, key: &Key, read: FileId) -> Result<bool, Error> {
        file::remove_read(&self.path(key), &self.temporaries(), self.modes, read)
    }

    /// Returns the keys of all entries, sound or not, in no order. What else lies in the directory is passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] from the system, at once or in the iteration.
    pub fn list(&self) -> Result<impl Iterator<Item = Result<Key, Error>>, Error> {
        let names = file::names(&self.directory)?;
        Ok(names.filter_map(|name| name.map(|name| name.parse().ok()).transpose()))
    }

    /// Removes the temporary files that are left over, and returns how many there were.
    ///
    /// Those are the files in `tmp`, under names such as [`Store::put`] gives, that were last written to more than an hour ago
    /// by the clock of the file system: their writers have died, or write once more if they were only stopped.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::Io`] from the system, and whatever could be removed is removed.
    pub fn sweep(&self) -> Result<usize, Error> {
        self.check_writable()?;
        file::sweep(&self.temporaries(), self.modes)
    }

    fn check_writable(&self) -> Result<(), Error> {
        if self.is_read_only { Err(Error::ReadOnly { path: self.directory.clone() }) } else { Ok(()) }
    }

    /// Returns the directory of temporary files: within that of the entries, so that renaming stays within a file system.
    fn temporaries(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    /// Returns the path of the file that holds, or would hold, the entry of a key.
    #[must_use]
    pub fn path(&self, key: &Key) -> PathBuf {
        let mut digits = [[0; 2]; 32];
        let name = key.hexadecimal(&mut digits);
        // At its length from the start: growing it shows, too.
        let length = self.directory.as_os_str().len().saturating_add(name.len()).saturating_add(1);
        let mut path = PathBuf::with_capacity(length);
        path.push(&self.directory);
        path.push(name);
        path
    }
}

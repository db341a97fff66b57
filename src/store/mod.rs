//! A directory of entries, which processes share.

mod base;
pub(crate) mod batch;
mod budget;
mod explain;
mod explanation;
mod layers;
mod lock;
mod lookup;
mod open;
mod options;
mod pack;
mod packing;
mod place;
mod room;
mod statistics;
mod tally;
mod verified;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::entry::{Entry, Identity, Sealing};
use crate::error::{Bound, Error, Field};
use crate::file::{self, FileId, Modes, Sync, Trusted};
use crate::load::{FileBytes, Linker, Module, Source};
use crate::memory::{Access, Check, Mode};
use crate::words::Key;
pub use base::Base;
pub use explanation::{Explanation, Near};
pub(crate) use lookup::Found;
pub use lookup::Lookup;
pub use options::{Durability, StoreOptions};
pub use pack::Pack;
pub use place::default_root;
use room::Budget;
pub use room::{OtherVersion, Trimmed};
pub use statistics::Statistics;
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

fn write(entry: &Entry<'_>, file: &std::fs::File) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    entry.write(&mut file)?;
    file.flush()
}

impl Store {
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
    /// [`Error::Io`], [`Error::Memory`] and [`Error::UnsupportedMachine`] from the system; [`Error::UnboundImport`] for
    /// a name that the linker has no address for.
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
                // What is only too long for this reader is not this one's to remove.
                Ok((found, (file.id.length <= self.access.limit).then_some(file.id)))
            }
            Err(error) => Ok((Lookup::of(Err(error))?, None)),
        }
    }

    /// Publishes an entry under a key: no process sees a part of it.
    ///
    /// That costs a file, which is created, written and renamed. With [`Durability::Synced`] the entry survives a power
    /// cut once this returns: then the file and its directory are synced, too, which takes most of the time.
    /// [`Store::batch`] does that once for many. Nothing is evicted unless the store has a
    /// [`budget`](StoreOptions::budget).
    ///
    /// It takes the place of whatever had its name, except for a directory. Nobody else is waited for, only the file
    /// system; one that offers no sync, of files or of directories, is not an error, and the entry may not survive
    /// there. The first call of a store also does what [`Store::sweep`] does.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::Io`], and the directory is as it was, unless syncing it was what failed: then the
    /// entry is in place, and may not survive a power cut. An entry that is longer than the process may write,
    /// `RLIMIT_FSIZE`, is one of them. What the store would reject when it reads is not written: [`Error::Invalid`] for
    /// an entry of another magic, version, sealing, MAC key or, if it is plain, target; [`Error::Unwritable`] for one
    /// that is larger than [`Access::with_limit`] or the budget has it, or has try tables in a store of
    /// [`Revision::Unknown`](crate::Revision::Unknown); and whatever else reading would call it, such as
    /// [`Error::Target`], [`Error::CpuFeatures`], [`Error::BuildId`], [`Error::UnknownSection`] and [`Error::Key`].
    pub fn put(&self, key: &Key, entry: &Entry<'_>) -> Result<(), Error> {
        self.publish(key, entry)?;
        self.keep_to_budget(entry.length());
        Ok(())
    }

    /// Publishes an entry, and leaves the budget to whoever calls this.
    pub(crate) fn publish(&self, key: &Key, entry: &Entry<'_>) -> Result<(), Error> {
        self.prepare(key, entry)?;
        file::publish(&self.path(key), &self.temporaries(), self.modes, self.sync(), entry.length(), |file| {
            write(entry, file)
        })
    }

    /// Checks what is to be put, and sweeps once.
    fn prepare(&self, key: &Key, entry: &Entry<'_>) -> Result<(), Error> {
        self.check_writable()?;
        entry.check_identity(&self.identity)?;
        entry.check_key(key)?;
        let most = self.budget.as_ref().map_or(u64::MAX, |budget| budget.bounds().1);
        let (limit, found) = (self.access.limit.min(most), entry.length());
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
    /// [`Error::ReadOnly`]; [`Error::NotAFile`] for a link, a directory and anything else that is no regular file,
    /// which stays; [`Error::Io`] from the system.
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
    /// Those are the files in `tmp`, under names such as [`Store::put`] gives, that were last written to more than an
    /// hour ago by the clock of the file system: their writers have died, or write once more if they were only stopped.
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

    /// Returns the directory of temporary files: within that of the entries, so that renaming stays within a file
    /// system.
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

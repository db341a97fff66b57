//! A directory of entries, which processes share.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bytes::FileBytes;
use crate::entry::Entry;
use crate::error::{Bound, Error, Field};
use crate::file;
use crate::identity::Identity;
use crate::key::Key;
use crate::magic::Version;
use crate::memory::Access;
use crate::module::Module;

/// What looking a key up came to. Each outcome has its own remedy.
#[derive(Debug)]
pub enum Lookup<T> {
    /// The entry is there and sound: use it.
    Hit(T),
    /// There is no entry: compile.
    Miss,
    /// Another version of the engine, which is given here, wrote the entry: remove it and compile.
    Stale(Version),
    /// The entry is damaged or no entry at all, for the reason given: remove it and compile.
    Rejected(Error),
}

impl<T> Lookup<T> {
    /// Returns what was found, if it was found.
    #[must_use]
    pub fn hit(self) -> Option<T> {
        match self {
            Self::Hit(found) => Some(found),
            Self::Miss | Self::Stale(_) | Self::Rejected(_) => None,
        }
    }

    /// Takes what is wrong with an entry for an outcome, and leaves what is wrong with the machine an error.
    fn of(found: Result<T, Error>) -> Result<Self, Error> {
        match found {
            Ok(found) => Ok(Self::Hit(found)),
            Err(Error::Stale { found, .. }) => Ok(Self::Stale(found)),
            Err(error) if error.is_rejection() => Ok(Self::Rejected(error)),
            Err(error) => Err(error),
        }
    }
}

/// The entries of one engine, one of its versions and one target, as files of a directory.
///
/// The layout is wazero's: `<root>/<name>-<version>-<arch>-<os>/<64 hexadecimal digits>`. Threads and processes may use
/// a directory at the same time; the last writer of an entry wins, and readers see one whole entry or the other.
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
    swept: AtomicBool,
}

impl Store {
    /// Opens the directory of `identity` under `root`, and creates it if need be, for this user alone.
    ///
    /// Whoever can write to the directory can have their code run: it must be as safe as the program itself.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory cannot be created.
    pub fn open(root: impl AsRef<Path>, identity: Identity) -> Result<Self, Error> {
        let directory = root.as_ref().join(identity.directory_name());
        file::create_directory(&directory)?;
        Ok(Self { directory, identity, access: Access::READ, swept: AtomicBool::new(false) })
    }

    /// Sets how entries are read; it is [`Access::READ`] otherwise.
    #[must_use]
    pub const fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Returns whose entries these are.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the directory that holds the entries.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Looks an entry up and returns the bytes of its file, which [`Entry::parse`] takes. Only lengths are checked.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn get(&self, key: &Key) -> Result<Lookup<FileBytes>, Error> {
        self.look_up(key, FileBytes::open, |file| {
            Entry::parse(&file, &self.identity)?.check_key(key)?;
            Ok(file)
        })
    }

    /// Looks an entry up and makes its code executable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Memory`] and [`Error::UnsupportedMachine`] from the system.
    pub fn load(&self, key: &Key) -> Result<Lookup<Module>, Error> {
        self.look_up(key, FileBytes::open_to_load, |file| Module::load_file(file, &self.identity, key))
    }

    /// Looks an entry up and checks every byte of it, as [`Entry::verify`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn verify(&self, key: &Key) -> Result<Lookup<()>, Error> {
        self.look_up(key, FileBytes::open, |file| {
            let entry = Entry::parse(&file, &self.identity)?;
            entry.check_key(key)?;
            entry.verify()
        })
    }

    fn look_up<T>(
        &self,
        key: &Key,
        open: impl FnOnce(&Path, Access) -> Result<Option<FileBytes>, Error>,
        take: impl FnOnce(FileBytes) -> Result<T, Error>,
    ) -> Result<Lookup<T>, Error> {
        match open(&self.path(key), self.access) {
            Ok(None) => Ok(Lookup::Miss),
            Ok(Some(file)) => Lookup::of(take(file)),
            Err(error) => Lookup::of(Err(error)),
        }
    }

    /// Publishes an entry under a key: after this returns, the entry survives a power cut, and until then nobody sees it.
    ///
    /// The first call of a store also does what [`Store::sweep`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and the directory is as it was, unless syncing it was what failed: then the entry is in place, and may
    /// not survive a power cut. What the store would reject when it reads is not written: [`Error::Invalid`] for an entry of
    /// another magic, version, sealing, MAC key or, if it is plain, target or revision; [`Error::Unwritable`] for one that is
    /// larger than [`Access::with_limit`] has it; and whatever else reading would call it, such as [`Error::Target`],
    /// [`Error::CpuFeatures`], [`Error::BuildId`], [`Error::UnknownSection`] and [`Error::Key`].
    pub fn put(&self, key: &Key, entry: &Entry<'_>) -> Result<(), Error> {
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
        file::publish(
            &self.path(key),
            || self.directory.join(format!("{key}.{:016x}.tmp", RandomState::new().hash_one(()))),
            |file| {
                let mut file = BufWriter::new(file);
                entry.write(&mut file)?;
                file.flush()
            },
        )
    }

    /// Removes an entry and returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] from the system.
    pub fn remove(&self, key: &Key) -> Result<bool, Error> {
        file::remove(&self.path(key))
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

    /// Removes the temporary files of writers that died, and returns how many there were.
    ///
    /// Those of living writers are left alone, and so are wazero's, which cannot be told from living ones.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] from the system; whatever could be removed is removed.
    pub fn sweep(&self) -> Result<usize, Error> {
        let mut swept = 0;
        let mut result = Ok(());
        for name in file::names(&self.directory)? {
            let removed = match name {
                Ok(name) if is_temporary(&name) => file::sweep(&self.directory.join(name)),
                Ok(_) => Ok(false),
                Err(error) => Err(error),
            };
            match removed {
                Ok(removed) => swept = usize::saturating_add(swept, removed.into()),
                Err(error) => result = Err(error),
            }
        }
        result.map(|()| swept)
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

/// Tells whether a name is one that [`Store::put`] gives a temporary file; wazero's have at most ten digits in the middle.
fn is_temporary(name: &str) -> bool {
    let Some((key, rest)) = name.split_once('.') else { return false };
    let Some(nonce) = rest.strip_suffix(".tmp") else { return false };
    let hexadecimal = nonce.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    key.parse::<Key>().is_ok() && nonce.len() == 16 && hexadecimal
}

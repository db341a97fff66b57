//! Putting many entries with one sync.

use super::{Store, Trimmed, write};
use std::fs::File;

use crate::entry::Entry;
use crate::error::Error;
use crate::file::{self, Aside, Sync};
use crate::words::Key;

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
    /// What is written, with its length.
    written: Vec<(Key, Aside, u64)>,
    /// The first of them, open: through it the file system tells every error of writing since then.
    first: Option<File>,
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
        let (aside, file) =
            file::write_aside(&store.temporaries(), store.modes, Sync::Later, entry.length(), |file| {
                write(entry, file)
            })?;
        self.first.get_or_insert(file);
        self.written.push((*key, aside, entry.length()));
        Ok(())
    }

    /// Publishes all entries: after this returns, they survive a power cut, whatever the
    /// [`Durability`](crate::Durability). Returns what went out of the store for its
    /// [`budget`](crate::StoreOptions::budget), if it was time to count, of which no [`Event`](crate::Event) tells: a
    /// batch is the store's, and no cache's.
    ///
    /// On Linux that waits for all that the file system has to write, other programs' files included. If more than an
    /// hour passes between [`Batch::put`] and this, another process may have swept the file, which is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] from the system. If it is the sync that fails, nothing is published; otherwise all is that can be.
    pub fn finish(self) -> Result<Option<Trimmed>, Error> {
        let store = self.store;
        if let Some(first) = self.first {
            file::sync_aside(self.written.iter().map(|(_, aside, _)| aside), first, &store.temporaries())?;
        }
        let (mut result, mut trimmed) = (Ok(()), None::<Trimmed>);
        for (key, aside, length) in self.written {
            result = result.and(aside.rename(&store.path(&key)));
            if let Some(more) = store.keep_to_budget(length) {
                trimmed = Some(trimmed.unwrap_or_default().and(more));
            }
        }
        result.and(file::sync_directory(&store.directory)).map(|()| trimmed)
    }
}

impl Store {
    /// Begins to put many entries, of which none is seen before [`Batch::finish`] has synced them all at once.
    pub const fn batch(&self) -> Batch<'_> {
        Batch { store: self, written: Vec::new(), first: None }
    }
}

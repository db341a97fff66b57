//! Write-behind: what was compiled is stored when the engine has the time.

use super::Cache;
use crate::entry::Entry;
use crate::store::Store;

impl Cache {
    /// Sets how many bytes of compiled entries may wait in memory for [`Cache::flush`] to store them. Otherwise none do:
    /// [`Cache::get_or_compile`] and [`Cache::add`] store what was compiled before they return.
    ///
    /// So the thread that wants to run code does not wait for the file system, unless more is compiled than may wait:
    /// what is too much is stored at once. What waits is on no disk, and a stale or damaged entry in its place stays
    /// until then. Other processes compile it, too, and wait for nobody; this one does so again if it goes out of memory
    /// before. It is lost if the process is killed, or exits without dropping the cache, which flushes. A child of
    /// `fork` leaves it to its parent.
    #[must_use]
    pub const fn with_write_behind(mut self, bytes: u64) -> Self {
        self.behind.most = bytes;
        self
    }

    /// Stores the entries that wait, if [`Cache::with_write_behind`] has any do so, and returns how many were stored.
    ///
    /// To be called by a thread that has nothing better to do, now and then, and in the end; dropping the cache does it,
    /// too. Several threads may flush at once: they share the work, and tell the [`Event`](crate::Event)s of what they
    /// store. What cannot be stored is told, and dropped. While the store is left alone for its failures, everything
    /// waits; when the cache is dropped then, it tries once more, and drops the rest if that fails.
    ///
    /// ```
    /// use std::thread;
    ///
    /// use jitcache::{Cache, Error, Identity, Key};
    ///
    /// # let root = std::env::temp_dir().join(format!("jitcache-behind-{}", std::process::id()));
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let cache = Cache::open_or_in_memory(&root, identity).with_write_behind(16 << 20);
    /// for unit in ["f", "g"] {
    ///     let key = Key::of(cache.identity()).source(unit.as_bytes()).finish();
    ///     cache.get_or_compile(&key, |entry| {
    ///         entry.code(vec![0xc3]).function(0);
    ///         Ok::<(), Error>(())
    ///     })?;
    /// }
    /// thread::scope(|scope| {
    ///     scope.spawn(|| cache.flush());
    ///     // The engine runs what it has compiled.
    /// });
    /// assert_eq!(cache.statistics().stored, 2);
    /// # std::fs::remove_dir_all(&root).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    pub fn flush(&self) -> u64 {
        self.flush_to(self.store_to_write())
    }

    /// Stores what waits, until the store is left alone.
    fn flush_to<'s>(&'s self, mut store: Option<&'s Store>) -> u64 {
        let mut stored = 0_u64;
        while let Some(to) = store
            && let Some(entry) = self.behind.next(self.patience)
        {
            let key = entry.key;
            let put = Entry::parse(&entry.file, &self.identity).and_then(|entry| self.put(to, &key, &entry));
            drop(entry);
            stored = stored.saturating_add(u64::from(put.is_ok()));
            self.tell_stored(&key, put);
            store = self.store_to_write();
        }
        stored
    }
}

impl Drop for Cache {
    /// Stores what waits, with one try if the store is left alone, and adds to the tally.
    fn drop(&mut self) {
        self.flush_to(self.writable());
        self.tallied.add(&self.counters, self.store_to_write());
    }
}

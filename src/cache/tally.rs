//! What a cache counts goes to the tally of its directory now and then, off the way of a hit.

use super::Cache;
use crate::error::Error;
use crate::store::Statistics;

impl Cache {
    /// Returns what all caches over the directory have counted, this one and those of processes that have ended among
    /// them; of a cache without a store, what this one has.
    ///
    /// A hit costs that nothing: it is counted in memory, as for [`Cache::statistics`]. What was counted is added to a
    /// small file in the directory, `tmp/tally`, by this call, when the cache is dropped, and after a module was
    /// stored, once in a second at most. If that fails, or another process is about it for 20 ms, it is left to the
    /// next time. So what a process has counted since then is lost if it is killed, or exits without dropping its
    /// cache, such as one in a `static`. A child of `fork` is counted from its first miss on, and nothing twice.
    /// Nothing is added where the store is read only.
    ///
    /// ```
    /// use jitcache::{Cache, Error, Identity, Key};
    ///
    /// # let root = std::env::temp_dir().join(format!("jitcache-tally-{}", std::process::id()));
    /// let open = || Cache::open(&root, Identity::new("myjit", *b"MYJIT\0", "1.4.2")?);
    /// for _ in 0..4 {
    ///     let cache = open()?;
    ///     let key = Key::of(cache.identity()).source(b"fn main() {}").finish();
    ///     cache.get_or_compile(&key, |entry| {
    ///         entry.code(vec![0xc3]).function(0);
    ///         Ok::<(), Error>(())
    ///     })?;
    /// }
    /// assert_eq!(open()?.tally()?.hit_rate(), Some(0.75));
    /// # std::fs::remove_dir_all(&root).unwrap();
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Store::tally`](crate::Store::tally).
    pub fn tally(&self) -> Result<Statistics, Error> {
        let Some(store) = &self.store else { return Ok(self.statistics()) };
        let left = self.tallied.add(&self.counters, self.store_to_write());
        Ok(store.tally()?.plus(&left))
    }
}

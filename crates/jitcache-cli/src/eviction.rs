//! What an engine would evict that has a budget.

use crate::entries::{Cache, Found};

/// What goes of a directory.
pub(crate) struct Evicted {
    /// Its place in the list of directories.
    pub(crate) directory: usize,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Returns what goes of each directory that something goes of, by the rule of `StoreOptions::budget`: each engine whose
/// entries take more than the budget removes down to three quarters of it, those of other versions and targets first,
/// and then the least recently used. Its own version is the one that was used last.
pub(crate) fn evicted(cache: &Cache, budget: u64) -> Vec<Evicted> {
    let engine = |entry: &Found| cache.directories.get(entry.directory).map(|directory| directory.parts()[0]);
    let mut engines: Vec<_> = cache.directories.iter().map(|directory| directory.parts()[0]).collect();
    engines.dedup();
    let mut evicted: Vec<_> =
        (0..cache.directories.len()).map(|directory| Evicted { directory, entries: 0, bytes: 0 }).collect();
    for of in engines {
        let mut entries: Vec<_> = cache.entries.iter().filter(|entry| engine(entry) == Some(of)).collect();
        let mut left = entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
        if left <= budget {
            continue;
        }
        let most = budget.saturating_sub(budget.div_ceil(4));
        let own = entries.iter().max_by_key(|entry| entry.modified).map(|entry| entry.directory);
        entries.sort_by_key(|entry| (Some(entry.directory) == own, entry.modified));
        for entry in entries {
            if left <= most {
                break;
            }
            left = left.saturating_sub(entry.bytes);
            if let Some(evicted) = evicted.get_mut(entry.directory) {
                evicted.entries = evicted.entries.saturating_add(1);
                evicted.bytes = evicted.bytes.saturating_add(entry.bytes);
            }
        }
    }
    evicted.retain(|evicted| evicted.entries > 0);
    evicted
}

//! The modules in memory, and which of them go if they are too many.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, heap};
use crate::load::Module;
use crate::words::Key;

/// The modules in memory.
pub(super) struct Kept {
    modules: HashMap<Key, Used>,
    /// How often a module was asked for.
    clock: u64,
    /// Bytes of code.
    bytes: u64,
    /// How many there may be.
    pub(super) budget: u64,
    /// From how many on it is worth a look which modules nobody holds.
    next_look: u64,
}

struct Used {
    module: Arc<Module>,
    /// What the clock was when it was last asked for.
    at: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { modules: HashMap::new(), clock: 0, bytes: 0, budget: u64::MAX, next_look: 0 }
    }
}

impl Kept {
    pub(super) fn get(&mut self, key: &Key) -> Option<Arc<Module>> {
        let used = self.modules.get_mut(key)?;
        self.clock = self.clock.wrapping_add(1);
        used.at = self.clock;
        Some(Arc::clone(&used.module))
    }

    /// Makes room for one more module.
    pub(super) fn reserve(&mut self) -> Result<(), Error> {
        let count = self.modules.len().saturating_add(1);
        self.modules.try_reserve(1).map_err(heap::refused::<(Key, Used)>(count))
    }

    /// Adds a module of a key that has none, for which room was made.
    pub(super) fn insert(&mut self, key: Key, module: Arc<Module>) {
        self.clock = self.clock.wrapping_add(1);
        self.bytes = self.bytes.saturating_add(bytes(&module));
        self.modules.insert(key, Used { module, at: self.clock });
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Module>> {
        let module = self.modules.remove(key)?.module;
        self.bytes = self.bytes.saturating_sub(bytes(&module));
        self.next_look = self.next_look.min(self.bytes.saturating_add(self.budget / 8));
        Some(module)
    }

    /// Takes the least recently used modules out that nobody else holds, down to seven eighths of the budget, if they
    /// are above it.
    ///
    /// So a look at all of them comes once in an eighth of the budget. If what is held leaves more than the budget, it
    /// comes once that has grown by an eighth, too.
    pub(super) fn trim(&mut self) -> Vec<(Key, Arc<Module>)> {
        if self.bytes <= self.budget.max(self.next_look) {
            return Vec::new();
        }
        let eighth = self.budget / 8;
        let aim = self.budget.saturating_sub(eighth);
        // One owner is the map, the other the registry.
        let free = self.modules.iter().filter(|(_, used)| Arc::strong_count(&used.module) <= 2);
        let mut free: Vec<_> = free.map(|(key, used)| (used.at, *key)).collect();
        free.sort_unstable();
        let mut evicted = Vec::new();
        for (_, key) in free {
            if self.bytes <= aim {
                break;
            }
            evicted.extend(self.remove(&key).map(|module| (key, module)));
        }
        self.next_look = self.bytes.saturating_add(eighth);
        evicted
    }
}

pub(super) fn bytes(module: &Module) -> u64 {
    u64::try_from(module.code().len()).unwrap_or(u64::MAX)
}

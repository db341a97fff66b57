//! From a program counter to the module it is in.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::module::{Location, Module};

/// The modules whose code may be running, sorted by address.
///
/// Looking up takes no lock and waits for nobody. A module that is removed stays mapped until the last [`Arc`] of it is
/// dropped.
#[derive(Debug, Default)]
pub struct Registry {
    modules: ArcSwap<Vec<Row>>,
    /// Held by writers, so that none loses what another one adds.
    writing: Mutex<()>,
}

/// A module and the addresses of its code, which stand here so that a search stays within the rows.
#[derive(Clone, Debug)]
struct Row {
    start: usize,
    end: usize,
    module: Arc<Module>,
}

impl Registry {
    /// Returns a registry of no modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module. One without code is left out: no program counter can be in it.
    pub fn insert(&self, module: Arc<Module>) {
        let Range { start, end } = module.address_range();
        if start == end {
            return;
        }
        self.change(|rows| {
            // Mappings that are alive do not overlap, so the order of the starts is that of the ends.
            let at = rows.partition_point(|row| row.start < start);
            rows.insert(at, Row { start, end, module });
        });
    }

    /// Takes a module out, and returns whether it was there.
    pub fn remove(&self, module: &Arc<Module>) -> bool {
        self.change(|rows| {
            let before = rows.len();
            rows.retain(|row| !Arc::ptr_eq(&row.module, module));
            rows.len() < before
        })
    }

    /// Returns the module that holds the address `pc`.
    #[must_use]
    pub fn module(&self, pc: usize) -> Option<Arc<Module>> {
        self.with(pc, |module| Some(Arc::clone(module)))
    }

    /// Returns where the program counter `pc` is, by the rules of [`Module::locate`].
    #[must_use]
    pub fn locate(&self, pc: usize) -> Option<Location> {
        self.with(pc, |module| module.locate(pc))
    }

    /// Returns where the instruction at `pc` is, by the rules of [`Module::locate_instruction`].
    #[must_use]
    pub fn locate_instruction(&self, pc: usize) -> Option<Location> {
        self.with(pc, |module| module.locate_instruction(pc))
    }

    fn with<T>(&self, pc: usize, look: impl FnOnce(&Arc<Module>) -> Option<T>) -> Option<T> {
        let rows = self.modules.load();
        let after = rows.partition_point(|row| row.start <= pc);
        let row = rows.get(after.checked_sub(1)?)?;
        (pc < row.end).then(|| look(&row.module))?
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Row>) -> T) -> T {
        // The lock guards no data, so a writer that panicked has left nothing half done.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::clone(&self.modules.load());
        let result = change(&mut rows);
        self.modules.store(Arc::new(rows));
        result
    }
}

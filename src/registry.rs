//! From a program counter to the module it is in.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::module::{Location, Module};

/// The modules whose code may be running, sorted by address.
///
/// Looking up takes no lock and waits for nobody. A module that is removed stays mapped until the last [`Arc`] of it is
/// dropped.
#[derive(Debug, Default)]
pub struct Registry {
    modules: ArcSwap<Vec<Arc<Module>>>,
    /// Held by writers, so that none loses what another one adds.
    writing: Mutex<()>,
}

impl Registry {
    /// Returns a registry of no modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module. One without code is left out: no program counter can be in it.
    pub fn insert(&self, module: Arc<Module>) {
        if module.address_range().is_empty() {
            return;
        }
        self.change(|modules| {
            // Mappings that are alive do not overlap, so the order of the starts is that of the ends.
            let at = modules.partition_point(|other| other.address_range().start < module.address_range().start);
            modules.insert(at, module);
        });
    }

    /// Takes a module out, and returns whether it was there.
    pub fn remove(&self, module: &Arc<Module>) -> bool {
        self.change(|modules| {
            let before = modules.len();
            modules.retain(|other| !Arc::ptr_eq(other, module));
            modules.len() < before
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
        let modules = self.modules.load();
        let after = modules.partition_point(|module| module.address_range().start <= pc);
        let module = modules.get(after.checked_sub(1)?)?;
        module.address_range().contains(&pc).then(|| look(module))?
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Module>>) -> T) -> T {
        // The lock guards no data, so a writer that panicked has left nothing half done.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut modules = Vec::clone(&self.modules.load());
        let result = change(&mut modules);
        self.modules.store(Arc::new(modules));
        result
    }
}

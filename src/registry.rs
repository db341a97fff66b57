//! From a program counter to the module it is in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::error::Error;
use crate::heap;
use crate::module::{Location, Module};

/// The modules whose code may be running, sorted by address.
///
/// Looking up takes no lock and waits for nobody. A module that is removed stays mapped until the last [`Arc`] of it is
/// dropped.
#[derive(Debug, Default)]
pub struct Registry {
    modules: ArcSwap<Modules>,
    /// Held by writers, so that none loses what another one adds.
    writing: Mutex<()>,
}

/// Modules, and where the code of each starts, which stands apart so that a search goes over little memory.
#[derive(Clone, Debug, Default)]
struct Modules {
    starts: Vec<usize>,
    modules: Vec<Arc<Module>>,
}

impl Registry {
    /// Returns a registry of no modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module. One without code is left out: no program counter can be in it.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if there is none for another row.
    pub fn insert(&self, module: Arc<Module>) -> Result<(), Error> {
        let range = module.address_range();
        if range.is_empty() {
            return Ok(());
        }
        let _writing = self.writing();
        let now = self.modules.load();
        // Mappings that are alive do not overlap: the order of the starts is that of the ends, and what starts here is this
        // very module.
        let Err(at) = now.starts.binary_search(&range.start) else { return Ok(()) };
        let mut modules = Modules::default();
        heap::reserve(&mut modules.starts, now.starts.len().saturating_add(1))?;
        heap::reserve(&mut modules.modules, now.modules.len().saturating_add(1))?;
        modules.starts.extend_from_slice(&now.starts);
        modules.modules.extend_from_slice(&now.modules);
        modules.starts.insert(at, range.start);
        modules.modules.insert(at, module);
        self.modules.store(Arc::new(modules));
        Ok(())
    }

    /// Takes a module out, and returns whether it was there. What is known of the others is copied for it, at the price of an
    /// abort if there is no memory.
    pub fn remove(&self, module: &Arc<Module>) -> bool {
        let _writing = self.writing();
        let mut modules = Modules::clone(&self.modules.load());
        let Some(at) = modules.modules.iter().position(|other| Arc::ptr_eq(other, module)) else { return false };
        modules.starts.remove(at);
        modules.modules.remove(at);
        self.modules.store(Arc::new(modules));
        true
    }

    /// Returns the module that holds the address `pc`.
    #[must_use]
    pub fn module(&self, pc: usize) -> Option<Arc<Module>> {
        self.with(pc, |module| module.address_range().contains(&pc).then(|| Arc::clone(module)))
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
        let after = modules.starts.partition_point(|&start| start <= pc);
        look(modules.modules.get(after.checked_sub(1)?)?)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data, so a writer that panicked has left nothing half done.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

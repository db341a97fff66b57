//! From a program counter to the module it is in.

mod rows;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;
use crate::load::{Location, Module};
use crate::memory::{Counted, Shared, Writing};
use rows::Node;

type Rows = Node<Arc<Module>>;

/// The modules whose code may be running, by address.
///
/// # Signal handlers
///
/// [`Registry::locate`] and [`Registry::locate_instruction`] may be called from a signal handler in any thread, at any
/// time, whatever it has interrupted: a lookup, an allocation, an insertion into this registry. They take no lock, no
/// memory and no variable of the thread that is set up by its first use, wait for nobody, free nothing, and take a
/// bounded number of steps. Only the first use of a source map does more: [`Module::check_source_map`] is to be called
/// before.
///
/// A handler that leaves by `longjmp` must not have interrupted a lookup: that would keep what it has found, for ever.
///
/// # Memory
///
/// Who is removed is found no more, and stays mapped until the last [`Arc`] of it is dropped. That of the registry is
/// dropped by [`Registry::remove`], or, if somebody was looking a program counter up meanwhile, by a later call of
/// [`Registry::insert`] or [`Registry::remove`]; never by a lookup.
///
/// In a child of `fork`, lookups that other threads were in the middle of never end. Each keeps what there was to be
/// found then, and no more. Adding and removing works there unless another thread was just doing so.
#[derive(Default)]
pub struct Registry {
    rows: Shared<Rows>,
    /// Whether a row may be buried. Written by those that may write the rows.
    has_buried: AtomicBool,
}

impl Registry {
    /// Returns a registry of no modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a module. One without code is left out: no program counter can be in it.
    ///
    /// It takes a time that grows with the logarithm of the number of modules. Not to be called from a signal handler.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if there is none for another row.
    pub fn insert(&self, module: Arc<Module>) -> Result<(), Error> {
        let range = module.address_range();
        if range.is_empty() {
            return Ok(());
        }
        let mut writing = self.rows.write();
        if has(writing.current(), &module) {
            return Ok(());
        }
        // Mappings that are alive do not overlap, and what is in a row is alive: the order of the starts is that of the
        // ends.
        let rows = Node::edited(writing.current(), range.start, Some(&module))?;
        self.publish(&mut writing, rows)
    }

    /// Takes a module out, and returns whether it was there.
    ///
    /// After this, no lookup finds it. It takes as long as [`Registry::insert`], and works without memory, too: then
    /// the registry keeps its [`Arc`] until it has some. Not to be called from a signal handler.
    pub fn remove(&self, module: &Arc<Module>) -> bool {
        let mut writing = self.rows.write();
        if !has(writing.current(), module) {
            return false;
        }
        let start = module.address_range().start;
        let rows = Node::edited(writing.current(), start, None);
        if rows.and_then(|rows| self.publish(&mut writing, rows)).is_err()
            && let Some(rows) = writing.current()
        {
            rows.bury(start);
            self.has_buried.store(true, Ordering::Relaxed);
        }
        true
    }

    /// Returns the module that holds the address `pc`.
    ///
    /// A signal handler may call this, too, and clone the [`Arc`]; but it must not drop the last one, which frees
    /// memory and unmaps code. If another thread may remove the module meanwhile, that is to be feared of any.
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
        self.rows.read(|rows| look(rows?.last_from(pc)?))
    }

    /// Replaces the rows, and leaves those out that were buried, as far as there is memory.
    fn publish(&self, writing: &mut Writing<'_, Rows>, mut rows: Option<Counted<Rows>>) -> Result<(), Error> {
        let mut has_buried = self.has_buried.load(Ordering::Relaxed);
        while has_buried && let Some(start) = rows.as_ref().and_then(|rows| rows.buried()) {
            let Ok(fewer) = Node::edited(rows.as_deref(), start, None) else { break };
            rows = fewer;
        }
        has_buried = has_buried && rows.as_ref().is_some_and(|rows| rows.buried().is_some());
        writing.replace(rows)?;
        self.has_buried.store(has_buried, Ordering::Relaxed);
        Ok(())
    }
}

/// Returns whether a module has a row.
fn has(rows: Option<&Rows>, module: &Arc<Module>) -> bool {
    let found = rows.and_then(|rows| rows.last_from(module.address_range().start));
    found.is_some_and(|found| Arc::ptr_eq(found, module))
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

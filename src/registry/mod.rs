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
    modules: ArcSwap<Sorted<Arc<Module>>>,
    /// Held by writers, so that none loses what another one adds.
    writing: Mutex<()>,
}

/// Values by the addresses at which they start. The addresses are divided into parts, so that a search goes over few starts.
#[derive(Clone, Debug)]
struct Sorted<T> {
    starts: Vec<usize>,
    values: Vec<T>,
    /// The first part begins here, each has `1 << shift` bytes, and the last one no end. There are about as many as starts.
    base: usize,
    shift: u32,
    /// How many start in front of each part, and in all.
    before: Vec<usize>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { starts: Vec::new(), values: Vec::new(), base: 0, shift: 0, before: Vec::new() }
    }
}

impl<T: Clone> Sorted<T> {
    /// Returns a copy with one value more; `None` if there is one that starts at the same address.
    fn with(&self, start: usize, value: T) -> Result<Option<Self>, Error> {
        let Err(at) = self.starts.binary_search(&start) else { return Ok(None) };
        let mut more = Self::default();
        heap::reserve(&mut more.starts, self.starts.len().saturating_add(1))?;
        heap::reserve(&mut more.values, self.values.len().saturating_add(1))?;
        more.starts.extend_from_slice(&self.starts);
        more.values.extend_from_slice(&self.values);
        more.starts.insert(at, start);
        more.values.insert(at, value);
        more.divide()?;
        Ok(Some(more))
    }

    /// Takes a value out, and leaves the parts of the addresses as they are.
    fn remove(&mut self, at: usize) {
        self.starts.remove(at);
        self.values.remove(at);
        for before in self.before.iter_mut().filter(|before| **before > at) {
            *before = before.saturating_sub(1);
        }
    }

    /// Divides the addresses into parts.
    fn divide(&mut self) -> Result<(), Error> {
        let (Some(&first), Some(&last)) = (self.starts.first(), self.starts.last()) else { return Ok(()) };
        let most = self.starts.len().next_power_of_two();
        let bits = usize::BITS.saturating_sub(last.saturating_sub(first).leading_zeros());
        (self.base, self.shift) = (first, bits.saturating_sub(most.trailing_zeros()));
        heap::reserve(&mut self.before, most.saturating_add(1))?;
        for (at, start) in self.starts.iter().enumerate() {
            let part = start.saturating_sub(first).unbounded_shr(self.shift);
            self.before.resize(self.before.len().max(part.saturating_add(1)), at);
        }
        self.before.push(self.starts.len());
        Ok(())
    }

    /// Returns the value with the last start that is at `address` or in front of it.
    fn last_from(&self, address: usize) -> Option<&T> {
        let last_part = self.before.len().checked_sub(2)?;
        let part = address.checked_sub(self.base)?.unbounded_shr(self.shift).min(last_part);
        let (&start, &end) = (self.before.get(part)?, self.before.get(part.saturating_add(1))?);
        let behind = self.starts.get(start..end)?.partition_point(|&start| start <= address);
        self.values.get(start.saturating_add(behind).checked_sub(1)?)
    }
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
        // Mappings that are alive do not overlap: the order of the starts is that of the ends, and what starts here is this
        // very module.
        if let Some(modules) = self.modules.load().with(range.start, module)? {
            self.modules.store(Arc::new(modules));
        }
        Ok(())
    }

    /// Takes a module out, and returns whether it was there. What is known of the others is copied for it, at the price of an
    /// abort if there is no memory.
    pub fn remove(&self, module: &Arc<Module>) -> bool {
        let _writing = self.writing();
        let mut modules = Sorted::clone(&self.modules.load());
        let Some(at) = modules.values.iter().position(|other| Arc::ptr_eq(other, module)) else { return false };
        modules.remove(at);
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
        look(self.modules.load().last_from(pc)?)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data, so a writer that panicked has left nothing half done.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts values, which are their starts, in the order given.
    fn sorted(starts: impl IntoIterator<Item = usize>) -> Sorted<usize> {
        starts.into_iter().fold(Sorted::default(), |all, start| all.with(start, start).unwrap().unwrap())
    }

    fn assert_finds_all(sorted: &Sorted<usize>) {
        let near = |start: &usize| [start.wrapping_sub(1), *start, start.wrapping_add(1), start ^ (1 << 20)];
        for address in sorted.starts.iter().flat_map(near).chain([0, usize::MAX]) {
            let expected = sorted.starts.iter().rfind(|start| **start <= address);
            assert_eq!(sorted.last_from(address), expected, "{address:#x}");
        }
    }

    #[test]
    fn what_starts_last_is_found_however_starts_lie() {
        let far = usize::MAX / 2;
        for starts in [
            vec![],
            vec![0],
            vec![usize::MAX],
            vec![0, usize::MAX],
            vec![usize::MAX, 0, 1],
            vec![5, 4, 3, 2, 1],
            (0..100).map(|i| i * 4096).collect(),
            // Apart from one, all are in one place.
            (0..100).map(|i| far + i * i).chain([7]).collect(),
            (0..40).map(|i| 1 << (i * 37 % 63)).filter(|start| *start < far).collect(),
        ] {
            let mut sorted = sorted(starts.iter().copied());
            assert_finds_all(&sorted);
            assert!(starts.iter().all(|start| sorted.with(*start, 0).unwrap().is_none()), "it is there");
            // The first, then the last, then one in between, until there is none.
            for round in 0.. {
                let Some(last) = sorted.starts.len().checked_sub(1) else { break };
                sorted.remove([0, last, last / 2][round % 3]);
                assert_finds_all(&sorted);
            }
        }
    }

    #[test]
    fn among_many_starts_few_are_searched() {
        for (count, distance) in [(1000_usize, 4096), (1024, 1), (1025, 3 << 20), (2, usize::MAX)] {
            let sorted = sorted((0..count).map(|i| i * distance));
            let most = sorted.before.windows(2).map(|part| part[1] - part[0]).max();
            assert!(most <= Some(2), "{count} {distance}: {most:?}");
            assert!(sorted.before.len() <= 2 * count + 1, "{count} {distance}");
        }
    }
}

//! Who reads what: readers that wait for nobody announce the value they hold, and writers look before they free one.
//!
//! A reader puts the pointer into a slot, then looks whether it still is the current one; a writer replaces the current
//! one, then looks into the slots. These four steps have one order that all threads agree on (`SeqCst`), so either the
//! reader sees that its pointer is old, or the writer sees that it is held. A pointer in a slot that the reader has not
//! confirmed is never followed.

use std::iter;
use std::ptr;

use super::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Slots on one line of the cache, and lines. Readers with stacks of their own begin on lines of their own, most of the
/// time.
const SLOTS: usize = if cfg!(all(test, loom)) { 1 } else { 8 };
const LINES_LOG: u32 = if cfg!(all(test, loom)) { 0 } else { 6 };

/// What the readers of one place hold.
pub(super) struct Readers<P> {
    lines: Box<[Line<P>]>,
    /// How many found every slot taken: they may hold anything that was current since they came.
    crowd: AtomicUsize,
}

/// Two lines of the cache where processors fetch two at a time.
#[repr(align(128))]
struct Line<P>([AtomicPtr<P>; SLOTS]);

impl<P> Readers<P> {
    pub(super) fn new() -> Self {
        let line = || Line(std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())));
        Self { lines: iter::repeat_with(line).take(1 << LINES_LOG).collect(), crowd: AtomicUsize::new(0) }
    }

    /// Comes in: what the reader holds is what `current` points to, and is not freed until it leaves.
    ///
    /// No lock, no memory, no variable of the thread, and a bounded number of steps: this may be a signal handler, and
    /// what it has interrupted may be this.
    pub(super) fn enter(&self, current: &AtomicPtr<P>) -> Reading<'_, P> {
        let line = self.lines.get(first_line()).map_or(&[][..], |line| &line.0);
        line.iter().find_map(|slot| take(slot, current)).unwrap_or_else(|| self.enter_elsewhere(current))
    }

    #[cold]
    fn enter_elsewhere(&self, current: &AtomicPtr<P>) -> Reading<'_, P> {
        let mut slots = self.lines.iter().flat_map(|line| &line.0);
        slots.find_map(|slot| take(slot, current)).unwrap_or_else(|| {
            self.crowd.fetch_add(1, Ordering::SeqCst);
            in_one_order();
            Reading { held: current.load(Ordering::SeqCst), place: Place::Crowd(&self.crowd) }
        })
    }

    /// Tells `see` of every value that a reader holds, and returns whether these are all.
    ///
    /// Of those that stopped to be current before the call, all others may be freed.
    pub(super) fn held(&self, mut see: impl FnMut(*mut P)) -> bool {
        in_one_order();
        // The loads see what readers stored when they left, and so come after what those did.
        for slot in self.lines.iter().flat_map(|line| &line.0) {
            let held = slot.load(Ordering::SeqCst);
            if !held.is_null() {
                see(held);
            }
        }
        self.crowd.load(Ordering::SeqCst) == 0
    }
}

/// Announces in `slot` what `current` points to; `None` if the slot is taken, or a writer came in between.
fn take<'a, P>(slot: &'a AtomicPtr<P>, current: &AtomicPtr<P>) -> Option<Reading<'a, P>> {
    let expected = current.load(Ordering::Acquire);
    if expected.is_null() {
        return Some(Reading { held: expected, place: Place::Nowhere });
    }
    if !slot.load(Ordering::Relaxed).is_null() {
        return None;
    }
    slot.compare_exchange(ptr::null_mut(), expected, Ordering::SeqCst, Ordering::Relaxed).ok()?;
    in_one_order();
    let held = current.load(Ordering::SeqCst);
    if held == expected {
        return Some(Reading { held, place: Place::Slot(slot) });
    }
    slot.store(ptr::null_mut(), Ordering::Release);
    None
}

/// A reader that has come in. It leaves when this is dropped.
pub(super) struct Reading<'a, P> {
    /// What `current` pointed to after the reader had come in.
    pub(super) held: *mut P,
    place: Place<'a, P>,
}

enum Place<'a, P> {
    /// There was no value.
    Nowhere,
    Slot(&'a AtomicPtr<P>),
    Crowd(&'a AtomicUsize),
}

impl<P> Drop for Reading<'_, P> {
    fn drop(&mut self) {
        // What was read comes before.
        match self.place {
            Place::Nowhere => {}
            Place::Slot(slot) => slot.store(ptr::null_mut(), Ordering::Release),
            Place::Crowd(crowd) => {
                crowd.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

/// Returns where this thread begins to look for a slot: by its stack, since a variable of the thread may be set up by
/// its first use, with memory and locks.
fn first_line() -> usize {
    // Multiples of this are spread evenly, whatever lies between two stacks.
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let here = 0_u8;
    let stack = u64::try_from((&raw const here).addr() >> 16).unwrap_or(0);
    let bits = stack.wrapping_mul(GOLDEN) >> 32;
    usize::try_from(bits.unbounded_shr(32_u32.saturating_sub(LINES_LOG))).unwrap_or(0)
}

/// Loom knows the one order of `SeqCst` for fences only, and takes the accesses for weaker than they are.
fn in_one_order() {
    #[cfg(all(test, loom))]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

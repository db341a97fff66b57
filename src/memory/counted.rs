//! A value with several owners, as in an [`Arc`](std::sync::Arc), but that there may be no memory for.

use std::ops::Deref;
use std::ptr::{self, NonNull};

use super::sync::atomic::{AtomicUsize, Ordering};
use crate::error::{Error, heap};

/// A value that lives as long as any owner.
pub(crate) struct Counted<T>(NonNull<Inner<T>>);

pub(super) struct Inner<T> {
    owners: AtomicUsize,
    pub(super) value: T,
}

// SAFETY: owners in several threads share the value, and whichever is the last drops it.
unsafe impl<T: Send + Sync> Send for Counted<T> {}
// SAFETY: as above; a shared owner gives away the value and other owners, no more.
unsafe impl<T: Send + Sync> Sync for Counted<T> {}

impl<T> Counted<T> {
    /// Moves a value to the heap.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]
    pub(crate) fn new(value: T) -> Result<Self, Error> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(1).map_err(heap::refused::<Inner<T>>(1))?;
        memory.push(Inner { owners: AtomicUsize::new(1), value });
        // What `drop` gives back: a slice of one.
        Ok(Self(NonNull::from(Box::leak(memory.into_boxed_slice())).cast()))
    }

    /// Gives up an owner without counting it off: [`Counted::from_raw`] takes it up again.
    pub(super) const fn into_raw(self) -> *mut Inner<T> {
        let pointer = self.0.as_ptr();
        std::mem::forget(self);
        pointer
    }

    /// Takes up an owner that was given up.
    ///
    /// # Safety
    ///
    /// The pointer comes from [`Counted::into_raw`], and nobody has taken that owner up yet.
    pub(super) const unsafe fn from_raw(pointer: NonNull<Inner<T>>) -> Self {
        Self(pointer)
    }

    pub(super) const fn as_ptr(&self) -> *mut Inner<T> {
        self.0.as_ptr()
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: there is an owner, this one, so the value was not dropped, and nobody has it for themselves.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for Counted<T> {
    fn clone(&self) -> Self {
        // Each owner takes up memory of its own, so the count cannot overflow.
        self.inner().owners.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T> Deref for Counted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        // What the other owners did with the value comes before its end.
        if self.inner().owners.fetch_sub(1, Ordering::AcqRel) == 1 {
            let memory = ptr::slice_from_raw_parts_mut(self.0.as_ptr(), 1);
            // SAFETY: `new` made the slice, and this was its last owner.
            drop(unsafe { Box::from_raw(memory) });
        }
    }
}

//! Code that was copied to where the system lets it be executed.

use std::slice;

use super::mappings::Mappings;
use super::unmap;

/// A mapping of bytes that nobody can change.
pub(super) struct Sealed {
    start: *mut u8,
    length: usize,
    _counted: Mappings,
}

// SAFETY: the mapping is owned by the value and may be unmapped by any thread.
unsafe impl Send for Sealed {}
// SAFETY: nothing is written to it.
unsafe impl Sync for Sealed {}

impl Sealed {
    /// Takes a mapping of `length` bytes.
    ///
    /// # Safety
    ///
    /// It is mapped, readable and nobody else's, and nobody writes to it from here on.
    pub(super) unsafe fn of(start: *mut u8, length: usize) -> Self {
        Self { start, length, _counted: Mappings::new(1) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped and readable as long as the value lives, and nobody writes to them.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to the value, and no borrow of it is left.
        unsafe { unmap::give_back(self.start, self.length) };
    }
}

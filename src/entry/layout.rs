//! Where the parts of an image lie: code, what nobody writes to behind it, and what the code writes to behind that.

use std::ops::Range;

/// Where the parts of an image lie, in bytes from its start.
///
/// The image starts where the page starts, of the largest size that the target has, that holds the first byte of the
/// code in its file: so code lies in its page as in its file, mapped or copied.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Where in the file the image starts.
    pub(crate) at: u64,
    /// The code with its padding.
    pub(crate) code: Range<u64>,
    /// Where the engine's code starts.
    pub(crate) engine: u64,
    /// The data that nobody writes to.
    pub(crate) read_only: Range<u64>,
    /// The addresses of the imports, 8 bytes each, on the same pages.
    pub(crate) slots: Range<u64>,
    /// The data that the code may write to.
    pub(crate) writable: Range<u64>,
}

impl Layout {
    /// Returns the layout of an image whose `code` lies there in the file, and begins with padding; `None` if it is
    /// longer than any memory.
    pub(crate) fn of(page: u64, code: &Range<u64>, padding: u64, data: &Data) -> Option<Self> {
        let at = code.start.checked_next_multiple_of(page)?;
        let at = if at == code.start { at } else { at.checked_sub(page)? };
        let code = code.start.checked_sub(at)?..code.end.checked_sub(at)?;
        let engine = code.start.checked_add(padding)?;
        let start = code.end.checked_next_multiple_of(page)?;
        let read_only = start..start.checked_add(data.read_only)?;
        let slots_at = read_only.end.checked_next_multiple_of(8)?;
        let slots = slots_at..slots_at.checked_add(data.imports.checked_mul(8)?)?;
        let start = slots.end.checked_next_multiple_of(page)?;
        let writable = start..start.checked_add(data.writable)?;
        i64::try_from(writable.end).ok()?;
        Some(Self { at, code, engine, read_only, slots, writable })
    }

    /// Returns an offset from the start of the image as one from the engine's code.
    pub(crate) const fn offset(&self, at: u64) -> u64 {
        at.wrapping_sub(self.engine)
    }

    /// Returns where the image ends.
    pub(crate) const fn end(&self) -> u64 {
        if self.writable.start < self.writable.end {
            self.writable.end
        } else if self.read_only.start < self.slots.end {
            self.slots.end
        } else {
            self.code.end
        }
    }
}

/// How much there is beside the code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Data {
    /// Length of the data that nobody writes to, in bytes.
    pub(crate) read_only: u64,
    /// Length of the data that the code may write to, in bytes.
    pub(crate) writable: u64,
    /// The number of imports.
    pub(crate) imports: u64,
}

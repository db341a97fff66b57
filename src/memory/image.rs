//! Memory for an image: code, and at fixed distances behind it data and slots, in pages of one range.

use std::ops::Range;

use super::access::Unchanging;
use super::coherence::{self, IS_SUPPORTED};
use super::mappings::{self, Mappings};
use super::pages::{Pages, WritablePages};
use super::unwind::Unwinding;
use crate::error::Error;
use crate::words::{Arch, STEP};

/// Where the parts of an image lie, in bytes from its start; each has pages of its own.
#[derive(Clone, Debug)]
pub(crate) struct ImageParts {
    pub(crate) code: Range<usize>,
    /// What is written once and then read alone: data and slots.
    pub(crate) read_only: Range<usize>,
    pub(crate) writable: Range<usize>,
}

/// An image whose code cannot be executed yet, or is that of a mapped file.
pub(crate) struct WritableImage {
    pages: WritablePages,
    parts: ImageParts,
    is_in_place: bool,
}

/// How many mappings an image takes at most, beside those that its pages count themselves: what is in front of the
/// code, the code, and what is left of the pages behind it.
const MAPPINGS: usize = 3;

impl WritableImage {
    fn allocate(parts: ImageParts) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        let length = parts.code.end.max(parts.read_only.end).max(parts.writable.end);
        Ok(Self { pages: WritablePages::allocate(length)?, parts, is_in_place: false })
    }

    /// Copies `code` into a fresh image, and shows `check` what was copied while it is at hand.
    pub(crate) fn copy(code: &[u8], parts: ImageParts, mut check: impl FnMut(&[u8])) -> Result<Self, Error> {
        let mut image = Self::allocate(parts)?;
        image.pages.advise(image.parts.code.clone());
        let to = image.pages.part_mut(image.parts.code.clone());
        for (to, from) in to.chunks_mut(STEP).zip(code.chunks(STEP)) {
            to.copy_from_slice(from);
            check(to);
        }
        Ok(image)
    }

    /// Maps the code of a file into a fresh image, which starts at `at` in the file.
    #[cfg(unix)]
    pub(crate) fn in_place(
        file: &std::fs::File,
        promise: Unchanging,
        at: u64,
        parts: ImageParts,
    ) -> Result<Self, Error> {
        let mut image = Self::allocate(parts)?;
        let mapped = image.pages.map_code(file, promise, at, &image.parts.code);
        mapped.map_err(|error| mappings::refused("map", image.parts.code.len(), error))?;
        image.is_in_place = true;
        Ok(image)
    }

    /// Other systems map no file over pages that are there.
    #[cfg(not(unix))]
    pub(crate) fn in_place(_: &std::fs::File, _: Unchanging, _: u64, parts: ImageParts) -> Result<Self, Error> {
        Err(mappings::refused("map", parts.code.len(), std::io::ErrorKind::Unsupported.into()))
    }

    /// Returns the address of the image.
    pub(crate) fn address(&self) -> usize {
        self.pages.part(0..0).as_ptr().addr()
    }

    /// Returns the code.
    pub(crate) fn code(&self) -> &[u8] {
        self.pages.part(self.parts.code.clone())
    }

    /// Returns a part of the data or the slots; nothing for what is neither.
    pub(crate) fn data_mut(&mut self, part: Range<usize>) -> &mut [u8] {
        let within = |whole: &Range<usize>| whole.start <= part.start && part.end <= whole.end;
        let ImageParts { read_only, writable, .. } = &self.parts;
        let is_data = within(read_only) || within(writable);
        self.pages.part_mut(if is_data { part } else { 0..0 })
    }

    /// Makes the code executable, and all but the writable data impossible to write to.
    pub(crate) fn publish(mut self) -> Result<PublishedImage, Error> {
        let ImageParts { code, writable, .. } = self.parts;
        let page = region::page::size();
        let (first, end) = (code.start & page.wrapping_neg(), code.end.next_multiple_of(page));
        if !self.is_in_place {
            for traps in [first..code.start, code.end..end] {
                self.pages.part_mut(traps).fill(Arch::host().trap());
            }
        }
        let pages = self.pages.freeze_front(if writable.is_empty() { usize::MAX } else { writable.start });
        if !self.is_in_place {
            let addresses = pages.bytes().get(code.clone()).unwrap_or_default().as_ptr_range();
            coherence::clean(addresses.start.addr()..addresses.end.addr());
            pages.protect(code.clone(), region::Protection::READ_EXECUTE)?;
        }
        for around in [0..first, end..pages.bytes().len()] {
            pages.protect(around, region::Protection::READ)?;
        }
        coherence::synchronize();
        let (is_in_place, counted) = (self.is_in_place, Mappings::new(MAPPINGS));
        Ok(PublishedImage { unwinding: None, code, is_in_place, pages, _counted: counted })
    }
}

/// An image whose code can be executed.
pub(crate) struct PublishedImage {
    /// In front of the pages, which are to be there as long as it is.
    unwinding: Option<Unwinding>,
    code: Range<usize>,
    is_in_place: bool,
    /// All but the writable data.
    pages: Pages,
    _counted: Mappings,
}

impl PublishedImage {
    /// Returns the code.
    pub(super) fn bytes(&self) -> &[u8] {
        self.pages.bytes().get(self.code.clone()).unwrap_or_default()
    }

    pub(super) const fn is_in_place(&self) -> bool {
        self.is_in_place
    }

    /// Makes unwind tables known to the unwinder of the program until the code is unmapped: those in a part of the
    /// read-only data, which the caller has found to be records up to one of length 0.
    pub(crate) fn register_unwinding(&mut self, tables: Range<usize>) {
        let tables = self.pages.bytes().get(tables).unwrap_or_default();
        // SAFETY: the pages of the tables are written no more, and are dropped behind what is made here. That they are
        // records the caller has seen.
        self.unwinding = unsafe { Unwinding::register(tables) };
    }
}

//! Pages of memory: written first, then read and executed.

use std::mem::ManuallyDrop;
use std::ops::Range;
use std::slice;

use region::Protection;

#[cfg(unix)]
use super::access::Unchanging;
use super::coherence;
use super::mappings;
#[cfg(unix)]
use super::unmap;
use crate::error::Error;

/// Size of a huge page, in bytes. Faulting small pages in is what most of the time of a large load would go to.
pub(super) const HUGE: usize = 2 << 20;

/// The most of a huge page that may stay unused, in bytes.
const UNUSED: usize = HUGE / 3;

/// Pages that nobody writes to.
pub(crate) struct Pages {
    allocation: ManuallyDrop<region::Allocation>,
    /// Their length in bytes, no more than that of the allocation, which may go on to the end of a huge page.
    length: usize,
}

// SAFETY: the pages are owned by the value and may be unmapped by any thread.
unsafe impl Send for Pages {}
// SAFETY: nothing is written to them.
unsafe impl Sync for Pages {}

impl Pages {
    /// Returns the bytes of the pages.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the pages are readable and initialized (the system zeroes them), `length` is within the allocation
        // and at most `isize::MAX`, and nobody writes to them.
        unsafe { slice::from_raw_parts(self.as_ptr(), self.length) }
    }

    /// Makes the pages that hold `code`, a range of their bytes, executable, those behind them readable, and all of
    /// them impossible to write to.
    pub(super) fn make_executable(&self, code: &Range<usize>) -> Result<(), Error> {
        let end = self.page_end(code.end);
        let addresses = self.bytes().get(code.clone()).unwrap_or_default().as_ptr_range();
        coherence::clean(addresses.start.addr()..addresses.end.addr());
        self.protect(code.start..end, Protection::READ_EXECUTE)?;
        self.protect(end..self.length, Protection::READ)?;
        coherence::synchronize();
        Ok(())
    }

    /// Makes the pages readable, and impossible to write to, and gives the contents up of those in front of `start`.
    pub(super) fn keep_from(self, start: usize) -> Result<Self, Error> {
        #[cfg(unix)]
        if let Some(part @ [_, ..]) = self.bytes().get(..start) {
            // SAFETY: the pages belong to this value, of which nobody holds a borrow. They are zeros from now on.
            unsafe { libc::madvise(part.as_ptr().cast_mut().cast(), part.len(), libc::MADV_DONTNEED) };
        }
        #[cfg(not(unix))]
        let _ = start;
        self.make_readable()?;
        Ok(self)
    }

    /// Makes the pages readable, and impossible to write to.
    fn make_readable(&self) -> Result<(), Error> {
        self.protect(0..self.length, Protection::READ)
    }

    pub(super) fn protect(&self, part: Range<usize>, protection: Protection) -> Result<(), Error> {
        let Some(part @ [_, ..]) = self.bytes().get(part) else { return Ok(()) };
        // SAFETY: the range is within the pages, which belong to this value. They stay readable, and nobody writes to
        // them: there is no way from here back to `WritablePages`.
        let protected = unsafe { region::protect(part.as_ptr(), part.len(), protection) };
        protected.map_err(|error| refused("protect", part.len(), error))
    }

    /// Returns where the page ends that holds the byte in front of `end`.
    fn page_end(&self, end: usize) -> usize {
        end.checked_next_multiple_of(region::page::size()).unwrap_or(usize::MAX).min(self.length)
    }

    /// Asks for huge pages for a part of the pages, except for an end that would leave more than a third of one unused,
    /// and for all small pages of it at once: each costs several times as much when it is first written to.
    fn advise(&self, part: Range<usize>) {
        let page = region::page::size();
        let (start, end) = (part.start & page.wrapping_neg(), part.end.min(self.length));
        let before = self.as_ptr().addr().saturating_add(start).wrapping_neg() % HUGE;
        let huge = start.saturating_add(before).min(end);
        let rest = end.saturating_sub(huge) % HUGE;
        let small = if rest < HUGE.saturating_sub(UNUSED) {
            end.saturating_sub(rest)
        } else {
            end.saturating_add(HUGE.saturating_sub(rest))
        };
        #[cfg(target_os = "linux")]
        {
            let advise = |range: Range<usize>, advice| {
                let start = range.start & page.wrapping_neg();
                let end = range.end.next_multiple_of(page).min(self.allocation.len());
                let length = end.saturating_sub(start);
                // A single page is faulted in as fast.
                if length > page {
                    // SAFETY: the range is within the allocation, and the advice changes neither contents nor
                    // protection. If it is not taken, as populating is not by Linux before 5.14, the pages are small
                    // and come one by one.
                    unsafe { libc::madvise(self.as_ptr().wrapping_add(start).cast_mut().cast(), length, advice) };
                }
            };
            if huge < small {
                advise(start..huge, libc::MADV_POPULATE_WRITE);
                advise(huge..small, libc::MADV_HUGEPAGE);
                advise(small..end, libc::MADV_POPULATE_WRITE);
            } else {
                // Where a huge page would begin depends on chance, and how many calls are made must not.
                advise(start..end, libc::MADV_POPULATE_WRITE);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (start, huge, small);
    }

    /// Returns how many mappings they are: code, what stands behind it, and what fills up a huge page.
    fn mappings(&self) -> usize {
        if self.allocation.len() == self.length { 2 } else { 3 }
    }

    fn as_ptr(&self) -> *const u8 {
        self.allocation.as_ptr()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        mappings::uncount(self.mappings());
        // SAFETY: the value is dropped once, and does not use it any more.
        let allocation = unsafe { ManuallyDrop::take(&mut self.allocation) };
        #[cfg(unix)]
        {
            let (start, length) = allocation.into_raw_parts();
            // SAFETY: the allocation was the value's, and no borrow of it is left.
            unsafe { unmap::give_back(start, length) };
        }
        #[cfg(not(unix))]
        drop(allocation);
    }
}

/// Pages that can be written and not executed.
pub(crate) struct WritablePages(Pages);

impl WritablePages {
    /// Allocates pages for `length` bytes, which is not 0; they begin with a huge page if they fill most of one.
    pub(crate) fn allocate(length: usize) -> Result<Self, Error> {
        let refused = |error| refused("allocate", length, error);
        let too_long = || refused(region::Error::InvalidParameter("length"));
        let whole = length.checked_next_multiple_of(region::page::size()).ok_or_else(too_long)?;
        let is_huge = cfg!(target_os = "linux") && length >= HUGE.saturating_sub(UNUSED);
        // Room to align the first huge page, and to fill up the last one, which nobody touches.
        let filled = if is_huge && whole % HUGE >= HUGE.saturating_sub(UNUSED) { HUGE } else { 1 };
        let kept = whole.checked_next_multiple_of(filled).ok_or_else(too_long)?;
        let allocated = kept.checked_add(if is_huge { HUGE } else { 0 });
        let allocated = allocated.filter(|length| isize::try_from(*length).is_ok()).ok_or_else(too_long)?;
        let allocation = region::alloc(allocated, Protection::READ_WRITE).map_err(refused)?;
        let allocation = if is_huge { aligned(allocation, kept) } else { allocation };
        let pages = Pages { allocation: ManuallyDrop::new(allocation), length: whole };
        mappings::count(pages.mappings());
        Ok(Self(pages))
    }

    /// Prepares a part of the pages for being written.
    pub(crate) fn advise(&self, part: Range<usize>) {
        self.0.advise(part);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the pages were allocated readable and writable, are initialized (the system zeroes them) and belong
        // to this value; `length` is within the allocation, and the borrow of `self` keeps everybody else away.
        unsafe { slice::from_raw_parts_mut(self.0.as_ptr().cast_mut(), self.0.length) }
    }

    /// Returns a part of the pages; nothing if they do not have it.
    pub(super) fn part(&self, part: Range<usize>) -> &[u8] {
        let (start, length) = self.place(part);
        // SAFETY: the part is within the allocation, whose pages are readable and initialized, and nobody writes to it
        // while `self` is borrowed.
        unsafe { slice::from_raw_parts(start, length) }
    }

    /// Returns a part of the pages to write to, which is not one that a file was mapped over; nothing if they do not
    /// have it.
    pub(super) fn part_mut(&mut self, part: Range<usize>) -> &mut [u8] {
        let (start, length) = self.place(part);
        // SAFETY: as in `bytes_mut`.
        unsafe { slice::from_raw_parts_mut(start.cast_mut(), length) }
    }

    fn place(&self, part: Range<usize>) -> (*const u8, usize) {
        let is_inside = part.start <= part.end && part.end <= self.0.length;
        let part = if is_inside { part } else { 0..0 };
        (self.0.as_ptr().wrapping_add(part.start), part.end.saturating_sub(part.start))
    }

    /// Maps code to be read and executed over the pages that hold `code`, a range of their bytes, from the same place
    /// of a file whose byte `at` would lie where they begin.
    #[cfg(unix)]
    pub(super) fn map_code(
        &mut self,
        file: &std::fs::File,
        Unchanging(()): Unchanging,
        at: u64,
        code: &Range<usize>,
    ) -> std::io::Result<()> {
        use std::io::ErrorKind::InvalidInput;
        use std::os::fd::AsRawFd;
        let start = code.start & region::page::size().wrapping_neg();
        let length = self.0.page_end(code.end).checked_sub(start).filter(|length| *length > 0).ok_or(InvalidInput)?;
        let at = u64::try_from(start).ok().and_then(|start| at.checked_add(start)).ok_or(InvalidInput)?;
        let at = libc::off_t::try_from(at).map_err(|_| InvalidInput)?;
        let to = self.0.as_ptr().wrapping_add(start).cast_mut().cast();
        let (protection, how) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED | libc::MAP_FIXED);
        // SAFETY: the pages that are replaced belong to this value, of which nobody has a borrow. Those that take their
        // place change no more than memory does, as was promised of the file, and are unmapped with the others.
        let mapped = unsafe { libc::mmap(to, length, protection, how, file.as_raw_fd(), at) };
        if mapped == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Gives up writing.
    pub(super) fn freeze(self) -> Pages {
        self.0
    }

    /// Gives up writing to the first `length` bytes, whole pages; whoever has the addresses of the others may write
    /// there.
    pub(super) fn freeze_front(mut self, length: usize) -> Pages {
        mappings::uncount(self.0.mappings());
        self.0.length = self.0.length.min(length);
        mappings::count(self.0.mappings());
        self.0
    }

    /// Gives up writing, and has the system see to it.
    pub(crate) fn seal(self) -> Result<Pages, Error> {
        self.0.make_readable()?;
        Ok(self.0)
    }
}

/// Keeps `kept` bytes of an allocation that begin with a huge page, and gives back what is around them.
#[cfg(target_os = "linux")]
fn aligned(allocation: region::Allocation, kept: usize) -> region::Allocation {
    let (start, length) = allocation.into_raw_parts::<u8>();
    let before = start.addr().wrapping_neg() % HUGE;
    let end = before.saturating_add(kept);
    for part in [0..before, end..length] {
        if !part.is_empty() {
            // SAFETY: the part is of an allocation of this function's, which nobody has seen.
            unsafe { unmap::give_back(start.wrapping_add(part.start), part.len()) };
        }
    }
    // SAFETY: what is left of the allocation is nobody else's: there was a huge page more than is kept.
    unsafe { region::Allocation::from_raw_parts(start.wrapping_add(before), kept) }
}

#[cfg(not(target_os = "linux"))]
const fn aligned(allocation: region::Allocation, _: usize) -> region::Allocation {
    allocation
}

pub(super) fn refused(action: &'static str, length: usize, error: region::Error) -> Error {
    mappings::refused(action, length, error.into_io_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_no_slice_can_have_are_refused() {
        for length in [usize::MAX, usize::MAX - 4096, usize::MAX / 2 + 1, usize::MAX / 2, usize::MAX / 2 - 4096] {
            let refused = WritablePages::allocate(length).map(drop);
            assert!(matches!(refused, Err(Error::Memory { action: "allocate", .. })), "{length:#x}: {refused:?}");
        }
    }
}

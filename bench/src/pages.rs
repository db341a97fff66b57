//! Pages straight from the system: what the floors are made of.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::slice;

const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// A private mapping that holds the bytes of a file, or of code, from `offset` on. It is unmapped when this is dropped.
pub struct Pages {
    base: NonNull<u8>,
    mapped: usize,
    offset: usize,
    length: usize,
}

impl Pages {
    /// Returns fresh pages, readable and writable.
    pub fn anonymous(length: usize) -> io::Result<Self> {
        Self::map(length, length, libc::PROT_READ | libc::PROT_WRITE, None)
    }

    /// Returns fresh pages that begin where a huge page does, and asks for huge ones; what would leave most of the last
    /// one unused is faulted in as small ones, all at once.
    pub fn huge(length: usize) -> io::Result<Self> {
        let rest = length % HUGE;
        let huge = if rest < HUGE / 2 { length - rest } else { length.next_multiple_of(HUGE) };
        // What lies around the pages in use is never touched, so it takes up addresses and no memory.
        let mut pages = Self::map(length + 2 * HUGE, length, libc::PROT_READ | libc::PROT_WRITE, None)?;
        pages.offset = pages.base.as_ptr().align_offset(HUGE);
        pages.advise(0..huge, libc::MADV_HUGEPAGE)?;
        pages.advise(huge..length.next_multiple_of(PAGE), libc::MADV_POPULATE_WRITE)?;
        Ok(pages)
    }

    fn advise(&self, range: Range<usize>, advice: i32) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is within this mapping, whose contents are not changed by the advice.
        match unsafe { libc::madvise(self.start().wrapping_add(range.start).cast(), range.len(), advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Maps a file, readable and executable.
    pub fn file(file: &File, length: usize) -> io::Result<Self> {
        Self::map(length, length, libc::PROT_READ | libc::PROT_EXEC, Some(file))
    }

    fn map(mapped: usize, length: usize, protection: i32, file: Option<&File>) -> io::Result<Self> {
        let (flags, file) = match file {
            Some(file) => (libc::MAP_PRIVATE, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: the system chooses addresses that nothing else has.
        let base = unsafe { libc::mmap(ptr::null_mut(), mapped, protection, flags, file, 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr() != libc::MAP_FAILED.cast() => Ok(Self { base, mapped, offset: 0, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lends out pages that are still writable.
    ///
    /// # Safety
    ///
    /// The pages came from [`Pages::anonymous`] or [`Pages::huge`], and [`Pages::executable`] was not called yet.
    pub unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: offset and length lie in the mapping, which is writable as promised, zeroed by the system, and this
        // value's own; the borrow of `self` keeps everybody else away.
        unsafe { slice::from_raw_parts_mut(self.start(), self.length) }
    }

    /// Makes the code executable, and writable no longer.
    pub fn executable(self) -> io::Result<Self> {
        // SAFETY: the range is within this mapping, and `self` is not borrowed: nobody holds a reference that could
        // write.
        match unsafe { libc::mprotect(self.start().cast(), self.length, libc::PROT_READ | libc::PROT_EXEC) } {
            0 => Ok(self),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: offset and length lie in the mapping, which is readable and lives as long as `self`. The files of the
        // benchmark are not changed while it runs a load.
        unsafe { slice::from_raw_parts(self.start(), self.length) }
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: the offset is within the mapping.
        unsafe { self.base.as_ptr().add(self.offset) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

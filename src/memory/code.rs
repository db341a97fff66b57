//! Pages of code: written once, then executed.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::slice;

use region::Protection;

use super::{Unchanging, coherence};
use crate::error::Error;

/// How much is copied before it is checked, in bytes: small enough to be in the cache still.
pub(crate) const STEP: usize = 64 * 1024;

/// What running off the end of the code runs into: `int3` on x86-64, `udf` on arm64.
pub(crate) const TRAP: u8 = if cfg!(target_arch = "aarch64") { 0x00 } else { 0xcc };

/// Whether the crate knows how to keep this machine's instruction caches coherent.
const IS_SUPPORTED: bool = cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"));

/// Size of a huge page, in bytes. Faulting small pages in is what most of the time of a large load would go to.
const HUGE: usize = 2 << 20;

/// Pages in use of an allocation.
struct Pages {
    allocation: region::Allocation,
    /// Where they begin in it, in bytes.
    start: usize,
    /// Their length in bytes; `start` and `length` together stay within the allocation.
    length: usize,
}

// SAFETY: the pages are owned by the value and may be unmapped by any thread.
unsafe impl Send for Pages {}
// SAFETY: nothing is written through a shared reference.
unsafe impl Sync for Pages {}

impl Pages {
    /// Allocates pages for `length` bytes, which is not 0, readable and writable.
    fn allocate(length: usize) -> Result<Self, Error> {
        let refused = |error| refused("allocate", length, error);
        let too_long = || refused(region::Error::InvalidParameter("length"));
        let slack = if length < HUGE { 0 } else { HUGE };
        let allocated = length.checked_add(slack).ok_or_else(too_long)?;
        let allocation = region::alloc(allocated, Protection::READ_WRITE).map_err(refused)?;
        let start = if slack == 0 { 0 } else { allocation.as_range().start.wrapping_neg() % HUGE };
        let length = length.checked_next_multiple_of(region::page::size()).ok_or_else(too_long)?;
        let pages = Self { allocation, start, length };
        if slack > 0 {
            pages.advise_huge();
        }
        Ok(pages)
    }

    /// Asks for huge pages, except for an end that would leave most of one unused.
    fn advise_huge(&self) {
        let rest = self.length % HUGE;
        let rounded = self.length.saturating_sub(rest).saturating_add(if rest < HUGE / 2 { 0 } else { HUGE });
        let length = rounded.min(self.allocation.len().saturating_sub(self.start));
        #[cfg(target_os = "linux")]
        // SAFETY: the range is within the allocation, and the advice changes neither contents nor protection. If it is
        // not taken, the pages are small ones.
        unsafe {
            libc::madvise(self.as_ptr().cast_mut().cast(), length, libc::MADV_HUGEPAGE);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = length;
    }

    fn as_ptr(&self) -> *const u8 {
        self.allocation.as_ptr::<u8>().wrapping_add(self.start)
    }

    fn range(&self) -> Range<usize> {
        let start = self.as_ptr().addr();
        start..start.saturating_add(self.length)
    }
}

/// Code in pages of its own that cannot be executed yet.
pub(crate) struct WritableCode {
    /// `None` if there is no code: there are no pages of length zero.
    pages: Option<Pages>,
    /// Where the code lies in the pages.
    code: Range<usize>,
}

impl WritableCode {
    /// Copies `code` into fresh pages, and shows `check` what was copied while it is at hand.
    ///
    /// The code begins `displacement` bytes behind the start of a page.
    pub(crate) fn copy(code: &[u8], displacement: usize, mut check: impl FnMut(&[u8])) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        let end = displacement.saturating_add(code.len());
        let pages = if code.is_empty() { None } else { Some(Pages::allocate(end)?) };
        let mut copy = Self { pages, code: displacement..end };
        if let Some((before, rest)) = copy.pages_mut().split_at_mut_checked(displacement)
            && let Some((to, behind)) = rest.split_at_mut_checked(code.len())
        {
            for (to, from) in to.chunks_mut(STEP).zip(code.chunks(STEP)) {
                to.copy_from_slice(from);
                check(to);
            }
            before.fill(TRAP);
            behind.fill(TRAP);
        }
        Ok(copy)
    }

    /// Makes the code executable, and writable no longer.
    pub(crate) fn publish(self) -> Result<CodeMemory, Error> {
        let Some(pages) = self.pages else { return Ok(CodeMemory(Placement::Nowhere)) };
        coherence::before_protection(pages.range());
        // SAFETY: the pages belong to this value alone and no reference into them is alive, since `pages_mut` lends them
        // out with a borrow of `self`. Nothing writes to them from here on: `self` is consumed.
        let protected = unsafe { region::protect(pages.as_ptr(), pages.length, Protection::READ_EXECUTE) };
        protected.map_err(|error| refused("make executable", pages.length, error))?;
        coherence::after_protection();
        Ok(CodeMemory(Placement::Copied(pages, self.code)))
    }

    fn pages_mut(&mut self) -> &mut [u8] {
        let Some(pages) = &mut self.pages else { return &mut [] };
        // SAFETY: the pages were allocated readable and writable, are initialized (the system zeroes them) and belong to
        // this value; `length` is within the allocation, and the borrow of `self` keeps them mapped and everybody else
        // away.
        unsafe { slice::from_raw_parts_mut(pages.as_ptr().cast_mut(), pages.length) }
    }
}

/// Code that can be executed, and that nobody writes.
pub(crate) struct CodeMemory(Placement);

enum Placement {
    /// There is no code.
    Nowhere,
    /// In pages of its own, and where in them; not written after `publish`.
    Copied(Pages, Range<usize>),
    /// In its file.
    InPlace(memmap2::Mmap),
}

impl CodeMemory {
    /// Maps a part of a file as code, which takes the promise that the file does not change.
    pub(crate) fn map(file: &File, code: &Range<u64>, Unchanging(()): Unchanging) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        if code.is_empty() {
            return Ok(Self(Placement::Nowhere));
        }
        let length = code.end.saturating_sub(code.start);
        let refused = |source| Error::Memory { action: "map", length, source };
        let bytes = usize::try_from(length).map_err(|_| refused(io::ErrorKind::OutOfMemory.into()))?;
        let mut options = memmap2::MmapOptions::new();
        options.offset(code.start).len(bytes);
        // SAFETY: `map_exec` asks that the file is not changed in place or shortened while it is mapped. Whoever made the
        // `Unchanging` promised that, at a door of `Access`. The kernel keeps instruction caches coherent with files.
        let map = unsafe { options.map_exec(file) };
        Ok(Self(Placement::InPlace(map.map_err(refused)?)))
    }

    /// Returns whether the code runs from its file.
    pub(crate) const fn is_in_place(&self) -> bool {
        matches!(self.0, Placement::InPlace(_))
    }

    /// Returns the addresses of the code; an empty range at 0 if there is none.
    pub(crate) fn range(&self) -> Range<usize> {
        let bytes = self.bytes();
        let start = if bytes.is_empty() { 0 } else { bytes.as_ptr().addr() };
        start..start.saturating_add(bytes.len())
    }

    /// Returns the code as it stands in memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Placement::Nowhere => &[],
            Placement::Copied(pages, code) => {
                // SAFETY: the pages are readable, initialized and never written while this value lives; `length` is
                // within the allocation.
                let pages = unsafe { slice::from_raw_parts(pages.as_ptr(), pages.length) };
                pages.get(code.clone()).unwrap_or_default()
            }
            Placement::InPlace(map) => map,
        }
    }
}

impl fmt::Debug for CodeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeMemory({:#x?}{})", self.range(), if self.is_in_place() { ", in place" } else { "" })
    }
}

fn refused(action: &'static str, length: usize, error: region::Error) -> Error {
    Error::Memory { action, length: u64::try_from(length).unwrap_or(u64::MAX), source: error.into_io_error() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked_is_what_was_copied() {
        let code: Vec<u8> = (0_u32..200_000).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let mut seen = Vec::new();
        let memory = WritableCode::copy(&code, 0, |step| seen.extend_from_slice(step)).unwrap().publish().unwrap();
        assert_eq!(seen, code);
        assert_eq!(memory.bytes(), code);
        assert_eq!(memory.range().len(), code.len());
    }

    #[test]
    fn code_of_every_length_and_displacement_is_copied_whole() {
        for length in [1, 4095, 4096, 4097, HUGE - 1, HUGE, HUGE + 1, HUGE * 3 / 2 - 1, HUGE * 3 / 2, HUGE * 2] {
            for displacement in [0, 1, 4095] {
                let code: Vec<u8> = (0_u32..).map(|i| (i % 251).to_le_bytes()[0]).take(length).collect();
                let memory = WritableCode::copy(&code, displacement, |_| {}).unwrap().publish().unwrap();
                assert!(memory.bytes() == code, "{length} {displacement}");
                assert_eq!(memory.range().start % region::page::size(), displacement);
            }
        }
    }

    #[test]
    fn empty_code_takes_no_pages() {
        let memory = WritableCode::copy(&[], 0, |_| panic!("there is nothing to check")).unwrap().publish().unwrap();
        assert!(memory.range().is_empty());
        assert!(memory.bytes().is_empty());
    }

    #[test]
    fn running_off_the_end_of_the_code_traps() {
        for displacement in [0, 38] {
            let mut code = WritableCode::copy(&[1, 2, 3], displacement, |_| {}).unwrap();
            assert!(code.pages_mut()[..displacement].iter().all(|&byte| byte == TRAP));
            assert!(code.pages_mut()[displacement + 3..].iter().all(|&byte| byte == TRAP));
            assert_eq!(code.pages_mut().len() % region::page::size(), 0);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn code_is_executable_and_not_writable() {
        let memory = WritableCode::copy(&[TRAP; 5000], 0, |_| {}).unwrap().publish().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = format!("{:x}-", memory.range().start);
        let line = maps.lines().find(|line| line.starts_with(&start)).expect("the code has a mapping of its own");
        assert_eq!(line.split(' ').nth(1), Some("r-xp"), "{line}");
        assert!(maps.lines().all(|line| !line.contains("rwx")), "{maps}");
    }
}

//! Files that are mapped.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::{Deref, Range};

use region::Protection;

use super::access::{Check, Unchanging};
use super::mappings::Mappings;
use super::pages::refused;
use crate::error::Error;

/// A part of a file that is mapped.
#[derive(Debug)]
pub(crate) struct FileMap {
    map: memmap2::Mmap,
    /// Where in the file it begins.
    at: u64,
    /// Whether all of it was mapped executable.
    is_executable: bool,
    promise: Unchanging,
    counted: Mappings,
}

impl FileMap {
    /// Length of the longest part whose pages are all mapped at once if they are to be looked at, in bytes: that takes
    /// less than the page fault. More of them are faulted in several at a time.
    const FEW_PAGES: u64 = 16 * 1024;

    /// Maps a part of a file for reading.
    pub(crate) fn to_read(file: &File, part: &Range<u64>, promise: Unchanging) -> io::Result<Self> {
        Self::map(part, promise, |options| {
            // SAFETY: `map` asks what `Self::map` was promised.
            unsafe { options.map(file) }
        })
    }

    /// Maps a part of a file for running code in it: all of it is executable until [`FileMap::make_executable`].
    pub(crate) fn to_run(file: &File, part: &Range<u64>, promise: Unchanging, check: Check) -> io::Result<Self> {
        let is_looked_at = check == Check::Checked && part.end.saturating_sub(part.start) <= Self::FEW_PAGES;
        let map = Self::map(part, promise, |options| {
            if is_looked_at {
                options.populate();
            }
            // SAFETY: as in `to_read`.
            unsafe { options.map_exec(file) }
        })?;
        Ok(Self { is_executable: true, ..map })
    }

    /// Returns the part of a file of `length` bytes that lies on the pages that hold its code.
    pub(crate) fn pages_of(code: &Range<u64>, length: u64) -> Range<u64> {
        let page = u64::try_from(region::page::size()).unwrap_or(1);
        let end = code.end.checked_next_multiple_of(page).unwrap_or(u64::MAX);
        code.start & page.wrapping_neg()..end.min(length)
    }

    /// Maps a part of a file, which nobody changes in place or shortens while it is mapped: whoever made the
    /// `Unchanging` promised that, at a door of `Access`.
    fn map(
        part: &Range<u64>,
        promise @ Unchanging(()): Unchanging,
        map: impl FnOnce(&mut memmap2::MmapOptions) -> io::Result<memmap2::Mmap>,
    ) -> io::Result<Self> {
        let length = usize::try_from(part.end.saturating_sub(part.start)).map_err(|_| ErrorKind::OutOfMemory)?;
        isize::try_from(length).map_err(|_| ErrorKind::OutOfMemory)?;
        let map = map(memmap2::MmapOptions::new().offset(part.start).len(length))?;
        Ok(Self { map, at: part.start, is_executable: false, promise, counted: Mappings::new(1) })
    }

    /// Returns where in the map a part of the file lies, if it is mapped.
    pub(super) fn place(&self, part: &Range<u64>) -> Option<Range<usize>> {
        let place = |at: u64| usize::try_from(at.checked_sub(self.at)?).ok();
        let place = place(part.start)?..place(part.end)?;
        self.map.get(place.clone()).is_some().then_some(place)
    }

    /// Returns whether all of it was mapped executable.
    pub(crate) const fn is_executable(&self) -> bool {
        self.is_executable
    }

    /// Returns the promise that was made for the file.
    pub(crate) const fn promise(&self) -> Unchanging {
        self.promise
    }

    /// Makes none of it executable.
    pub(crate) fn make_readable(&self) -> Result<(), Error> {
        self.make_executable(&(0..0))
    }

    /// Makes the pages executable that hold `code`, a range of the map, and all others not, which takes a system call
    /// for what is not so yet.
    pub(super) fn make_executable(&self, code: &Range<usize>) -> Result<(), Error> {
        let page = region::page::size();
        let start = code.start & page.wrapping_neg();
        let end = code.end.checked_next_multiple_of(page).unwrap_or(usize::MAX).min(self.len());
        let (readable, executable) = (Protection::READ, Protection::READ_EXECUTE);
        let now = if self.is_executable { executable } else { readable };
        for (part, protection) in [(0..start, readable), (start..end, executable), (end..self.len(), readable)] {
            if protection != now
                && let Some(part @ [_, ..]) = self.get(part)
            {
                // SAFETY: the pages belong to the map. They stay readable, and were not writable.
                let protected = unsafe { region::protect(part.as_ptr(), part.len(), protection) };
                protected.map_err(|error| refused("make executable", part.len(), error))?;
                self.counted.add(1);
            }
        }
        Ok(())
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_no_slice_can_have_are_refused() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let most = u64::try_from(isize::MAX).unwrap();
        for length in [most + 1, u64::MAX] {
            let refused = FileMap::to_read(&file, &(0..length), Unchanging(()));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfMemory, "{length:#x}");
        }
    }
}

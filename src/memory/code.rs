//! Pages of code: written once, then executed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::pages::{Pages, WritablePages};
use super::{FileMap, FilePages};
use crate::digest::STEP;
use crate::error::Error;
use crate::target::Arch;

/// What running off the end of the code runs into.
const TRAP: u8 = Arch::host().trap();

/// Whether the crate knows how to keep this machine's instruction caches coherent.
const IS_SUPPORTED: bool = cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"));

/// Code in pages of its own that cannot be executed yet.
pub(crate) struct WritableCode {
    /// `None` if there is no code: there are no pages of length zero.
    pages: Option<WritablePages>,
    /// Where the code lies in the pages.
    code: Range<usize>,
}

impl WritableCode {
    /// Copies `code` into fresh pages, and shows `check` what was copied while it is at hand.
    ///
    /// The code begins `displacement` bytes, less than a page, behind the start of a page.
    pub(crate) fn copy(code: &[u8], displacement: usize, mut check: impl FnMut(&[u8])) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        let end = displacement.saturating_add(code.len());
        let pages = if code.is_empty() { None } else { Some(WritablePages::allocate(end, 0)?.0) };
        if let Some(pages) = &pages {
            pages.advise(0..end);
        }
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
        let pages = pages.freeze();
        pages.make_executable(&self.code)?;
        Ok(CodeMemory(Placement::Copied(pages, self.code)))
    }

    fn pages_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut().map_or(&mut [], WritablePages::bytes_mut)
    }
}

/// Code that can be executed, and that nobody writes.
pub(crate) struct CodeMemory(Placement);

enum Placement {
    /// There is no code.
    Nowhere,
    /// In pages of its own, and where in them.
    Copied(Pages, Range<usize>),
    /// In the pages that its file was read into, and where in the file.
    Read(Arc<FilePages>, Range<usize>),
    /// In its file, which is mapped, and where in the map.
    InPlace(Arc<FileMap>, Range<usize>),
}

impl CodeMemory {
    /// Makes code executable where its file is mapped, which keeps instruction caches coherent by itself.
    pub(crate) fn in_place(file: &Arc<FileMap>, code: &Range<u64>) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        let Some(code) = file.place(code).filter(|code| !code.is_empty()) else {
            return Ok(Self(Placement::Nowhere));
        };
        file.make_executable(&code)?;
        Ok(Self(Placement::InPlace(Arc::clone(file), code)))
    }

    /// Makes code executable in the pages that its file was read into.
    pub(crate) fn publish(file: &Arc<FilePages>, code: &Range<u64>) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        let code = bytes(code);
        if code.is_empty() {
            return Ok(Self(Placement::Nowhere));
        }
        file.make_executable(&code)?;
        Ok(Self(Placement::Read(Arc::clone(file), code)))
    }

    /// Returns whether the code runs from its file.
    pub(crate) const fn is_in_place(&self) -> bool {
        matches!(self.0, Placement::InPlace(..))
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
            Placement::Copied(pages, code) => pages.bytes().get(code.clone()).unwrap_or_default(),
            Placement::Read(file, code) => file.bytes().get(code.clone()).unwrap_or_default(),
            Placement::InPlace(file, code) => file.get(code.clone()).unwrap_or_default(),
        }
    }
}

/// Returns a range of a file in memory.
fn bytes(range: &Range<u64>) -> Range<usize> {
    let offset = |at| usize::try_from(at).unwrap_or(usize::MAX);
    offset(range.start)..offset(range.end)
}

impl fmt::Debug for CodeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeMemory({:#x?}{})", self.range(), if self.is_in_place() { ", in place" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::HUGE;
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
        for length in [
            1,
            4095,
            4096,
            4097,
            HUGE / 2 - 1,
            HUGE / 2,
            HUGE - 1,
            HUGE,
            HUGE + 1,
            HUGE * 3 / 2 - 1,
            HUGE * 3 / 2,
            HUGE * 2,
        ] {
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
        // The kernel may have joined the pages with others like them.
        let holds = |line: &&str| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).unwrap());
            (start..end).contains(&memory.range().start)
        };
        let line = maps.lines().find(holds).expect("the code is mapped");
        assert_eq!(line.split(' ').nth(1), Some("r-xp"), "{line}");
        assert!(maps.lines().all(|line| !line.contains("rwx")), "{maps}");
    }
}

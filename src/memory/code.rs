//! Pages of code: written once, then executed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::map::FileMap;
use super::pages::{Pages, WritablePages};
use crate::error::Error;
use crate::words::{Arch, STEP};

/// What running off the end of the code runs into.
const TRAP: u8 = Arch::host().trap();

/// Whether the crate knows how to keep this machine's instruction caches coherent.
const IS_SUPPORTED: bool = cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"));

/// Code in pages of its own that cannot be executed yet, and what stands behind it in its file, in pages that never will be.
///
/// Traps fill what is left of the pages of the code.
pub(crate) struct WritableCode {
    /// `None` if there is neither: there are no pages of length zero.
    pages: Option<WritablePages>,
    /// Where the code lies in the pages.
    code: Range<usize>,
    /// Where the rest lies in the pages, from the start of one.
    rest: Range<usize>,
}

impl WritableCode {
    /// Takes pages for code that begins `displacement` bytes, less than a page, behind the start of a page, and for the rest.
    pub(crate) fn allocate(code: usize, displacement: usize, rest: usize) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        let code = if code == 0 { 0..0 } else { displacement..displacement.saturating_add(code) };
        let start = code.end.checked_next_multiple_of(region::page::size()).unwrap_or(usize::MAX);
        let rest = start..start.saturating_add(rest);
        let pages = if rest.end == 0 { None } else { Some(WritablePages::allocate(rest.end)?) };
        Ok(Self { pages, code, rest })
    }

    /// Copies `code` into fresh pages, and shows `check` what was copied while it is at hand.
    pub(crate) fn copy(code: &[u8], displacement: usize, mut check: impl FnMut(&[u8])) -> Result<Self, Error> {
        let mut copy = Self::allocate(code.len(), displacement, 0)?;
        copy.advise_code(0..code.len());
        for (to, from) in copy.code_mut().chunks_mut(STEP).zip(code.chunks(STEP)) {
            to.copy_from_slice(from);
            check(to);
        }
        Ok(copy)
    }

    /// Prepares a part of the code for being written.
    pub(crate) fn advise_code(&self, part: Range<usize>) {
        self.advise(self.code.start, part);
    }

    /// Prepares a part of the rest for being written.
    pub(crate) fn advise_rest(&self, part: Range<usize>) {
        self.advise(self.rest.start, part);
    }

    fn advise(&self, start: usize, part: Range<usize>) {
        if let Some(pages) = &self.pages {
            pages.advise(start.saturating_add(part.start)..start.saturating_add(part.end));
        }
    }

    pub(crate) fn code(&self) -> &[u8] {
        self.part(&self.code)
    }

    pub(crate) fn code_mut(&mut self) -> &mut [u8] {
        self.part_mut(self.code.clone())
    }

    pub(crate) fn rest(&self) -> &[u8] {
        self.part(&self.rest)
    }

    pub(crate) fn rest_mut(&mut self) -> &mut [u8] {
        self.part_mut(self.rest.clone())
    }

    fn part(&self, part: &Range<usize>) -> &[u8] {
        self.pages.as_ref().and_then(|pages| pages.bytes().get(part.clone())).unwrap_or_default()
    }

    fn part_mut(&mut self, part: Range<usize>) -> &mut [u8] {
        self.pages.as_mut().and_then(|pages| pages.bytes_mut().get_mut(part)).unwrap_or_default()
    }

    /// Makes the code executable and the rest readable, and neither writable any longer.
    pub(crate) fn publish(mut self) -> Result<CodeMemory, Error> {
        // Not before the pages were prepared: a page that is there already keeps a huge one away.
        for traps in [0..self.code.start, self.code.end..self.rest.start] {
            self.part_mut(traps).fill(TRAP);
        }
        let Some(pages) = self.pages else { return Ok(CodeMemory(Placement::Nowhere)) };
        let pages = pages.freeze();
        pages.make_executable(&self.code)?;
        Ok(CodeMemory(Placement::Pages { pages, code: self.code, rest: self.rest }))
    }
}

/// Code that can be executed, and that nobody writes.
pub(crate) struct CodeMemory(Placement);

enum Placement {
    /// There is no code.
    Nowhere,
    /// In pages of its own, with the rest of its file.
    Pages { pages: Pages, code: Range<usize>, rest: Range<usize> },
    /// In its file, which is mapped, and where in the map.
    InPlace(Arc<FileMap>, Range<usize>),
}

impl CodeMemory {
    /// Returns the code of an entry that has none.
    pub(crate) const fn none() -> Self {
        Self(Placement::Nowhere)
    }

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
            Placement::Pages { pages, code, .. } => pages.bytes().get(code.clone()).unwrap_or_default(),
            Placement::InPlace(file, code) => file.get(code.clone()).unwrap_or_default(),
        }
    }

    /// Returns what stands behind the code in its file, if it was read into the same pages.
    pub(crate) fn rest(&self) -> &[u8] {
        match &self.0 {
            Placement::Pages { pages, rest, .. } => pages.bytes().get(rest.clone()).unwrap_or_default(),
            Placement::Nowhere | Placement::InPlace(..) => &[],
        }
    }
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
            let code = WritableCode::copy(&[1, 2, 3], displacement, |_| {}).unwrap().publish().unwrap();
            let Placement::Pages { pages, .. } = &code.0 else { panic!("{code:?}") };
            let pages = pages.bytes();
            assert!(pages[..displacement].iter().all(|&byte| byte == TRAP));
            assert!(pages[displacement + 3..].iter().all(|&byte| byte == TRAP));
            assert_eq!(pages.len() % region::page::size(), 0);
        }
    }

    #[test]
    fn the_rest_of_a_file_lies_on_pages_of_its_own() {
        for (code, rest) in [(0, 10), (10, 0), (4096, 10), (4097, 5000)] {
            let mut writable = WritableCode::allocate(code, 6, rest).unwrap();
            assert_eq!((writable.code_mut().len(), writable.rest_mut().len()), (code, rest));
            writable.rest_mut().fill(7);
            let memory = writable.publish().unwrap();
            assert_eq!((memory.bytes().len(), memory.rest()), (code, &vec![7; rest][..]));
            assert!(memory.bytes().iter().all(|&byte| byte == 0), "nothing of the rest is executable");
            assert!(rest == 0 || memory.rest().as_ptr().addr().is_multiple_of(region::page::size()));
        }
    }

    #[test]
    fn lengths_that_no_slice_can_have_are_refused() {
        for length in [usize::MAX, usize::MAX / 2, usize::MAX / 2 - 4096] {
            for (code, rest) in [(length, 0), (0, length), (length / 2 + 1, length / 2)] {
                assert!(matches!(WritableCode::allocate(code, 0, rest), Err(Error::Memory { .. })));
            }
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

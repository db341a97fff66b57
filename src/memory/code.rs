//! Memory for code: written once, then executed.

use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::arena::Room;
use super::coherence::IS_SUPPORTED;
use super::image::PublishedImage;
use super::map::FileMap;
use super::mappings;
use super::memory_file::{Sealed, is_hardened};
use super::pages::{Pages, WritablePages};
use super::start::Start;
use crate::error::{Error, heap};
use crate::words::{Arch, STEP};

/// What running off the end of the code runs into.
const TRAP: u8 = Arch::host().trap();

/// Whether the system has refused to make memory executable that was written to.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether small code is to lie in pages of its own, too.
static IS_APART: AtomicBool = AtomicBool::new(false);

/// Has code that is copied from now on lie in pages of its own, however small it is, unless mappings are scarce.
pub(crate) fn keep_apart() {
    IS_APART.store(true, Ordering::Relaxed);
}

/// Code in memory of its own that cannot be executed yet, and what stands behind it in its file, in pages that never
/// will be.
///
/// Traps fill what is left of the pages of the code.
pub(crate) struct WritableCode {
    /// Code for the arena; empty if there is none.
    small: Vec<u8>,
    start: Start,
    /// `None` if there is nothing to put there: there are no pages of length zero.
    pages: Option<WritablePages>,
    /// Where the code lies in the pages.
    code: Range<usize>,
    /// Where the rest lies in the pages, from the start of one.
    rest: Range<usize>,
}

impl WritableCode {
    /// Takes memory for code, which will begin at `start`, and for the rest.
    pub(crate) fn allocate(code: usize, start: Start, rest: usize) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        let is_apart = IS_APART.load(Ordering::Relaxed) && !mappings::are_scarce();
        if is_apart || !Room::is_for(code) {
            return Self::in_pages(code, start, rest);
        }
        let mut small = Vec::new();
        heap::reserve(&mut small, code)?;
        small.resize(code, 0);
        Ok(Self { small, ..Self::in_pages(0, start, rest)? })
    }

    fn in_pages(code: usize, start: Start, rest: usize) -> Result<Self, Error> {
        let displacement = start.displacement;
        debug_assert!(start.alignment <= region::page::size(), "pages are aligned to no more");
        let code = if code == 0 { 0..0 } else { displacement..displacement.saturating_add(code) };
        let behind = code.end.checked_next_multiple_of(region::page::size()).unwrap_or(usize::MAX);
        let rest = behind..behind.saturating_add(rest);
        let pages = if rest.end == 0 { None } else { Some(WritablePages::allocate(rest.end)?) };
        Ok(Self { small: Vec::new(), start, pages, code, rest })
    }

    /// Copies `code` into fresh memory, and shows `check` what was copied while it is at hand.
    pub(crate) fn copy(code: &[u8], start: Start, mut check: impl FnMut(&[u8])) -> Result<Self, Error> {
        let mut copy = Self::allocate(code.len(), start, 0)?;
        copy.advise_code(0..code.len());
        for (to, from) in copy.code_mut().chunks_mut(STEP).zip(code.chunks(STEP)) {
            to.copy_from_slice(from);
            check(to);
        }
        Ok(copy)
    }

    /// Prepares a part of the code for being written.
    pub(crate) fn advise_code(&self, part: Range<usize>) {
        if self.small.is_empty() {
            self.advise(self.code.start, part);
        }
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
        if self.small.is_empty() { self.part(&self.code) } else { &self.small }
    }

    pub(crate) fn code_mut(&mut self) -> &mut [u8] {
        if self.small.is_empty() { self.part_mut(self.code.clone()) } else { &mut self.small }
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
    pub(crate) fn publish(self) -> Result<CodeMemory, Error> {
        if self.small.is_empty() {
            return self.publish_pages();
        }
        let Some(room) = Room::of(&self.small, self.start) else {
            let mut copy = Self::in_pages(self.small.len(), self.start, self.rest.len())?;
            copy.code_mut().copy_from_slice(&self.small);
            copy.rest_mut().copy_from_slice(self.rest());
            return copy.publish_pages();
        };
        let pages = self.pages.map(WritablePages::seal).transpose()?;
        Ok(CodeMemory { place: Placement::Room(room), pages, rest: self.rest })
    }

    fn publish_pages(mut self) -> Result<CodeMemory, Error> {
        // Not before the pages were prepared: a page that is there already keeps a huge one away.
        for traps in [0..self.code.start, self.code.end..self.rest.start] {
            self.part_mut(traps).fill(TRAP);
        }
        let (code, rest) = (self.code, self.rest);
        let Some(pages) = self.pages else { return Ok(CodeMemory::none()) };
        if code.is_empty() {
            return Ok(CodeMemory { pages: Some(pages.seal()?), rest, ..CodeMemory::none() });
        }
        let pages = pages.freeze();
        let copy = || Sealed::copy(pages.bytes().get(..rest.start).unwrap_or_default());
        let given = if is_hardened() { copy().ok() } else { None };
        let sealed = if let Some(given) = given {
            given
        } else {
            let mut refused = None;
            if !IS_REFUSED.load(Ordering::Relaxed) {
                match pages.make_executable(&code) {
                    Ok(()) => return Ok(CodeMemory { place: Placement::Pages(code), pages: Some(pages), rest }),
                    Err(error) if !is_denied(&error) => return Err(error),
                    Err(error) => refused = Some(error),
                }
            }
            let failed = |error| refused.unwrap_or_else(|| mappings::refused("make executable", rest.start, error));
            let sealed = copy().map_err(failed)?;
            IS_REFUSED.store(true, Ordering::Relaxed);
            sealed
        };
        let pages = if rest.is_empty() { None } else { Some(pages.keep_from(rest.start)?) };
        Ok(CodeMemory { place: Placement::Sealed(Box::new((sealed, code))), pages, rest })
    }
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Memory { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

/// Code that can be executed, and that nobody writes.
pub(crate) struct CodeMemory {
    place: Placement,
    /// The pages of the code or of the rest, or of both.
    pages: Option<Pages>,
    /// Where in the pages that lies which stands behind the code in its file.
    rest: Range<usize>,
}

/// Where code lies.
enum Placement {
    /// There is no code.
    Nowhere,
    /// In the arena, beside that of other modules.
    Room(Room),
    /// In pages of its own, which are those of the rest, and where in them.
    Pages(Range<usize>),
    /// In a memory file, or in pages that the system gives for code, and where in it.
    Sealed(Box<(Sealed, Range<usize>)>),
    /// In pages of its own or its file's, with data behind it.
    Image(Box<PublishedImage>),
    /// In its file, which is mapped, and where in the map.
    InPlace(Arc<FileMap>, Range<usize>),
}

impl CodeMemory {
    /// Returns the code of an entry that has none.
    pub(crate) const fn none() -> Self {
        Self { place: Placement::Nowhere, pages: None, rest: 0..0 }
    }

    /// Makes code executable where its file is mapped, which keeps instruction caches coherent by itself.
    pub(crate) fn in_place(file: &Arc<FileMap>, code: &Range<u64>) -> Result<Self, Error> {
        if !IS_SUPPORTED {
            return Err(Error::UnsupportedMachine);
        }
        let Some(code) = file.place(code).filter(|code| !code.is_empty()) else { return Ok(Self::none()) };
        file.make_executable(&code)?;
        Ok(Self { place: Placement::InPlace(Arc::clone(file), code), ..Self::none() })
    }

    /// Takes the code of an image.
    pub(crate) fn of_image(image: PublishedImage) -> Self {
        Self { place: Placement::Image(Box::new(image)), ..Self::none() }
    }

    /// Keeps what stands behind code in its file, of which this is a copy.
    pub(crate) fn with_rest(self, of: WritableCode) -> Result<Self, Error> {
        let WritableCode { pages, rest, .. } = of;
        let pages = pages.filter(|_| !rest.is_empty());
        Ok(Self { pages: pages.map(|pages| pages.freeze().keep_from(rest.start)).transpose()?, rest, ..self })
    }

    /// Returns whether the code runs from its file.
    pub(crate) fn is_in_place(&self) -> bool {
        match &self.place {
            Placement::InPlace(..) => true,
            Placement::Image(image) => image.is_in_place(),
            _ => false,
        }
    }

    /// Returns the addresses of the code; an empty range at 0 if there is none.
    pub(crate) fn range(&self) -> Range<usize> {
        let bytes = self.bytes();
        let start = if bytes.is_empty() { 0 } else { bytes.as_ptr().addr() };
        start..start.saturating_add(bytes.len())
    }

    /// Returns the code as it stands in memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.place {
            Placement::Nowhere => &[],
            Placement::Room(room) => room.bytes(),
            Placement::Pages(code) => self.in_pages(code),
            Placement::Image(image) => image.bytes(),
            Placement::Sealed(sealed) => sealed.0.bytes().get(sealed.1.clone()).unwrap_or_default(),
            Placement::InPlace(file, code) => file.get(code.clone()).unwrap_or_default(),
        }
    }

    /// Returns what stands behind the code in its file, if it was read with the code.
    pub(crate) fn rest(&self) -> &[u8] {
        self.in_pages(&self.rest)
    }

    fn in_pages(&self, part: &Range<usize>) -> &[u8] {
        self.pages.as_ref().and_then(|pages| pages.bytes().get(part.clone())).unwrap_or_default()
    }
}

impl fmt::Debug for CodeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeMemory({:#x?}{})", self.range(), if self.is_in_place() { ", in place" } else { "" })
    }
}

#[cfg(test)]
#[cfg(not(target_arch = "powerpc64"))]
mod tests {
    use super::super::pages::HUGE;
    use super::*;

    impl CodeMemory {
        /// Returns what stands behind the code.
        fn behind(&self, length: usize) -> &[u8] {
            // SAFETY: the page that ends behind the code, or the next one, is mapped: traps are between code and what
            // follows.
            unsafe { std::slice::from_raw_parts(self.bytes().as_ptr_range().end, length) }
        }
    }

    const PAGE: Start = Start { alignment: 4096, displacement: 0 };

    #[test]
    fn what_is_checked_is_what_was_copied() {
        let code: Vec<u8> = (0_u32..200_000).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let mut seen = Vec::new();
        let memory = WritableCode::copy(&code, PAGE, |step| seen.extend_from_slice(step)).unwrap().publish().unwrap();
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
                let start = Start { displacement, ..PAGE };
                let memory = WritableCode::copy(&code, start, |_| {}).unwrap().publish().unwrap();
                assert!(memory.bytes() == code, "{length} {displacement}");
                assert_eq!(memory.range().start % 4096, displacement);
            }
        }
    }

    #[test]
    fn empty_code_takes_no_pages() {
        let memory = WritableCode::copy(&[], PAGE, |_| panic!("there is nothing to check")).unwrap().publish().unwrap();
        assert!(memory.range().is_empty());
        assert!(memory.bytes().is_empty());
    }

    #[test]
    fn running_off_the_end_of_the_code_traps() {
        for (length, displacement) in [(3, 0), (3, 38), (16, 0), (70_000, 0), (70_000, 38)] {
            let start = Start { displacement, ..PAGE };
            let code = WritableCode::copy(&vec![1; length], start, |_| {}).unwrap().publish().unwrap();
            if let Placement::Pages(_) = code.place {
                let pages = code.pages.as_ref().unwrap().bytes();
                assert!(pages[..displacement].iter().all(|&byte| byte == TRAP));
                assert!(pages[displacement + length..].iter().all(|&byte| byte == TRAP));
                assert_eq!(pages.len() % region::page::size(), 0);
            } else {
                assert_eq!(code.behind(4), [TRAP; 4]);
            }
        }
    }

    #[test]
    fn the_rest_of_a_file_lies_on_pages_of_its_own() {
        for (code, rest) in [(0, 10), (10, 0), (4096, 10), (4097, 5000), (70_000, 0), (70_000, 10), (70_000, 5000)] {
            let start = Start { alignment: 16, displacement: 6 };
            let mut writable = WritableCode::allocate(code, start, rest).unwrap();
            assert_eq!((writable.code_mut().len(), writable.rest_mut().len()), (code, rest));
            writable.rest_mut().fill(7);
            let memory = writable.publish().unwrap();
            assert_eq!((memory.bytes().len(), memory.rest()), (code, &vec![7; rest][..]));
            assert!(memory.bytes().iter().all(|&byte| byte == 0), "nothing of the rest is executable");
            assert!(rest == 0 || memory.rest().as_ptr().addr().is_multiple_of(region::page::size()));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn code_is_executable_and_not_writable() {
        for (length, protection) in [(4000, "r-xs"), (70_000, "r-xp")] {
            is_executable_and_not_writable(length, protection);
        }
    }

    #[cfg(target_os = "linux")]
    fn is_executable_and_not_writable(length: usize, protection: &str) {
        let memory = WritableCode::copy(&vec![TRAP; length], PAGE, |_| {}).unwrap().publish().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        // The kernel may have joined the pages with others like them.
        let holds = |line: &&str| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).unwrap());
            (start..end).contains(&memory.range().start)
        };
        let line = maps.lines().find(holds).expect("the code is mapped");
        assert_eq!(line.split(' ').nth(1), Some(protection), "{line}");
        assert!(maps.lines().all(|line| !line.contains("rwx")), "{maps}");
    }
}

#[cfg(test)]
#[cfg(target_arch = "powerpc64")]
mod elsewhere {
    use super::*;

    #[test]
    fn a_machine_whose_caches_are_not_known_gets_no_code() {
        let start = Start { alignment: 16, displacement: 0 };
        assert!(matches!(WritableCode::copy(&[1], start, |_| {}), Err(Error::UnsupportedMachine)));
    }
}

//! Files in memory, such that their code can run there: mapped, or read into pages.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::{Deref, Range};

use region::Protection;

use super::access::{Check, Unchanging};
use super::pages::{Pages, WritablePages, refused};
use crate::entry::crc32c;
use crate::error::Error;
use crate::format;
use crate::words::STEP;

/// A part of a file that is mapped.
#[derive(Debug)]
pub(crate) struct FileMap {
    map: memmap2::Mmap,
    /// Where in the file it begins.
    at: u64,
    /// Whether all of it was mapped executable.
    is_executable: bool,
}

impl FileMap {
    /// Length of the longest part that is mapped executable before anybody knows where in it the code lies, in bytes: on most of
    /// its pages, if it is as short as that.
    pub(crate) const SHORT: u64 = 256 * 1024;

    /// Length of the longest part whose pages are all mapped at once if they are to be looked at, in bytes: that takes less than
    /// the page fault. More of them are faulted in several at a time.
    const FEW_PAGES: u64 = 16 * 1024;

    /// Maps a part of a file for reading.
    pub(crate) fn to_read(file: &File, part: &Range<u64>, promise: Unchanging) -> io::Result<Self> {
        Self::map(part, promise, |options| {
            // SAFETY: `map` asks what `Self::map` was promised.
            unsafe { options.map(file) }
        })
    }

    /// Maps a part of a file to run its code; all of a short one is executable until [`FileMap::make_executable`], if the system
    /// lets it.
    pub(crate) fn to_run(file: &File, part: &Range<u64>, promise: Unchanging, check: Check) -> io::Result<Self> {
        let length = part.end.saturating_sub(part.start);
        let is_looked_at = check != Check::VouchedFor && length <= Self::FEW_PAGES;
        let map = (length <= Self::SHORT).then(|| Self::executable(file, part, promise, is_looked_at));
        map.and_then(Result::ok).map_or_else(|| Self::to_read(file, part, promise), Ok)
    }

    /// Maps the pages of a file that hold its code, all executable.
    pub(crate) fn of_code(file: &File, pages: &Range<u64>, promise: Unchanging) -> io::Result<Self> {
        Self::executable(file, pages, promise, false)
    }

    /// Returns the part of a file of `length` bytes that lies on the pages that hold its code.
    pub(crate) fn pages_of(code: &Range<u64>, length: u64) -> Range<u64> {
        let page = u64::try_from(region::page::size()).unwrap_or(1);
        let end = code.end.checked_next_multiple_of(page).unwrap_or(u64::MAX);
        code.start & page.wrapping_neg()..end.min(length)
    }

    fn executable(file: &File, part: &Range<u64>, promise: Unchanging, is_looked_at: bool) -> io::Result<Self> {
        let map = Self::map(part, promise, |options| {
            if is_looked_at {
                options.populate();
            }
            // SAFETY: as in `to_read`.
            unsafe { options.map_exec(file) }
        })?;
        Ok(Self { is_executable: true, ..map })
    }

    /// Maps a part of a file, which nobody changes in place or shortens while it is mapped: whoever made the `Unchanging`
    /// promised that, at a door of `Access`.
    fn map(
        part: &Range<u64>,
        Unchanging(()): Unchanging,
        map: impl FnOnce(&mut memmap2::MmapOptions) -> io::Result<memmap2::Mmap>,
    ) -> io::Result<Self> {
        let length = usize::try_from(part.end.saturating_sub(part.start)).map_err(|_| ErrorKind::OutOfMemory)?;
        let map = map(memmap2::MmapOptions::new().offset(part.start).len(length))?;
        Ok(Self { map, at: part.start, is_executable: false })
    }

    /// Returns where in the map a part of the file lies, if it is mapped.
    pub(super) fn place(&self, part: &Range<u64>) -> Option<Range<usize>> {
        let place = |at: u64| usize::try_from(at.checked_sub(self.at)?).ok();
        let place = place(part.start)?..place(part.end)?;
        self.map.get(place.clone()).is_some().then_some(place)
    }

    /// Returns a part of the file, if it is mapped.
    pub(crate) fn part(&self, part: &Range<u64>) -> Option<&[u8]> {
        self.map.get(self.place(part)?)
    }

    /// Returns whether all of it was mapped executable.
    pub(crate) const fn is_executable(&self) -> bool {
        self.is_executable
    }

    /// Makes the pages executable that hold `code`, a range of the map, and all others not.
    ///
    /// That takes a system call for what is not so yet, and time for each page of it that was looked at before.
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

/// How much of a file is read to find its code, and at least of its end, in bytes.
const START: usize = 4096;

/// A file that was read into pages of its own, in which its code can be made executable.
pub(crate) struct FilePages {
    pages: Pages,
    /// Where the file lies in the pages: its first function, if there is one, begins on a page.
    file: Range<usize>,
    /// Where in the file the code lies, and its CRC-32C.
    code: Option<(Range<usize>, u32)>,
    /// Where in the file the rows of the source map lie, if they were left out.
    left: Option<Range<u64>>,
}

impl FilePages {
    /// Reads a file of `length` bytes, or as much of it as there is, and sums its code while it is at hand.
    ///
    /// The rows of a source map of more than `most_rows` bytes are left out: zeros stand for them, which take no memory.
    ///
    /// # Errors
    ///
    /// The outer one if there is no memory, the inner one from reading.
    pub(crate) fn read(file: &File, length: usize, most_rows: u64) -> Result<io::Result<Self>, Error> {
        let mut start = [0; START];
        let read = match fill(file, &mut start) {
            Ok(read) => read.min(length),
            Err(error) => return Ok(Err(error)),
        };
        let start = start.get(..read).unwrap_or_default();
        let place = format::code_place(start).unwrap_or_default();
        let [code_at, function_at] = [place.0, place.1].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        let (pages, at) = WritablePages::allocate(length, function_at)?;
        let mut image = Image { file, pages, at, length, filled: 0 };
        let read = (|| {
            image.filled = image.missing(read).write(start)?;
            let code = image.sum_code(code_at)?;
            let left = code.as_ref().map_or(Ok(None), |(code, _)| image.leave_rows(code.end, most_rows))?;
            image.advise(length);
            image.fill_to(length)?;
            Ok((code, left))
        })();
        Ok(read.map(|(code, left)| {
            let file = at..at.saturating_add(image.filled);
            Self { pages: image.pages.freeze(), file, code, left }
        }))
    }

    /// Returns the bytes of the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.pages.bytes().get(self.file.clone()).unwrap_or_default()
    }

    /// Returns the CRC-32C of the code, if that lies at `code`, a range of the file.
    pub(crate) fn code_checksum(&self, code: &Range<u64>) -> Option<u32> {
        let (found, checksum) = self.code.as_ref()?;
        let is_same = u64::try_from(found.start) == Ok(code.start) && u64::try_from(found.end) == Ok(code.end);
        is_same.then_some(*checksum)
    }

    /// Returns where in the file the rows of the source map lie, if they were left out.
    pub(crate) fn left_rows(&self) -> Option<Range<u64>> {
        self.left.clone()
    }

    pub(super) fn make_executable(&self, code: &Range<usize>) -> Result<(), Error> {
        let in_pages = |at| self.file.start.saturating_add(at);
        self.pages.make_executable(&(in_pages(code.start)..in_pages(code.end)))
    }
}

/// A file on its way into memory.
struct Image<'a> {
    file: &'a File,
    pages: WritablePages,
    /// Where in the pages the file is to lie, and how long it is.
    at: usize,
    length: usize,
    /// How much of it is there, or was left out.
    filled: usize,
}

impl Image<'_> {
    /// Returns what is there of the file.
    fn filled(&self) -> &[u8] {
        self.pages.bytes().get(self.at..self.at.saturating_add(self.filled)).unwrap_or_default()
    }

    /// Returns the room for the part of the file up to `end` that is not there yet.
    fn missing(&mut self, end: usize) -> &mut [u8] {
        let in_pages = |offset: usize| self.at.saturating_add(offset.min(self.length));
        let range = in_pages(self.filled)..in_pages(end);
        self.pages.bytes_mut().get_mut(range).unwrap_or_default()
    }

    /// Prepares the pages for so much more of the file.
    fn advise(&self, end: usize) {
        let in_pages = |offset: usize| self.at.saturating_add(offset.min(self.length));
        self.pages.advise(in_pages(self.filled)..in_pages(end));
    }

    /// Reads on until so much of the file is there, or the file ends.
    fn fill_to(&mut self, end: usize) -> io::Result<()> {
        let read = fill(self.file, self.missing(end))?;
        self.filled = self.filled.saturating_add(read);
        Ok(())
    }

    /// Reads on to the end of the code that begins at `start`, and returns where it lies and its CRC-32C; `None` if the file
    /// has no such place.
    fn sum_code(&mut self, start: usize) -> io::Result<Option<(Range<usize>, u32)>> {
        self.advise(start);
        self.fill_to(start)?;
        let in_front = self.filled().get(..start).unwrap_or_default();
        let code = u64::try_from(start).ok().and_then(|at| format::code_range(in_front, at));
        let end = code.and_then(|code| usize::try_from(code.end).ok());
        let Some(end) = end.filter(|&end| end <= self.length) else { return Ok(None) };
        self.advise(self.with_short_rest(end));
        let (mut summed, mut sum) = (start, 0);
        while summed < end {
            let step = summed.saturating_add(STEP).min(end);
            self.fill_to(self.with_short_rest(step))?;
            let Some(bytes) = self.filled().get(summed..step) else { return Ok(None) };
            (summed, sum) = (step, crc32c(sum, bytes));
        }
        Ok(Some((start..end, sum)))
    }

    /// Returns where to read to at least up to `end`: what would be left of the file may not be worth a call.
    const fn with_short_rest(&self, end: usize) -> usize {
        if self.length.saturating_sub(end) < START { self.length } else { end }
    }

    /// Reads on behind the code, which ends at `at`, and goes to the end of the rows of a source map if they are more than
    /// `most` bytes; returns where they lie then.
    fn leave_rows(&mut self, at: usize, most: u64) -> io::Result<Option<Range<u64>>> {
        self.fill_to(at.saturating_add(usize::try_from(format::ROWS_BEHIND_CODE).unwrap_or(0)))?;
        let behind_code = self.filled().get(at..).unwrap_or_default();
        let rows = format::rows_place(behind_code, u64::try_from(at).unwrap_or(u64::MAX));
        let rows = rows.filter(|rows| rows.end.saturating_sub(rows.start) > most);
        let is_ahead = |&end: &usize| self.filled < end && end <= self.length;
        let end = rows.as_ref().and_then(|rows| usize::try_from(rows.end).ok()).filter(is_ahead);
        let (Some(rows), Some(end)) = (rows, end) else { return Ok(None) };
        let mut file = self.file;
        file.seek(SeekFrom::Start(rows.end))?;
        self.filled = end;
        Ok(Some(rows))
    }
}

/// Reads until `to` is full or the file ends, and returns how much was read.
fn fill(mut file: &File, to: &mut [u8]) -> io::Result<usize> {
    let mut filled: usize = 0;
    while let Some(rest @ [_, ..]) = to.get_mut(filled..) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_file_says_it_is_read_as_it_is_and_only_its_own_code_is_summed() {
        let path = std::env::temp_dir().join(format!("jitcache-pages-{}", std::process::id()));
        // A header, two functions at 64 and 128, 200000 bytes of code, 10000 rows of source map, and some bytes behind it.
        let mut sound = b"MAGIC!\x03v.1\x02\0\0\0".to_vec();
        for number in [64_u64, 128, 200_000] {
            sound.extend(number.to_le_bytes());
        }
        let noise = |length: u32| (0..length).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]);
        let code = sound.len()..sound.len() + 200_000;
        sound.extend(noise(200_000));
        sound.extend([7, 7, 7, 7, 1]);
        sound.extend(10_000_u64.to_le_bytes());
        let rows = code.end + 13..code.end + 13 + 160_000;
        sound.extend(noise(160_000 + 500));
        let hostile = [0, 1, 63, 200_000, 400_000, 400_001, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, u64::MAX];
        let places = [0, 6, 10, 14, 30, code.end + 4, code.end + 5];
        let damages = places.into_iter().flat_map(|at| hostile.map(|number: u64| (at, number)));
        for (at, number) in damages.chain([(usize::MAX, 0)]) {
            let mut file = sound.clone();
            if let Some(bytes) = file.get_mut(at..at.wrapping_add(8)) {
                bytes.copy_from_slice(&number.to_le_bytes());
            }
            let lengths = [file.len(), rows.end, rows.end - 1, code.end + 12, 150_000, 4097, 4096, 40, 9];
            // The file may have become shorter or longer since its length was asked for.
            let said = |length: usize| [length, length + 5000, length / 2 + 1];
            for (length, said) in lengths.into_iter().flat_map(|length| said(length).map(|said| (length, said))) {
                std::fs::write(&path, &file[..length]).unwrap();
                for most_rows in [u64::MAX, 160_000, 159_999] {
                    let read = FilePages::read(&File::open(&path).unwrap(), said, most_rows).unwrap().unwrap();
                    let mut expected = file[..length.min(said)].to_vec();
                    if let Some(left) = read.left_rows() {
                        let left = usize::try_from(left.start).unwrap()..usize::try_from(left.end).unwrap();
                        assert!(u64::try_from(left.len()).unwrap() > most_rows && left.end <= said);
                        // What is left may be said to be longer than it is: reading it finds out.
                        expected.resize(expected.len().max(left.end), 0);
                        expected[left].fill(0);
                    }
                    assert!(read.bytes() == expected, "{at} {number} {length} {said} {most_rows}");
                    if let Some((code, sum)) = &read.code {
                        assert_eq!(*sum, crc32c::crc32c(&read.bytes()[code.clone()]));
                    }
                    if at == usize::MAX && said >= code.end && length >= code.end {
                        let range = u64::try_from(code.start).unwrap()..u64::try_from(code.end).unwrap();
                        assert!(read.code_checksum(&range).is_some());
                        assert!(read.bytes()[code.start + 64..].as_ptr().addr().is_multiple_of(region::page::size()));
                        let is_left = most_rows == 159_999 && said >= rows.end;
                        assert_eq!(read.left_rows().is_some(), is_left, "{length} {said} {most_rows}");
                    }
                }
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}

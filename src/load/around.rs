//! What is read of a file of which the code is mapped.

use std::fs::File;
use std::ops::Range;

use crate::error::heap;
use crate::file::read_at;
use crate::format;
use crate::memory::FileMap;

/// What is read of a file whose code is mapped: few bytes take a tenth of a page fault.
#[derive(Debug)]
pub(crate) struct Around {
    /// Length of the file.
    length: u64,
    /// What was read, and where in the file it lies, piece by piece.
    bytes: Vec<u8>,
    /// A load looks at no more places: the start, the length of the code, what follows it, what follows its source map, the seal
    /// and the end.
    pieces: [Range<u64>; 6],
}

impl Around {
    /// How much is read of a place, in bytes: seal and footer fit in it, with little metadata.
    const PIECE: u64 = 512;

    /// How much is read of the start of a file whose code is to be checked, in bytes: with five hundred functions.
    const START: u64 = 4096 + Self::PIECE;

    /// Length of the longest part in front of the code or behind it that is read whole, in bytes: mapping more costs less.
    const MOST: u64 = 20 * 1024;

    pub(crate) const fn new(length: u64) -> Self {
        Self { length, bytes: Vec::new(), pieces: [const { 0..0 }; 6] }
    }

    /// Reads what is in front of the code, and what is behind it if that is not all on its last page; returns what lies on the pages
    /// of the code. Returns `None` if it is too much.
    pub(crate) fn read_all_but_pages_of_code(&mut self, file: &File) -> Option<Range<u64>> {
        let start = self.read(file, &(0..Self::START))?;
        let (code_at, _) = format::code_place(start).filter(|&(at, _)| at <= Self::MOST)?;
        let start = self.read(file, &(0..code_at))?;
        let code = format::code_range(start, code_at).filter(|code| code.end <= self.length)?;
        let pages = FileMap::pages_of(&code, self.length);
        if pages.end < self.length {
            self.read_end(file, code.end)?;
        }
        Some(pages)
    }

    /// Reads what a load looks at if the code is vouched for; returns where the code ends, if all that is behind it was read but
    /// for the rows of a source map that are more than `most_rows` bytes, and where those are.
    pub(crate) fn read_all_but_code(&mut self, file: &File, most_rows: u64) -> Option<(u64, Option<Range<u64>>)> {
        // Enough for a source map of some hundred rows.
        heap::reserve(&mut self.bytes, usize::try_from(self.length.min(8192)).ok()?).ok()?;
        let is_short = self.length <= Self::START;
        let start = self.read(file, &(0..if is_short { Self::START } else { Self::PIECE }))?;
        let (code_at, _) = format::code_place(start)?;
        let number = self.read(file, &(code_at.checked_sub(8)?..code_at))?;
        let code = format::code_range(number, code_at)?;
        if self.read_end(file, code.end).is_some() {
            return Some((code.end, None));
        }
        let behind = self.read(file, &(code.end..code.end.checked_add(format::ROWS_BEHIND_CODE)?))?;
        let rows = format::rows_place(behind, code.end);
        let rows_end = rows.as_ref().map_or(code.end, |rows| rows.end);
        let is_large = |rows: &Range<u64>| rows.end.saturating_sub(rows.start) > most_rows;
        if let Some(rows) = rows.filter(is_large)
            && self.read_end(file, rows_end).is_some()
        {
            return Some((code.end, Some(rows)));
        }
        self.read(file, &(rows_end..rows_end.checked_add(Self::PIECE)?))?;
        let length = self.length;
        let end = self.read_end(file, length.saturating_sub(Self::PIECE))?;
        let seal = format::seal_place(end, length)?;
        self.read(file, &(seal..seal.checked_add(Self::PIECE)?))?;
        None
    }

    /// Reads the file from `at` on, unless that is too much.
    fn read_end(&mut self, file: &File, at: u64) -> Option<&[u8]> {
        let is_short = self.length.checked_sub(at)? <= Self::MOST;
        if is_short { self.read(file, &(at..self.length)) } else { None }
    }

    /// Reads a part of the file, as far as there is one, if it was not read yet; returns `None` if that cannot be.
    fn read(&mut self, file: &File, part: &Range<u64>) -> Option<&[u8]> {
        let part = part.start..part.end.min(self.length);
        if self.part(&part).is_none() {
            let piece = self.pieces.iter_mut().find(|piece| piece.is_empty())?;
            let start = self.bytes.len();
            let length = usize::try_from(part.end.checked_sub(part.start)?).ok()?;
            heap::reserve(&mut self.bytes, length).ok()?;
            self.bytes.resize(start.saturating_add(length), 0);
            if read_at(file, self.bytes.get_mut(start..)?, part.start).is_err() {
                self.bytes.truncate(start);
                return None;
            }
            *piece = part.clone();
        }
        self.part(&part)
    }

    /// Returns the length of the file, in bytes.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Returns a part of the file, if it was read in one piece.
    pub(crate) fn part(&self, part: &Range<u64>) -> Option<&[u8]> {
        let mut start = 0;
        for piece in &self.pieces {
            if piece.start <= part.start && part.end <= piece.end {
                let place = |at: u64| usize::try_from(at.checked_sub(piece.start)?).ok()?.checked_add(start);
                return self.bytes.get(place(part.start)?..place(part.end)?);
            }
            start = usize::try_from(piece.end.saturating_sub(piece.start)).ok()?.saturating_add(start);
        }
        None
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_around_the_code_is_what_stands_in_the_file_or_nothing() {
        let path = std::env::temp_dir().join(format!("jitcache-around-{}", std::process::id()));
        let content: Vec<u8> = (0..5000_u16).map(|at| at.to_le_bytes()[usize::from(at % 2)]).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        let mut around = Around::new(5000);
        let (mut read, mut reads) = (Vec::<Range<u64>>::new(), 0);
        for part in [40..50, 0..600, 10..20, 4990..5010, 590..610, 599..600, 1000..1300, 700..701, 20..600, 900..999] {
            let is_read = read.iter().any(|piece| piece.start <= part.start && part.end.min(5000) <= piece.end);
            reads += usize::from(!is_read);
            let there = usize::try_from(part.start).unwrap()..usize::try_from(part.end.min(5000)).unwrap();
            let expected = (reads <= 6 || is_read).then(|| &content[there]);
            assert_eq!(around.read(&file, &part), expected, "{part:?}");
            assert_eq!(around.part(&(part.start..part.end.min(5000))), expected, "{part:?}");
            read.push(part);
        }
        assert_eq!(reads, 7);
        assert!(around.part(&(40..601)).is_none() && around.part(&(2000..2001)).is_none());
        // A file that became shorter, and one that cannot be read.
        let mut around = Around::new(6000);
        assert_eq!(around.read(&file, &(4999..5001)), None);
        assert_eq!(around.read(&file, &(4999..5000)), Some(&content[4999..]));
        let unreadable = File::options().write(true).open(&path).unwrap();
        assert_eq!(around.read(&unreadable, &(0..10)), None);
        std::fs::remove_file(&path).unwrap();
    }
}

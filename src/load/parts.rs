//! The parts of a file that a load reads.

use std::ops::Range;

use super::source::Source;
use crate::error::{Error, heap};
use crate::format::{self, Footer, Piece, within};
use crate::words::size;

/// What was read of a file, part by part, in one allocation.
#[derive(Debug, Default)]
pub(super) struct Parts {
    bytes: Vec<u8>,
    /// Where in the file each part lies; a load reads no more of them.
    places: [Range<u64>; Self::MOST],
}

impl Parts {
    pub(super) const MOST: usize = 6;

    /// Makes room for so many bytes at once.
    pub(super) fn with_room(length: u64) -> Result<Self, Error> {
        let mut parts = Self::default();
        heap::reserve(&mut parts.bytes, usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(parts)
    }

    /// Reads so many bytes of the beginning and the end of a file, and its seal if it is no longer than `most`.
    pub(super) fn of_ends(source: &Source<'_>, start: u64, end: u64, most: u64) -> Result<Self, Error> {
        let mut parts = Self::default();
        parts.read(source, 0..start)?;
        let length = source.length();
        let end = length.saturating_sub(end)..length;
        let bytes = parts.read(source, end.clone())?;
        let seal_at = format::seal_place(bytes, length).filter(|_| bytes.ends_with(&Footer::MAGIC.0));
        if let Some(at) = seal_at.filter(|at| *at < end.start && length.saturating_sub(*at) <= most) {
            parts.read(source, at..length)?;
        }
        Ok(parts)
    }

    /// Reads a part of the file, as far as there is one, if it was not read yet.
    pub(super) fn read(&mut self, source: &Source<'_>, part: Range<u64>) -> Result<&[u8], Error> {
        let part = part.start..part.end.min(source.length());
        if self.part(&part).is_none()
            && let Some(place) = self.places.iter().position(Range::is_empty)
        {
            let start = self.bytes.len();
            let length = usize::try_from(part.end.saturating_sub(part.start)).unwrap_or(usize::MAX);
            heap::reserve(&mut self.bytes, length)?;
            self.bytes.resize(start.saturating_add(length), 0);
            let read = source.read(self.bytes.get_mut(start..).unwrap_or_default(), part.start);
            if read.is_err() {
                self.bytes.truncate(start);
            }
            read?;
            if let Some(place) = self.places.get_mut(place) {
                *place = part.clone();
            }
        }
        Ok(self.part(&part).unwrap_or_default())
    }

    /// Returns a part of the file, if it was read in one piece.
    ///
    /// Every lookup in a module comes through here; mostly the whole file is at hand, and nothing was read in parts.
    pub(super) fn part(&self, part: &Range<u64>) -> Option<&[u8]> {
        if self.is_empty() {
            return None;
        }
        let length = part.end.saturating_sub(part.start);
        self.pieces().into_iter().find_map(|(at, bytes)| within(bytes, part.start.checked_sub(at)?, length))
    }

    /// Keeps the file up to `end` alone. So nothing is there twice, which somebody might change between two reads: then
    /// one would be checked, and the other used.
    pub(super) fn keep_head(&mut self, end: u64) {
        let is_other = |(at, bytes): &Piece<'_>| *at > 0 || within(bytes, 0, end).is_none();
        let others = self.pieces().into_iter().take_while(is_other);
        let before = others.map(|(_, bytes)| bytes.len()).fold(0, usize::saturating_add);
        self.bytes.drain(..before);
        self.bytes.truncate(usize::try_from(end).unwrap_or(usize::MAX));
        let mut head = Some(0..size(&self.bytes));
        self.places = self.places.each_ref().map(|_| head.take().unwrap_or_default());
    }

    /// Returns how many bytes were read.
    pub(super) fn length(&self) -> u64 {
        size(&self.bytes)
    }

    /// Returns whether nothing was read.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns what was read, and where it lies.
    pub(super) fn pieces(&self) -> [Piece<'_>; Self::MOST] {
        let mut rest = &self.bytes[..];
        self.places.each_ref().map(|place| {
            let length = usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(usize::MAX);
            let (part, behind) = rest.split_at_checked(length).unwrap_or_default();
            rest = behind;
            (place.start, part)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::file::Trusted;

    #[test]
    fn what_is_read_is_what_stands_in_the_file_or_an_error() {
        let path = std::env::temp_dir().join(format!("jitcache-parts-{}", std::process::id()));
        let content: Vec<u8> = (0..5000_u16).map(|at| at.to_le_bytes()[usize::from(at % 2)]).collect();
        std::fs::write(&path, &content).unwrap();
        let source = |length| {
            let mut source = Source::open(&path, &Trusted::ANYONE).unwrap().unwrap();
            source.id.length = length;
            source
        };
        let whole = source(5000);
        let mut parts = Parts::default();
        let (mut read, mut reads) = (Vec::<Range<u64>>::new(), 0);
        for part in [40..50, 0..600, 10..20, 4990..5010, 590..610, 599..600, 1000..1300, 700..701, 20..600, 900..999] {
            let is_read = read.iter().any(|piece| piece.start <= part.start && part.end.min(5000) <= piece.end);
            reads += usize::from(!is_read);
            let there = usize::try_from(part.start).unwrap()..usize::try_from(part.end.min(5000)).unwrap();
            let expected = if reads <= Parts::MOST || is_read { &content[there] } else { &[] };
            assert_eq!(parts.read(&whole, part.clone()).unwrap(), expected, "{part:?}");
            read.push(part);
        }
        assert_eq!(reads, Parts::MOST + 1);
        assert!(parts.part(&(40..601)).is_none() && parts.part(&(2000..2001)).is_none());
        // A file that became shorter, and one that cannot be read.
        let longer = source(6000);
        let mut parts = Parts::default();
        let error = parts.read(&longer, 4999..5001).unwrap_err();
        assert!(matches!(error, Error::Truncated { at: 4999, expected: 2, found: 1, .. }), "{error:?}");
        assert_eq!(parts.read(&longer, 4999..5000).unwrap(), &content[4999..]);
        let unreadable = Source { file: File::options().write(true).open(&path).unwrap(), ..source(5000) };
        assert!(matches!(parts.read(&unreadable, 0..10), Err(Error::Io { action: "read", .. })));
        std::fs::remove_file(&path).unwrap();
    }
}

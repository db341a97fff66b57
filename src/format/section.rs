//! Runs of bytes: borrowed from the file when read, from the engine when written.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::panic::RefUnwindSafe;

use binrw::{BinRead, BinResult, BinWrite, Endian};

use super::source::Short;

/// A run of bytes and where it lies in the file.
///
/// The place is 0 for a run that was not read from a file; writing and `==` ignore it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Section<'a> {
    at: u64,
    bytes: &'a [u8],
    peek: Option<&'a dyn Peek>,
}

/// A file beside its map, for reading a few bytes without looking at a page of the map.
pub(crate) trait Peek: fmt::Debug + Sync + RefUnwindSafe {
    /// Returns `length` bytes of the file from `at` on, which it has; `None` if they are to be looked at in the map.
    fn peek(&self, at: u64, length: usize) -> Option<&[u8]>;
}

impl<'a> Section<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { at: 0, bytes, peek: None }
    }

    /// Returns a run that will lie at `at` in the file.
    pub(crate) const fn new_at(at: u64, bytes: &'a [u8]) -> Self {
        Self { at, bytes, peek: None }
    }

    /// Returns a file that is mapped, of which `peek` has whatever short runs it can.
    pub(crate) const fn peeked(map: &'a [u8], peek: &'a dyn Peek) -> Self {
        Self { at: 0, bytes: map, peek: Some(peek) }
    }

    /// Returns a run of `file`; an empty one if the file does not have it.
    pub(crate) fn of(file: &'a [u8], range: &Range<u64>) -> Self {
        Self::new(file).part(range)
    }

    /// Returns a run of this one; an empty one if this does not have it.
    pub(crate) fn part(self, range: &Range<u64>) -> Self {
        let length = range.end.saturating_sub(range.start);
        let bytes = self.run(range.start, length).unwrap_or_default();
        Self { at: self.at.saturating_add(range.start), bytes, ..self }
    }

    /// Returns the `length` bytes of this run from its byte `at` on.
    #[inline]
    pub(super) fn run(&self, at: u64, length: u64) -> Result<&'a [u8], Short> {
        let end = at.checked_add(length).and_then(|end| usize::try_from(end).ok());
        let range = usize::try_from(at).ok().zip(end);
        let bytes = range.and_then(|(at, end)| self.bytes.get(at..end)).ok_or(Short { at, expected: length })?;
        let peeked = self.peek.and_then(|file| file.peek(self.at.saturating_add(at), bytes.len()));
        Ok(peeked.unwrap_or(bytes))
    }

    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Returns the extent of the run in the file, in bytes.
    pub(crate) fn range(&self) -> Range<u64> {
        self.at..self.at.saturating_add(size(self.bytes))
    }
}

impl PartialEq for Section<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<'a> BinRead for Section<'a> {
    /// The file, and the length of the run in bytes; `None` for all that is left.
    type Args<'b> = (Self, Option<u64>);

    fn read_options<R: Read + Seek>(reader: &mut R, _: Endian, (file, length): Self::Args<'_>) -> BinResult<Self> {
        let at = reader.stream_position()?;
        let length = length.unwrap_or(size(file.bytes).saturating_sub(at));
        let bytes = file.run(at, length).map_err(io::Error::from)?;
        reader.seek(SeekFrom::Start(at.saturating_add(length)))?;
        Ok(Self { at: file.at.saturating_add(at), bytes, ..file })
    }
}

impl BinWrite for Section<'_> {
    type Args<'b> = ();

    fn write_options<W: Write + Seek>(&self, writer: &mut W, _: Endian, (): ()) -> BinResult<()> {
        Ok(writer.write_all(self.bytes)?)
    }
}

/// `N` bytes that mean something only together, read and written as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> BinRead for Bytes<N> {
    type Args<'b> = ();

    fn read_options<R: Read + Seek>(reader: &mut R, _: Endian, (): ()) -> BinResult<Self> {
        let mut bytes = [0; N];
        reader.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl<const N: usize> BinWrite for Bytes<N> {
    type Args<'b> = ();

    fn write_options<W: Write + Seek>(&self, writer: &mut W, _: Endian, (): ()) -> BinResult<()> {
        Ok(writer.write_all(&self.0)?)
    }
}

/// Returns the size of a run as the format counts it.
pub(crate) fn size(bytes: &[u8]) -> u64 {
    // No machine has a usize wider than 64 bits; the bound keeps that assumption out of the arithmetic.
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has other bytes than the map.
    #[derive(Debug)]
    struct Aside;

    impl Peek for Aside {
        fn peek(&self, at: u64, length: usize) -> Option<&[u8]> {
            b"ABCDEFGH".get(usize::try_from(at).ok()?..)?.get(..length).filter(|_| length < 3)
        }
    }

    #[test]
    fn a_part_of_a_part_is_peeked_at_where_it_lies_in_the_file() {
        let file = Section::peeked(b"abcdefgh", &Aside);
        let part = file.part(&(2..7));
        assert_eq!((part.bytes(), part.range()), (&b"cdefg"[..], 2..7));
        let part = part.part(&(1..3));
        assert_eq!((part.bytes(), part.range()), (&b"DE"[..], 3..5));
        assert_eq!(file.part(&(7..9)).range(), 7..7);
    }
}

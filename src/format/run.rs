//! Runs of bytes: borrowed from the file when read, from the engine when written.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use binrw::{BinRead, BinResult, BinWrite, Endian};

use crate::words::size;

/// A run of bytes and where it lies in the file.
///
/// The place is 0 for a run that was not read from a file; writing and `==` ignore it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run<'a> {
    at: u64,
    memory: Memory<'a>,
}

/// Where in memory a run lies.
#[derive(Clone, Copy, Debug)]
enum Memory<'a> {
    /// In one piece.
    One(&'a [u8]),
    /// In those pieces of its file that have any of its `length` bytes.
    Pieces(u64, &'a [Piece<'a>]),
}

/// A piece of a file in memory: where it lies in the file, and its bytes.
pub(crate) type Piece<'a> = (u64, &'a [u8]);

impl Default for Memory<'_> {
    fn default() -> Self {
        Self::One(&[])
    }
}

impl Run<'static> {
    /// A file of any length of which nothing is in memory: its parts have their places, and no bytes.
    pub(crate) const ABSENT: Self = Self::in_pieces(u64::MAX, &[]);
}

impl<'a> Run<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self::new_at(0, bytes)
    }

    /// Returns a run that will lie at `at` in the file.
    pub(crate) const fn new_at(at: u64, bytes: &'a [u8]) -> Self {
        Self { at, memory: Memory::One(bytes) }
    }

    /// Returns a file of `length` bytes that lies in pieces. Those in front are looked at first; some of it may be
    /// missing.
    pub(crate) const fn in_pieces(length: u64, pieces: &'a [Piece<'a>]) -> Self {
        Self { at: 0, memory: Memory::Pieces(length, pieces) }
    }

    /// Returns a run of this one; an empty one if this does not have it.
    pub(crate) fn part(self, range: &Range<u64>) -> Self {
        let length = range.end.saturating_sub(range.start);
        let empty = Self::new_at(self.at.saturating_add(range.start), &[]);
        self.inner(range.start, length).unwrap_or(empty)
    }

    /// Returns the `length` bytes of this run from its byte `at` on, as a run.
    #[inline]
    fn inner(self, at: u64, length: u64) -> Result<Self, Short> {
        let short = Short { at, expected: length };
        let memory = match self.memory {
            Memory::One(bytes) => Memory::One(within(bytes, at, length).ok_or(short)?),
            Memory::Pieces(all, pieces) => {
                all.checked_sub(at).filter(|&rest| length <= rest).ok_or(short)?;
                Memory::Pieces(length, pieces)
            }
        };
        Ok(Self { at: self.at.saturating_add(at), memory })
    }

    /// Returns the `length` bytes of this run from its byte `at` on, which lie in one piece.
    #[inline]
    pub(super) fn run(&self, at: u64, length: u64) -> Result<&'a [u8], Short> {
        let bytes = self.inner(at, length)?.bytes();
        if size(bytes) == length { Ok(bytes) } else { Err(Short { at, expected: length }) }
    }

    /// Returns the bytes, or none if they do not lie in one piece.
    #[inline]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        match self.memory {
            Memory::One(bytes) => bytes,
            Memory::Pieces(length, pieces) => find(pieces, self.at, length).unwrap_or_default(),
        }
    }

    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Returns the length of the run in the file, in bytes.
    pub(crate) fn length(&self) -> u64 {
        match self.memory {
            Memory::One(bytes) => size(bytes),
            Memory::Pieces(length, _) => length,
        }
    }

    /// Returns the extent of the run in the file, in bytes.
    pub(crate) fn range(&self) -> Range<u64> {
        self.at..self.at.saturating_add(self.length())
    }
}

impl PartialEq for Run<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl<'a> BinRead for Run<'a> {
    /// The file, and the length of the run in bytes; `None` for all that is left.
    type Args<'b> = (Self, Option<u64>);

    fn read_options<R: Read + Seek>(reader: &mut R, _: Endian, (file, length): Self::Args<'_>) -> BinResult<Self> {
        let at = reader.stream_position()?;
        let length = length.unwrap_or(file.length().saturating_sub(at));
        let run = file.inner(at, length).map_err(io::Error::from)?;
        reader.seek(SeekFrom::Start(at.saturating_add(length)))?;
        Ok(run)
    }
}

impl BinWrite for Run<'_> {
    type Args<'b> = ();

    fn write_options<W: Write + Seek>(&self, writer: &mut W, _: Endian, (): ()) -> BinResult<()> {
        Ok(writer.write_all(self.bytes())?)
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

/// Returns `length` bytes of a file from `at` on, if one of its pieces has them.
#[inline(never)]
fn find<'a>(pieces: &[Piece<'a>], at: u64, length: u64) -> Option<&'a [u8]> {
    pieces.iter().find_map(|(start, bytes)| within(bytes, at.checked_sub(*start)?, length))
}

/// Returns the `length` bytes of `bytes` from `at` on.
#[inline]
pub(crate) fn within(bytes: &[u8], at: u64, length: u64) -> Option<&[u8]> {
    let end = usize::try_from(at.checked_add(length)?).ok()?;
    bytes.get(usize::try_from(at).ok()?..end)
}

/// A read of `expected` bytes at `at` went beyond the end of the file.
#[derive(Debug)]
pub(super) struct Short {
    pub(super) at: u64,
    pub(super) expected: u64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x} are not there", self.expected, self.at)
    }
}

impl std::error::Error for Short {}

impl From<Short> for io::Error {
    fn from(short: Short) -> Self {
        Self::new(io::ErrorKind::UnexpectedEof, short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_part_is_found_where_it_lies_in_the_file_and_may_be_missing_but_not_beyond_its_end() {
        let file = Run::in_pieces(12, &[(0, b"abcd"), (8, b"ijkl"), (0, b"WXYZefghIJ")]);
        let part = file.part(&(2..11));
        assert_eq!((part.bytes(), part.range()), (&b""[..], 2..11));
        // What lies in two pieces is that of the first; what lies in none is missing.
        for (range, bytes) in
            [(0..2, "cd"), (1..3, "Ze"), (3..5, "fg"), (6..8, "ij"), (7..9, "jk"), (5..9, ""), (9..9, "")]
        {
            let inner = part.part(&range);
            assert_eq!((inner.bytes(), inner.range()), (bytes.as_bytes(), range.start + 2..range.end + 2));
        }
        assert_eq!(part.part(&(8..10)).range(), 10..10);
        assert_eq!(part.run(8, 1).unwrap(), b"k");
        assert!(part.run(8, 2).is_err() && part.run(5, 4).is_err());
    }
}

//! Runs of bytes: borrowed from the file when read, from the engine when written.

use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;

use binrw::{BinRead, BinResult, BinWrite, Endian};

use super::source::run;

/// A run of bytes and where it lies in the file.
///
/// The place is 0 for a run that was not read from a file; writing and `==` ignore it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Section<'a> {
    at: u64,
    bytes: &'a [u8],
}

impl<'a> Section<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { at: 0, bytes }
    }

    /// Returns a run that will lie at `at` in the file.
    pub(crate) const fn new_at(at: u64, bytes: &'a [u8]) -> Self {
        Self { at, bytes }
    }

    /// Returns a run of `file`; an empty one if the file does not have it.
    pub(crate) fn of(file: &'a [u8], range: &Range<u64>) -> Self {
        let length = range.end.saturating_sub(range.start);
        Self { at: range.start, bytes: run(file, range.start, length).unwrap_or_default() }
    }

    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Returns the run, read from the bytes of `outer`, at its place in the file.
    pub(crate) fn within(self, outer: Section<'_>) -> Self {
        Self { at: outer.at.saturating_add(self.at), ..self }
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
    type Args<'b> = (&'a [u8], Option<u64>);

    fn read_options<R: Read + Seek>(reader: &mut R, _: Endian, (file, length): Self::Args<'_>) -> BinResult<Self> {
        let at = reader.stream_position()?;
        let length = length.unwrap_or(size(file).saturating_sub(at));
        let section = Self { at, bytes: run(file, at, length)? };
        reader.seek(SeekFrom::Start(section.range().end))?;
        Ok(section)
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

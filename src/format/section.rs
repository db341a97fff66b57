//! Runs of bytes and of rows: borrowed from the file when read, from the engine when written.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use binrw::error::BacktraceFrame;
use binrw::{BinRead, BinResult, BinWrite, Endian};

use crate::error::{Bound, Error, Field};

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

/// A row of `N` little-endian u64.
pub(crate) type Row<const N: usize> = [[u8; 8]; N];

/// A run of rows of `N` little-endian u64 and where it lies in the file, read in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a, const N: usize> {
    at: u64,
    rows: &'a [Row<N>],
}

impl<'a, const N: usize> Table<'a, N> {
    pub(crate) const fn new(rows: &'a [Row<N>]) -> Self {
        Self { at: 0, rows }
    }

    /// Returns the table that lies in `bytes`; a part of a row at the end is left out.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self::new(bytes.as_chunks().0.as_chunks().0)
    }

    /// Returns the table with its bytes elsewhere, at the same place in the file.
    pub(crate) const fn copied<'c>(&self, rows: &'c [Row<N>]) -> Table<'c, N> {
        Table { at: self.at, rows }
    }

    pub(crate) const fn rows(&self) -> &'a [Row<N>] {
        self.rows
    }

    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.rows.as_flattened().as_flattened()
    }

    /// Returns one number of every row.
    pub(crate) fn column(&self, column: usize) -> impl ExactSizeIterator<Item = u64> + use<'a, N> {
        self.rows.iter().map(move |row| number(row, column))
    }

    /// Returns the last row whose number in `column` is smaller than `bound`, with its index; the table ascends there.
    pub(crate) fn last_below(&self, column: usize, bound: u64) -> Option<(usize, &'a Row<N>)> {
        let row = self.rows.partition_point(|row| number(row, column) < bound).checked_sub(1)?;
        Some((row, self.rows.get(row)?))
    }

    /// Checks that the numbers in `column` rise strictly, stay below `limit` and, `displacement` added, are multiples of
    /// `alignment`.
    ///
    /// # Errors
    ///
    /// The first number that does not.
    pub(crate) fn check_column(
        &self,
        column: usize,
        alignment: u64,
        displacement: u64,
        limit: u64,
    ) -> Result<(), Violation> {
        let mut lowest = 0;
        for (row, found) in self.column(column).enumerate() {
            let expected = if found >= limit {
                Bound::Below(limit)
            } else if found < lowest {
                Bound::Above(lowest.saturating_sub(1))
            } else if !found.wrapping_add(displacement).is_multiple_of(alignment) {
                Bound::MultipleOf(alignment)
            } else {
                lowest = found.saturating_add(1);
                continue;
            };
            return Err(Violation { at: self.number_at(row, column), expected, found });
        }
        Ok(())
    }

    /// Returns the offset in the file of number `column` of row `row`.
    fn number_at(&self, row: usize, column: usize) -> u64 {
        let numbers = row.saturating_mul(N).saturating_add(column);
        self.at.saturating_add(u64::try_from(numbers).unwrap_or(u64::MAX).saturating_mul(8))
    }

    /// Returns the extent of the table in the file, in bytes.
    pub(crate) fn range(&self) -> Range<u64> {
        self.at..self.at.saturating_add(size(self.bytes()))
    }
}

impl<const N: usize> PartialEq for Table<'_, N> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl<'a, const N: usize> BinRead for Table<'a, N> {
    /// The file, and the number of rows.
    type Args<'b> = (&'a [u8], u64);

    fn read_options<R: Read + Seek>(reader: &mut R, endian: Endian, (file, rows): Self::Args<'_>) -> BinResult<Self> {
        let length = rows.saturating_mul(size([[0; 8]; N].as_flattened()));
        let section = Section::read_options(reader, endian, (file, Some(length)))?;
        Ok(Self { at: section.at, ..Self::of(section.bytes) })
    }
}

impl<const N: usize> BinWrite for Table<'_, N> {
    type Args<'b> = ();

    fn write_options<W: Write + Seek>(&self, writer: &mut W, _: Endian, (): ()) -> BinResult<()> {
        Ok(writer.write_all(self.bytes())?)
    }
}

/// A number of a table that no writer would put there.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) at: u64,
    pub(crate) expected: Bound,
    pub(crate) found: u64,
}

fn number<const N: usize>(row: &Row<N>, column: usize) -> u64 {
    // The columns are constants of the callers and smaller than N.
    row.get(column).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The file as the schema reads it: a failing read tells where it began and how much it wanted.
pub(super) struct Source<'a> {
    file: &'a [u8],
    at: u64,
}

impl<'a> Source<'a> {
    pub(super) const fn new(file: &'a [u8], at: u64) -> Self {
        Self { file, at }
    }

    pub(super) const fn position(&self) -> u64 {
        self.at
    }
}

impl Read for Source<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let bytes = run(self.file, self.at, size(to))?;
        to.copy_from_slice(bytes);
        self.at = self.at.saturating_add(size(bytes));
        Ok(bytes.len())
    }
}

impl Seek for Source<'_> {
    /// Goes where the schema goes: to an offset it has computed from the start.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(at) => self.at = at,
            SeekFrom::Current(0) => {}
            SeekFrom::Current(_) | SeekFrom::End(_) => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(self.at)
    }
}

/// A read of `expected` bytes at `at` went beyond the end of the file.
#[derive(Debug)]
struct Short {
    at: u64,
    expected: u64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x} are not there", self.expected, self.at)
    }
}

impl std::error::Error for Short {}

/// Borrows `length` bytes of the file.
fn run(file: &[u8], at: u64, length: u64) -> io::Result<&[u8]> {
    let end = at.checked_add(length).and_then(|end| usize::try_from(end).ok());
    let range = usize::try_from(at).ok().zip(end);
    range
        .and_then(|(at, end)| file.get(at..end))
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, Short { at, expected: length }))
}

/// Says of a failed read in `file` which field it was, where, and how much was there.
pub(super) fn truncation(error: &binrw::Error, file: Section<'_>) -> Error {
    let field = match error {
        binrw::Error::Backtrace(backtrace) => backtrace.frames.iter().find_map(|frame| match frame {
            BacktraceFrame::Custom(field) => field.downcast_ref::<Field>().copied(),
            _ => None,
        }),
        _ => None,
    };
    let short = match error.root_cause() {
        binrw::Error::Io(error) => error.get_ref().and_then(|error| error.downcast_ref::<Short>()),
        _ => None,
    };
    let &Short { at, expected } = short.unwrap_or(&Short { at: size(file.bytes), expected: 1 });
    // Every read of the schema names its field, and nothing but the end of the file makes one fail.
    debug_assert!(field.is_some() && short.is_some(), "{error}");
    let field = field.unwrap_or(Field::Magic);
    Error::Truncated { field, at: file.at.saturating_add(at), expected, found: size(file.bytes).saturating_sub(at) }
}

/// Returns the size of a run as the format counts it.
pub(crate) fn size(bytes: &[u8]) -> u64 {
    // No machine has a usize wider than 64 bits; the bound keeps that assumption out of the arithmetic.
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

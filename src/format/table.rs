//! Runs of rows of numbers, read in place.

use std::io::{Read, Seek, Write};
use std::ops::Range;

use binrw::{BinRead, BinResult, BinWrite, Endian};

use super::run::Run;
use crate::error::Bound;
use crate::words::size;

/// A row of `N` little-endian u64.
pub(crate) type Row<const N: usize> = [[u8; 8]; N];

/// A run of rows of `N` little-endian u64 and where it lies in the file, read in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Table<'a, const N: usize>(Run<'a>);

impl<'a, const N: usize> Table<'a, N> {
    /// Returns the table of rows that lie at `at` in the file.
    pub(crate) fn new_at(at: u64, rows: &'a [Row<N>]) -> Self {
        Self(Run::new_at(at, rows.as_flattened().as_flattened()))
    }

    /// Returns the table that lies in `run`; a part of a row at the end is left out.
    pub(crate) const fn of(run: Run<'a>) -> Self {
        Self(run)
    }

    /// Returns the rows, or none if the file has them and memory has not.
    pub(crate) fn rows(&self) -> &'a [Row<N>] {
        self.0.bytes().as_chunks().0.as_chunks().0
    }

    pub(crate) const fn run(&self) -> Run<'a> {
        self.0
    }

    /// Returns one number of every row.
    pub(crate) fn column(
        &self,
        column: usize,
    ) -> impl ExactSizeIterator<Item = u64> + DoubleEndedIterator + use<'a, N> {
        self.rows().iter().map(move |row| number(row, column))
    }

    /// Returns the last row whose number in `column` is smaller than `bound`, with its index; the table ascends there.
    pub(crate) fn last_below(&self, column: usize, bound: u64) -> Option<(usize, &'a Row<N>)> {
        let row = self.rows().partition_point(|row| number(row, column) < bound).checked_sub(1)?;
        Some((row, self.rows().get(row)?))
    }

    /// Checks that the numbers in `column` rise strictly, lie in `range` and, `displacement` added, are multiples of
    /// `alignment`, which is a power of two.
    ///
    /// # Errors
    ///
    /// The first number that does not.
    pub(crate) fn check_column(
        &self,
        column: usize,
        alignment: u64,
        displacement: u64,
        range: Range<u64>,
    ) -> Result<(), Violation> {
        // Without a branch for each row: seen from behind, a number is the limit of the one in front of it.
        let (mut is_sound, mut bits, mut next) = (true, 0, range.end);
        for found in self.column(column).rev() {
            is_sound &= found < next;
            bits |= found.wrapping_add(displacement);
            next = found;
        }
        if is_sound && (next >= range.start || self.rows().is_empty()) && bits & alignment.wrapping_sub(1) == 0 {
            return Ok(());
        }
        let mut lowest = range.start;
        for (row, found) in self.column(column).enumerate() {
            let expected = if found >= range.end {
                Bound::Below(range.end)
            } else if found < lowest {
                Bound::Above(lowest.saturating_sub(1))
            } else if found.wrapping_add(displacement) & alignment.wrapping_sub(1) != 0 {
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
    pub(crate) fn number_at(&self, row: usize, column: usize) -> u64 {
        let numbers = row.saturating_mul(N).saturating_add(column);
        self.0.at().saturating_add(u64::try_from(numbers).unwrap_or(u64::MAX).saturating_mul(8))
    }
}

impl<'a, const N: usize> BinRead for Table<'a, N> {
    /// The file, and the number of rows.
    type Args<'b> = (Run<'a>, u64);

    fn read_options<R: Read + Seek>(reader: &mut R, endian: Endian, (file, rows): Self::Args<'_>) -> BinResult<Self> {
        let length = rows.saturating_mul(size([[0; 8]; N].as_flattened()));
        Ok(Self(Run::read_options(reader, endian, (file, Some(length)))?))
    }
}

impl<const N: usize> BinWrite for Table<'_, N> {
    type Args<'b> = ();

    fn write_options<W: Write + Seek>(&self, writer: &mut W, endian: Endian, (): ()) -> BinResult<()> {
        self.0.write_options(writer, endian, ())
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

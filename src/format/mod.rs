//! The format: the schema, the runs of bytes it is made of, and the two directions through it.

mod run;
mod schema;
mod source;
mod table;

use std::io::Write;
use std::ops::Range;

use binrw::io::NoSeek;
use binrw::meta::{ReadEndian, WriteEndian};
use binrw::{BinRead, BinWrite};

use crate::error::Error;
use crate::words::size;
pub(crate) use run::{Bytes, Piece, Run, within};
pub use schema::CatchClause;
pub(crate) use schema::{
    Body, CatchClauses, Data, Footer, Header, Import, PackFooter, PackRow, PackTarget, RecipePart, Seal, Section,
    SourceMap, Symbols, TryTable, TryTableLocals, UnwindTables,
};
use source::{Source, truncation};
pub(crate) use table::{Row, Table, Violation};

/// Reads one struct of the schema from `file`, starting at byte `at` of it, and returns it with the offset of its end.
///
/// `file` may be a part of a file: errors count from the start of the whole.
pub(crate) fn read<'a, T>(file: Run<'a>, at: u64, args: T::Args<'_>) -> Result<(T, u64), Error>
where
    T: BinRead + ReadEndian + 'a,
{
    let mut source = Source::new(file, at);
    let part = T::read_args(&mut source, args).map_err(|error| truncation(&error, file))?;
    Ok((part, source.position()))
}

/// Writes one struct of the schema.
pub(crate) fn write<T>(part: &T, to: impl Write) -> std::io::Result<()>
where
    T: WriteEndian + for<'w> BinWrite<Args<'w> = ()>,
{
    part.write(&mut NoSeek::new(to)).map_err(|error| match error {
        binrw::Error::Io(error) => error,
        error => std::io::Error::other(error.to_string()),
    })
}

/// Returns the offset of the code in a file that starts with these bytes.
///
/// Nothing is checked: of another file than an entry the answer is any number, or `None`.
pub(crate) fn code_at(start: &[u8]) -> Option<u64> {
    let file = Run::new(start);
    let (_, at) = read::<Header<'_>>(file, 0, file).ok()?;
    let functions = u32::from_le_bytes(*file.run(at, 4).ok()?.first_chunk()?);
    at.checked_add(12)?.checked_add(u64::from(functions).checked_mul(8)?)
}

/// Returns the place of the code in a file: it begins at `at`, and the bytes in front of it end with its length.
///
/// Nothing is checked, as in [`code_at`].
pub(crate) fn code_range(in_front: &[u8], at: u64) -> Option<Range<u64>> {
    Some(at..at.checked_add(u64::from_le_bytes(*in_front.last_chunk()?))?)
}

fn number(file: Run<'_>, at: u64) -> Option<u64> {
    Some(u64::from_le_bytes(*file.run(at, 8).ok()?.first_chunk()?))
}

/// Returns the place of the rows of the source map in a file: the code ends at `at`, and these bytes follow it.
///
/// Nothing is checked, as in [`code_at`].
pub(crate) fn rows_place(behind_code: &[u8], at: u64) -> Option<Range<u64>> {
    let (Some([_, _, _, _, 1]), Some(rows)) = (behind_code.first_chunk(), behind_code.get(5..)?.first_chunk()) else {
        return None;
    };
    let start = at.checked_add(ROWS_BEHIND_CODE)?;
    Some(start..start.checked_add(u64::from_le_bytes(*rows).checked_mul(16)?)?)
}

/// Returns the offset of the seal in a file of `length` bytes that ends with these bytes.
///
/// Nothing is checked, as in [`code_at`].
pub(crate) fn seal_place(end: &[u8], length: u64) -> Option<u64> {
    length.checked_sub(number(Run::new(end), size(end).checked_sub(Footer::SIZE)?)?)
}

/// How far behind the code the rows of its source map begin, in bytes: checksum, flag and length stand between.
pub(crate) const ROWS_BEHIND_CODE: u64 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_rows_is_told_by_what_stands_behind_the_code() {
        let behind = |flag: u8, rows: u64| [&[9, 9, 9, 9, flag][..], &rows.to_le_bytes()].concat();
        for (behind, place) in [
            (behind(1, 3), Some(113..161)),
            (behind(1, 0), Some(113..113)),
            (behind(0, 3), None),
            (behind(2, 3), None),
            (behind(1, u64::MAX / 16), None),
            (behind(1, u64::MAX), None),
            (behind(1, 3)[..12].to_vec(), None),
            (vec![9, 9, 9, 9], None),
        ] {
            assert_eq!(rows_place(&behind, 100), place, "{behind:?}");
        }
    }

    #[test]
    fn the_place_of_the_code_is_told_by_what_stands_in_front_of_it() {
        let start = |functions: u32, numbers: &[u64]| {
            let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            [b"MAGIC!\x03v.1", &functions.to_le_bytes()[..], &numbers].concat()
        };
        for (start, place, range) in [
            (start(0, &[7]), Some(22), Some(22..29)),
            (start(0, &[0]), Some(22), Some(22..22)),
            (start(1, &[5, 7]), Some(30), Some(30..37)),
            (start(2, &[5, 6, 7]), Some(38), Some(38..45)),
            (start(2, &[5, 6]), Some(38), None),
            (start(0, &[u64::MAX]), Some(22), None),
            (b"MAGIC!\x03v.1\x02".to_vec(), None, None),
            (b"MAGIC!".to_vec(), None, None),
        ] {
            let found = code_at(&start);
            let code = found.and_then(|at| code_range(start.get(..usize::try_from(at).ok()?)?, at));
            assert_eq!((found, code), (place, range), "{start:?}");
        }
    }
}

//! Unwind tables, as `.eh_frame` has them: records behind each other, whose contents the unwinder of the program reads.

use crate::error::{Bound, Error, Field};
use crate::format::Run;
use crate::words::size;

/// The length that stands for a longer one behind it, of which there is none in tables that are registered.
const LONG: u32 = u32::MAX;

/// Checks that records follow each other up to one of length 0, with which the tables end, and that each of a function
/// refers to a common one in front of it.
pub(crate) fn check(tables: Run<'_>) -> Result<(), Error> {
    let bytes = tables.bytes();
    let mut at = 0;
    loop {
        let value = |behind: u64, expected, found| {
            let at = tables.at().saturating_add(at).saturating_add(behind);
            Err(Error::Value { field: Field::UnwindTables, at, expected, found })
        };
        let Some(length) = word(bytes, at) else {
            let (field, found) = (Field::UnwindTables, tables.length().saturating_sub(at));
            return Err(Error::Truncated { field, at: tables.at().saturating_add(at), expected: 4, found });
        };
        let (length, start) = (u64::from(length), at.saturating_add(4));
        let rest = tables.length().saturating_sub(start);
        match length {
            0 if rest == 0 => return Ok(()),
            0..4 => return value(0, Bound::Above(3), length),
            _ if length > rest => return value(0, Bound::AtMost(rest), length),
            _ => {}
        }
        let back = u64::from(word(bytes, start).unwrap_or(0));
        if back > 0 {
            let common = start.checked_sub(back).filter(|common| {
                word(bytes, *common).is_some_and(|length| length >= 4)
                    && word(bytes, common.saturating_add(4)) == Some(0)
            });
            if common.is_none() {
                return value(4, Bound::Exactly(0), back);
            }
        }
        at = start.saturating_add(length);
    }
}

/// Returns how many bytes of tables that an engine hands in are records: up to one of length 0, or all.
pub(super) fn records(bytes: &[u8]) -> u64 {
    let mut at = 0_u64;
    while let Some(length) = word(bytes, at).filter(|length| (1..LONG).contains(length)) {
        at = at.saturating_add(4).saturating_add(length.into());
    }
    at.min(size(bytes))
}

fn word(bytes: &[u8], at: u64) -> Option<u32> {
    let word = bytes.get(usize::try_from(at).ok()?..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

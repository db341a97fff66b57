//! The format: the schema, the runs of bytes it is made of, and the two directions through it.

mod schema;
mod section;

use std::io::Write;

use binrw::io::NoSeek;
use binrw::meta::{ReadEndian, WriteEndian};
use binrw::{BinRead, BinWrite};

use crate::error::Error;
pub use schema::CatchClause;
pub(crate) use schema::{Body, CatchClauses, Footer, Header, Seal, SealSection, SourceMap, TryTable};
pub(crate) use section::{Bytes, Row, Section, Table, Violation, size};
use section::{Source, truncation};

/// Reads one struct of the schema from `file`, starting at byte `at` of it, and returns it with the offset of its end.
///
/// `file` may be a part of a file: errors count from the start of the whole.
pub(crate) fn read<'a, T>(file: Section<'a>, at: u64, args: T::Args<'_>) -> Result<(T, u64), Error>
where
    T: BinRead + ReadEndian + 'a,
{
    let mut source = Source::new(file.bytes(), at);
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

//! Putting an entry together.

use std::borrow::Cow;

use crate::entry::Entry;
use crate::error::{Bound, Error, Field};
use crate::format::{self, Body, Bytes, CatchClause, CatchClauses, Header, Row, Section, SourceMap, Table, TryTable};
use crate::identity::{Identity, Revision};

/// The parts of an entry, handed in by the engine that compiled it.
///
/// ```
/// use jitcache::{Builder, Identity};
///
/// let code = [0x90, 0xc3, 0xc3];
/// let mut builder = Builder::new();
/// builder.code(&code[..]).function(0).function(2).source(0, 17).source(2, 40);
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let entry = builder.finish(&identity)?;
/// assert_eq!(entry.functions().iter().collect::<Vec<_>>(), [0, 2]);
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder<'a> {
    code: Cow<'a, [u8]>,
    functions: Vec<Row<1>>,
    source_map: Option<Vec<Row<2>>>,
    /// The try tables as they will stand in the file.
    try_tables: Vec<u8>,
    try_table_count: u32,
}

impl<'a> Builder<'a> {
    /// Returns a builder of an entry without code.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the machine code, borrowed or owned; it is not copied.
    ///
    /// The code must be position independent: its calls and jumps within itself relative, nothing else in it an address.
    pub fn code(&mut self, code: impl Into<Cow<'a, [u8]>>) -> &mut Self {
        self.code = code.into();
        self
    }

    /// Adds a function that starts `offset` bytes into the code. Offsets must rise.
    pub fn function(&mut self, offset: u64) -> &mut Self {
        self.functions.push([offset.to_le_bytes()]);
        self
    }

    /// Adds a row to the source map: the code from offset `code` on comes from `source`. Code offsets must rise.
    pub fn source(&mut self, code: u64, source: u64) -> &mut Self {
        self.source_map.get_or_insert_default().push([source.to_le_bytes(), code.to_le_bytes()]);
        self
    }

    /// Gives the entry a source map even if [`Builder::source`] is never called.
    pub fn with_source_map(&mut self) -> &mut Self {
        self.source_map.get_or_insert_default();
        self
    }

    /// Adds a try table with its catch clauses, in the order in which they are tried.
    pub fn try_table(&mut self, clauses: &[CatchClause]) -> &mut Self {
        let mut rows = Vec::new();
        let written = clauses.iter().try_for_each(|clause| format::write(clause, &mut rows));
        // More clauses than the count can say are found out by `finish`, which reads the tables back.
        let clause_count = u32::try_from(clauses.len()).unwrap_or(u32::MAX);
        let table = TryTable { clause_count, clauses: Section::new(&rows) };
        let written = written.and_then(|()| format::write(&table, &mut self.try_tables));
        debug_assert!(written.is_ok(), "writing to memory cannot fail: {written:?}");
        self.try_table_count = self.try_table_count.saturating_add(1);
        self
    }

    /// Returns the entry, every part of it checked as [`Entry::verify`] would check it.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`], naming a part that no reader would accept.
    pub fn finish<'e>(&'e self, identity: &'e Identity) -> Result<Entry<'e>, Error> {
        let catch_clauses = match (identity.revision(), self.try_table_count) {
            (Revision::CatchClauses, try_table_count) => {
                Some(CatchClauses { try_table_count, try_tables: Section::new(&self.try_tables) })
            }
            (Revision::SourceMap, 0) => None,
            (Revision::SourceMap, found) => {
                return Err(unwritable(Field::TryTableCount, Bound::Exactly(0), found.into()));
            }
        };
        let functions = u64::try_from(self.functions.len()).unwrap_or(u64::MAX);
        if u32::try_from(functions).is_err() {
            return Err(unwritable(Field::FunctionCount, Bound::AtMost(u32::MAX.into()), functions));
        }
        let entry = Entry {
            header: Header { magic: Bytes(identity.magic().0), version: Section::new(identity.version().as_bytes()) },
            body: Body {
                function_offsets: Table::new(&self.functions),
                code: Section::new(&self.code),
                code_checksum: crc32c::crc32c(&self.code),
                source_map_flag: self.source_map.is_some().into(),
                source_map: self.source_map.as_deref().map(|rows| SourceMap { rows: Table::new(rows) }),
                catch_clauses,
            },
            function_alignment: identity.function_alignment(),
        };
        entry.check_tables().map_err(|error| match error {
            Error::Value { field, expected, found, .. } => unwritable(field, expected, found),
            Error::Trailing { expected, found, .. } => unwritable(Field::CatchClauses, Bound::Exactly(expected), found),
            error => error,
        })?;
        Ok(entry)
    }
}

fn unwritable(field: Field, expected: Bound, found: u64) -> Error {
    Error::Unwritable { field, expected, found }
}

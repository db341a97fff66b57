//! The tables of an entry as views: function offsets, source map and try tables, read where they lie.

use std::fmt;

use crate::error::{Bound, Error, Field};
use crate::format::{self, CatchClause, CatchClauses, Row, Run, Table, TryTableLocals};
use crate::words::Revision;

/// The function offsets of an entry, read in place. Returned by [`Entry::functions`](crate::Entry::functions).
#[derive(Clone, Copy)]
pub struct FunctionOffsets<'a> {
    table: Table<'a, 1>,
    /// How many bytes of padding the offsets in the table count in front of the engine's code.
    padding: u64,
}

impl<'a> FunctionOffsets<'a> {
    pub(crate) const fn new(table: Table<'a, 1>, padding: u64) -> Self {
        Self { table, padding }
    }

    /// Returns the number of functions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.rows().len()
    }

    /// Returns whether there are no functions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the offset of one function from the start of the code, in bytes.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<u64> {
        let [offset] = *self.table.rows().get(index)?;
        Some(u64::from_le_bytes(offset).saturating_sub(self.padding))
    }

    /// Returns the offset of every function from the start of the code, in bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        let padding = self.padding;
        self.table.column(0).map(move |offset| offset.saturating_sub(padding))
    }

    /// Returns the index of the function that holds the byte of code at `offset`: the last one that starts there or
    /// before.
    #[must_use]
    pub fn containing(&self, offset: u64) -> Option<usize> {
        Some(self.table.last_below(0, offset.saturating_add(self.padding).saturating_add(1))?.0)
    }
}

impl PartialEq for FunctionOffsets<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for FunctionOffsets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A row of a source map: the instructions from `code` on, up to the next row, come from `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// Offset in the source: for wazero, in the wasm module; otherwise whatever the engine means by it.
    pub source: u64,
    /// Offset from the start of the code, in bytes.
    pub code: u64,
}

/// The source map of an entry, read in place. Returned by [`Entry::source_map`](crate::Entry::source_map).
#[derive(Clone, Copy)]
pub struct SourceMap<'a> {
    table: Table<'a, 2>,
    /// How many bytes of padding the code offsets in the table count in front of the engine's code.
    padding: u64,
}

impl<'a> SourceMap<'a> {
    pub(super) const CODE: usize = 1;

    pub(crate) const fn new(table: Table<'a, 2>, padding: u64) -> Self {
        Self { table, padding }
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.rows().len()
    }

    /// Returns whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns every row, ascending in the code offset.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SourceRow> + use<'a> {
        let map = *self;
        self.table.rows().iter().map(move |row| map.row(row))
    }

    /// Returns the row that the instruction at `offset` belongs to: the last one that starts there or before.
    #[must_use]
    pub fn at_instruction(&self, offset: u64) -> Option<SourceRow> {
        self.before_return(offset.saturating_add(1))
    }

    /// Returns the row of the call that returns to `offset`: the last one that starts before it.
    ///
    /// This is wazero's rule, whose program counters are return addresses.
    #[must_use]
    pub fn before_return(&self, offset: u64) -> Option<SourceRow> {
        Some(self.row(self.table.last_below(Self::CODE, offset.saturating_add(self.padding))?.1))
    }

    fn row(&self, &[source, code]: &Row<2>) -> SourceRow {
        SourceRow { source: u64::from_le_bytes(source), code: u64::from_le_bytes(code).saturating_sub(self.padding) }
    }
}

impl PartialEq for SourceMap<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for SourceMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The try tables of an entry, in order. Returned by [`Entry::try_tables`](crate::Entry::try_tables).
///
/// The lists have no index, so each is checked when it is met: the first error ends the iteration.
#[derive(Clone, Debug, Default)]
pub struct TryTables<'a> {
    tables: Run<'a>,
    at: u64,
    left: u32,
    revision: Revision,
}

impl<'a> TryTables<'a> {
    pub(crate) fn of(clauses: &CatchClauses<'a>, revision: Revision) -> Self {
        Self { tables: clauses.try_tables, at: 0, left: clauses.try_table_count, revision }
    }

    fn read(&mut self) -> Result<Option<TryTable<'a>>, Error> {
        let Some(left) = self.left.checked_sub(1) else {
            let (end, found) = (self.tables.at().saturating_add(self.at), self.tables.range().end);
            return if end == found { Ok(None) } else { Err(Error::Trailing { at: end, expected: end, found }) };
        };
        let (table, end) = format::read::<format::TryTable<'_>>(self.tables, self.at, (self.tables, self.revision))?;
        let at = self.tables.at().saturating_add(self.at);
        (self.at, self.left) = (end, left);
        let locals = table.locals.map(|locals| Locals::read(&locals, at)).transpose()?;
        Ok(Some(TryTable { locals, clauses: table.clauses }))
    }
}

impl<'a> Iterator for TryTables<'a> {
    type Item = Result<TryTable<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read().transpose();
        if !matches!(next, Some(Ok(_))) {
            *self = Self::default();
        }
        next
    }
}

/// A try table: its catch clauses, and its locals. Returned by [`TryTables`].
#[derive(Clone, Debug)]
pub struct TryTable<'a> {
    locals: Option<Locals>,
    clauses: Run<'a>,
}

impl<'a> TryTable<'a> {
    /// Returns the locals that the try table keeps; `None` in an entry that is not of [`Revision::Locals`].
    #[must_use]
    pub const fn locals(&self) -> Option<Locals> {
        self.locals
    }

    /// Returns the catch clauses, in the order in which they are tried.
    #[must_use]
    pub const fn clauses(&self) -> Clauses<'a> {
        Clauses { clauses: self.clauses, at: 0 }
    }
}

/// The locals of a function that a try table keeps, so that a handler finds what they were when the exception was
/// thrown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Locals {
    /// The number of locals, parameters among them.
    pub count: u32,
    /// Whether they are kept where the try table around this one keeps them, which is of the same function.
    pub reuse: bool,
}

impl Locals {
    /// Takes over what stands in a try table that begins at `at`.
    fn read(&TryTableLocals { count, reuse_flag }: &TryTableLocals, at: u64) -> Result<Self, Error> {
        match reuse_flag {
            0 | 1 => Ok(Self { count, reuse: reuse_flag == 1 }),
            flag => Err(Error::Value {
                field: Field::ReuseFlag,
                at: at.saturating_add(TryTableLocals::FLAG_AT),
                expected: Bound::AtMost(1),
                found: flag.into(),
            }),
        }
    }
}

/// The catch clauses of one try table. Returned by [`TryTable::clauses`].
#[derive(Clone, Debug, Default)]
pub struct Clauses<'a> {
    clauses: Run<'a>,
    at: u64,
}

impl Iterator for Clauses<'_> {
    type Item = Result<CatchClause, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        if at == self.clauses.length() {
            return None;
        }
        let checked = format::read::<CatchClause>(self.clauses, at, ()).and_then(|(clause, end)| {
            self.at = end;
            match clause.kind {
                ..=CatchClause::LAST_KIND => Ok(clause),
                kind => Err(Error::Value {
                    field: Field::CatchClauses,
                    at: self.clauses.at().saturating_add(at),
                    expected: Bound::AtMost(CatchClause::LAST_KIND.into()),
                    found: kind.into(),
                }),
            }
        });
        if checked.is_err() {
            *self = Self::default();
        }
        Some(checked)
    }
}

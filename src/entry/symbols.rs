//! The names of functions and data, as a view.

use std::fmt;

use crate::error::{Bound, Error, Field};
use crate::format::{self, Run, Table};

/// The symbols of an entry, by their offsets, read in place. Returned by [`Entry::symbols`](crate::Entry::symbols) and
/// [`Module::symbols`](crate::Module::symbols).
#[derive(Clone, Copy)]
pub struct Symbols<'a> {
    rows: Table<'a, 3>,
    names: Run<'a>,
}

/// A name of a function or of data. Returned by [`Symbols`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Where what is named starts, in bytes from the start of the engine's code in the image: less than the length of
    /// the code for a function, and data lie behind it.
    pub offset: u64,
    /// Its length in bytes; 0 if it is not known.
    pub length: u64,
}

impl<'a> Symbols<'a> {
    /// Returns the symbols of a section; none if there is no section or its lengths are wrong.
    pub(crate) fn of(run: Option<Run<'a>>) -> Self {
        let read = run.and_then(|run| Self::read(run).ok());
        read.unwrap_or_else(|| Self { rows: Table::of(Run::default()), names: Run::default() })
    }

    pub(super) fn read(run: Run<'a>) -> Result<Self, Error> {
        let (format::Symbols { rows, names }, _) = format::read::<format::Symbols<'_>>(run, 0, run)?;
        Ok(Self { rows, names })
    }

    /// Returns the number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.rows().len()
    }

    /// Returns whether there are no symbols.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns every symbol. Their offsets rise; two may have the same.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'a>> + use<'a> {
        let symbols = *self;
        (0..self.len()).map_while(move |index| symbols.get(index))
    }

    /// Returns the symbol of that index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Symbol<'a>> {
        let [offset, length, end] = self.rows.rows().get(index)?.map(u64::from_le_bytes);
        let start = index.checked_sub(1).and_then(|before| self.rows.rows().get(before));
        let start = start.map_or(0, |[_, _, end]| u64::from_le_bytes(*end));
        Some(Symbol { name: self.names.part(&(start..end)).bytes(), offset, length })
    }

    /// Returns the first symbol of that name, which takes longer the more there are.
    #[must_use]
    pub fn named(&self, name: &[u8]) -> Option<Symbol<'a>> {
        self.iter().find(|symbol| symbol.name == name)
    }

    /// Returns the first symbol that starts at `offset`.
    #[must_use]
    pub fn at(&self, offset: u64) -> Option<Symbol<'a>> {
        let index = self.rows.rows().partition_point(|[start, ..]| u64::from_le_bytes(*start) < offset);
        self.get(index).filter(|symbol| symbol.offset == offset)
    }

    /// Checks the offsets, lengths and names of an image that ends at `end`.
    pub(super) fn check(&self, end: u64) -> Result<(), Error> {
        let (mut lowest, mut named) = (0_u64, 0_u64);
        for (row, numbers) in self.rows.rows().iter().enumerate() {
            let [offset, length, name_end] = numbers.map(u64::from_le_bytes);
            let value = |column, expected, found| {
                let at = self.rows.number_at(row, column);
                Err(Error::Value { field: Field::Symbols, at, expected, found })
            };
            if offset < lowest {
                return value(0, Bound::Above(lowest.saturating_sub(1)), offset);
            }
            if offset > end {
                return value(0, Bound::AtMost(end), offset);
            }
            let rest = end.saturating_sub(offset);
            if length > rest {
                return value(1, Bound::AtMost(rest), length);
            }
            if name_end <= named {
                return value(2, Bound::Above(named), name_end);
            }
            if name_end > self.names.length() {
                return value(2, Bound::AtMost(self.names.length()), name_end);
            }
            (lowest, named) = (offset, name_end);
        }
        if named == self.names.length() {
            return Ok(());
        }
        let (at, found) = (self.rows.run().range().end, self.names.length());
        Err(Error::Value { field: Field::Symbols, at, expected: Bound::Exactly(named), found })
    }
}

impl fmt::Debug for Symbols<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#x}+{:#x}", self.name.escape_ascii(), self.offset, self.length)
    }
}

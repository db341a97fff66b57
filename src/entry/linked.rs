//! What is left of linking, as the sections of a file.

use super::append::append;
use super::link::Linking;
use super::seal::{DATA, IMPORTS, RELOCATIONS, SYMBOLS, UNWIND_TABLES};
use crate::error::{Error, heap};
use crate::format::{self, Import, Run, Section, Table, UnwindTables};
use crate::words::{Place, size};

impl Linking<'_> {
    /// Returns the sections as they will stand in the file.
    pub(super) fn sections(&mut self) -> Result<Vec<u8>, Error> {
        let mut imports = Vec::new();
        for name in &self.links.imports {
            append(&mut imports, &Import { name: Run::new(name.as_bytes()) })?;
        }
        let mut data = Vec::new();
        let (mut bytes, read_only) = (Vec::new(), size(&self.read_only));
        heap::append(&mut bytes, &self.read_only)?;
        heap::append(&mut bytes, &self.writable)?;
        if !bytes.is_empty() {
            append(&mut data, &format::Data { read_only, bytes: Run::new(&bytes) })?;
        }
        self.rows.sort_unstable_by_key(|[place, ..]| u64::from_le_bytes(*place));
        let mut unwind = Vec::new();
        if let Some(UnwindTables { offset, length }) = self.links.unwind {
            let offset = self.layout.offset(self.at(Place::ReadOnly(offset)));
            append(&mut unwind, &UnwindTables { offset, length })?;
        }
        let symbols = self.symbols()?;
        let mut sections = Vec::new();
        for (tag, flags, bytes) in [
            (IMPORTS, 1, &imports[..]),
            (DATA, 1, &data),
            (RELOCATIONS, 1, self.rows.as_flattened().as_flattened()),
            (SYMBOLS, 0, &symbols),
            (UNWIND_TABLES, 0, &unwind),
        ] {
            if !bytes.is_empty() {
                append(&mut sections, &Section { tag, flags, bytes: Run::new(bytes) })?;
            }
        }
        Ok(sections)
    }

    fn symbols(&self) -> Result<Vec<u8>, Error> {
        let mut sorted = Vec::new();
        heap::reserve(&mut sorted, self.links.symbols.len())?;
        let offset = |place| self.layout.offset(self.at(place));
        sorted.extend(self.links.symbols.iter().map(|(place, length, name)| (offset(*place), *length, name)));
        sorted.sort_by_key(|(offset, ..)| *offset);
        let (mut rows, mut names) = (Vec::new(), Vec::new());
        for (offset, length, name) in sorted {
            heap::append(&mut names, name.as_bytes())?;
            heap::append(&mut rows, &[[offset, length, size(&names)].map(u64::to_le_bytes)])?;
        }
        let mut symbols = Vec::new();
        if !rows.is_empty() {
            append(&mut symbols, &format::Symbols { rows: Table::new_at(0, &rows), names: Run::new(&names) })?;
        }
        Ok(symbols)
    }
}

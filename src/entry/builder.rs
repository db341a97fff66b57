//! Putting an entry together.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::iter;

use super::append::append;
use super::digest::crc32c;
use super::identity::Identity;
use super::link::{Linked, Links, Site};
use super::record::Recipe;
use super::seal::{IMPORTS, METADATA, RECIPE, Sealed, Sections, UNWIND_TABLES};
use super::sealing::sealed;
use super::tables::Locals;
use super::view::Entry;
use crate::error::{Bound, Error, Field, heap};
use crate::format::{
    Body, Bytes, CatchClause, CatchClauses, Header, ROWS_BEHIND_CODE, Row, Run, Seal, Section, SourceMap, Table,
    TryTable, TryTableLocals,
};
use crate::words::{CpuFeatures, Key, Place, RelocationKind, Revision, size};

/// The parts of an entry, handed in by the engine that compiled it.
///
/// If there is no memory for a part, [`Builder::finish`] says so.
///
/// ```
/// use jitcache::{Builder, Identity, Key};
///
/// let code = [0x90, 0xc3, 0xc3];
/// let mut builder = Builder::new();
/// builder.code(&code[..]).function(0).function(2).source(0, 17).source(2, 40);
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let key = Key::of(&identity).source(b"fn main() {}").finish();
/// let entry = builder.finish(&identity, &key)?;
/// assert_eq!(entry.functions().iter().collect::<Vec<_>>(), [0, 2]);
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder<'a> {
    code: Cow<'a, [u8]>,
    functions: Vec<Row<1>>,
    source_map: Option<Vec<Row<2>>>,
    /// The try tables as they will stand in the file. All of them have locals, or none has, or they fit no revision.
    try_tables: Vec<u8>,
    try_table_count: u32,
    /// How many of them have locals.
    with_locals: u32,
    cpu: Option<CpuFeatures>,
    /// The sections as they will stand in the file.
    sections: Vec<u8>,
    links: Links,
    linked: Linked,
    /// And the flags of its section.
    recipe: Option<(Recipe, u8)>,
    /// Sections with reserved tags that nobody knew when this was written, of an entry that was taken apart.
    unknown: Vec<u8>,
    /// How many bytes in front of the engine's code every offset counts, which align it in the file.
    padding: usize,
    /// How many of them there are in `code`.
    padded: usize,
    /// Length of a part that there was no memory for, in bytes.
    missing: Option<u64>,
}

impl<'a> Builder<'a> {
    /// Returns a builder of an entry without code.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the machine code, borrowed or owned; it is not copied.
    ///
    /// The code must be position independent: its calls and jumps within itself relative, nothing else in it an
    /// address. What it calls outside, such as helpers of the engine, it reaches through imports - see
    /// [`Builder::import`] - or a table of addresses that the engine hands in when it runs the code; those of one
    /// process are of no use to the next.
    ///
    /// It begins at a multiple of 16 bytes, or of [`Alignment::bytes`](crate::Alignment) if that is more, wherever it
    /// is loaded: that is what constants in it may count on. Data may stand between the functions and behind them; it
    /// is executable there, and belongs to the function in front of it. All offsets that are handed in or given out
    /// count from the first byte of it.
    pub fn code(&mut self, code: impl Into<Cow<'a, [u8]>>) -> &mut Self {
        self.code = code.into();
        self.padded = 0;
        self
    }

    /// Adds a function that starts `offset` bytes into the code. Offsets must rise.
    pub fn function(&mut self, offset: u64) -> &mut Self {
        let row = [moved(offset, 0, self.padding)];
        let added = heap::append(&mut self.functions, &[row]);
        self.note(added)
    }

    /// Adds a row to the source map: the code from offset `code` on comes from `source`. Code offsets must rise.
    pub fn source(&mut self, code: u64, source: u64) -> &mut Self {
        let row = [source.to_le_bytes(), moved(code, 0, self.padding)];
        let added = heap::append(self.source_map.get_or_insert_default(), &[row]);
        self.note(added)
    }

    /// Gives the entry a source map even if [`Builder::source`] is never called.
    pub fn with_source_map(&mut self) -> &mut Self {
        self.source_map.get_or_insert_default();
        self
    }

    /// Adds a try table with its catch clauses, in the order in which they are tried.
    ///
    /// It must have no locals in an entry of [`Revision::CatchClauses`], and must have them in one of
    /// [`Revision::Locals`].
    pub fn try_table(&mut self, clauses: &[CatchClause]) -> &mut Self {
        self.add_try_table(None, clauses)
    }

    /// Does the same for a try table that keeps `locals`.
    pub fn try_table_with_locals(&mut self, locals: Locals, clauses: &[CatchClause]) -> &mut Self {
        self.with_locals = self.with_locals.saturating_add(1);
        self.add_try_table(Some(TryTableLocals { count: locals.count, reuse_flag: locals.reuse.into() }), clauses)
    }

    fn add_try_table(&mut self, locals: Option<TryTableLocals>, clauses: &[CatchClause]) -> &mut Self {
        let mut rows = Vec::new();
        let added = clauses.iter().try_for_each(|clause| append(&mut rows, clause));
        // More clauses than the count can say are found out by `finish`, which reads the tables back.
        let clause_count = u32::try_from(clauses.len()).unwrap_or(u32::MAX);
        let table = TryTable { locals, clause_count, clauses: Run::new(&rows) };
        let added = added.and_then(|()| append(&mut self.try_tables, &table));
        self.try_table_count = self.try_table_count.saturating_add(1);
        self.note(added)
    }

    /// Says which features this entry needs, of those that the identity lets its compiler use: a machine without them
    /// rejects a sealed entry. Without this it needs all of those: see [`Identity::with_cpu`].
    pub fn cpu(&mut self, features: CpuFeatures) -> &mut Self {
        self.cpu = Some(features);
        self
    }

    /// Adds a section for the engine, which a sealed entry keeps with the code. Tags are below 2^31, and must rise.
    ///
    /// The bytes are kept as they are. An offset in them that counts from the start of the engine's code stays right:
    /// the padding that [`Builder::finish`] may put in front of it is counted nowhere.
    ///
    /// A reader that does not know the tag rejects the entry if the section is `required`, and passes over it if not:
    /// see [`Identity::with_sections`].
    pub fn section(&mut self, tag: u32, required: bool, bytes: &[u8]) -> &mut Self {
        let section = Section { tag, flags: required.into(), bytes: Run::new(bytes) };
        let added = append(&mut self.sections, &section);
        self.note(added)
    }

    /// Adds bytes that mean something to the engine alone, behind all its sections.
    pub fn metadata(&mut self, bytes: &[u8]) -> &mut Self {
        self.section(METADATA, false, bytes)
    }

    /// Has a sealed entry keep what its key is made of, so that a miss can be explained: see [`Store::explain`]. An
    /// entry that is plain is without.
    ///
    /// The last one that is handed in is kept. [`Builder::finish`] refuses one that is of another key.
    ///
    /// [`Store::explain`]: crate::Store::explain
    pub fn recipe(&mut self, recipe: &Recipe) -> &mut Self {
        self.missing = self.missing.or(recipe.missing);
        self.recipe = Some((recipe.clone(), 0));
        self
    }

    /// Returns the place of what the engine calls by `name`, the same for the same name.
    ///
    /// The address is bound when the entry is loaded: see [`Linker`](crate::Linker). It lies in a slot behind the code,
    /// which code reads itself or calls through a stub: see [`Builder::relocate`]. Imports, data, relocations, symbols
    /// and unwind tables are for entries that are sealed, and aligned in their file.
    pub fn import(&mut self, name: &str) -> Place {
        Place::Import(self.links.import(name))
    }

    /// Adds data that nobody writes to, and returns the place of the first byte, a multiple of `alignment`: a power of
    /// two, at most 4096. Wherever the entry is loaded, data are as far from the code, and not executable.
    pub fn data(&mut self, bytes: &[u8], alignment: u64) -> Place {
        let added = self.links.data(bytes, alignment, false);
        Place::ReadOnly(self.noted(added))
    }

    /// Does the same for data that the code may write to: what it writes is the module's own, and is not stored.
    pub fn writable_data(&mut self, bytes: &[u8], alignment: u64) -> Place {
        let added = self.links.data(bytes, alignment, true);
        Place::Writable(self.noted(added))
    }

    /// Has the address of `target` written at `at`, `addend` added, as `kind` has it.
    ///
    /// [`Builder::finish`] resolves what is relative to the place, in a copy of the code: only addresses in data are
    /// left, which are written when the entry is loaded. Code that calls an import jumps there from a stub behind the
    /// engine's code.
    pub fn relocate(&mut self, at: Place, kind: RelocationKind, target: Place, addend: i64) -> &mut Self {
        let added = self.links.relocate(at, kind, target, addend);
        self.note(added)
    }

    /// Names `length` bytes of code or data, 0 if the length is not known: see [`Entry::symbols`].
    pub fn symbol(&mut self, at: Place, length: u64, name: &str) -> &mut Self {
        let added = self.links.symbol(at, length, name);
        self.note(added)
    }

    /// Adds a function as [`Builder::function`] does, and names it.
    pub fn function_named(&mut self, offset: u64, length: u64, name: &str) -> &mut Self {
        self.function(offset).symbol(Place::Code(offset), length, name)
    }

    /// Adds the unwind tables of the code, as `.eh_frame` has them, and returns the place of the first byte; it is
    /// called once.
    ///
    /// A record of length 0, which ends them, may be missing. What they say of the places of functions is written by
    /// [`Builder::relocate`]. They are made known when the entry is loaded if the engine wants that: see
    /// [`Linker::with_unwinding`](crate::Linker::with_unwinding).
    pub fn eh_frame(&mut self, tables: &[u8]) -> Place {
        let added = self.links.eh_frame(tables);
        Place::ReadOnly(self.noted(added))
    }

    /// Returns the entry, every part of it checked as [`Entry::verify`] would check it.
    ///
    /// A sealed entry is bound to `key`; a plain one does not hold it. If functions are aligned in the file, padding
    /// goes in front of the code, and every offset is moved by it: see [`Identity::with_alignment_in_file`].
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`], naming a part that no reader would accept; [`Error::CpuFeatures`] if the code needs
    /// features that the identity does not have; [`Error::Memory`] if there was none for a part, or is none for the
    /// padding.
    pub fn finish<'e>(&'e mut self, identity: &'e Identity, key: &Key) -> Result<Entry<'e>, Error> {
        self.finish_in(identity.revision(), identity, key)
    }

    /// Returns the entry to load: where the identity does not know how try tables are laid out, they are as they were
    /// handed in. A store of the identity refuses that entry.
    pub(crate) fn finish_to_load<'e>(&'e mut self, identity: &'e Identity, key: &Key) -> Result<Entry<'e>, Error> {
        let revision = match identity.revision() {
            Revision::Unknown if self.with_locals > 0 => Revision::Locals,
            Revision::Unknown => Revision::CatchClauses,
            known => known,
        };
        self.finish_in(revision, identity, key)
    }

    fn finish_in<'e>(&'e mut self, revision: Revision, identity: &'e Identity, key: &Key) -> Result<Entry<'e>, Error> {
        if let Some(length) = self.missing {
            return Err(Error::Memory { action: "allocate", length, source: ErrorKind::OutOfMemory.into() });
        }
        let code_at = self.align(identity)?;
        let kind = identity.sealing().digest_kind();
        self.check_try_tables_fit(revision)?;
        let padding = u64::try_from(self.padding).unwrap_or(u64::MAX);
        let is_in_file = identity.alignment().in_file;
        let site = Site { at: code_at, padding, arch: identity.target().arch, is_in_file };
        let linked = self.links.link(&self.code, site)?;
        self.linked = linked;
        self.add_sections(kind.is_some(), key)?;
        let sections = if self.linked.sections.is_empty() { &self.sections } else { &self.linked.sections };
        let code = self.linked.code.as_deref().unwrap_or(&self.code);
        if kind.is_none() && !sections.is_empty() {
            return Err(unwritable(Field::Section, Bound::Exactly(0), size(sections)));
        }
        let (arch, cpu) = (identity.target().arch, self.cpu.unwrap_or(identity.cpu()));
        if cpu.arch() != arch {
            return Err(unwritable(Field::Arch, Bound::Exactly(arch.number().into()), cpu.arch().number().into()));
        }
        let functions = u64::try_from(self.functions.len()).unwrap_or(u64::MAX);
        if u32::try_from(functions).is_err() {
            return Err(unwritable(Field::FunctionCount, Bound::AtMost(u32::MAX.into()), functions));
        }
        let revision = revision.of_body(kind.is_some());
        // The length of the code is in between.
        let offsets_at = code_at.saturating_sub(functions.saturating_add(1).saturating_mul(8));
        let rows_at = code_at.saturating_add(size(code)).saturating_add(ROWS_BEHIND_CODE);
        let mut entry = Entry {
            header: Header { magic: Bytes(identity.magic().0), version: Run::new(identity.version().as_bytes()) },
            revision,
            body: Body {
                function_offsets: Table::new_at(offsets_at, &self.functions),
                code: Run::new_at(code_at, code),
                code_checksum: crc32c(0, code),
                source_map_flag: self.source_map.is_some().into(),
                source_map: self.source_map.as_deref().map(|rows| SourceMap { rows: Table::new_at(rows_at, rows) }),
                catch_clauses: (revision != Revision::SourceMap).then(|| CatchClauses {
                    try_table_count: self.try_table_count,
                    try_tables: Run::new(&self.try_tables),
                }),
            },
            sealed: None,
            file: Run::default(),
            target: identity.target(),
            alignment: identity.alignment(),
            mac_key: identity.sealing().mac_key().cloned(),
        };
        if let Some(kind) = kind {
            let seal = Seal {
                key: Bytes(*key.as_bytes()),
                arch: arch.number(),
                os: identity.target().os.number(),
                cpu_features: cpu.bits(),
                build_id: Run::new(identity.build_id()),
                sections: Run::new(sections),
            };
            entry.sealed = Some(sealed(&entry, seal, kind));
        }
        if !cpu.missing_from(identity.cpu()).is_empty() {
            let at = entry.sealed.as_ref().map_or(0, Sealed::cpu_features_at);
            return Err(Error::CpuFeatures { at, expected: identity.cpu(), found: cpu });
        }
        let sections = Sections::of(Run::new(&self.sections));
        let highest = sections.map_while(Result::ok).map(|section| section.tag).max();
        if let Some(tag) = highest.filter(|&tag| tag > METADATA) {
            return Err(unwritable(Field::SectionTag, Bound::AtMost(METADATA.into()), tag.into()));
        }
        let sections = entry.sealed.as_ref().map_or(Ok(()), |sealed| sealed.check_sections(|_| true));
        sections.and_then(|()| entry.check_tables()).map_err(|error| match error {
            Error::Value { field, expected, found, .. } => unwritable(field, expected, found),
            Error::Trailing { expected, found, .. } => unwritable(Field::CatchClauses, Bound::Exactly(expected), found),
            error => error,
        })?;
        Ok(entry)
    }

    /// Puts the sections of the engine in front of those that follow from what else it handed in, and others behind
    /// them.
    fn add_sections(&mut self, is_sealed: bool, key: &Key) -> Result<(), Error> {
        let recipe = self.recipe.as_ref().filter(|_| is_sealed);
        if recipe.is_some_and(|(recipe, _)| recipe.key() != key) {
            return Err(Error::Invalid { what: "recipe", rule: "must be that of the key" });
        }
        if self.linked.sections.is_empty() && recipe.is_none() && self.unknown.is_empty() {
            return Ok(());
        }
        let mut sections = Vec::new();
        heap::append(&mut sections, &self.sections)?;
        heap::append(&mut sections, &self.linked.sections)?;
        if let Some((recipe, flags)) = recipe {
            append(&mut sections, &Section { tag: RECIPE, flags: *flags, bytes: Run::new(recipe.bytes()) })?;
        }
        heap::append(&mut sections, &self.unknown)?;
        self.linked.sections = sections;
        Ok(())
    }

    /// Checks that the try tables, as they were handed in, are laid out as in `revision`.
    fn check_try_tables_fit(&self, revision: Revision) -> Result<(), Error> {
        let (tables, with_locals) = (self.try_table_count, self.with_locals);
        let (field, expected, found) = match revision {
            Revision::SourceMap | Revision::Unknown => (Field::TryTableCount, 0, tables),
            Revision::CatchClauses => (Field::LocalCount, 0, with_locals),
            Revision::Locals => (Field::LocalCount, tables, with_locals),
        };
        if found == expected { Ok(()) } else { Err(unwritable(field, Bound::Exactly(expected.into()), found.into())) }
    }

    /// Pads the code as `identity` wants it, and returns where it will lie in the file.
    fn align(&mut self, identity: &Identity) -> Result<u64, Error> {
        // The header, the two counts, and the offsets: what SPEC.md has in front of the code.
        let functions = u64::try_from(self.functions.len()).unwrap_or(u64::MAX);
        let header = size(identity.version().as_bytes()).saturating_add(7);
        let code_at = functions.saturating_mul(8).saturating_add(12).saturating_add(header);
        let padding = if self.code.len() > self.padded { identity.alignment().padding(code_at) } else { 0 };
        let padding = usize::try_from(padding).unwrap_or(0);
        if padding != self.padded {
            let code = match &mut self.code {
                Cow::Borrowed(code) => {
                    let mut copy = Vec::new();
                    heap::reserve(&mut copy, padding.saturating_add(code.len()))?;
                    copy.extend_from_slice(code);
                    self.code = Cow::Owned(copy);
                    self.code.to_mut()
                }
                Cow::Owned(code) => {
                    heap::reserve(code, padding)?;
                    code
                }
            };
            code.splice(..self.padded, iter::repeat_n(0, padding));
            self.padded = padding;
        }
        // Those of an architecture that it was finished for before may stand there.
        if let Cow::Owned(code) = &mut self.code
            && let Some(front) = code.get_mut(..padding)
        {
            front.fill(identity.target().arch.trap());
        }
        if padding != self.padding {
            let columns = self.functions.iter_mut().map(|[offset]| offset);
            for offset in columns.chain(self.source_map.iter_mut().flatten().map(|[_, offset]| offset)) {
                *offset = moved(u64::from_le_bytes(*offset), self.padding, padding);
            }
            self.padding = padding;
        }
        Ok(code_at)
    }

    /// Returns what was added, or 0 and notes that there was no memory for it.
    fn noted(&mut self, added: Result<u64, Error>) -> u64 {
        added.unwrap_or_else(|error| {
            self.note(Err(error));
            0
        })
    }

    /// Notes that a part could not be added, which [`Builder::finish`] tells.
    fn note(&mut self, added: Result<(), Error>) -> &mut Self {
        if let Err(Error::Memory { length, .. }) = added {
            self.missing = Some(length);
        }
        self
    }
}

/// Takes an entry apart again: finished for the identity and the key that it is of, it is the same bytes. The code is
/// borrowed.
///
/// What is wrong with the tables of an entry that was not verified, [`Builder::finish`] tells; code that is damaged
/// gets a checksum of its own there.
impl<'a> From<&Entry<'a>> for Builder<'a> {
    fn from(entry: &Entry<'a>) -> Self {
        let mut builder = Self::new();
        builder.code(entry.code());
        for offset in entry.functions().iter() {
            builder.function(offset);
        }
        if let Some(map) = entry.source_map() {
            builder.with_source_map();
            for row in map.iter() {
                builder.source(row.code, row.source);
            }
        }
        if let Some(CatchClauses { try_table_count, try_tables }) = &entry.body.catch_clauses {
            builder.try_table_count = *try_table_count;
            builder.with_locals = if entry.revision == Revision::Locals { *try_table_count } else { 0 };
            let added = heap::append(&mut builder.try_tables, try_tables.bytes());
            builder.note(added);
        }
        if let Some(sealed @ Sealed { seal, .. }) = &entry.sealed {
            builder.cpu = Some(CpuFeatures::from_bits(entry.target().arch, seal.cpu_features));
            for section in sealed.sections().map_while(Result::ok) {
                let added = match section.tag {
                    ..=METADATA => append(&mut builder.sections, &section),
                    IMPORTS..=UNWIND_TABLES => builder.links.take(&section, entry.code_range().start),
                    RECIPE => Recipe::of_entry(sealed.key(), section.bytes.bytes())
                        .map(|recipe| builder.recipe = Some((recipe, section.flags))),
                    _ => append(&mut builder.unknown, &section),
                };
                builder.note(added);
            }
        }
        builder
    }
}

/// Returns an offset in code behind one padding as it is behind another.
fn moved(offset: u64, from: usize, to: usize) -> [u8; 8] {
    let wide = |padding| u64::try_from(padding).unwrap_or(0);
    offset.wrapping_sub(wide(from)).wrapping_add(wide(to)).to_le_bytes()
}

fn unwritable(field: Field, expected: Bound, found: u64) -> Error {
    Error::Unwritable { field, expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::from_bytes([7; 32]);

    fn aligned_in_file(bytes: u64) -> Identity {
        Identity::new("builder", *b"BUILD\0", "1").unwrap().with_alignment_in_file(bytes).unwrap()
    }

    #[test]
    fn a_builder_goes_on_from_what_it_has_finished_for_another_alignment() {
        let mut used = Builder::new();
        let mut fresh = Builder::new();
        for (n, alignment) in (0..).zip([64, 16, 1, 64]) {
            for builder in [&mut used, &mut fresh] {
                let offset = u64::from(n) * 64;
                builder.code(vec![n; 256]).function(offset).source(offset, 5);
            }
            let identity = aligned_in_file(alignment);
            let expected = fresh.clone().finish(&identity, &KEY).unwrap().to_vec();
            assert_eq!(used.finish(&identity, &KEY).unwrap().to_vec(), expected, "{alignment}");
        }
    }

    #[test]
    fn an_entry_without_code_has_no_padding_either() {
        let identity = aligned_in_file(64);
        assert!(Builder::new().finish(&identity, &KEY).unwrap().code().is_empty());
    }

    #[test]
    fn code_that_is_lent_and_not_padded_is_not_copied() {
        let code = [0xcc; 64];
        let mut builder = Builder::new();
        let identity = aligned_in_file(1).with_function_alignment(1).unwrap();
        assert_eq!(builder.code(&code[..]).finish(&identity, &KEY).unwrap().code().as_ptr(), code.as_ptr());
    }
}

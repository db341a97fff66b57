//! What an engine hands in, part by part, to be made an entry.

use std::borrow::Cow;

use super::append::append;
use super::link::{Linked, Links};
use super::recipe::Recipe;
use super::seal::{IMPORTS, METADATA, RECIPE, Sealed, UNWIND_TABLES};
use super::tables::Locals;
use super::view::Entry;
use crate::error::{Error, heap};
use crate::format::{CatchClause, CatchClauses, Row, Run, Section, TryTable, TryTableLocals};
use crate::words::{CpuFeatures, Place, RelocationKind, Revision};

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
    pub(super) code: Cow<'a, [u8]>,
    pub(super) functions: Vec<Row<1>>,
    pub(super) source_map: Option<Vec<Row<2>>>,
    /// The try tables as they will stand in the file. All of them have locals, or none has, or they fit no revision.
    pub(super) try_tables: Vec<u8>,
    pub(super) try_table_count: u32,
    /// How many of them have locals.
    pub(super) with_locals: u32,
    pub(super) cpu: Option<CpuFeatures>,
    /// The sections as they will stand in the file.
    pub(super) sections: Vec<u8>,
    pub(super) links: Links,
    pub(super) linked: Linked,
    /// And the flags of its section.
    pub(super) recipe: Option<(Recipe, u8)>,
    /// Whether it is that of an entry that was taken apart, and stays out of one that has another key.
    pub(super) is_recipe_taken: bool,
    /// Sections with reserved tags that nobody knew when this was written, of an entry that was taken apart.
    pub(super) unknown: Vec<u8>,
    /// How many bytes in front of the engine's code every offset counts, which align it in the file.
    pub(super) padding: usize,
    /// How many of them there are in `code`.
    pub(super) padded: usize,
    /// Length of a part that there was no memory for, in bytes.
    pub(super) missing: Option<u64>,
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
    /// rejects a sealed entry. Without this it needs all of those: see
    /// [`Identity::with_cpu`](crate::Identity::with_cpu).
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
    /// see [`Identity::with_sections`](crate::Identity::with_sections).
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
        (self.recipe, self.is_recipe_taken) = (Some((recipe.clone(), 0)), false);
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
                    IMPORTS..=UNWIND_TABLES => builder.links.take(&section, entry.engine_range()),
                    RECIPE => Recipe::of_entry(sealed.key(), section.bytes.bytes()).map(|recipe| {
                        (builder.recipe, builder.is_recipe_taken) = (Some((recipe, section.flags)), true)
                    }),
                    _ => append(&mut builder.unknown, &section),
                };
                builder.note(added);
            }
        }
        builder
    }
}

/// Returns an offset in code behind one padding as it is behind another.
pub(super) fn moved(offset: u64, from: usize, to: usize) -> [u8; 8] {
    let wide = |padding| u64::try_from(padding).unwrap_or(0);
    offset.wrapping_sub(wide(from)).wrapping_add(wide(to)).to_le_bytes()
}

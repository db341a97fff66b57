//! A module: code that can be called, and what is known about it.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::bytes::{FileBytes, Place};
use crate::digest::CodeDigest;
use crate::entry::Entry;
use crate::error::Error;
use crate::format::{Body, CatchClauses, Section, Table, size};
use crate::heap;
use crate::identity::Identity;
use crate::key::Key;
use crate::memory::{Check, CodeMemory, WritableCode};
use crate::seal::{METADATA, Sections, SourceMapDigest};
use crate::tables::{FunctionOffsets, SourceMap, SourceRow, TryTables};

/// Executable code with its functions and its source map. The code is unmapped when the module is dropped.
///
/// Calling a function is the engine's own `unsafe`: only the engine knows its signature, and that the entry came from a
/// place whose code may be run.
///
/// ```
/// # #[cfg(target_arch = "x86_64")] {
/// use jitcache::{Builder, Identity, Key, Module};
///
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let mut builder = Builder::new();
/// builder.code(&[0x8d, 0x04, 0x37, 0xc3][..]).function(0); // lea eax, [rdi + rsi]; ret
/// let key = Key::of(&identity).source(b"a + b").finish();
/// let module = Module::load(&builder.finish(&identity, &key)?)?;
///
/// let add = module.function(0).unwrap();
/// // SAFETY: the code follows the C calling convention and adds its two arguments.
/// let add: extern "C" fn(u32, u32) -> u32 = unsafe { std::mem::transmute(add) };
/// assert_eq!(add(2, 40), 42);
/// # }
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Debug)]
pub struct Module {
    id: ModuleId,
    code: CodeMemory,
    /// Where the code lies.
    addresses: Range<usize>,
    /// What the ranges below lie in.
    tables: FileBytes,
    function_offsets: Range<u64>,
    source_map: Option<Rows>,
    /// How many try tables there are, and where.
    try_tables: Option<(u32, Range<u64>)>,
    sections: Option<Range<u64>>,
}

/// The rows of a source map, which are checked when they are first used: there may be more of them than code.
#[derive(Debug)]
struct Rows {
    at: Range<u64>,
    /// What they have to be; `None` if nobody can tell, or the caller vouched for it.
    digest: Option<SourceMapDigest>,
    /// Whether they were found sound: no lock, because they may be looked up in a signal handler.
    state: AtomicU8,
}

impl Rows {
    const UNCHECKED: u8 = 0;
    const SOUND: u8 = 1;
    const DAMAGED: u8 = 2;

    const fn new(at: Range<u64>, digest: Option<SourceMapDigest>) -> Self {
        Self { at, digest, state: AtomicU8::new(Self::UNCHECKED) }
    }

    /// Returns whether `rows` are what they have to be.
    fn are_sound(&self, rows: &[u8]) -> bool {
        match self.state.load(Ordering::Relaxed) {
            Self::UNCHECKED => self.check(rows).is_ok(),
            state => state == Self::SOUND,
        }
    }

    fn check(&self, rows: &[u8]) -> Result<(), Error> {
        let checked = self.digest.as_ref().map_or(Ok(()), |digest| digest.check(rows));
        self.state.store(if checked.is_ok() { Self::SOUND } else { Self::DAMAGED }, Ordering::Relaxed);
        checked
    }
}

/// Which module it is: a number that no other module of this process has or had. Returned by [`Module::id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId(u64);

impl ModuleId {
    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where a program counter is. Returned by [`Module::locate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The module that holds it.
    pub module: ModuleId,
    /// Index of the function; `None` in front of the first one.
    pub function: Option<usize>,
    /// Offset from the start of the code, in bytes.
    pub code: u64,
    /// Offset in the source; `None` without a source map, in front of its first row, and if it is damaged.
    pub source: Option<u64>,
}

impl Module {
    /// Copies the code of an entry into executable memory, and its tables beside it.
    ///
    /// Function offsets and try tables are checked, the copy of the code against its checksum, and all but the rows of the
    /// source map against the digest of a sealed entry. Those rows are checked when they are used: see
    /// [`Module::check_source_map`].
    ///
    /// # Errors
    ///
    /// Any rejection for the entry: see [`Error::is_rejection`]; [`Error::Memory`] and [`Error::UnsupportedMachine`] for
    /// the machine.
    pub fn load(entry: &Entry<'_>) -> Result<Self, Error> {
        let rows = entry.body.source_map.as_ref().map_or(&[][..], |map| map.rows.section().bytes());
        Self::beside(entry, rows, copy(entry)?)
    }

    /// Makes the code of the entry in `file` executable, and keeps what is needed of the file for its tables.
    ///
    /// The code is copied or runs from the file, as the [`Access`](crate::Access) with which the file was opened has it. A
    /// sealed entry must be bound to `key`; a plain one does not tell what it is for. What is checked is told at
    /// [`Module::load`].
    ///
    /// # Errors
    ///
    /// Those of [`Entry::parse`], [`Entry::check_key`] and [`Module::load`].
    pub fn load_file(file: FileBytes, identity: &Identity, key: &Key) -> Result<Self, Error> {
        let entry = Entry::read(file.section(), identity)?;
        entry.check_key(key)?;
        let Body { function_offsets, source_map, catch_clauses, .. } = &entry.body;
        let is_aligned = file.place().address(&entry.code_range()).is_some_and(|address| entry.is_aligned_at(address));
        let code = match file.place() {
            Place::Pages(pages) if is_aligned => {
                checked(&entry, |digest| {
                    match pages.code_checksum(&entry.code_range()) {
                        Some(checksum) => digest.add_summed_code(entry.code(), checksum),
                        None => digest.add_code(entry.code()),
                    }
                    Ok(())
                })?;
                CodeMemory::publish(pages, &entry.code_range())?
            }
            // Made executable first, while few of its pages have been looked at: each of those costs.
            Place::Map(map, check) if is_aligned => match (CodeMemory::in_place(map, &entry.code_range()), check) {
                (Ok(code), Check::VouchedFor) => code,
                (Ok(code), Check::Checked(threads)) => checked(&entry, |digest| {
                    digest.add_large_code(code.bytes(), threads);
                    Ok(code)
                })?,
                // A file system may let nothing run.
                (Err(_), _) => copy(&entry)?,
            },
            _ => copy(&entry)?,
        };
        if !file.are_worth_keeping(&code) {
            let rows = source_map.as_ref().map_or(Ok(&[][..]), |map| file.rows(&map.rows.section().range()))?;
            return Self::beside(&entry, rows, code);
        }
        let function_offsets = function_offsets.section().range();
        let is_vouched_for = matches!(file.place(), Place::Map(_, Check::VouchedFor));
        let digest = if is_vouched_for { None } else { entry.source_map_digest() };
        let source_map = source_map.as_ref().map(|map| Rows::new(map.rows.section().range(), digest));
        let try_tables = catch_clauses.as_ref().map(|clauses| (clauses.try_table_count, clauses.try_tables.range()));
        let sections = entry.sealed.as_ref().map(|sealed| sealed.seal.sections.range());
        Ok(Self {
            id: ModuleId::next(),
            addresses: code.range(),
            code,
            tables: file,
            function_offsets,
            source_map,
            try_tables,
            sections,
        })
    }

    /// Puts a copy of an entry's tables beside its code.
    fn beside(entry: &Entry<'_>, rows: &[u8], code: CodeMemory) -> Result<Self, Error> {
        let Body { function_offsets, source_map, catch_clauses, .. } = &entry.body;
        let parts = [
            function_offsets.section().bytes(),
            rows,
            catch_clauses.as_ref().map_or(&[], |clauses| clauses.try_tables.bytes()),
            entry.sealed.as_ref().map_or(&[], |sealed| sealed.seal.sections.bytes()),
        ];
        let mut tables = Vec::new();
        heap::reserve(&mut tables, parts.iter().fold(0, |length, part| part.len().saturating_add(length)))?;
        let [function_offsets, rows, clauses, sections] = parts.map(|part| {
            let start = size(&tables);
            tables.extend_from_slice(part);
            start..size(&tables)
        });
        let source_map = source_map.as_ref().map(|_| Rows::new(rows, entry.source_map_digest()));
        let try_tables = catch_clauses.as_ref().map(|tables| (tables.try_table_count, clauses));
        let sections = entry.sealed.as_ref().map(|_| sections);
        Ok(Self {
            id: ModuleId::next(),
            addresses: code.range(),
            code,
            tables: tables.into(),
            function_offsets,
            source_map,
            try_tables,
            sections,
        })
    }

    /// Returns the number that tells this module from all others of the process.
    #[must_use]
    pub const fn id(&self) -> ModuleId {
        self.id
    }

    /// Returns whether the code runs from the mapped file, and was neither copied nor read.
    #[must_use]
    pub const fn is_in_place(&self) -> bool {
        self.code.is_in_place()
    }

    /// Returns the code as it stands in memory.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        self.code.bytes()
    }

    /// Returns the addresses that the code takes up; an empty range if there is none.
    #[must_use]
    pub fn address_range(&self) -> Range<usize> {
        self.addresses.clone()
    }

    /// Returns the address of a function, or `None` if there is no function of that index.
    #[must_use]
    pub fn function(&self, index: usize) -> Option<*const u8> {
        let offset = usize::try_from(self.functions().get(index)?).ok()?;
        Some(self.code().get(offset..)?.as_ptr())
    }

    /// Returns the offsets of the functions in the code.
    #[must_use]
    pub fn functions(&self) -> FunctionOffsets<'_> {
        FunctionOffsets(Table::of(self.tables.section().part(&self.function_offsets)))
    }

    /// Returns the source map, if there is one and it is not damaged.
    ///
    /// Of a sealed entry its rows are checked the first time that they are asked for, by this or by a lookup, and those that
    /// a load left in the file are read: [`Module::check_source_map`] does it before, and tells what is wrong.
    #[must_use]
    pub fn source_map(&self) -> Option<SourceMap<'_>> {
        let rows = self.source_map.as_ref()?;
        let bytes = self.tables.rows(&rows.at).ok()?;
        rows.are_sound(bytes).then(|| SourceMap(Table::of(Section::new(bytes))))
    }

    /// Reads the source map if a load left it in the file, and checks it against the digest of a sealed entry.
    ///
    /// After this, looking something up takes no memory and waits for nothing, as a signal handler wants it. The entry of a map
    /// that is damaged stays in its store: [`Cache::verify`](crate::Cache::verify) removes it.
    ///
    /// # Errors
    ///
    /// [`Error::Checksum`] and [`Error::Forged`], except where the caller vouched for the file; [`Error::Io`] and
    /// [`Error::Memory`] from the system.
    pub fn check_source_map(&self) -> Result<(), Error> {
        self.source_map.as_ref().map_or(Ok(()), |rows| rows.check(self.tables.rows(&rows.at)?))
    }

    /// Returns the catch clauses of every try table.
    #[must_use]
    pub fn try_tables(&self) -> TryTables<'_> {
        let Some((try_table_count, range)) = self.try_tables.clone() else { return TryTables::default() };
        TryTables::of(&CatchClauses { try_table_count, try_tables: self.tables.section().part(&range) })
    }

    /// Returns the section with the engine's `tag`, if the entry was sealed and has it.
    #[must_use]
    pub fn section(&self, tag: u32) -> Option<&[u8]> {
        Sections::of(self.tables.section().part(self.sections.as_ref()?)).find(tag)
    }

    /// Returns what the engine keeps with the code: see [`Builder::metadata`](crate::Builder::metadata).
    #[must_use]
    pub fn metadata(&self) -> Option<&[u8]> {
        self.section(METADATA)
    }

    /// Returns where the program counter `pc` is, or `None` if it is not in this module.
    ///
    /// The rules are wazero's, whose program counters are return addresses: the function is the last one that starts at
    /// `pc` or before; the source position is that of the last row that starts *before* `pc`, the call's. For the address
    /// of an instruction that trapped there is [`Module::locate_instruction`].
    #[must_use]
    pub fn locate(&self, pc: usize) -> Option<Location> {
        self.locate_with(pc, |map, code| map.before_return(code))
    }

    /// Returns where the instruction at `pc` is, or `None` if it is not in this module.
    ///
    /// Function and source position are those of the last one that starts at `pc` or before.
    #[must_use]
    pub fn locate_instruction(&self, pc: usize) -> Option<Location> {
        self.locate_with(pc, |map, code| map.at_instruction(code))
    }

    fn locate_with(&self, pc: usize, row: impl FnOnce(SourceMap<'_>, u64) -> Option<SourceRow>) -> Option<Location> {
        let range = self.address_range();
        if !range.contains(&pc) {
            return None;
        }
        let code = u64::try_from(pc.checked_sub(range.start)?).ok()?;
        Some(Location {
            module: self.id,
            function: self.functions().containing(code),
            code,
            source: self.source_map().and_then(|map| row(map, code)).map(|row| row.source),
        })
    }
}

/// Copies the code of an entry, and checks the copy.
fn copy(entry: &Entry<'_>) -> Result<CodeMemory, Error> {
    checked(entry, |digest| WritableCode::copy(entry.code(), entry.displacement(), |step| digest.add_code(step)))?
        .publish()
}

/// Checks the function offsets, the end of the entry, and the code that `add` adds to the digest: the very bytes that will run.
fn checked<T>(entry: &Entry<'_>, add: impl FnOnce(&mut CodeDigest) -> Result<T, Error>) -> Result<T, Error> {
    entry.check_function_offsets()?;
    entry.check_try_tables()?;
    let mut digest = entry.begin_digest();
    let code = add(&mut digest)?;
    entry.end_digest(digest)?;
    Ok(code)
}

//! A module: code that can be called, and what is known about it.

use std::any::Any;
use std::ops::Range;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::image::Tables;
use super::places::Places;
use crate::entry::{FunctionOffsets, METADATA, SYMBOLS, Sections, SourceMap, SourceRow, Symbols, TryTables};
use crate::error::Error;
use crate::format::{CatchClauses, Run, Table};
use crate::memory::{self, CodeMemory};

/// Executable code with its functions and its source map. The code is unmapped when the module is dropped.
///
/// # How many
///
/// As many as there is memory for. On Linux, code of up to 4 KiB that is copied lies beside that of other modules, in
/// memory that is given back once no module of its part, of 1 to 16 MiB, is left; larger code takes whole pages, and a
/// mapping or two; code that runs in place takes one to four mappings. Of mappings the process may have some ten
/// thousands: modules take no more than half of them, and beyond that run in place no longer, but are copied to memory
/// that they share. Code of more than 8 MiB and code with data beside it are not counted in that: the latter takes three
/// mappings or more, wherever it lies. Where written memory may not be made executable, code is copied to memory files;
/// code with data beside it then runs in place alone.
///
/// After a fork each process has its modules as they were. That is not so after a fork by a system call of the caller's
/// own, which is not noticed.
///
/// Profilers and debuggers learn the names of its functions by the crate `jitcache-profile`; see also
/// [`Module::keep_apart`].
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
    /// In front of the code, which is to be there when it is dropped.
    attached: OnceLock<Box<Attached>>,
    code: CodeMemory,
    /// Where the engine's code lies, and how many bytes of padding stand in front of it.
    addresses: Range<usize>,
    padding: u64,
    /// What the places below lie in.
    tables: Tables,
    places: Places,
}

/// What an engine attaches to a module.
#[derive(Debug)]
struct Attached(Box<dyn Any + Send + Sync>);

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
    /// Returns the module of code that was checked, of which the first bytes are padding.
    pub(super) fn over(code: CodeMemory, padding: u64, tables: Tables, places: Places) -> Self {
        let Range { start, end } = code.range();
        let start = start.saturating_add(usize::try_from(padding).unwrap_or(usize::MAX)).min(end);
        Self { id: ModuleId::next(), attached: OnceLock::new(), addresses: start..end, padding, code, tables, places }
    }

    /// Has code that is copied from now on, in the whole process, lie in pages of its own, however small it is.
    ///
    /// For profilers and debuggers. On Linux, small code lies beside that of other modules in memory files that are
    /// mapped as shared: `perf` takes them for files and looks for names there, and no debugger can write a breakpoint.
    /// Of code that runs in place that is true as well, and an engine that somebody looks into loads by
    /// [`Access::READ`](crate::Access::READ). A module costs a page or two and a mapping then; where the process may have
    /// few more of these, small code lies beside that of others again.
    pub fn keep_apart() {
        memory::keep_apart();
    }

    /// Returns the number that tells this module from all others of the process.
    #[must_use]
    pub const fn id(&self) -> ModuleId {
        self.id
    }

    /// Returns whether the code runs from the mapped file, and was neither copied nor read.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.code.is_in_place()
    }

    /// Returns the engine's code as it stands in memory.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        self.code.bytes().get(usize::try_from(self.padding).unwrap_or(usize::MAX)..).unwrap_or_default()
    }

    /// Returns how many bytes of padding stand in front of the engine's code: see
    /// [`Entry::padding`](crate::Entry::padding).
    #[must_use]
    pub const fn padding(&self) -> u64 {
        self.padding
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
        FunctionOffsets::new(Table::of(self.tables.part(&self.code, &self.places.function_offsets)), self.padding)
    }

    /// Returns the source map, if there is one and it is not damaged.
    ///
    /// Of a sealed entry its rows are checked the first time that they are asked for, by this or by a lookup, and those
    /// that a load left in the file are read: [`Module::check_source_map`] does it before, and tells what is wrong.
    #[must_use]
    pub fn source_map(&self) -> Option<SourceMap<'_>> {
        let rows = self.places.source_map.as_ref()?;
        let bytes = self.tables.rows(&self.code, &rows.at).ok()?;
        rows.are_sound(bytes).then(|| SourceMap::new(Table::of(Run::new(bytes)), self.padding))
    }

    /// Reads the source map if a load left it in the file, and checks it against the digest of a sealed entry.
    ///
    /// After this, looking something up takes no memory and waits for nothing, as a signal handler wants it. The entry
    /// of a map that is damaged stays in its store: [`Cache::verify`](crate::Cache::verify) removes it.
    ///
    /// # Errors
    ///
    /// [`Error::Checksum`] and [`Error::Forged`], except where the caller vouched for the file; [`Error::Io`] and
    /// [`Error::Memory`] from the system.
    pub fn check_source_map(&self) -> Result<(), Error> {
        self.places.source_map.as_ref().map_or(Ok(()), |rows| rows.check(self.tables.rows(&self.code, &rows.at)?))
    }

    /// Returns every try table.
    #[must_use]
    pub fn try_tables(&self) -> TryTables<'_> {
        let Some((try_table_count, place, revision)) = self.places.try_tables.clone() else {
            return TryTables::default();
        };
        let try_tables = self.tables.part(&self.code, &place);
        TryTables::of(&CatchClauses { try_table_count, try_tables }, revision)
    }

    /// Returns the section with the engine's `tag`, if the entry was sealed and has it.
    #[must_use]
    pub fn section(&self, tag: u32) -> Option<&[u8]> {
        Some(self.sections()?.find(tag)?.bytes())
    }

    fn sections(&self) -> Option<Sections<'_>> {
        Some(Sections::of(self.tables.part(&self.code, self.places.sections.as_ref()?)))
    }

    /// Returns what the engine keeps with the code: see [`Builder::metadata`](crate::Builder::metadata).
    #[must_use]
    pub fn metadata(&self) -> Option<&[u8]> {
        self.section(METADATA)
    }

    /// Returns the names of functions and data.
    #[must_use]
    pub fn symbols(&self) -> Symbols<'_> {
        Symbols::of(self.sections().and_then(|sections| sections.find(SYMBOLS)))
    }

    /// Returns the address of the function or of the data of that name, if the entry has a symbol of it: see
    /// [`Builder::symbol`](crate::Builder::symbol).
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<*const u8> {
        let offset = usize::try_from(self.symbols().named(name.as_bytes())?.offset).ok()?;
        Some(self.code().as_ptr().wrapping_add(offset))
    }

    /// Returns the name of the function of that index, if it has one that is text.
    #[must_use]
    pub fn function_name(&self, index: usize) -> Option<&str> {
        std::str::from_utf8(self.symbols().at(self.functions().get(index)?)?.name).ok()
    }

    /// Attaches a value of the engine's to the module, once: it is dropped with the module, before the code is
    /// unmapped.
    ///
    /// # Errors
    ///
    /// The value, if one was attached before.
    pub fn attach<T: Any + Send + Sync>(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.attached.get_or_init(|| Box::new(Attached(Box::new(value.take()))));
        value.map_or(Ok(()), Err)
    }

    /// Returns the value that was attached, if it is of that type.
    #[must_use]
    pub fn attached<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.attached.get()?.0.downcast_ref::<Option<T>>()?.as_ref()
    }

    /// Returns where the program counter `pc` is, or `None` if it is not in this module.
    ///
    /// The rules are wazero's, whose program counters are return addresses: the function is the last one that starts at
    /// `pc` or before; the source position is that of the last row that starts *before* `pc`, the call's. For the
    /// address of an instruction that trapped there is [`Module::locate_instruction`].
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

/// What is attached is the engine's, who sees to it; nothing else of a module changes.
impl UnwindSafe for Module {}
impl RefUnwindSafe for Module {}

//! A module: code that can be called, and what is known about it.

use std::any::Any;
use std::fs::File;
use std::ops::Range;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bytes::FileBytes;
use super::image::{Code, Image, Tables, start_of};
use super::linker::{Linker, parts};
use super::places::{Places, Rows};
use super::source::Source;
use crate::entry::{
    Entry, FunctionOffsets, Identity, Linkage, METADATA, SYMBOLS, Sections, SourceMap, SourceRow, Sum, Symbols,
    TryTables,
};
use crate::error::{Bound, Error, Field, heap};
use crate::file::Trusted;
use crate::format::{Body, CatchClauses, Run, Table};
use crate::memory::{Access, Check, CodeMemory, WritableCode, WritableImage};
use crate::words::{Key, Target, size};

/// Executable code with its functions and its source map. The code is unmapped when the module is dropped.
///
/// # How many
///
/// As many as there is memory for. On Linux, code of up to 4 KiB that is copied lies beside that of other modules, in memory
/// that is given back once no module of its part, of 1 to 16 MiB, is left; larger code takes whole pages, and a
/// mapping or two; code that runs in place takes one to four mappings. Of mappings the process may have some ten
/// thousands: modules take no more than half of them, and beyond that run in place no longer, but are copied to
/// memory that they share. Where written memory may not be made executable, code is copied to memory files.
///
/// After a fork each process has its modules as they were. That is not so after a fork by a system call of the caller's own, which
/// is not noticed.
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
    /// Copies the code of an entry into executable memory, and its tables beside it.
    ///
    /// Function offsets and try tables are checked, and the copy of the code: against its checksum in a plain entry, against
    /// the digest of every byte but the rows of the source map in a sealed one. Those rows are checked when they are used: see
    /// [`Module::check_source_map`].
    ///
    /// # Errors
    ///
    /// Any rejection for the entry: see [`Error::is_rejection`]; [`Error::Foreign`] if its identity is for another target than
    /// this program's; [`Error::UnboundImport`] if it imports anything; [`Error::Memory`] and [`Error::UnsupportedMachine`] for the
    /// machine.
    pub fn load(entry: &Entry<'_>) -> Result<Self, Error> {
        Self::load_with(entry, &Linker::default())
    }

    /// Does the same for an entry that imports what `linker` has.
    ///
    /// Data that the entry has lie behind the code, at the distance that it has in every process. The addresses of imports are written
    /// to slots beside them, and nothing of that but the writable data can be written to after this.
    ///
    /// # Errors
    ///
    /// Those of [`Module::load`]; [`Error::UnboundImport`] for the first import that `linker` has no address for. The entry is not at fault
    /// then, and stays in its store.
    pub fn load_with(entry: &Entry<'_>, linker: &Linker) -> Result<Self, Error> {
        check_target(entry)?;
        let linkage = entry.linkage()?.filter(Linkage::has_image);
        let code =
            linkage.map_or_else(|| copy(entry), |linkage| linker.link(&linkage, copy_image(entry, &linkage)?))?;
        Self::beside(entry, code)
    }

    /// Opens the file of an entry and makes its code executable, or returns `None` if there is none.
    ///
    /// The code gets pages of its own or runs from the file, as `access` has it. A sealed entry must be bound to `key`; a
    /// plain one does not tell what it is for. What is checked is told at [`Module::load`].
    ///
    /// # Errors
    ///
    /// Those of [`FileBytes::open`], [`Entry::parse`], [`Entry::check_key`] and [`Module::load`].
    pub fn open(path: &Path, access: Access, identity: &Identity, key: &Key) -> Result<Option<Self>, Error> {
        Self::open_with(path, access, identity, key, &Linker::default())
    }

    /// Does the same for the file of an entry that imports what `linker` has.
    ///
    /// # Errors
    ///
    /// Those of [`Module::open`] and [`Module::load_with`].
    pub fn open_with(
        path: &Path,
        access: Access,
        identity: &Identity,
        key: &Key,
        linker: &Linker,
    ) -> Result<Option<Self>, Error> {
        let source = Source::open(path, &Trusted::ANYONE)?;
        source.map(|source| Self::of_file(&source, access, identity, key, linker)).transpose()
    }

    /// Does the same for a file that is open.
    pub(crate) fn of_file(
        source: &Source<'_>,
        access: Access,
        identity: &Identity,
        key: &Key,
        linker: &Linker,
    ) -> Result<Self, Error> {
        let image = Image::of(source, access, identity)?;
        let is_whole = image.is_whole();
        let module = Self::of(image, identity, key, linker, Some(&source.file));
        if !is_whole && module.as_ref().is_err_and(Error::is_rejection) {
            // What is wrong may lie across two pieces: in one, it is told as it is.
            return Self::of(Image::whole(FileBytes::read(source)?), identity, key, linker, None);
        }
        module
    }

    /// Does the same for the bytes of a whole file: code that was read is copied, code that was mapped to run in place does, unless
    /// data lie beside it.
    ///
    /// # Errors
    ///
    /// Those of [`Entry::parse`], [`Entry::check_key`] and [`Module::load`].
    pub fn load_file(file: FileBytes, identity: &Identity, key: &Key) -> Result<Self, Error> {
        Self::of(Image::whole(file), identity, key, &Linker::default(), None)
    }

    /// Checks the entry that an image is, and makes its code executable where it lies, or copies it; `file` is what it was mapped
    /// from, if it is open.
    fn of(
        mut image: Image,
        identity: &Identity,
        key: &Key,
        linker: &Linker,
        file: Option<&File>,
    ) -> Result<Self, Error> {
        let sum = image.sum.take();
        let (copied, places, padding) = {
            let pieces = image.pieces();
            let entry = Entry::read(image.run(&pieces), identity)?;
            entry.check_key(key)?;
            check_target(&entry)?;
            let code = match entry.linkage()?.filter(Linkage::has_image) {
                Some(linkage) => {
                    Some(linker.link(&linkage, Self::checked_image(&image, &entry, &linkage, sum, file)?)?)
                }
                None => Self::checked(&image, &entry, sum)?,
            };
            let code = match code {
                Some(code) if !image.tables.are_worth_keeping(&code) => return Self::beside(&entry, code),
                code => code,
            };
            let is_unchecked = matches!(image.code, Code::Mapped(_, Check::Unchecked));
            (code, Places::of(&entry, if is_unchecked { None } else { entry.source_map_digest() }), entry.padding())
        };
        let code = match (copied, image.code) {
            (Some(code), Code::Pages(pages, _)) => code.with_rest(pages)?,
            (Some(code), Code::Beside | Code::Mapped(..)) => code,
            (None, Code::Pages(pages, _)) => pages.publish()?,
            (None, Code::Beside | Code::Mapped(..)) => CodeMemory::none(),
        };
        Ok(Self::over(code, padding, image.tables, places))
    }

    /// Checks the code of an image, and returns it executable; `None` if it lies in pages that are still to be published.
    fn checked(image: &Image, entry: &Entry<'_>, sum: Option<Sum>) -> Result<Option<CodeMemory>, Error> {
        let place = entry.code_range();
        match (&image.code, sum) {
            (Code::Pages(_, read), Some(sum)) => {
                check_place(read, &place)?;
                check(entry, || Ok((Some(sum), None)))
            }
            // Made executable first, while few of its pages have been looked at: each of those costs.
            (Code::Mapped(map, access), _) if entry.alignment().allows_in_place(place.start) => {
                match CodeMemory::in_place(map, &place) {
                    Ok(code) if *access == Check::Unchecked => Ok(Some(code)),
                    Ok(code) => check(entry, || {
                        let mut sum = entry.begin_sum();
                        if let Some(sum) = &mut sum {
                            sum.add_code(code.bytes());
                        }
                        Ok((sum, Some(code)))
                    }),
                    // A file system may let nothing run.
                    Err(_) => copy(entry).map(Some),
                }
            }
            _ => copy(entry).map(Some),
        }
    }

    /// Checks the code of an image, and returns it with room for what it is linked to, where it lies or copied.
    fn checked_image(
        image: &Image,
        entry: &Entry<'_>,
        linkage: &Linkage<'_>,
        sum: Option<Sum>,
        file: Option<&File>,
    ) -> Result<WritableImage, Error> {
        if let (Code::Pages(pages, read), Some(sum)) = (&image.code, sum) {
            check_place(read, &entry.code_range())?;
            // What is copied is memory of this process alone.
            return check(entry, || Ok((Some(sum), WritableImage::copy(pages.code(), parts(linkage), |_| {})?)));
        }
        let Code::Mapped(map, access) = &image.code else { return copy_image(entry, linkage) };
        if image.is_whole() {
            map.make_readable()?;
        }
        let in_place = file.and_then(|file| WritableImage::in_place(file, map, linkage.layout.at, parts(linkage)));
        match in_place {
            Some(in_place) if *access == Check::Unchecked => Ok(in_place),
            Some(in_place) => check(entry, || {
                let mut sum = entry.begin_sum();
                if let Some(sum) = &mut sum {
                    sum.add_code(in_place.code());
                }
                Ok((sum, in_place))
            }),
            None => copy_image(entry, linkage),
        }
    }

    /// Puts a copy of an entry's tables beside its code.
    fn beside(entry: &Entry<'_>, code: CodeMemory) -> Result<Self, Error> {
        let Body { function_offsets, source_map, catch_clauses, .. } = &entry.body;
        let parts = [
            function_offsets.run().bytes(),
            source_map.as_ref().map_or(&[], |map| map.rows.run().bytes()),
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
        let places = Places {
            function_offsets,
            source_map: source_map.as_ref().map(|_| Rows::new(rows, entry.source_map_digest())),
            try_tables: catch_clauses.as_ref().map(|tables| (tables.try_table_count, clauses, entry.revision)),
            sections: entry.sealed.as_ref().map(|_| sections),
        };
        Ok(Self::over(code, entry.padding(), Tables::of(tables), places))
    }

    fn over(code: CodeMemory, padding: u64, tables: Tables, places: Places) -> Self {
        let Range { start, end } = code.range();
        let start = start.saturating_add(usize::try_from(padding).unwrap_or(usize::MAX)).min(end);
        Self { id: ModuleId::next(), attached: OnceLock::new(), addresses: start..end, padding, code, tables, places }
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

    /// Returns how many bytes of padding stand in front of the engine's code: see [`Entry::padding`].
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
    /// Of a sealed entry its rows are checked the first time that they are asked for, by this or by a lookup, and those that
    /// a load left in the file are read: [`Module::check_source_map`] does it before, and tells what is wrong.
    #[must_use]
    pub fn source_map(&self) -> Option<SourceMap<'_>> {
        let rows = self.places.source_map.as_ref()?;
        let bytes = self.tables.rows(&self.code, &rows.at).ok()?;
        rows.are_sound(bytes).then(|| SourceMap::new(Table::of(Run::new(bytes)), self.padding))
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

    /// Attaches a value of the engine's to the module, once: it is dropped with the module, before the code is unmapped.
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

/// What is attached is the engine's, who sees to it; nothing else of a module changes.
impl UnwindSafe for Module {}
impl RefUnwindSafe for Module {}

/// Checks that the code lies where it was read from.
fn check_place(read: &Range<u64>, place: &Range<u64>) -> Result<(), Error> {
    if read == place {
        return Ok(());
    }
    // The place of the code was told from the same bytes before and after all of them were read.
    let (expected, found) = (Bound::Exactly(read.end), place.end);
    Err(Error::Value { field: Field::Code, at: place.start, expected, found })
}

/// Copies the code of an entry to an image, and checks the copy.
fn copy_image(entry: &Entry<'_>, linkage: &Linkage<'_>) -> Result<WritableImage, Error> {
    check(entry, || {
        let mut sum = entry.begin_sum();
        let image = WritableImage::copy(entry.body.code.bytes(), parts(linkage), |step| {
            if let Some(sum) = &mut sum {
                sum.add_code(step);
            }
        })?;
        Ok((sum, image))
    })
}

/// Checks that the code is for this program's target.
fn check_target(entry: &Entry<'_>) -> Result<(), Error> {
    let (expected, found) = (Target::host(), entry.target());
    if expected == found { Ok(()) } else { Err(Error::Foreign { expected, found }) }
}

/// Copies the code of an entry, and checks the copy.
fn copy(entry: &Entry<'_>) -> Result<CodeMemory, Error> {
    let code = check(entry, || {
        let mut sum = entry.begin_sum();
        let code = WritableCode::copy(
            entry.body.code.bytes(),
            start_of(entry.alignment(), entry.code_range().start),
            |step| {
                if let Some(sum) = &mut sum {
                    sum.add_code(step);
                }
            },
        )?;
        Ok((sum, code))
    })?;
    code.publish()
}

/// Checks the function offsets, the end of the entry, what it is linked to, and the sum that `add` makes of the very bytes that will run, which it
/// returns.
fn check<T>(entry: &Entry<'_>, add: impl FnOnce() -> Result<(Option<Sum>, T), Error>) -> Result<T, Error> {
    entry.check_function_offsets()?;
    entry.check_try_tables()?;
    entry.check_linkage()?;
    let (sum, code) = add()?;
    sum.map_or(Ok(()), |sum| entry.end_sum(sum))?;
    Ok(code)
}

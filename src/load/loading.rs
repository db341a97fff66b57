//! From an entry to a module: what is checked, and where its code comes to lie.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::bytes::FileBytes;
use super::image::{Code, Image, Tables, start_of};
use super::linker::{Linker, parts};
use super::module::Module;
use super::places::{Places, Rows};
use super::source::Source;
use crate::entry::{Entry, Identity, Linkage, Sum};
use crate::error::{Bound, Error, Field, heap};
use crate::file::Trusted;
use crate::format::Body;
use crate::memory::{Access, Check, CodeMemory, WritableCode, WritableImage};
use crate::words::{CpuFeatures, Key, Target, size};

impl Module {
    /// Copies the code of an entry into executable memory, and its tables beside it.
    ///
    /// Function offsets and try tables are checked, and the copy of the code: against its checksum in a plain entry,
    /// against the digest of every byte but the rows of the source map in a sealed one. Those rows are checked when
    /// they are used: see [`Module::check_source_map`].
    ///
    /// # Errors
    ///
    /// Any rejection for the entry: see [`Error::is_rejection`]; [`Error::Foreign`] if its identity is for another
    /// target than this program's; [`Error::LesserProcessor`] if it is sealed and needs features that this machine does
    /// not have; [`Error::UnboundImport`] if it imports anything; [`Error::Memory`] and [`Error::UnsupportedMachine`] for
    /// the machine.
    pub fn load(entry: &Entry<'_>) -> Result<Self, Error> {
        Self::load_with(entry, &Linker::default())
    }

    /// Does the same for an entry that imports what `linker` has.
    ///
    /// Data that the entry has lie behind the code, at the distance that it has in every process. The addresses of
    /// imports are written to slots beside them, and nothing of that but the writable data can be written to after
    /// this.
    ///
    /// # Errors
    ///
    /// Those of [`Module::load`]; [`Error::UnboundImport`] for the first import that `linker` has no address for. The
    /// entry is not at fault then, and stays in its store.
    pub fn load_with(entry: &Entry<'_>, linker: &Linker) -> Result<Self, Error> {
        check_target(entry)?;
        let linkage = entry.linkage()?.filter(Linkage::has_image);
        let code =
            linkage.map_or_else(|| copy(entry), |linkage| linker.link(&linkage, copy_image(entry, &linkage)?))?;
        Self::beside(entry, code)
    }

    /// Opens the file of an entry and makes its code executable, or returns `None` if there is none.
    ///
    /// The code gets pages of its own or runs from the file, as `access` has it. A sealed entry must be bound to `key`;
    /// a plain one does not tell what it is for. What is checked is told at [`Module::load`].
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
        let (is_whole, is_to_run) = (image.is_whole(), image.is_to_run());
        match Self::of(image, identity, key, linker, Some(source)) {
            // What is wrong may lie across two pieces: in one, it is told as it is.
            Err(error) if !is_whole && error.is_rejection() => {
                Self::of(Image::whole(FileBytes::read(source)?), identity, key, linker, None)
            }
            // A file system may let nothing run.
            Err(Error::Memory { .. }) if is_to_run => {
                Self::of_file(source, Access::READ.with_limit(access.limit), identity, key, linker)
            }
            module => module,
        }
    }

    /// Does the same for the bytes of a whole file: code that was read is copied, code that was mapped to run in place
    /// does, unless data lie beside it.
    ///
    /// # Errors
    ///
    /// Those of [`Entry::parse`], [`Entry::check_key`] and [`Module::load`].
    pub fn load_file(file: FileBytes, identity: &Identity, key: &Key) -> Result<Self, Error> {
        Self::load_file_with(file, identity, key, &Linker::default())
    }

    /// Does the same for the bytes of an entry that imports what `linker` has.
    ///
    /// # Errors
    ///
    /// Those of [`Module::load_file`] and [`Module::load_with`].
    pub fn load_file_with(file: FileBytes, identity: &Identity, key: &Key, linker: &Linker) -> Result<Self, Error> {
        Self::of(Image::whole(file), identity, key, linker, None)
    }

    /// Checks the entry that an image is, and makes its code executable where it lies, or copies it; `source` is what it
    /// is of, if that is open.
    fn of(
        mut image: Image,
        identity: &Identity,
        key: &Key,
        linker: &Linker,
        source: Option<&Source<'_>>,
    ) -> Result<Self, Error> {
        let sum = image.sum.take();
        let (copied, places, padding) = {
            let pieces = image.pieces();
            let entry = Entry::read(image.run(&pieces), identity)?;
            entry.check_key(key)?;
            check_target(&entry)?;
            let code = match entry.linkage()?.filter(Linkage::has_image) {
                Some(linkage) => {
                    Some(linker.link(&linkage, Self::checked_image(&image, &entry, &linkage, sum, source)?)?)
                }
                None => Self::checked(&image, &entry, sum, source)?,
            };
            let code = match code {
                Some(code) if !image.tables.are_worth_keeping(&code) => return Self::beside(&entry, code),
                code => code,
            };
            let is_unchecked =
                matches!(image.code, Code::Mapped(_, Check::Unchecked) | Code::InFile(.., Check::Unchecked));
            (code, Places::of(&entry, if is_unchecked { None } else { entry.source_map_digest() }), entry.padding())
        };
        let code = match (copied, image.code) {
            (Some(code), Code::Pages(pages, _)) => code.with_rest(pages)?,
            (Some(code), _) => code,
            (None, Code::Pages(pages, _)) => pages.publish()?,
            (None, _) => CodeMemory::none(),
        };
        Ok(Self::over(code, padding, image.tables, places))
    }

    /// Checks the code of an image, and returns it executable; `None` if it lies in pages that are still to be
    /// published.
    fn checked(
        image: &Image,
        entry: &Entry<'_>,
        sum: Option<Sum>,
        source: Option<&Source<'_>>,
    ) -> Result<Option<CodeMemory>, Error> {
        let place = entry.code_range();
        // Made executable first, while few of its pages have been looked at: each of those costs.
        let (code, access) = match (&image.code, sum, source) {
            (Code::Pages(_, read), Some(sum), _) => {
                check_place(read, &place)?;
                return check(entry, || Ok((Some(sum), None)));
            }
            (Code::InFile(found, promise, access), _, Some(source)) => {
                check_place(found, &place)?;
                let map = source.map_to_run(&place, *promise, *access)?;
                (CodeMemory::in_place(&Arc::new(map), &place)?, *access)
            }
            (Code::Mapped(map, access), ..) if entry.alignment().allows_in_place(place.start) => {
                match CodeMemory::in_place(map, &place) {
                    Ok(code) => (code, *access),
                    // A file system may let nothing run.
                    Err(_) => return copy(entry).map(Some),
                }
            }
            _ => return copy(entry).map(Some),
        };
        if access == Check::Unchecked {
            return Ok(Some(code));
        }
        check_code(entry, code, CodeMemory::bytes).map(Some)
    }

    /// Checks the code of an image, and returns it with room for what it is linked to, where it lies or copied.
    fn checked_image(
        image: &Image,
        entry: &Entry<'_>,
        linkage: &Linkage<'_>,
        sum: Option<Sum>,
        source: Option<&Source<'_>>,
    ) -> Result<WritableImage, Error> {
        let in_place = |source: &Source<'_>, promise| {
            WritableImage::in_place(&source.file, promise, linkage.layout.at, parts(linkage))
        };
        let (in_place, access) = match (&image.code, sum, source) {
            (Code::Pages(pages, read), Some(sum), _) => {
                check_place(read, &entry.code_range())?;
                // What is copied is memory of this process alone.
                return check(entry, || Ok((Some(sum), WritableImage::copy(pages.code(), parts(linkage), |_| {})?)));
            }
            (Code::InFile(found, promise, access), _, Some(source)) => {
                check_place(found, &entry.code_range())?;
                (in_place(source, *promise)?, *access)
            }
            (Code::Mapped(map, access), _, Some(source)) if map.make_readable().is_ok() => {
                match in_place(source, map.promise()) {
                    Ok(image) => (image, *access),
                    Err(_) => return copy_image(entry, linkage),
                }
            }
            _ => return copy_image(entry, linkage),
        };
        if access == Check::Unchecked {
            return Ok(in_place);
        }
        check_code(entry, in_place, WritableImage::code)
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
}

/// Checks that the code lies where it was read from.
fn check_place(read: &Range<u64>, place: &Range<u64>) -> Result<(), Error> {
    if read == place {
        return Ok(());
    }
    // The file was changed between the reads.
    let length = |place: &Range<u64>| place.end.saturating_sub(place.start);
    let (at, expected) = (place.start.saturating_sub(8), Bound::Exactly(length(read)));
    Err(Error::Value { field: Field::CodeLength, at, expected, found: length(place) })
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

/// Checks that the code is for this program's target, and, if it is sealed, for a processor like this machine's.
fn check_target(entry: &Entry<'_>) -> Result<(), Error> {
    let (expected, found) = (Target::host(), entry.target());
    if expected != found {
        return Err(Error::Foreign { expected, found });
    }
    let needed = entry.sealed.as_ref().map_or(0, |sealed| sealed.seal.cpu_features);
    let missing = CpuFeatures::from_bits(found.arch, needed).missing_here();
    if missing.is_empty() { Ok(()) } else { Err(Error::LesserProcessor { missing }) }
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

/// Checks an entry and the `bytes` of its code in the very pages of its file that will run, which it returns.
fn check_code<T>(entry: &Entry<'_>, code: T, bytes: impl FnOnce(&T) -> &[u8]) -> Result<T, Error> {
    check(entry, || {
        let mut sum = entry.begin_sum();
        if let Some(sum) = &mut sum {
            sum.add_code(bytes(&code));
        }
        Ok((sum, code))
    })
}

/// Checks the function offsets, the end of the entry, what it is linked to, and the sum that `add` makes of the very
/// bytes that will run, which it returns.
fn check<T>(entry: &Entry<'_>, add: impl FnOnce() -> Result<(Option<Sum>, T), Error>) -> Result<T, Error> {
    entry.check_function_offsets()?;
    entry.check_try_tables()?;
    entry.check_linkage()?;
    let (sum, code) = add()?;
    sum.map_or(Ok(()), |sum| entry.end_sum(sum))?;
    Ok(code)
}

//! An entry's file in memory: what of it lies where, such that its code can run.

use std::ops::Range;
use std::sync::Arc;

use super::bytes::{Bytes, FileBytes, LARGE_FROM};
use super::left::{Left, LeftRows};
use super::parts::Parts;
use super::source::Source;
use crate::entry::{Alignment, Identity, Sum, read_header};
use crate::error::Error;
use crate::file::failed;
use crate::format::{self, Piece, Run, within};
use crate::memory::{Access, Check, CodeMemory, FileMap, Mode, Start, Unchanging, WritableCode};
use crate::words::{STEP, size};

/// A file in memory, before its code may run.
pub(super) struct Image {
    pub(super) tables: Tables,
    pub(super) code: Code,
    /// The sum of the file up to the end of the code, if that was read into pages.
    pub(super) sum: Option<Sum>,
    /// Length of the file, in bytes.
    length: u64,
}

/// Where the code of a file lies.
pub(super) enum Code {
    /// With the rest of the file, so that it has to be copied.
    Beside,
    /// In pages of its own, and where in the file it is.
    Pages(WritableCode, Range<u64>),
    /// In the file's pages, with the rest of the file.
    Mapped(Arc<FileMap>, Check),
    /// There in the file, from which it is to run; it is mapped when it is known whether data lie beside it.
    InFile(Range<u64>, Unchanging, Check),
}

/// What is around the code of a file, in which the tables of a module lie.
#[derive(Debug, Default)]
pub(super) struct Tables {
    parts: Parts,
    whole: Option<FileBytes>,
    /// Where in the file that begins which was read into the pages of the code.
    rest_at: Option<u64>,
    left: Option<Box<LeftRows>>,
}

/// How much is read of the start of a file, in bytes: with five hundred functions.
const START: u64 = 4096 + 512;

/// How much is read of a place that is looked at in a file whose code is not checked, in bytes: seal and footer fit in
/// it, with little metadata.
const PIECE: u64 = 512;

/// Length of the longest part in front of code that runs in place, or behind any code, that is read by itself, in
/// bytes.
const MOST: u64 = 20 * 1024;

/// A source map of more than so many bytes is worth keeping the file open for, from which it can be read when it is
/// needed.
const MOST_ROWS: u64 = 1 << 20;

/// Length of the longest file that is mapped executable as a whole before its code is checked, in bytes: on most of its
/// pages there is code.
const SHORT: u64 = 256 * 1024;

impl Image {
    /// Brings a file into memory as `access` has it.
    ///
    /// Magic and version are compared before more than the start of a large file is read.
    pub(super) fn of(source: &Source<'_>, access: Access, identity: &Identity) -> Result<Self, Error> {
        access.check_length(source.length())?;
        let mode = source.mode(access);
        if let Mode::InPlace(promise, check) = mode
            && let Some(image) = Self::in_place(source, promise, check, identity)?
        {
            return Ok(image);
        }
        if source.length() < LARGE_FROM {
            return FileBytes::read(source).map(Self::whole);
        }
        if let Mode::Map(promise) = mode {
            return source.map(promise).map(|map| Self::whole(FileBytes(Bytes::Mapped(Arc::new(map), None))));
        }
        Self::read(source, identity)
    }

    /// Takes a whole file.
    pub(super) fn whole(file: FileBytes) -> Self {
        let code = match &file.0 {
            Bytes::Mapped(map, Some(check)) => Code::Mapped(Arc::clone(map), *check),
            Bytes::Mapped(_, None) | Bytes::Read(_) | Bytes::Pages(..) => Code::Beside,
        };
        let length = size(&file);
        Self { tables: Tables { whole: Some(file), ..Tables::default() }, code, sum: None, length }
    }

    /// Reads a file of which the code gets pages of its own, and sums that while it is at hand. No byte stays in memory
    /// twice.
    fn read(source: &Source<'_>, identity: &Identity) -> Result<Self, Error> {
        let mut tables = Tables::default();
        tables.read_start(source, START, identity)?;
        let Some(code) = tables.read_to_code(source, u64::MAX)? else {
            return FileBytes::read(source).map(Self::whole);
        };
        tables.parts.keep_head(code.start);
        let length = source.length();
        let rows = tables.read_to_rows(source, code.end)?;
        if rows.is_none() {
            tables.parts.keep_head(code.start);
        }
        let rest = rows.as_ref().map_or(code.end, |rows| rows.end)..length;
        let is_long = rest.end.saturating_sub(rest.start) > MOST;
        tables.rest_at = is_long.then_some(rest.start);
        let [code_length, rest_length] =
            [&code, &rest].map(|part| usize::try_from(part.end.saturating_sub(part.start)).unwrap_or(usize::MAX));
        let rest_length = if is_long { rest_length } else { 0 };
        let mut pages = WritableCode::allocate(code_length, start_of(identity.alignment(), code.start), rest_length)?;
        pages.advise_code(0..code_length);
        let mut sum = identity.begin_sum();
        sum.add_head(tables.parts.part(&(0..code.start)).unwrap_or_default());
        let mut at = code.start;
        for step in pages.code_mut().chunks_mut(STEP) {
            source.read(step, at)?;
            sum.add_code(step);
            at = at.saturating_add(size(step));
        }
        if is_long {
            pages.advise_rest(0..rest_length);
            source.read(pages.rest_mut(), rest.start)?;
        } else {
            tables.parts.read(source, rest)?;
        }
        if let Some(rows) = rows {
            tables.leave(source, rows, Left::ToRead(source.path.into()))?;
        }
        Ok(Self { tables, code: Code::Pages(pages, code), sum: Some(sum), length })
    }

    /// Leaves the code of a file where it is to run, and reads what is around it where that costs less than mapping it;
    /// `None` if it cannot run there.
    fn in_place(
        source: &Source<'_>,
        promise: Unchanging,
        check: Check,
        identity: &Identity,
    ) -> Result<Option<Self>, Error> {
        let (file, length, is_checked) = (&source.file, source.length(), check == Check::Checked);
        if length == 0 || !identity.may_run_in_place() {
            return Ok(None);
        }
        // Unless every file has its code aligned, the start of this one tells.
        if is_checked && length <= SHORT && identity.alignment().in_file {
            let map = FileMap::to_run(file, &(0..length), promise, check).ok();
            return Ok(map.map(|map| Self::whole(FileBytes(Bytes::Mapped(Arc::new(map), Some(check))))));
        }
        let mut tables = Tables { parts: Parts::with_room(2 * PIECE + START)?, ..Tables::default() };
        let start = if is_checked || length <= START { START } else { PIECE };
        tables.read_start(source, start, identity)?;
        let Some(code) = tables.read_to_code(source, if is_checked { MOST } else { start })? else { return Ok(None) };
        if code.is_empty() || !identity.alignment().allows_in_place(code.start) {
            return Ok(None);
        }
        let mut is_around_read = tables.parts.part(&(0..code.start)).is_some();
        let mut rest_at = code.end;
        if !is_checked && let Some(rows) = tables.read_to_rows(source, code.end)? {
            rest_at = rows.end;
            tables.leave(source, rows, Left::ToMap(promise))?;
        }
        if length.saturating_sub(rest_at) <= MOST {
            tables.parts.read(source, rest_at..length)?;
        } else {
            is_around_read = false;
            if !is_checked {
                tables.read_seal(source, rest_at)?;
            }
        }
        if !is_around_read {
            tables.whole = Some(FileBytes(Bytes::Mapped(Arc::new(source.map(promise)?), None)));
        }
        Ok(Some(Self { tables, code: Code::InFile(code, promise, check), sum: None, length }))
    }

    /// Returns what of the file is in memory. What was read comes first: a look at it costs no page fault.
    pub(super) fn pieces(&self) -> [Piece<'_>; Parts::MOST + 3] {
        let [a, b, c, d, e, f] = self.tables.parts.pieces();
        let (code, rest) = match &self.code {
            Code::Pages(pages, code) => ((code.start, pages.code()), pages.rest()),
            Code::Beside | Code::Mapped(..) | Code::InFile(..) => ((0, &[][..]), &[][..]),
        };
        let whole = self.tables.whole.as_deref().unwrap_or_default();
        [a, b, c, d, e, f, code, (self.tables.rest_at.unwrap_or(0), rest), (0, whole)]
    }

    /// Returns whether code is to run from the file, which the system may refuse then.
    pub(super) const fn is_to_run(&self) -> bool {
        matches!(self.code, Code::InFile(..))
    }

    /// Returns whether all of the file lies in one piece.
    pub(super) fn is_whole(&self) -> bool {
        self.tables.parts.is_empty()
    }

    /// Returns the file as an entry is read from it.
    pub(super) fn run<'a>(&'a self, pieces: &'a [Piece<'a>]) -> Run<'a> {
        match &self.tables.whole {
            Some(whole) if self.is_whole() => Run::new(whole),
            _ => Run::in_pieces(self.length, pieces),
        }
    }
}

/// Returns where code begins in memory that lies at `at` in its file.
pub(super) fn start_of(alignment: Alignment, at: u64) -> Start {
    let displacement = alignment.displacement(at);
    Start { alignment: usize::try_from(alignment.of_code()).unwrap_or(1), displacement }
}

impl Tables {
    /// Keeps bytes of the heap.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { whole: Some(bytes.into()), ..Self::default() }
    }

    /// Reads the start of the file, and compares magic and version.
    fn read_start(&mut self, source: &Source<'_>, length: u64, identity: &Identity) -> Result<(), Error> {
        let start = self.parts.read(source, 0..length)?;
        read_header(Run::in_pieces(source.length(), &[(0, start)]), identity).map(drop)
    }

    /// Reads what is in front of the code, if that is no more than `most` bytes, and returns where the code lies;
    /// `None` if the file has no such place.
    fn read_to_code(&mut self, source: &Source<'_>, most: u64) -> Result<Option<Range<u64>>, Error> {
        let start = self.parts.part(&(0..PIECE.min(source.length()))).unwrap_or_default();
        let Some(at) = format::code_at(start).filter(|&at| at <= source.length()) else { return Ok(None) };
        let from = if at <= most { 0 } else { at.saturating_sub(8) };
        let code = format::code_range(self.parts.read(source, from..at)?, at);
        Ok(code.filter(|code| code.end <= source.length()))
    }

    /// Leaves the rows of the source map in the file.
    fn leave(&mut self, source: &Source<'_>, rows: Range<u64>, how: Left) -> Result<(), Error> {
        let file = source.file.try_clone().map_err(failed("open", source.path))?;
        self.left = Some(Box::new(LeftRows::new(file, rows, how)?));
        Ok(())
    }

    /// Returns where the rows of the source map lie behind code that ends at `at`, if they are worth being left in the
    /// file; what is in front of them is read then.
    fn read_to_rows(&mut self, source: &Source<'_>, at: u64) -> Result<Option<Range<u64>>, Error> {
        if source.length().saturating_sub(at) <= MOST_ROWS {
            return Ok(None);
        }
        let behind = self.parts.read(source, at..at.saturating_add(format::ROWS_BEHIND_CODE))?;
        let rows = format::rows_place(behind, at);
        Ok(rows.filter(|rows| rows.end <= source.length() && rows.end.saturating_sub(rows.start) > MOST_ROWS))
    }

    /// Reads what is looked at of a file whose code is not checked, of which `rest_at` is the end of the code or of its
    /// rows.
    fn read_seal(&mut self, source: &Source<'_>, rest_at: u64) -> Result<(), Error> {
        let length = source.length();
        let behind = self.parts.read(source, rest_at..rest_at.saturating_add(PIECE))?;
        if let Some(rows) = format::rows_place(behind, rest_at) {
            self.parts.read(source, rows.end..rows.end.saturating_add(PIECE))?;
        }
        let end = self.parts.read(source, length.saturating_sub(PIECE)..length)?;
        if let Some(seal) = format::seal_place(end, length) {
            self.parts.read(source, seal..seal.saturating_add(PIECE))?;
        }
        Ok(())
    }

    /// Returns a part of the file; `code` is the code of the same file.
    pub(super) fn part<'a>(&'a self, code: &'a CodeMemory, part: &Range<u64>) -> Run<'a> {
        let length = part.end.saturating_sub(part.start);
        let from = |at: u64, bytes: &'a [u8]| within(bytes, part.start.checked_sub(at)?, length);
        let bytes = self
            .parts
            .part(part)
            .or_else(|| from(0, self.whole.as_deref()?))
            .or_else(|| from(self.rest_at?, code.rest()));
        Run::new_at(part.start, bytes.unwrap_or_default())
    }

    /// Returns the rows of the source map, which lie at `rows` of the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] if they have to be read first.
    pub(super) fn rows<'a>(&'a self, code: &'a CodeMemory, rows: &Range<u64>) -> Result<&'a [u8], Error> {
        self.left.as_ref().map_or_else(|| Ok(self.part(code, rows).bytes()), |left| left.read())
    }

    /// Returns whether it is worth keeping the file for the tables of an entry with this code.
    ///
    /// Not if the tables are the smaller part of bytes of the heap; and not if all of a map is executable of which no
    /// code runs.
    pub(super) fn are_worth_keeping(&self, code: &CodeMemory) -> bool {
        match self.whole.as_ref().map(|whole| &whole.0) {
            Some(Bytes::Read(bytes)) => code.bytes().len() <= bytes.len() / 2,
            Some(Bytes::Mapped(map, _)) => code.is_in_place() || !map.is_executable(),
            Some(Bytes::Pages(..)) | None => true,
        }
    }
}

#[cfg(test)]
#[cfg(not(target_arch = "powerpc64"))]
mod tests {
    use super::*;
    use crate::entry::Builder;
    use crate::file::Trusted;
    use crate::words::Key;

    #[test]
    fn no_byte_of_a_file_that_is_read_is_in_memory_twice_so_that_what_is_used_is_what_was_checked() {
        let path = std::env::temp_dir().join(format!("jitcache-image-{}", std::process::id()));
        let identity = Identity::new("image", *b"IMAGES", "1").unwrap().with_function_alignment(1).unwrap();
        // Functions, bytes of code, rows, bytes of metadata: what is in front of the code, it, and what is behind it may
        // each end within what is read first.
        for (functions, code, rows, metadata) in [
            (1, 100, 0, 100_000),
            (1, 1000, 10, 70_000),
            (1, 5000, 5000, 9),
            (1, 100_000, 1, 10),
            (1, 100_000, 100_000, 10),
            (2000, 2000, 10, 100_000),
            (2000, 100_000, 70_000, 30_000),
            (2000, 3000, 3000, 9),
            (1, 100, 0, 2_000_000),
        ] {
            let mut builder = Builder::new();
            builder.code(vec![0xcc; code]).metadata(&vec![5; metadata]);
            for offset in 0..functions {
                builder.function(offset);
            }
            for row in 0..rows {
                builder.source(row, row);
            }
            let key = Key::from_bytes([1; 32]);
            std::fs::write(&path, builder.finish(&identity, &key).unwrap().to_vec()).unwrap();
            let source = Source::open(&path, &Trusted::ANYONE).unwrap().unwrap();
            let image = Image::of(&source, Access::READ, &identity).unwrap();
            let mut places = image.pieces().map(|(at, bytes)| at..at + size(bytes)).to_vec();
            places.retain(|place| !place.is_empty());
            places.sort_by_key(|place| place.start);
            let case = (functions, code, rows, metadata);
            assert!(!image.is_whole() && places.len() > 2, "{case:?}");
            assert!(places.is_sorted_by(|before, after| before.end <= after.start), "{case:?}: {places:?}");
            assert_eq!(places.first().map(|place| place.start), Some(0), "{case:?}: {places:?}");
            assert_eq!(places.last().map(|place| place.end), Some(source.length()), "{case:?}: {places:?}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}

//! The bytes of an entry's file in memory.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::around::Around;
use crate::error::{Bound, Error, Field};
use crate::file::{failed, open, read_at};
use crate::format::{Pieces, Section};
use crate::heap;
use crate::memory::{Access, Check, CodeMemory, FileMap, FilePages, Mode, Unchanging};

/// The bytes of an entry's file, read into memory or mapped.
pub struct FileBytes(Bytes);

enum Bytes {
    Read(Vec<u8>),
    /// Read into pages in which the code can run; but for the source map, if that was left.
    Pages(Arc<FilePages>, Option<Box<LeftRows>>),
    /// Mapped; with what to check before code runs from the map, if it may.
    Mapped(Arc<FileMap>, Option<Check>),
    /// Mapped as far as it is not better read.
    InPieces(Box<FilePieces>),
}

/// Files below this size are read and their code copied, even where they may be mapped: that costs less than the system
/// calls and page faults.
const LARGE_FROM: u64 = 64 * 1024;

/// A source map of more than so many bytes is worth keeping the file open for, from which it can be read when it is needed.
const MOST_ROWS: u64 = 1 << 20;

impl FileBytes {
    /// Opens a file and reads or maps it, or returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`] for a link, a directory and anything else that is no regular file; [`Error::Value`] for one that
    /// is larger than [`Access::with_limit`] has it; [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn open(path: &Path, access: Access) -> Result<Option<Self>, Error> {
        open(path)?.map(|(file, id)| Self::of(file, id.length, path, access)).transpose()
    }

    /// Reads or maps a file of so many bytes, whose path is for errors.
    pub(crate) fn of(file: File, length: u64, path: &Path, access: Access) -> Result<Self, Error> {
        Self::of_for(file, length, path, access, false)
    }

    /// Does the same for a load: a large source map may be left, which [`FileBytes::rows`] reads, and a map be executable.
    pub(crate) fn of_to_load(file: File, length: u64, path: &Path, access: Access) -> Result<Self, Error> {
        Self::of_for(file, length, path, access, true)
    }

    fn of_for(file: File, length: u64, path: &Path, access: Access, is_load: bool) -> Result<Self, Error> {
        if length > access.limit {
            let expected = Bound::AtMost(access.limit);
            return Err(Error::Value { field: Field::File, at: 0, expected, found: length });
        }
        let refused = |action| move |source| Error::Memory { action, length, source };
        let bytes = usize::try_from(length).map_err(|_| refused("allocate")(ErrorKind::OutOfMemory.into()))?;
        let bytes = match access.mode {
            // There is nothing to map in an empty file.
            Mode::InPlace(promise, check) if length > 0 => {
                let map = if is_load { Bytes::to_run } else { Bytes::to_read };
                map(file, length, promise, check).map_err(refused("map"))?
            }
            Mode::Map(promise) if length >= LARGE_FROM => {
                let map = FileMap::to_read(&file, &(0..length), promise).map_err(refused("map"))?;
                Bytes::Mapped(Arc::new(map), None)
            }
            _ if length >= LARGE_FROM => {
                // Elsewhere a file is not read at an offset.
                let most_rows = if is_load && cfg!(unix) { MOST_ROWS } else { u64::MAX };
                let pages = FilePages::read(&file, bytes, most_rows)?.map_err(failed("read", path))?;
                let left = pages.left_rows().map(|at| Box::new(LeftRows::new(file, at, Left::ToRead(path.into()))));
                Bytes::Pages(Arc::new(pages), left)
            }
            _ => {
                let mut read = Vec::new();
                heap::reserve(&mut read, bytes)?;
                // No further than the length that was asked for: a file that grows meanwhile is not what was opened.
                file.take(length).read_to_end(&mut read).map_err(failed("read", path))?;
                Bytes::Read(read)
            }
        };
        Ok(Self(bytes))
    }

    /// Returns where the code may run without being copied.
    pub(crate) const fn place(&self) -> Place<'_> {
        match &self.0 {
            Bytes::Read(_) | Bytes::Mapped(_, None) => Place::Elsewhere,
            Bytes::Pages(pages, _) => Place::Pages(pages),
            Bytes::Mapped(map, Some(check)) => Place::Map(map, *check),
            Bytes::InPieces(pieces) => Place::Map(&pieces.map, pieces.check),
        }
    }

    /// Returns the file as an entry is read from it.
    pub(crate) fn section(&self) -> Section<'_> {
        match &self.0 {
            Bytes::InPieces(pieces) => Section::in_pieces(pieces.around.length(), &**pieces),
            _ => Section::new(self),
        }
    }

    /// Returns the rows of the source map, which lie at `range` of the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] if they have to be read first.
    pub(crate) fn rows(&self, range: &Range<u64>) -> Result<&[u8], Error> {
        let left = match &self.0 {
            Bytes::Pages(_, left) => left.as_deref(),
            Bytes::InPieces(pieces) => pieces.left.as_ref(),
            Bytes::Read(_) | Bytes::Mapped(..) => None,
        };
        left.map_or_else(|| Ok(self.section().part(range).bytes()), |left| left.read())
    }

    /// Returns whether it is worth keeping the bytes for the tables of an entry whose code is `code`.
    ///
    /// Not if the tables are the smaller part of bytes that were read; and not if all of a map is executable of which no code
    /// runs.
    pub(crate) fn are_worth_keeping(&self, code: &CodeMemory) -> bool {
        match (&self.0, self.place()) {
            (Bytes::Read(bytes), _) => code.bytes().len() <= bytes.len() / 2,
            (_, Place::Map(map, _)) => code.is_in_place() || !map.is_executable(),
            _ => true,
        }
    }
}

impl Bytes {
    /// Maps a file from which code may run.
    fn to_read(file: File, length: u64, promise: Unchanging, check: Check) -> io::Result<Self> {
        let map = Arc::new(FileMap::to_read(&file, &(0..length), promise)?);
        Ok(match check {
            Check::Checked(_) => Self::Mapped(map, Some(check)),
            Check::VouchedFor => {
                let mut around = Around::new(length);
                // It is all mapped, whatever is read besides.
                let _ = around.read_all_but_code(&file, MOST_ROWS);
                Self::InPieces(Box::new(FilePieces { map, check, around, left: None }))
            }
        })
    }

    /// Does the same for a load, and reads what costs less so than to be mapped: what is in front of code that is to be checked,
    /// if that has pages of its own, and what is behind it.
    fn to_run(file: File, length: u64, promise: Unchanging, check: Check) -> io::Result<Self> {
        let whole = || FileMap::to_run(&file, &(0..length), promise, check).map(Arc::new);
        let is_vouched_for = check == Check::VouchedFor;
        if !is_vouched_for && length <= FileMap::SHORT {
            return Ok(Self::Mapped(whole()?, Some(check)));
        }
        let mut around = Around::new(length);
        let (map, rows) = if is_vouched_for {
            match around.read_all_but_code(&file, MOST_ROWS) {
                Some((end, rows)) => (Arc::new(FileMap::to_run(&file, &(0..end), promise, check)?), rows),
                None => (whole()?, None),
            }
        } else {
            let pages = around.read_all_but_pages_of_code(&file);
            match pages.and_then(|pages| FileMap::of_code(&file, &pages, promise).ok()) {
                Some(map) => (Arc::new(map), None),
                None => return Ok(Self::Mapped(whole()?, Some(check))),
            }
        };
        let left = rows.map(|at| LeftRows::new(file, at, Left::ToMap(promise)));
        Ok(Self::InPieces(Box::new(FilePieces { map, check, around, left })))
    }
}

/// The rows of a source map that stay in their file until they are needed.
#[derive(Debug)]
struct LeftRows {
    file: File,
    at: Range<u64>,
    how: Left,
    /// Set once they were read. Nobody waits for another one's reading, because what is looked up may be in a signal handler.
    rows: OnceLock<FileBytes>,
}

/// How to get what was left in a file.
#[derive(Debug)]
enum Left {
    /// The path is what errors tell.
    ToRead(PathBuf),
    ToMap(Unchanging),
}

impl LeftRows {
    const fn new(file: File, at: Range<u64>, how: Left) -> Self {
        Self { file, at, how, rows: OnceLock::new() }
    }

    fn read(&self) -> Result<&[u8], Error> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows);
        }
        let length = self.at.end.saturating_sub(self.at.start);
        let rows = match &self.how {
            Left::ToRead(path) => {
                let (mut rows, length) = (Vec::new(), usize::try_from(length).unwrap_or(usize::MAX));
                heap::reserve(&mut rows, length)?;
                rows.resize(length, 0);
                read_at(&self.file, &mut rows, self.at.start).map_err(failed("read", path))?;
                Bytes::Read(rows)
            }
            Left::ToMap(promise) => {
                let refused = |source| Error::Memory { action: "map", length, source };
                Bytes::Mapped(Arc::new(FileMap::to_read(&self.file, &self.at, *promise).map_err(refused)?), None)
            }
        };
        Ok(self.rows.get_or_init(|| FileBytes(rows)))
    }
}

/// A file of which the code is mapped, to run there.
#[derive(Debug)]
struct FilePieces {
    map: Arc<FileMap>,
    check: Check,
    around: Around,
    /// If neither has them.
    left: Option<LeftRows>,
}

impl Pieces for FilePieces {
    fn at_hand(&self, at: u64, length: u64) -> Option<&[u8]> {
        let part = at..at.checked_add(length)?;
        let mapped = || if self.check == Check::VouchedFor { None } else { self.map.part(&part) };
        self.around.part(&part).or_else(mapped)
    }

    fn mapped(&self, at: u64, length: u64) -> Option<&[u8]> {
        self.map.part(&(at..at.checked_add(length)?))
    }
}

/// Where code may run without being copied.
pub(crate) enum Place<'a> {
    Elsewhere,
    Pages(&'a Arc<FilePages>),
    Map(&'a Arc<FileMap>, Check),
}

impl Place<'_> {
    /// Returns the address that a part of the file has there.
    pub(crate) fn address(&self, part: &Range<u64>) -> Option<usize> {
        let bytes = match self {
            Self::Elsewhere => None,
            Self::Pages(pages) => Some(Section::new(pages.bytes()).part(part).bytes()),
            Self::Map(map, _) => map.part(part),
        };
        bytes.map(|bytes| bytes.as_ptr().addr())
    }
}

impl From<Vec<u8>> for FileBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::Read(bytes))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Read(bytes) => bytes,
            Bytes::Pages(pages, _) => pages.bytes(),
            Bytes::Mapped(map, _) => map,
            // Only a load leaves parts out, and shows nobody.
            Bytes::InPieces(pieces) => &pieces.map,
        }
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match &self.0 {
            Bytes::Read(_) => "read",
            Bytes::Pages(_, None) => "read into pages",
            Bytes::Pages(_, Some(_)) => "read into pages, but for the source map",
            Bytes::Mapped(_, None) => "mapped",
            Bytes::Mapped(_, Some(_)) => "mapped to run in place",
            Bytes::InPieces(_) => "mapped to run in place, but for what is around the code",
        };
        write!(f, "FileBytes({} bytes, {how})", self.section().length())
    }
}

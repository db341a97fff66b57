//! The bytes of an entry's file in memory.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{Bound, Error, Field};
use crate::file::{failed, open, read_at};
use crate::format::Section;
use crate::heap;
use crate::memory::{self, Access, Check, FilePages, Mode};

/// The bytes of an entry's file, read into memory or mapped.
pub struct FileBytes(Bytes);

enum Bytes {
    Read(Vec<u8>),
    /// Read into pages in which the code can run; but for the source map, if that was left.
    Pages(Arc<FilePages>, Option<LeftRows>),
    /// Mapped; with what to check before code runs from the map, if it may.
    Mapped(Arc<memmap2::Mmap>, Option<Check>),
}

/// Files below this size are read and their code copied, even where they may be mapped: that costs less than the system
/// calls and page faults.
const LARGE_FROM: u64 = 64 * 1024;

/// A source map of more than so many bytes is worth keeping the file open for, from which it can be read when it is needed.
const MOST_ROWS: u64 = if cfg!(unix) { 1 << 20 } else { u64::MAX };

impl FileBytes {
    /// Opens a file and reads or maps it, or returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`] for a link, a directory and anything else that is no regular file; [`Error::Value`] for one that
    /// is larger than [`Access::with_limit`] has it; [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn open(path: &Path, access: Access) -> Result<Option<Self>, Error> {
        Self::open_but_for_rows(path, access, u64::MAX)
    }

    /// Does the same for a load, which needs no source map: a large one may be left. [`FileBytes::rows`] reads it.
    pub(crate) fn open_to_load(path: &Path, access: Access) -> Result<Option<Self>, Error> {
        Self::open_but_for_rows(path, access, MOST_ROWS)
    }

    fn open_but_for_rows(path: &Path, access: Access, most_rows: u64) -> Result<Option<Self>, Error> {
        let Some((file, length)) = open(path)? else { return Ok(None) };
        if length > access.limit {
            let expected = Bound::AtMost(access.limit);
            return Err(Error::Value { field: Field::File, at: 0, expected, found: length });
        }
        let refused = |action| move |source| Error::Memory { action, length, source };
        let bytes = usize::try_from(length).map_err(|_| refused("allocate")(ErrorKind::OutOfMemory.into()))?;
        let map = |promise| memory::map(&file, bytes, promise).map(Arc::new).map_err(refused("map"));
        let bytes = match access.mode {
            // There is nothing to map in an empty file.
            Mode::InPlace(promise, check) if length > 0 => Bytes::Mapped(map(promise)?, Some(check)),
            Mode::Map(promise) if length >= LARGE_FROM => Bytes::Mapped(map(promise)?, None),
            _ if length >= LARGE_FROM => {
                let pages = FilePages::read(&file, bytes, most_rows)?.map_err(failed("read", path))?;
                let left = |at| LeftRows { file, path: path.into(), at, rows: OnceLock::new() };
                let left = pages.left_rows().map(left);
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
        Ok(Some(Self(bytes)))
    }

    /// Returns where the code may run without being copied.
    pub(crate) const fn place(&self) -> Place<'_> {
        match &self.0 {
            Bytes::Read(_) | Bytes::Mapped(_, None) => Place::Elsewhere,
            Bytes::Pages(pages, _) => Place::Pages(pages),
            Bytes::Mapped(map, Some(check)) => Place::Map(map, *check),
        }
    }

    /// Returns the rows of the source map, which lie at `range` of the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] if they have to be read first.
    pub(crate) fn rows(&self, range: &Range<u64>) -> Result<&[u8], Error> {
        match &self.0 {
            Bytes::Pages(_, Some(left)) => left.read(),
            _ => Ok(Section::of(self, range).bytes()),
        }
    }

    /// Returns whether the bytes are a copy that serves nothing but the tables, once the code has been copied.
    pub(crate) const fn is_copy(&self) -> bool {
        matches!(self.0, Bytes::Read(_))
    }
}

/// The rows of a source map that stay in their file until they are needed.
struct LeftRows {
    file: File,
    path: PathBuf,
    at: Range<u64>,
    /// Set once they were read. Nobody waits for another one's reading, because what is looked up may be in a signal handler.
    rows: OnceLock<Vec<u8>>,
}

impl LeftRows {
    fn read(&self) -> Result<&[u8], Error> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows);
        }
        let length = usize::try_from(self.at.end.saturating_sub(self.at.start)).unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        heap::reserve(&mut rows, length)?;
        rows.resize(length, 0);
        read_at(&self.file, &mut rows, self.at.start).map_err(failed("read", &self.path))?;
        Ok(self.rows.get_or_init(|| rows))
    }
}

/// Where code may run without being copied.
pub(crate) enum Place<'a> {
    Elsewhere,
    Pages(&'a Arc<FilePages>),
    Map(&'a Arc<memmap2::Mmap>, Check),
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
        };
        write!(f, "FileBytes({} bytes, {how})", self.len())
    }
}

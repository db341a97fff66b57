//! Rows of a source map that stay in their file until they are needed.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::bytes::{Bytes, FileBytes};
use super::source::refused;
use crate::error::{Error, heap};
use crate::file::{failed, read_at};
use crate::memory::{FileMap, Unchanging, most_open_files};

/// The rows of a source map that were left in their file, which is open until they were read.
#[derive(Debug)]
pub(super) struct LeftRows {
    file: Mutex<Option<Arc<LeftFile>>>,
    at: Range<u64>,
    how: Left,
    /// Set once they were read. Nobody waits for another one's reading.
    rows: OnceLock<FileBytes>,
}

/// How to get what was left in a file.
#[derive(Debug)]
pub(super) enum Left {
    /// The path is what errors tell.
    ToRead(PathBuf),
    ToMap(Unchanging),
}

/// A file that is kept open, as few at a time are.
#[derive(Debug)]
struct LeftFile(File);

/// How many files are kept open now.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// The most files that are kept open, unless an eighth of what the process may open is less.
const MOST_OPEN: u64 = 64;

impl LeftFile {
    /// Keeps a file open, or gives it back if enough are.
    fn keep(file: File) -> Result<Self, File> {
        let most = MOST_OPEN.min(most_open_files() / 8);
        if OPEN.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(Self(file));
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
        Err(file)
    }
}

impl Drop for LeftFile {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LeftRows {
    /// Leaves rows in their file; reads them at once if enough files are open.
    pub(super) fn new(file: File, at: Range<u64>, how: Left) -> Result<Self, Error> {
        let left = |file, rows| Self { file: Mutex::new(file), at: at.clone(), how, rows };
        match LeftFile::keep(file) {
            Ok(file) => Ok(left(Some(Arc::new(file)), OnceLock::new())),
            Err(file) => {
                let rows = left(None, OnceLock::new());
                let read = rows.read_from(&file)?;
                Ok(Self { rows: OnceLock::from(read), ..rows })
            }
        }
    }

    pub(super) fn read(&self) -> Result<&[u8], Error> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows);
        }
        // The lock is held for no longer than counting another reader takes.
        let file = self.lock().clone();
        if let Some(file) = file {
            let rows = self.read_from(&file.0)?;
            let _ = self.rows.set(rows);
            *self.lock() = None;
        }
        // Where the file is closed the rows are there.
        Ok(self.rows.get().map_or(&[], |rows| rows))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<LeftFile>>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_from(&self, file: &File) -> Result<FileBytes, Error> {
        let length = self.at.end.saturating_sub(self.at.start);
        Ok(FileBytes(match &self.how {
            Left::ToRead(path) => {
                let (mut rows, length) = (Vec::new(), usize::try_from(length).unwrap_or(usize::MAX));
                heap::reserve(&mut rows, length)?;
                rows.resize(length, 0);
                read_at(file, &mut rows, self.at.start).map_err(failed("read", path))?;
                Bytes::Read(rows)
            }
            Left::ToMap(promise) => {
                let map = FileMap::to_read(file, &self.at, *promise).map_err(refused("map", length))?;
                Bytes::Mapped(Arc::new(map), None)
            }
        }))
    }
}

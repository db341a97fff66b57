//! A file that is being loaded.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Field};
use crate::file::{FileId, Trusted, failed, open, read_at, touch};
use crate::memory::{self, Access, Check, FileMap, Mode, Unchanging};
use crate::words::size;

/// A file that is being loaded.
pub(crate) struct Source<'a> {
    pub(super) file: File,
    pub(super) path: &'a Path,
    pub(crate) id: FileId,
}

impl<'a> Source<'a> {
    /// Opens a file of somebody who is trusted, or returns `None` if there is none.
    pub(crate) fn open(path: &'a Path, trusted: &Trusted) -> Result<Option<Self>, Error> {
        Ok(open(path, trusted)?.map(|(file, id)| Self { file, path, id }))
    }

    /// Marks the file as used, for whoever wants to know which ones are.
    pub(crate) fn touch(&self) {
        touch(&self.file, self.id);
    }

    /// Returns the length of the file when it was opened, in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.id.length
    }

    /// Returns how the file gets into memory that is to be opened with `access`: by reading where it should not be
    /// mapped.
    pub(super) fn mode(&self, access: Access) -> Mode {
        match access.mode {
            Mode::Map(_) | Mode::InPlace(..) if memory::are_scarce() || !self.is_local() => Mode::Read,
            Mode::InPlace(..) if memory::is_hardened() => Mode::Read,
            mode => mode,
        }
    }

    fn is_local(&self) -> bool {
        memory::is_local_on(self.id.device(), &self.file)
    }

    /// Maps all of the file for reading.
    pub(super) fn map(&self, promise: Unchanging) -> Result<FileMap, Error> {
        FileMap::to_read(&self.file, &(0..self.length()), promise).map_err(refused("map", self.length()))
    }

    /// Maps the pages of the file that hold its code, for running that.
    pub(super) fn map_to_run(&self, code: &Range<u64>, promise: Unchanging, check: Check) -> Result<FileMap, Error> {
        let pages = FileMap::pages_of(code, self.length());
        FileMap::to_run(&self.file, &pages, promise, check)
            .map_err(refused("map", pages.end.saturating_sub(pages.start)))
    }

    /// Reads the bytes of the file from `at` on.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] if the file has become shorter, [`Error::Io`] from the system.
    pub(super) fn read(&self, to: &mut [u8], at: u64) -> Result<(), Error> {
        read_part(&self.file, self.path, to, at)
    }
}

/// Reads the bytes of a file from `at` on, as [`Source::read`] does.
pub(super) fn read_part(file: &File, path: &Path, to: &mut [u8], at: u64) -> Result<(), Error> {
    read_at(file, to, at).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            let (expected, found) = (size(to), length.saturating_sub(at));
            Error::Truncated { field: Field::File, at, expected, found }
        }
        _ => failed("read", path)(error),
    })
}

/// Returns the error for memory of that length that the system refused.
pub(super) fn refused(action: &'static str, length: u64) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Memory { action, length, source: memory::explained(source) }
}

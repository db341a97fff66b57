//! The bytes of a whole file, for whoever wants to look at an entry.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use super::source::{Source, refused};
use crate::error::{Bound, Error, Field, heap};
use crate::file::{Trusted, failed};
use crate::memory::{Access, Check, FileMap, Mode, Pages, WritablePages};

/// The bytes of an entry's file, read into memory or mapped.
///
/// They keep their address as long as the value lives, wherever it is moved. What was read is copied from the file;
/// what was mapped is the file, under the promise of [`Access::map`].
pub struct FileBytes(pub(super) Bytes);

pub(super) enum Bytes {
    Read(Vec<u8>),
    /// Read into pages, which are large and read-only; the file is so many bytes of them.
    Pages(Pages, usize),
    /// Mapped; with what to check before code runs from the map, if it may.
    Mapped(Arc<FileMap>, Option<Check>),
}

/// Files below this size are read and their code copied, even where they may be mapped: that costs less than the system
/// calls and page faults.
pub(super) const LARGE_FROM: u64 = 64 * 1024;

impl FileBytes {
    /// Opens a file and reads or maps it, or returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::NotAFile`] for a link, a directory and anything else that is no regular file; [`Error::Value`] for one
    /// that is larger than [`Access::with_limit`] has it; [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn open(path: &Path, access: Access) -> Result<Option<Self>, Error> {
        Source::open(path, &Trusted::ANYONE)?.map(|source| Self::of(&source, access)).transpose()
    }

    /// Reads or maps a file that is open.
    pub(crate) fn of(source: &Source<'_>, access: Access) -> Result<Self, Error> {
        access.check_length(source.length())?;
        let map = |promise, check| Ok(Self(Bytes::Mapped(Arc::new(source.map(promise)?), check)));
        match source.mode(access) {
            // There is nothing to map in an empty file.
            Mode::InPlace(promise, check) if source.length() > 0 => map(promise, Some(check)),
            Mode::Map(promise) if source.length() >= LARGE_FROM => map(promise, None),
            _ => Self::read(source),
        }
    }

    /// Reads all of a file, or as much as there is.
    pub(super) fn read(source: &Source<'_>) -> Result<Self, Error> {
        #[cfg_attr(not(windows), expect(unused_mut, reason = "there, reading at an offset moves nothing"))]
        let (mut file, path) = (&source.file, source.path);
        #[cfg(windows)]
        io::Seek::rewind(&mut file).map_err(failed("read", path))?;
        let length = source.length();
        let bytes = usize::try_from(length).map_err(|_| refused("allocate", length)(ErrorKind::OutOfMemory.into()))?;
        if length < LARGE_FROM {
            let mut read = Vec::new();
            heap::reserve(&mut read, bytes)?;
            // No further than the length that was asked for: a file that grows meanwhile is not what was opened.
            file.take(length).read_to_end(&mut read).map_err(failed("read", path))?;
            return Ok(Self(Bytes::Read(read)));
        }
        let mut pages = WritablePages::allocate(bytes)?;
        pages.advise(0..bytes);
        let filled =
            fill(file, pages.bytes_mut().get_mut(..bytes).unwrap_or_default()).map_err(failed("read", path))?;
        Ok(Self(Bytes::Pages(pages.seal()?, filled)))
    }

    /// Opens a file and reads it into a buffer, or returns `None` if there is none: for whoever looks at many files, as
    /// the buffer grows to the longest and is written over.
    ///
    /// # Errors
    ///
    /// Those of [`FileBytes::open`].
    pub fn read_into<'b>(path: &Path, access: Access, buffer: &'b mut Vec<u8>) -> Result<Option<&'b [u8]>, Error> {
        let Some(source) = Source::open(path, &Trusted::ANYONE)? else { return Ok(None) };
        let length = source.length();
        access.check_length(length)?;
        let bytes = usize::try_from(length).map_err(|_| refused("allocate", length)(ErrorKind::OutOfMemory.into()))?;
        if buffer.len() < bytes {
            heap::reserve(buffer, usize::saturating_sub(bytes, buffer.len()))?;
            buffer.resize(bytes, 0);
        }
        let to = buffer.get_mut(..bytes).unwrap_or_default();
        let filled = fill(&source.file, to).map_err(failed("read", path))?;
        Ok(buffer.get(..filled))
    }
}

/// Reads until a buffer is full or a file ends, and returns how much was read.
fn fill(mut file: &File, to: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest @ [_, ..]) = to.get_mut(filled..) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled = usize::saturating_add(filled, read),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Access {
    /// Checks that a file of `length` bytes may be opened.
    pub(super) fn check_length(self, length: u64) -> Result<(), Error> {
        if length <= self.limit {
            return Ok(());
        }
        let expected = Bound::AtMost(self.limit);
        Err(Error::Value { field: Field::File, at: 0, expected, found: length })
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
            Bytes::Pages(pages, length) => pages.bytes().get(..*length).unwrap_or_default(),
            Bytes::Mapped(map, _) => map,
        }
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match &self.0 {
            Bytes::Read(_) => "read",
            Bytes::Pages(..) => "read into pages",
            Bytes::Mapped(_, None) => "mapped",
            Bytes::Mapped(_, Some(_)) => "mapped to run in place",
        };
        write!(f, "FileBytes({} bytes, {how})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_read_into_again_holds_the_file_and_nothing_of_the_last_one() {
        let path = std::env::temp_dir().join(format!("jitcache-buffer-{}", std::process::id()));
        let mut buffer = Vec::new();
        for length in [100, 200_000, 0, 7, 70_000] {
            let file: Vec<u8> = (0..=255).cycle().skip(length).take(length).collect();
            std::fs::write(&path, &file).unwrap();
            assert_eq!(FileBytes::read_into(&path, Access::READ, &mut buffer).unwrap(), Some(&file[..]));
            assert_eq!(&FileBytes::open(&path, Access::READ).unwrap().unwrap()[..], &file[..]);
        }
        assert_eq!(buffer.len(), 200_000);
        let too_long = FileBytes::read_into(&path, Access::READ.with_limit(69_999), &mut buffer);
        assert!(matches!(too_long, Err(Error::Value { field: Field::File, .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(FileBytes::read_into(&path, Access::READ, &mut buffer).unwrap().is_none());
        assert!(matches!(
            FileBytes::read_into(&std::env::temp_dir(), Access::READ, &mut buffer),
            Err(Error::NotAFile { .. })
        ));
    }
}

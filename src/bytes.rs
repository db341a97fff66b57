//! The bytes of an entry's file in memory.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{Bound, Error, Field};
use crate::file::{failed, open, read_at};
use crate::format::{Peek, Section};
use crate::heap;
use crate::memory::{Access, Check, CodeMemory, FileMap, FilePages, Mode};

/// The bytes of an entry's file, read into memory or mapped.
pub struct FileBytes(Bytes);

enum Bytes {
    Read(Vec<u8>),
    /// Read into pages in which the code can run; but for the source map, if that was left.
    Pages(Arc<FilePages>, Option<LeftRows>),
    /// Mapped; with what to check before code runs from the map, if it may, and the file if nearly nothing will be looked at.
    Mapped(Arc<FileMap>, Option<Check>, Option<Box<PeekedFile>>),
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
        Self::open_for(path, access, false)
    }

    /// Does the same for a load: a large source map may be left, which [`FileBytes::rows`] reads, and a map be executable.
    pub(crate) fn open_to_load(path: &Path, access: Access) -> Result<Option<Self>, Error> {
        Self::open_for(path, access, true)
    }

    fn open_for(path: &Path, access: Access, is_load: bool) -> Result<Option<Self>, Error> {
        let Some((file, length)) = open(path)? else { return Ok(None) };
        if length > access.limit {
            let expected = Bound::AtMost(access.limit);
            return Err(Error::Value { field: Field::File, at: 0, expected, found: length });
        }
        let refused = |action| move |source| Error::Memory { action, length, source };
        let bytes = usize::try_from(length).map_err(|_| refused("allocate")(ErrorKind::OutOfMemory.into()))?;
        let mapped = |map: io::Result<FileMap>| map.map(Arc::new).map_err(refused("map"));
        let bytes = match access.mode {
            // There is nothing to map in an empty file.
            Mode::InPlace(promise, check) if length > 0 => {
                let map = mapped(match is_load {
                    true => FileMap::to_run(&file, bytes, promise, check),
                    false => FileMap::to_read(&file, bytes, promise),
                })?;
                // Nothing but what is peeked at is looked at before the code runs.
                let peeked = (check == Check::VouchedFor).then(|| Box::new(PeekedFile::new(file, length)));
                Bytes::Mapped(map, Some(check), peeked)
            }
            Mode::Map(promise) if length >= LARGE_FROM => {
                Bytes::Mapped(mapped(FileMap::to_read(&file, bytes, promise))?, None, None)
            }
            _ if length >= LARGE_FROM => {
                let most_rows = if is_load { MOST_ROWS } else { u64::MAX };
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
            Bytes::Read(_) | Bytes::Mapped(_, None, _) => Place::Elsewhere,
            Bytes::Pages(pages, _) => Place::Pages(pages),
            Bytes::Mapped(map, Some(check), _) => Place::Map(map, *check),
        }
    }

    /// Returns the file as an entry is read from it.
    pub(crate) fn section(&self) -> Section<'_> {
        match &self.0 {
            Bytes::Mapped(map, _, Some(peeked)) => Section::peeked(map, &**peeked),
            _ => Section::new(self),
        }
    }

    /// Closes a file that was kept open to be peeked at.
    pub(crate) fn end_peeking(&mut self) {
        if let Bytes::Mapped(_, _, peeked) = &mut self.0 {
            *peeked = None;
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

    /// Returns whether it is worth keeping the bytes for the tables of an entry whose code is `code`.
    ///
    /// Not if the tables are the smaller part of bytes that were read; and not if all of a map is executable of which no code
    /// runs.
    pub(crate) fn are_worth_keeping(&self, code: &CodeMemory) -> bool {
        match &self.0 {
            Bytes::Read(bytes) => code.bytes().len() <= bytes.len() / 2,
            Bytes::Pages(..) => true,
            Bytes::Mapped(map, ..) => code.is_in_place() || !map.is_executable(),
        }
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
        let rows = read_at(&self.file, &self.at)?.map_err(failed("read", &self.path))?;
        Ok(self.rows.get_or_init(|| rows))
    }
}

/// A file that is mapped and of which few bytes are wanted: reading them takes a tenth of a page fault.
#[derive(Debug)]
struct PeekedFile {
    file: File,
    length: u64,
    /// One for each place that a load looks at: the start, the length of the code, what follows it, the seal, what stands in front
    /// of that, and the end. Small entries need fewer.
    windows: [OnceLock<Window>; 6],
}

/// A part of a file; nothing if it could not be read.
#[derive(Debug)]
struct Window {
    at: u64,
    bytes: Vec<u8>,
}

impl PeekedFile {
    /// Size of a window in bytes: seal and footer fit in one, with little metadata.
    const WINDOW: u64 = 512;

    /// Length of the longest run that is peeked at, in bytes: a version or a build id.
    const LONGEST: usize = 255;

    fn new(file: File, length: u64) -> Self {
        Self { file, length, windows: Default::default() }
    }

    /// Reads a window that begins at `at`, or at the end of the file ends.
    fn read(&self, at: u64) -> Window {
        let at = at.min(self.length.saturating_sub(Self::WINDOW));
        let end = at.saturating_add(Self::WINDOW).min(self.length);
        Window { at, bytes: read_at(&self.file, &(at..end)).ok().and_then(Result::ok).unwrap_or_default() }
    }
}

impl Peek for PeekedFile {
    fn peek(&self, at: u64, length: usize) -> Option<&[u8]> {
        if !(1..=Self::LONGEST).contains(&length) {
            return None;
        }
        self.windows.iter().find_map(|window| {
            // The first one that is not read yet is read to hold what is looked for.
            let window = window.get_or_init(|| self.read(at));
            let start = usize::try_from(at.checked_sub(window.at)?).ok()?;
            window.bytes.get(start..start.checked_add(length)?)
        })
    }
}

/// Where code may run without being copied.
pub(crate) enum Place<'a> {
    Elsewhere,
    Pages(&'a Arc<FilePages>),
    Map(&'a Arc<FileMap>, Check),
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
            Bytes::Mapped(map, ..) => map,
        }
    }
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match &self.0 {
            Bytes::Read(_) => "read",
            Bytes::Pages(_, None) => "read into pages",
            Bytes::Pages(_, Some(_)) => "read into pages, but for the source map",
            Bytes::Mapped(_, None, _) => "mapped",
            Bytes::Mapped(_, Some(_), _) => "mapped to run in place",
        };
        write!(f, "FileBytes({} bytes, {how})", self.len())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_is_peeked_at_is_what_stands_in_the_file_or_nothing() {
        let path = std::env::temp_dir().join(format!("jitcache-peeked-{}", std::process::id()));
        for length in [1, 200, 511, 512, 513, 5000_u16] {
            let content: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[usize::from(at % 2)]).collect();
            std::fs::write(&path, &content).unwrap();
            let peeked = || PeekedFile::new(File::open(&path).unwrap(), length.into());
            for longest in [1, 89, PeekedFile::LONGEST] {
                for at in 0..length.into() {
                    let there = &content[at..content.len().min(at + longest)];
                    assert_eq!(peeked().peek(u64::try_from(at).unwrap(), there.len()), Some(there), "{length} {at}");
                }
            }
            // None of these lies in the window of another.
            let (peeked, mut reads) = (peeked(), 0);
            for at in [4000, 100, 1000, 1600, 2200, 3000, 3600, 700].into_iter().filter(|&at| at + 10 <= content.len())
            {
                let found = peeked.peek(u64::try_from(at).unwrap(), 10);
                reads += 1;
                assert_eq!(found, (reads <= 6).then(|| &content[at..at + 10]), "{length} {at}");
                assert_eq!(peeked.peek(u64::try_from(at).unwrap(), 10), found);
            }
            assert_eq!(peeked.peek(0, PeekedFile::LONGEST + 1), None);
            assert_eq!(peeked.peek(0, 0), None);
        }
        let unreadable = File::options().write(true).open(&path).unwrap();
        assert_eq!(PeekedFile::new(unreadable, 5000).peek(0, 10), None);
        std::fs::remove_file(&path).unwrap();
    }
}

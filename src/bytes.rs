//! The bytes of an entry's file in memory.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{Bound, Error, Field};
use crate::file::{failed, open, read_at};
use crate::format::{self, Pieces, Section};
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
                let most_rows = if is_load { MOST_ROWS } else { u64::MAX };
                let pages = FilePages::read(&file, bytes, most_rows)?.map_err(failed("read", path))?;
                let left = pages.left_rows().map(|at| LeftRows::new(Arc::new(file), at, Left::ToRead(path.into())));
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
            Bytes::InPieces(pieces) => Place::Map(&pieces.map, pieces.check),
        }
    }

    /// Returns the file as an entry is read from it.
    pub(crate) fn section(&self) -> Section<'_> {
        match &self.0 {
            Bytes::InPieces(pieces) => Section::in_pieces(pieces.around.length, &**pieces),
            _ => Section::new(self),
        }
    }

    /// Closes a file of which nothing more is to be read.
    pub(crate) fn end_load(&mut self) {
        if let Bytes::InPieces(pieces) = &mut self.0 {
            pieces.around.file = None;
        }
    }

    /// Returns the rows of the source map, which lie at `range` of the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Memory`] if they have to be read first.
    pub(crate) fn rows(&self, range: &Range<u64>) -> Result<&[u8], Error> {
        let left = match &self.0 {
            Bytes::Pages(_, left) => left,
            Bytes::InPieces(pieces) => &pieces.left,
            _ => &None,
        };
        left.as_ref().map_or_else(|| Ok(self.section().part(range).bytes()), |left| left.read())
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
                let around = Around::new(Arc::new(file), length);
                Self::InPieces(Box::new(FilePieces { map, check, around, left: None }))
            }
        })
    }

    /// Does the same for a load, and reads what costs less so than to be mapped: what is in front of code that is to be checked,
    /// if that has pages of its own, and what is behind it.
    fn to_run(file: File, length: u64, promise: Unchanging, check: Check) -> io::Result<Self> {
        let whole = |file| FileMap::to_run(file, &(0..length), promise, check);
        let is_vouched_for = check == Check::VouchedFor;
        if !is_vouched_for && length <= FileMap::SHORT {
            return Ok(Self::Mapped(Arc::new(whole(&file)?), Some(check)));
        }
        let file = Arc::new(file);
        let around = Around::new(Arc::clone(&file), length);
        let (map, rows) = if is_vouched_for {
            match around.up_to_code() {
                Some((part, rows)) => (FileMap::to_run(&file, &part, promise, check)?, rows),
                None => (whole(&file)?, None),
            }
        } else {
            match around.pages_of_code().and_then(|pages| FileMap::of_code(&file, &pages, promise).ok()) {
                Some(map) => (map, None),
                None => return Ok(Self::Mapped(Arc::new(whole(&file)?), Some(check))),
            }
        };
        let left = rows.map(|at| LeftRows::new(file, at, Left::ToMap(promise)));
        Ok(Self::InPieces(Box::new(FilePieces { map: Arc::new(map), check, around, left })))
    }
}

/// The rows of a source map that stay in their file until they are needed.
#[derive(Debug)]
struct LeftRows {
    file: Arc<File>,
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
    fn new(file: Arc<File>, at: Range<u64>, how: Left) -> Box<Self> {
        Box::new(Self { file, at, how, rows: OnceLock::new() })
    }

    fn read(&self) -> Result<&[u8], Error> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows);
        }
        let rows = match &self.how {
            Left::ToRead(path) => Bytes::Read(read_at(&self.file, &self.at)?.map_err(failed("read", path))?),
            Left::ToMap(promise) => {
                let length = self.at.end.saturating_sub(self.at.start);
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
    left: Option<Box<LeftRows>>,
}

impl Pieces for FilePieces {
    fn at_hand(&self, at: u64, length: u64) -> Option<&[u8]> {
        match self.check {
            Check::VouchedFor => self.around.at_hand(at, length),
            Check::Checked(_) => {
                let part = at..at.checked_add(length)?;
                self.around.read(&part).or_else(|| self.map.part(&part))
            }
        }
    }

    fn mapped(&self, at: u64, length: u64) -> Option<&[u8]> {
        self.map.part(&(at..at.checked_add(length)?))
    }
}

/// What is read of a file that is mapped: few bytes take a tenth of a page fault.
#[derive(Debug)]
struct Around {
    /// `None` once the load is over.
    file: Option<Arc<File>>,
    length: u64,
    /// One for each place that a load looks at: the start, the length of the code, what follows it, the seal, what stands in front
    /// of that, and the end. Small entries need fewer.
    windows: [OnceLock<Window>; 6],
}

/// A part of a file; nothing if it could not be read.
#[derive(Debug)]
struct Window {
    at: u64,
    bytes: Box<[u8]>,
}

impl Around {
    /// Size of a window in bytes: seal and footer fit in one, with little metadata.
    const WINDOW: u64 = 512;

    /// How much of a file is read to find code that is to be checked, in bytes: with five hundred functions in front of it.
    const START: u64 = 4096 + Self::WINDOW;

    /// Length of the longest run that is worth a window, in bytes: a version or a build id.
    const LONGEST: u64 = 255;

    /// Length of the longest part in front of the code or behind it that is read whole, in bytes: mapping more costs less.
    const MOST: u64 = 20 * 1024;

    fn new(file: Arc<File>, length: u64) -> Self {
        Self { file: Some(file), length, windows: Default::default() }
    }

    /// Returns what lies on the pages that hold the code, once what is in front of it was read and what is behind it, if that is
    /// not all on the last one; `None` if it is too much.
    fn pages_of_code(&self) -> Option<Range<u64>> {
        let start = self.window(&(0..Self::START.min(self.length)))?;
        let (code_at, _) = format::code_place(Section::new(start)).filter(|&(at, _)| at <= Self::MOST)?;
        let start = self.window(&(0..code_at.min(self.length)))?;
        let code = format::code_range(Section::new(start), code_at).filter(|code| code.end <= self.length)?;
        let pages = FileMap::pages_of(&code, self.length);
        if pages.end < self.length {
            self.end_from(code.end)?;
        }
        Some(pages)
    }

    /// Returns what of the file lies up to the end of the code, once what is behind that was read, but for the rows of a large
    /// source map, which lie at the second place; `None` if it is too much.
    fn up_to_code(&self) -> Option<(Range<u64>, Option<Range<u64>>)> {
        let start = self.window(&(0..Self::WINDOW.min(self.length)))?;
        let (code_at, _) = format::code_place(Section::new(start))?;
        let code = format::code_range(Section::in_pieces(self.length, self), code_at)?;
        if self.end_from(code.end).is_some() {
            return Some((0..code.end, None));
        }
        let rows = format::rows_place(self.at_hand(code.end, format::ROWS_BEHIND_CODE)?, code.end)?;
        let is_large = rows.end.saturating_sub(rows.start) > MOST_ROWS;
        let end = if is_large { self.end_from(rows.end) } else { None };
        end.map(|_| (0..code.end, Some(rows)))
    }

    /// Returns the end of the file from `at` on, unless that is too much.
    fn end_from(&self, at: u64) -> Option<&[u8]> {
        let is_short = self.length.checked_sub(at)? <= Self::MOST;
        if is_short { self.window(&(at..self.length)) } else { None }
    }

    /// Returns a part of the file, if it was read.
    fn read(&self, part: &Range<u64>) -> Option<&[u8]> {
        self.windows.iter().map_while(OnceLock::get).find_map(|window| window.part(part))
    }

    /// Returns a part of the file, which has it, and reads it first if need be; `None` if it cannot.
    fn window(&self, part: &Range<u64>) -> Option<&[u8]> {
        self.windows.iter().find_map(|window| {
            // The first one that is not read yet is read to hold what is looked for.
            let window = match &self.file {
                Some(file) => window.get_or_init(|| Window::read(file, part, self.length)),
                None => window.get()?,
            };
            window.part(part)
        })
    }
}

impl Window {
    /// Reads a part of a file that is so long, and what is next to it if it is short.
    fn read(file: &File, part: &Range<u64>, length: u64) -> Self {
        let at = part.start.min(length.saturating_sub(Around::WINDOW));
        let end = at.saturating_add(Around::WINDOW).max(part.end).min(length);
        let read = read_at(file, &(at..end)).ok().and_then(Result::ok);
        Self { at, bytes: read.unwrap_or_default().into() }
    }

    fn part(&self, part: &Range<u64>) -> Option<&[u8]> {
        let place = |at: u64| usize::try_from(at.checked_sub(self.at)?).ok();
        self.bytes.get(place(part.start)?..place(part.end)?)
    }
}

impl Pieces for Around {
    fn at_hand(&self, at: u64, length: u64) -> Option<&[u8]> {
        let part = at..at.checked_add(length)?;
        if (1..=Self::LONGEST).contains(&length) {
            return self.window(&part);
        }
        self.read(&part)
    }

    fn mapped(&self, _: u64, _: u64) -> Option<&[u8]> {
        None
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

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_around_the_code_is_what_stands_in_the_file_or_nothing() {
        let path = std::env::temp_dir().join(format!("jitcache-around-{}", std::process::id()));
        let run = |around: &Around, at: usize, length| {
            around.at_hand(u64::try_from(at).unwrap(), u64::try_from(length).unwrap()).map(<[u8]>::to_vec)
        };
        for length in [1, 200, 511, 512, 513, 5000_u16] {
            let content: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[usize::from(at % 2)]).collect();
            std::fs::write(&path, &content).unwrap();
            let around = || Around::new(Arc::new(File::open(&path).unwrap()), length.into());
            for longest in [1, 89, 255] {
                for at in 0..length.into() {
                    let there = &content[at..content.len().min(at + longest)];
                    assert_eq!(run(&around(), at, there.len()).as_deref(), Some(there), "{length} {at}");
                }
            }
            // None of these lies in the window of another.
            let (mut around, mut reads) = (around(), 0);
            for at in [4000, 100, 1000, 1600, 2200, 3000, 3600, 700].into_iter().filter(|&at| at + 10 <= content.len())
            {
                let found = run(&around, at, 10);
                reads += 1;
                assert_eq!(found.as_deref(), (reads <= 6).then(|| &content[at..at + 10]), "{length} {at}");
                assert_eq!(run(&around, at, 10), found);
            }
            // A long run is found where it was read, and not read.
            assert_eq!(run(&around, 0, 256).is_some(), (256..=512).contains(&length));
            around.file = None;
            assert_eq!(run(&around, 0, 1).is_some(), (200..=512).contains(&length));
        }
        let unreadable = File::options().write(true).open(&path).unwrap();
        assert_eq!(run(&Around::new(Arc::new(unreadable), 5000), 0, 10), None);
        std::fs::remove_file(&path).unwrap();
    }
}

//! The file of a pack: its index is read or mapped when it is opened, an entry when it is asked for.

use std::borrow::Cow;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::source::{Source, read_part, refused};
use crate::entry::{Identity, PackIndex};
use crate::error::{Error, heap};
use crate::file::Trusted;
use crate::format::{Run, within};
use crate::memory::{Access, FileMap, Mode};
use crate::words::Key;

/// The file of a pack, whose index was checked.
#[derive(Debug)]
pub(crate) struct PackFile {
    path: PathBuf,
    index: PackIndex,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// Open, with the index.
    Read(File, Vec<u8>),
    Mapped(FileMap),
}

impl PackFile {
    /// Opens a pack, or returns `None` if there is no file. `identify` has the identity of one of which start and end are
    /// there.
    pub(crate) fn open(
        path: PathBuf,
        trusted: &Trusted,
        access: Access,
        identify: impl FnOnce(Run<'_>) -> Result<Identity, Error>,
    ) -> Result<Option<(Self, Identity)>, Error> {
        let Some(source) = Source::open(&path, trusted)? else { return Ok(None) };
        access.check_length(source.length())?;
        let (identity, index, held) = match source.mode(access) {
            // There is nothing to map in an empty file.
            Mode::Map(promise) | Mode::InPlace(promise, _) if source.length() > 0 => {
                let map = source.map(promise)?;
                let identity = identify(Run::new(&map))?;
                let index = PackIndex::find(Run::new(&map), &identity)?;
                index.check(Run::new(&map), &identity)?;
                (identity, index, Held::Mapped(map))
            }
            _ => Self::read(source, identify)?,
        };
        Ok(Some((Self { path, index, held }, identity)))
    }

    /// Reads the start of a file and its index.
    fn read(
        source: Source<'_>,
        identify: impl FnOnce(Run<'_>) -> Result<Identity, Error>,
    ) -> Result<(Identity, PackIndex, Held), Error> {
        let length = source.length();
        let part = |range: Range<u64>| read(&source.file, source.path, &range);
        let (end_at, start) = (length.saturating_sub(PackIndex::END), part(0..PackIndex::START.min(length))?);
        let end = part(end_at..length)?;
        let identity = identify(Run::in_pieces(length, &[(0, &start), (end_at, &end)]))?;
        let index = PackIndex::find(Run::in_pieces(length, &[(0, &start), (end_at, &end)]), &identity)?;
        let tail = part(index.tail())?;
        index.check(Run::in_pieces(length, &[(0, &start), (index.tail().start, &tail)]), &identity)?;
        Ok((identity, index, Held::Read(source.file, tail)))
    }

    /// Returns where the entry of a key lies, if there is one.
    pub(crate) fn place(&self, key: &Key) -> Option<Range<u64>> {
        self.index.place(self.tail(), key)
    }

    /// Returns the keys of all entries.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + use<'_> {
        self.index.keys(self.tail())
    }

    /// Returns an entry that lies there: from the map, or else read.
    pub(crate) fn entry(&self, place: &Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        match &self.held {
            Held::Read(file, _) => read(file, &self.path, place).map(Cow::Owned),
            Held::Mapped(map) => Ok(Cow::Borrowed(part(map, place))),
        }
    }

    fn tail(&self) -> &[u8] {
        match &self.held {
            Held::Read(_, tail) => tail,
            Held::Mapped(map) => part(map, &self.index.tail()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn part<'a>(bytes: &'a [u8], place: &Range<u64>) -> &'a [u8] {
    within(bytes, place.start, place.end.saturating_sub(place.start)).unwrap_or_default()
}

/// Reads a part of a file that was found to have it.
fn read(file: &File, path: &Path, place: &Range<u64>) -> Result<Vec<u8>, Error> {
    let length = place.end.saturating_sub(place.start);
    let length = usize::try_from(length).map_err(|_| refused("allocate", length)(ErrorKind::OutOfMemory.into()))?;
    let mut bytes = Vec::new();
    heap::reserve(&mut bytes, length)?;
    bytes.resize(length, 0);
    read_part(file, path, &mut bytes, place.start)?;
    Ok(bytes)
}

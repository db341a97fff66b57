//! What the two ends of an entry tell, of a file of which as little as possible is read.

use std::ops::Range;
use std::path::Path;

use super::parts::Parts;
use super::source::Source;
use crate::entry::{Entry, Identity, MacKey, Recipe, kept_recipe};
use crate::error::{Bound, Error, Field};
use crate::file::Trusted;
use crate::format::Run;
use crate::words::{Key, Magic, size};

/// Whose entry a file is and where its fields lie, by its lengths alone: of code and tables no more is read than the
/// try tables, as behind them an entry ends.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outline {
    /// Whose it is: see [`Identity::of_entry`].
    pub identity: Identity,
    /// Length of the file, in bytes.
    pub length: u64,
    /// The key that a sealed entry is bound to.
    pub key: Option<Key>,
    /// Every field with the bytes it takes in the file: see [`Entry::fields`].
    pub fields: Vec<(Field, Range<u64>)>,
}

impl Outline {
    /// How much of the beginning of a file is read at once, in bytes.
    const START: u64 = 8192;
    /// How much of its end.
    const END: u64 = 512;
    /// How much of it is read at once, whatever its lengths say, in bytes.
    const MOST: u64 = 64 << 20;
    /// How long try tables, or what stands in their place, may be to be looked at.
    const TABLES: u64 = 1 << 20;

    /// Reads the outline of an entry in a directory of that name; `None` if there is no file or no engine's directory
    /// has the name.
    ///
    /// Checked is what [`Entry::parse`] checks, and that nothing is behind the try tables, unless these are longer than
    /// 1 MiB or found in too many steps. No more than 64 MiB are read of one part. Nothing is written, and no
    /// time of the file is set.
    ///
    /// # Errors
    ///
    /// Those of [`Entry::parse`]; [`Error::NotAFile`] for a link, a directory and anything else that is no regular
    /// file; [`Error::Io`] and [`Error::Memory`] from the system.
    pub fn open(path: &Path, directory: &str, mac_key: &MacKey) -> Result<Option<Self>, Error> {
        let Some(source) = Source::open(path, &Trusted::ANYONE)? else { return Ok(None) };
        let length = source.length();
        let mut parts = Parts::of_ends(&source, Self::START, Self::END, Self::MOST)?;
        let Some(identity) = Identity::of_run(directory, Run::in_pieces(length, &parts.pieces()), mac_key) else {
            return Ok(None);
        };
        let mut reads = 0;
        loop {
            let wanted = match Entry::read(Run::in_pieces(length, &parts.pieces()), &identity) {
                Ok(entry) => {
                    let tables = entry.try_table_range();
                    let is_read = parts.part(&tables).is_some();
                    if is_read || reads >= Parts::MOST || tables.end.saturating_sub(tables.start) > Self::TABLES {
                        if is_read {
                            entry.check_try_tables()?;
                        }
                        let (key, fields) = (entry.key(), entry.fields());
                        return Ok(Some(Self { identity, length, key, fields }));
                    }
                    tables
                }
                // Not cut, only not read yet.
                Err(Error::Truncated { field, at, expected, .. })
                    if reads < Parts::MOST && at.checked_add(expected).is_some_and(|end| end <= length) =>
                {
                    if expected > Self::MOST {
                        let expected_at_most = Bound::AtMost(Self::MOST);
                        return Err(Error::Value { field, at, expected: expected_at_most, found: expected });
                    }
                    at..at.saturating_add(expected.max(64))
                }
                Err(error) => return Err(error),
            };
            parts.read(&source, wanted)?;
            reads = usize::saturating_add(reads, 1);
        }
    }
}

/// Returns the recipe that a file keeps, as [`kept_recipe`] has it, if it can be read and is somebody's who is trusted;
/// and how many bytes were read. A seal that is longer than `most` is not.
pub(crate) fn read_recipe(
    path: &Path,
    trusted: &Trusted,
    magic: Magic,
    most: u64,
) -> Result<(Option<Recipe>, u64), Error> {
    let Ok(Some(source)) = Source::open(path, trusted) else { return Ok((None, 0)) };
    match Parts::of_ends(&source, size(&magic.0), SEAL_WITH_RECIPE, most) {
        Ok(parts) => {
            let found = kept_recipe(Run::in_pieces(source.length(), &parts.pieces()), magic);
            Ok((found, parts.length()))
        }
        Err(error @ Error::Memory { .. }) => Err(error),
        Err(_) => Ok((None, 0)),
    }
}

/// How long most seals are in which there is a recipe, in bytes.
const SEAL_WITH_RECIPE: u64 = 2048;

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;
    use crate::entry::{Builder, Sealing};

    #[test]
    fn an_outline_is_that_of_the_whole_file_and_so_is_its_error() {
        let path = std::env::temp_dir().join(format!("jitcache-outline-{}", std::process::id()));
        let (key, mac_key) = (Key::from_bytes([1; 32]), MacKey::new([0; 32]));
        for sealing in [Sealing::Plain, Sealing::Checksum] {
            let identity = Identity::new("a", *b"ABCDEF", "1").unwrap().with_sealing(sealing.clone());
            let directory = identity.directory_name();
            for (functions, code, rows, section) in [(1, 1, 0, 0), (3000, 50_000, 2000, 9), (3, 30_000, 5, 100_000)] {
                let mut builder = Builder::new();
                builder.code(vec![0xcc; code]);
                for at in 0..functions {
                    builder.function(at);
                }
                for at in 0..rows {
                    builder.source(at, at);
                }
                if sealing != Sealing::Plain && section > 0 {
                    builder.metadata(&vec![5; section]);
                }
                let whole = builder.finish(&identity, &key).unwrap().to_vec();
                for cut in [0, 1, 8, 100, 5000, 40_000, whole.len() - 3, whole.len()] {
                    let file = whole.get(..whole.len().saturating_sub(cut)).unwrap();
                    std::fs::write(&path, file).unwrap();
                    let found = Identity::of_entry(&directory, file, &mac_key).unwrap();
                    let expected = Entry::parse(file, &found)
                        .and_then(|entry| entry.check_try_tables().map(|()| (entry.key(), entry.fields())));
                    let outline = Outline::open(&path, &directory, &mac_key);
                    let outline = outline.map(|outline| outline.map(|outline| (outline.key, outline.fields)).unwrap());
                    assert_eq!(format!("{outline:?}"), format!("{expected:?}"), "{sealing:?} {functions} {cut}");
                }
            }
        }
        // A file with a hole, of which all is said to be a seal.
        let identity = Identity::new("a", *b"ABCDEF", "1").unwrap();
        let mut start = Builder::new().finish(&identity, &key).unwrap().to_vec();
        let mut footer = start.split_off(start.len() - 89);
        let length = 1_u64 << 33;
        footer.splice(..16, [length.to_le_bytes(), length.to_le_bytes()].concat());
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&start).unwrap();
        file.seek(SeekFrom::Start(length - 89)).unwrap();
        file.write_all(&footer).unwrap();
        drop(file);
        let error = Outline::open(&path, &identity.directory_name(), &mac_key).unwrap_err();
        assert!(error.is_rejection(), "{error:?}");
        std::fs::remove_file(&path).unwrap();
        assert!(Outline::open(&path, "a-1-amd64-linux", &mac_key).unwrap().is_none());
    }
}

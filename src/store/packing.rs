//! Writing a pack of what a store holds.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use super::Store;
use super::lookup::Lookup;
use crate::entry::PackBuilder;
use crate::error::{Error, heap};
use crate::file::{self, failed};
use crate::load::Source;
use crate::memory::most_bytes_of_a_file;
use crate::words::size;

impl Store {
    /// Writes all entries that are sound into a [`Pack`](crate::Pack), and returns how many those are.
    ///
    /// Every byte of each is checked. The pack takes the place of whatever had its name, except for a directory, once
    /// it is whole and synced; it is for this user alone unless the store has other
    /// [modes](crate::StoreOptions::modes). The store need not be one that can be written to, and is not changed. If
    /// the process dies meanwhile, a file with a name of 16 hexadecimal digits stays beside that of the pack.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a store of plain entries, which do not tell their keys; [`Error::Io`] and
    /// [`Error::Memory`] from the system. What has the name stays as it was then, unless it is the last step, syncing
    /// the directory, that fails.
    pub fn write_pack(&self, path: impl AsRef<Path>) -> Result<u64, Error> {
        let path = std::path::absolute(&path).map_err(failed("find", path.as_ref()))?;
        let mut pack = PackBuilder::new(&self.identity)?;
        let mut keys = Vec::new();
        for key in self.list()? {
            heap::reserve(&mut keys, 1)?;
            keys.push(key?);
        }
        keys.sort_unstable();
        let (aside, file) = file::create_aside(path.parent().unwrap_or(&path), self.modes)?;
        let mut to = Bounded { to: BufWriter::new(&file), left: most_bytes_of_a_file() };
        let (failed, mut count) = (|error| failed("write", &path)(error), 0_u64);
        to.write_all(pack.start()).map_err(failed)?;
        for key in keys {
            // Without a mark that it was used: a pack uses all.
            let entry_path = self.path(&key);
            let source = Source::open(&entry_path, &self.trusted);
            let found = source.and_then(|source| source.map(|source| self.verified(&key, &source)).transpose());
            let Lookup::Hit(Some(entry)) = Lookup::of(found)? else { continue };
            let bytes = entry.into_file();
            io::copy(&mut io::Read::take(io::repeat(0), pack.padding()), &mut to).map_err(failed)?;
            to.write_all(&bytes).map_err(failed)?;
            pack.add(&key, size(&bytes))?;
            count = count.saturating_add(1);
        }
        to.write_all(&pack.finish()?).map_err(failed)?;
        to.flush().map_err(failed)?;
        drop(to);
        aside.publish(&file, &path)?;
        Ok(count)
    }
}

/// A file that is written no further than the process may: beyond that is a signal that ends it.
struct Bounded<W> {
    to: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(size(bytes)).ok_or(ErrorKind::FileTooLarge)?;
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

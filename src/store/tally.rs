//! The tally of a directory: what all caches over it have counted, in a small file that is replaced whole.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::Store;
use super::statistics::{COUNTS, Statistics};
use crate::entry::crc32c;
use crate::error::Error;
use crate::file::{self, LOCK, Sync, TALLY};

const MAGIC: &[u8; 8] = b"JITTALY1";

/// Magic, numbers, checksum, of 8 bytes each.
const LENGTH: usize = 8 * (COUNTS + 2);

/// The last byte that may be locked. A key that has it, too, is compiled while nobody counts.
const BYTE: u32 = u32::MAX >> 1;

impl Store {
    /// Returns what all caches over the directory have counted, as far as they have added it to its tally: in all
    /// processes, also in those that have ended.
    ///
    /// It is nothing where there is no tally, or a damaged one, or one of others than those who are trusted. When a
    /// cache adds what it has counted tells [`Cache::tally`](crate::Cache::tally); bases have tallies of their own.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] from the system.
    pub fn tally(&self) -> Result<Statistics, Error> {
        let path = self.tally_path();
        match file::open(&path, &self.trusted) {
            Ok(Some((file, id))) if usize::try_from(id.length) == Ok(LENGTH) => {
                let mut bytes = [0; LENGTH];
                file::read_at(&file, &mut bytes, 0).map_err(file::failed("read", &path))?;
                Ok(read(&bytes).unwrap_or_default())
            }
            Err(error @ Error::Io { .. }) => Err(error),
            _ => Ok(Statistics::default()),
        }
    }

    /// Adds to the tally, and returns whether it did: not if somebody else is about it, and still is after `patience`.
    ///
    /// A tally that counts nothing is replaced, whatever it is; of two caches that add to it at the same time where
    /// nobody can have a lock, what one adds is lost.
    pub(crate) fn add_to_tally(&self, more: &Statistics, patience: Duration) -> Result<bool, Error> {
        self.check_writable()?;
        // A directory that has vanished is not made again to count.
        if !file::is_directory(&self.directory, &self.trusted)? {
            return Ok(false);
        }
        let temporaries = self.temporaries();
        let path = temporaries.join(LOCK);
        let Some(_lock) = file::lock_within(patience, &self.directory, &path, self.modes, BYTE)? else {
            return Ok(false);
        };
        let bytes = written(&self.tally()?.plus(more));
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        file::publish(&self.tally_path(), &temporaries, self.modes, Sync::Later, length, |mut file| {
            file.write_all(&bytes)
        })?;
        Ok(true)
    }

    fn tally_path(&self) -> PathBuf {
        self.temporaries().join(TALLY)
    }
}

fn written(counted: &Statistics) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    counted.counts().iter().for_each(|count| bytes.extend_from_slice(&count.to_le_bytes()));
    let checksum = u64::from(crc32c(0, &bytes));
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Returns what a tally says, unless it is none of this version, or damaged.
fn read(bytes: &[u8; LENGTH]) -> Option<Statistics> {
    let (before, checksum) = bytes.split_last_chunk()?;
    let numbers = before.strip_prefix(MAGIC)?;
    if u64::from_le_bytes(*checksum) != u64::from(crc32c(0, before)) {
        return None;
    }
    let mut counts = [0; COUNTS];
    for (count, number) in counts.iter_mut().zip(numbers.as_chunks().0) {
        *count = u64::from_le_bytes(*number);
    }
    Some(Statistics::of_counts(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_read_as_it_was_written_and_every_flip_in_it_is_found() {
        let counted = Statistics::of_counts(std::array::from_fn(|at| 0x0102_0304_0506_0708 << at));
        let mut bytes: [u8; LENGTH] = written(&counted).try_into().unwrap();
        assert_eq!((bytes.len(), &bytes[..16]), (144, &b"JITTALY1\x08\x07\x06\x05\x04\x03\x02\x01"[..]));
        assert_eq!(read(&bytes), Some(counted));
        for bit in 0..LENGTH * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), None, "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

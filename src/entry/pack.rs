//! What of a pack is around its entries: what they are for, and where each lies.

use std::ops::Range;

use super::append::append;
use super::digest::{Digest, DigestValue, MacKey};
use super::identity::{Identity, Sealing};
use super::seal::{Digested, check_target, target};
use super::view::read_header_at;
use crate::error::{Bound, Error, Field, heap};
use crate::format::{self, Bytes, Header, PackFooter, PackRow, PackTarget, Run};
use crate::words::{Key, size};

/// What a pack begins with; the last byte is the number of its layout.
const MAGIC: [u8; 8] = *b"JITPACK1";

/// Size of a row of the index as the format counts it, in bytes.
const ROW: u64 = 48;

/// Where the index of a pack lies.
#[derive(Clone, Debug)]
pub(crate) struct PackIndex {
    /// Where that ends which stands in front of the entries.
    start: u64,
    /// Where the rows stand.
    rows: Range<u64>,
}

impl PackIndex {
    /// Length of the longest start of a pack that is looked at, in bytes.
    pub(crate) const START: u64 = 8 + 6 + 1 + 255 + 4;
    /// Length of the end of a pack, in bytes.
    pub(crate) const END: u64 = PackFooter::SIZE;

    /// Finds the index of a pack, of which start and end are there, and compares what the pack is for.
    ///
    /// Magic and version are compared before anything behind them is looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an identity whose entries are plain; [`Error::Stale`], or any rejection.
    pub(crate) fn find(file: Run<'_>, identity: &Identity) -> Result<Self, Error> {
        let kind = digest_kind(identity)?;
        let (_, at) = read_header_at(file, check_magic(file)?, identity)?;
        let (PackTarget { arch, os }, start) = format::read::<PackTarget>(file, at, ())?;
        check_target(at, arch, os, identity)?;
        let length = file.length();
        let room = length.saturating_sub(start);
        let Some(room) = room.checked_sub(PackFooter::SIZE) else {
            let (field, expected) = (Field::EntryCount, PackFooter::SIZE);
            return Err(Error::Truncated { field, at: start, expected, found: room });
        };
        let at = length.saturating_sub(PackFooter::SIZE);
        let (PackFooter { entry_count, file_length, digest_kind, .. }, _) = format::read(file, at, ())?;
        let value = |field, behind, expected, found| {
            Err(Error::Value { field, at: at.saturating_add(behind), expected, found })
        };
        if file_length != length {
            return value(Field::FileLength, 8, Bound::Exactly(length), file_length);
        }
        if digest_kind != kind {
            return value(Field::DigestKind, 16, Bound::Exactly(kind.into()), digest_kind.into());
        }
        match entry_count.checked_mul(ROW) {
            Some(rows) if rows <= room => Ok(Self { start, rows: at.saturating_sub(rows)..at }),
            _ => value(Field::EntryCount, 0, Bound::AtMost(room / ROW), entry_count),
        }
    }

    /// Returns the identity that the engine of that name has by a pack, of which start and end are there: version,
    /// magic, target and sealing are the pack's.
    ///
    /// # Errors
    ///
    /// Any rejection; [`Error::Invalid`] for a name or a version that no engine has.
    pub(crate) fn identity(file: Run<'_>, engine: &str, mac_key: &MacKey) -> Result<Identity, Error> {
        let (Header { magic, version }, at) = format::read::<Header<'_>>(file, check_magic(file)?, file)?;
        let (PackTarget { arch, os }, _) = format::read::<PackTarget>(file, at, ())?;
        let footer = file.length().saturating_sub(PackFooter::SIZE);
        let (PackFooter { digest_kind, .. }, _) = format::read(file, footer, ())?;
        let version = str::from_utf8(version.bytes()).unwrap_or_default();
        let sealing = if digest_kind == 1 { Sealing::Mac(mac_key.clone()) } else { Sealing::Checksum };
        Ok(Identity::new(engine, magic.0, version)?.with_target(target(at, arch, os)?).with_sealing(sealing))
    }

    /// Returns where the rows stand in the file, with the footer behind them.
    pub(crate) const fn tail(&self) -> Range<u64> {
        self.rows.start..self.rows.end.saturating_add(PackFooter::SIZE)
    }

    /// Checks the digest and every row: keys rise, and entries lie in the file, aligned, in front of the index.
    ///
    /// # Errors
    ///
    /// Any rejection: see [`Error::is_rejection`].
    pub(crate) fn check(&self, file: Run<'_>, identity: &Identity) -> Result<(), Error> {
        let (PackFooter { digest, .. }, _) = format::read(file, self.rows.end, ())?;
        let digest_at = self.rows.end.saturating_add(PackFooter::COVERED);
        let mac_key = identity.sealing().mac_key();
        let mut found = Digest::of_pack(mac_key);
        for part in [0..self.start, self.rows.start..digest_at] {
            found.add(file.part(&part).bytes());
        }
        let part = Digested { field: Field::Index, at: self.rows.start, digest_at, expected: DigestValue(digest.0) };
        part.check(found.finish(), mac_key.is_some())?;
        let alignment = identity.alignment().of_entry();
        let (mut at, mut last) = (self.rows.start, None);
        for row in rows(file.part(&self.rows).bytes()) {
            let PackRow { key, offset, length } = read_row(row)?;
            if let Some(last) = last.filter(|last| *last >= key.0) {
                let [expected, found] = [last, key.0].map(|key| DigestValue(key).beginning());
                return Err(Error::Value { field: Field::Key, at, expected: Bound::Above(expected), found });
            }
            let value = |field, behind, expected, found| {
                Err(Error::Value { field, at: at.saturating_add(behind), expected, found })
            };
            if offset < self.start {
                let expected = Bound::Above(self.start.saturating_sub(1));
                return value(Field::EntryOffset, PackRow::OFFSET, expected, offset);
            }
            if offset.checked_rem(alignment) != Some(0) {
                return value(Field::EntryOffset, PackRow::OFFSET, Bound::MultipleOf(alignment), offset);
            }
            let Some(room) = self.rows.start.checked_sub(offset) else {
                return value(Field::EntryOffset, PackRow::OFFSET, Bound::AtMost(self.rows.start), offset);
            };
            if length > room {
                return value(Field::EntryLength, PackRow::LENGTH, Bound::AtMost(room), length);
            }
            at = at.saturating_add(ROW);
            last = Some(key.0);
        }
        Ok(())
    }

    /// Returns where the entry of a key lies. `tail` is what stands at [`PackIndex::tail`], checked.
    pub(crate) fn place(&self, tail: &[u8], key: &Key) -> Option<Range<u64>> {
        let rows = rows(self.within(tail));
        let found = rows.binary_search_by(|row| row.first_chunk::<32>().cmp(&Some(key.as_bytes()))).ok()?;
        let PackRow { offset, length, .. } = read_row(rows.get(found)?).ok()?;
        Some(offset..offset.checked_add(length)?)
    }

    /// Returns the keys, which rise. `tail` is as in [`PackIndex::place`].
    pub(crate) fn keys<'t>(&self, tail: &'t [u8]) -> impl Iterator<Item = Key> + use<'t> {
        rows(self.within(tail)).iter().filter_map(|row| row.first_chunk().copied().map(Key::from_bytes))
    }

    fn within<'t>(&self, tail: &'t [u8]) -> &'t [u8] {
        Run::new_at(self.rows.start, tail).part(&(0..self.rows.end.saturating_sub(self.rows.start))).bytes()
    }
}

/// Compares the magic of a pack, and returns where it ends.
fn check_magic(file: Run<'_>) -> Result<u64, Error> {
    let end = size(&MAGIC);
    match file.part(&(0..end)).bytes().first_chunk() {
        Some(&MAGIC) => Ok(end),
        Some(&found) => Err(Error::NotAPack { at: 0, expected: MAGIC, found }),
        None => Err(Error::Truncated { field: Field::PackMagic, at: 0, expected: end, found: file.length() }),
    }
}

fn digest_kind(identity: &Identity) -> Result<u8, Error> {
    let rule = "must be one whose entries are sealed: a plain entry does not tell its key";
    identity.sealing().digest_kind().ok_or(Error::Invalid { what: "identity of a pack", rule })
}

const fn rows(bytes: &[u8]) -> &[[u8; PackRow::SIZE]] {
    bytes.as_chunks().0
}

fn read_row(row: &[u8; PackRow::SIZE]) -> Result<PackRow, Error> {
    Ok(format::read(Run::new(row), 0, ())?.0)
}

/// A pack in the making: what stands in front of its entries, and what stands behind them.
pub(crate) struct PackBuilder<'i> {
    identity: &'i Identity,
    start: Vec<u8>,
    rows: Vec<u8>,
    at: u64,
}

impl<'i> PackBuilder<'i> {
    /// Begins a pack of entries of an identity.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for an identity whose entries are plain; [`Error::Memory`] from the system.
    pub(crate) fn new(identity: &'i Identity) -> Result<Self, Error> {
        digest_kind(identity)?;
        let target = identity.target();
        let mut start = Vec::new();
        heap::append(&mut start, &MAGIC)?;
        let version = Run::new(identity.version().as_bytes());
        append(&mut start, &Header { magic: Bytes(identity.magic().0), version })?;
        append(&mut start, &PackTarget { arch: target.arch.number(), os: target.os.number() })?;
        let at = size(&start);
        Ok(Self { identity, start, rows: Vec::new(), at })
    }

    /// Returns what the file begins with.
    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    /// Returns how many zeros stand in front of the next entry.
    pub(crate) fn padding(&self) -> u64 {
        self.at.wrapping_neg().checked_rem(self.identity.alignment().of_entry()).unwrap_or(0)
    }

    /// Adds an entry of `length` bytes, whose key is above those that were added.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] from the system.
    pub(crate) fn add(&mut self, key: &Key, length: u64) -> Result<(), Error> {
        let offset = self.at.saturating_add(self.padding());
        append(&mut self.rows, &PackRow { key: Bytes(*key.as_bytes()), offset, length })?;
        self.at = offset.saturating_add(length);
        Ok(())
    }

    /// Returns what stands behind the last entry.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] from the system.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Error> {
        let mut tail = self.rows;
        let rows = size(&tail);
        let mut footer = PackFooter {
            entry_count: rows / ROW,
            file_length: self.at.saturating_add(rows).saturating_add(PackFooter::SIZE),
            digest_kind: digest_kind(self.identity)?,
            digest: Bytes([0; 32]),
        };
        let mut end = Vec::new();
        append(&mut end, &footer)?;
        let mut digest = Digest::of_pack(self.identity.sealing().mac_key());
        digest.add(&self.start);
        digest.add(&tail);
        digest.add(Run::new(&end).part(&(0..PackFooter::COVERED)).bytes());
        footer.digest = Bytes(digest.finish().0);
        end.clear();
        append(&mut end, &footer)?;
        heap::append(&mut tail, &end)?;
        Ok(tail)
    }
}

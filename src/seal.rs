//! What a sealed entry has behind its body: the binding to key and machine, sections, and a digest of every byte.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;

use crate::cpu::CpuFeatures;
use crate::digest::{Digest, DigestValue, MacKey};
use crate::entry::Entry;
use crate::error::{Bound, Error, Field};
use crate::format::{self, Footer, Seal, SealSection, Section, size};
use crate::identity::Identity;
use crate::key::Key;
use crate::target::{Arch, Os, Target};

/// Whether and how the entries of an identity are sealed. Reader and writer have to agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// Not at all: nothing but the code has a checksum, and an entry does not tell what it is for.
    Plain,
    /// With a checksum of every byte, which finds damage.
    Checksum,
    /// With a MAC of every byte, which also finds what somebody without the key has changed.
    Mac(MacKey),
}

impl Sealing {
    pub(crate) const fn mac_key(&self) -> Option<&MacKey> {
        match self {
            Self::Plain | Self::Checksum => None,
            Self::Mac(key) => Some(key),
        }
    }

    /// Returns the number of the digest's kind, or `None` if there is no seal.
    pub(crate) const fn digest_kind(&self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Checksum => Some(0),
            Self::Mac(_) => Some(1),
        }
    }
}

/// The tag of the section that [`Builder::metadata`](crate::Builder::metadata) writes.
///
/// Tags from here on are the format's; the ones below are the engine's.
pub(crate) const METADATA: u32 = 1 << 31;

/// Seal and footer of an entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sealed<'a> {
    pub(crate) seal: Seal<'a>,
    pub(crate) footer: Footer,
    /// Offset of the seal in the file.
    pub(crate) at: u64,
}

impl<'a> Sealed<'a> {
    /// Finds the seal from the end of the file, and compares everything that does not take a digest.
    pub(crate) fn read(file: Section<'a>, header_end: u64, kind: u8, identity: &Identity) -> Result<Self, Error> {
        let length = file.length();
        let value = |field, at, expected, found| Err(Error::Value { field, at, expected, found });
        let room = length.saturating_sub(header_end);
        let footer_at = match length.checked_sub(Footer::SIZE) {
            Some(at) if at >= header_end => at,
            _ => {
                let (field, at, expected) = (Field::SealLength, header_end, Footer::SIZE);
                return Err(Error::Truncated { field, at, expected, found: room });
            }
        };
        let (footer, _) = format::read::<Footer>(file.part(&(footer_at..length)), 0, ())?;
        let Footer { seal_length, file_length, digest_kind, .. } = footer;
        if footer.magic != Footer::MAGIC {
            let (expected, found) = (Footer::MAGIC.0, footer.magic.0);
            return Err(Error::Unsealed { at: length.saturating_sub(size(&expected)), expected, found });
        }
        if file_length != length {
            return value(Field::FileLength, footer_at.saturating_add(8), Bound::Exactly(length), file_length);
        }
        if seal_length > room {
            return value(Field::SealLength, footer_at, Bound::AtMost(room), seal_length);
        }
        if seal_length < Footer::SIZE {
            return value(Field::SealLength, footer_at, Bound::Above(Footer::SIZE.saturating_sub(1)), seal_length);
        }
        if digest_kind != kind {
            let (at, found) = (footer_at.saturating_add(16), digest_kind.into());
            return value(Field::DigestKind, at, Bound::Exactly(kind.into()), found);
        }
        let at = length.saturating_sub(seal_length);
        let inside = file.part(&(at..footer_at));
        let (seal, _) = format::read::<Seal<'_>>(inside, 0, inside)?;
        let sealed = Self { seal, footer, at };
        sealed.check_identity(identity)?;
        Ok(sealed)
    }

    /// Seals an entry: counts its bytes, and makes the digest of all of them.
    pub(crate) fn over(entry: &Entry<'a>, mut seal: Seal<'a>, digest_kind: u8) -> Self {
        let mac_key = entry.mac_key.as_ref();
        let (code, rows) = (entry.code_range(), entry.source_map_rows());
        let mut file = Sum { digest: Digest::new(mac_key), length: 0, code, checksum: entry.code_checksum(), rows };
        // A digest cannot fail to be written to.
        let written = entry.write(&mut file);
        let at = file.length;
        seal.build_id = Section::new_at(at.saturating_add(Seal::BUILD_ID), seal.build_id.bytes());
        seal.sections = Section::new_at(seal.build_id.range().end, seal.sections.bytes());
        let written = written.and_then(|()| format::write(&seal, &mut file));
        let file_length = file.length.saturating_add(Footer::SIZE);
        let rows = entry.body.source_map.as_ref().map_or(&[][..], |map| map.rows.section().bytes());
        let mut footer = Footer {
            seal_length: file_length.saturating_sub(at),
            file_length,
            digest_kind,
            source_map_digest: Digest::of_source_map(rows, mac_key),
            digest: DigestValue([0; 32]),
            magic: Footer::MAGIC,
        };
        let mut tail = Vec::new();
        let written = written.and_then(|()| format::write(&footer, &mut tail));
        debug_assert!(written.is_ok(), "{written:?}");
        let covered = Footer::SIZE.saturating_sub(Footer::DIGEST_AND_MAGIC);
        file.digest.add(Section::new(&tail).part(&(0..covered)).bytes());
        footer.digest = file.digest.finish();
        Self { seal, footer, at }
    }

    /// Returns where the digest stands in the file.
    pub(crate) const fn digest_at(&self) -> u64 {
        self.footer.file_length.saturating_sub(Footer::DIGEST_AND_MAGIC)
    }

    pub(crate) const fn key(&self) -> Key {
        Key::from_bytes(self.seal.key.0)
    }

    /// Compares the key that the entry was asked for with the one it is bound to.
    pub(crate) fn check_key(&self, expected: &Key) -> Result<(), Error> {
        let found = self.key();
        if found == *expected { Ok(()) } else { Err(Error::Key { at: self.at, expected: *expected, found }) }
    }

    /// Returns where the processor features stand in the file.
    pub(crate) const fn cpu_features_at(&self) -> u64 {
        self.at.saturating_add(Seal::CPU_FEATURES)
    }

    /// Compares target, processor features, build id and sections with what an identity takes.
    pub(crate) fn check_identity(&self, identity: &Identity) -> Result<(), Error> {
        let Seal { arch, os, cpu_features, build_id, .. } = &self.seal;
        let at = self.at.saturating_add(Seal::ARCH);
        let found = Target {
            arch: Arch::from_number(*arch).ok_or_else(|| unknown(Field::Arch, at, *arch, Arch::LAST))?,
            os: Os::from_number(*os)
                .ok_or_else(|| unknown(Field::Os, self.at.saturating_add(Seal::OS), *os, Os::LAST))?,
        };
        let expected = identity.target();
        if found != expected {
            return Err(Error::Target { at, expected, found });
        }
        let (needed, there) = (CpuFeatures::from_bits(found.arch, *cpu_features), identity.cpu());
        if !needed.missing_from(there).is_empty() {
            return Err(Error::CpuFeatures { at: self.cpu_features_at(), expected: there, found: needed });
        }
        let (expected, found) = (identity.build_id(), build_id.bytes());
        if expected != found {
            return Err(Error::BuildId { at: build_id.at(), expected: expected.into(), found: found.into() });
        }
        self.check_sections(|tag| tag == METADATA || identity.knows_section(tag))
    }

    /// Checks that tags rise, that flags are known ones, and that whatever is required `is_known`.
    pub(crate) fn check_sections(&self, is_known: impl Fn(u32) -> bool) -> Result<(), Error> {
        let mut lowest = 0;
        let mut at = self.seal.sections.at();
        for section in self.sections() {
            let SealSection { tag, flags, bytes } = section?;
            if u64::from(tag) < lowest {
                let (expected, found) = (Bound::Above(lowest.saturating_sub(1)), tag.into());
                return Err(Error::Value { field: Field::SectionTag, at, expected, found });
            }
            if flags > 1 {
                let (at, expected) = (at.saturating_add(4), Bound::AtMost(1));
                return Err(Error::Value { field: Field::SectionFlags, at, expected, found: flags.into() });
            }
            if flags == 1 && !is_known(tag) {
                return Err(Error::UnknownSection { at, tag });
            }
            lowest = u64::from(tag).saturating_add(1);
            at = bytes.range().end;
        }
        Ok(())
    }

    pub(crate) const fn sections(&self) -> Sections<'a> {
        Sections { run: self.seal.sections, at: 0 }
    }

    /// Checks that a digest of the file is the one it carries.
    pub(crate) fn check_digest(&self, digest: Digest) -> Result<(), Error> {
        let is_mac = matches!(digest, Digest::Mac(_));
        let part = Digested { field: Field::File, at: 0, digest_at: self.digest_at(), expected: self.footer.digest };
        part.check(digest.finish(), is_mac)
    }

    /// Returns what the rows of the source map, which lie at `at`, have to be.
    pub(crate) fn source_map(&self, at: u64, mac_key: Option<MacKey>) -> SourceMapDigest {
        let expected = self.footer.source_map_digest;
        let digest_at = self.digest_at().saturating_sub(size(&expected.0));
        SourceMapDigest { part: Digested { field: Field::SourceMap, at, digest_at, expected }, mac_key }
    }
}

/// Returns the error for a number of an architecture or operating system that is none: 0 stands for all that have none.
fn unknown(field: Field, at: u64, number: u16, last: u16) -> Error {
    let expected = if number == 0 { Bound::Above(0) } else { Bound::AtMost(last.into()) };
    Error::Value { field, at, expected, found: number.into() }
}

/// What the rows of a source map have to be.
#[derive(Debug)]
pub(crate) struct SourceMapDigest {
    part: Digested,
    mac_key: Option<MacKey>,
}

impl SourceMapDigest {
    pub(crate) fn check(&self, rows: &[u8]) -> Result<(), Error> {
        let mac_key = self.mac_key.as_ref();
        self.part.check(Digest::of_source_map(rows, mac_key), mac_key.is_some())
    }
}

/// A part of a file, and the digest that it must have.
#[derive(Debug)]
struct Digested {
    field: Field,
    at: u64,
    /// Where the digest stands in the file.
    digest_at: u64,
    expected: DigestValue,
}

impl Digested {
    fn check(&self, found: DigestValue, is_mac: bool) -> Result<(), Error> {
        match (self.expected == found, is_mac) {
            (true, _) => Ok(()),
            (false, true) => Err(Error::Forged { at: self.digest_at }),
            (false, false) => {
                let (expected, found) = (self.expected.checksum(), found.checksum());
                Err(Error::Checksum { field: self.field, at: self.at, expected, found })
            }
        }
    }
}

/// Counts the bytes of a file that is written, and makes their digest.
struct Sum {
    digest: Digest,
    length: u64,
    code: Range<u64>,
    /// The CRC-32C of the code.
    checksum: u32,
    /// The rows of the source map, which the digest leaves out.
    rows: Range<u64>,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.length.saturating_add(size(bytes));
        if (self.length..end) == self.code {
            self.digest.add_code(bytes);
            self.digest.end_code(bytes, self.checksum);
        } else {
            let part = |range: Range<u64>| {
                let within = |at: u64| at.clamp(self.length, end).saturating_sub(self.length);
                Section::new(bytes).part(&(within(range.start)..within(range.end))).bytes()
            };
            let (before, behind) = (part(0..self.rows.start), part(self.rows.end..u64::MAX));
            self.digest.add(before);
            self.digest.add(behind);
        }
        self.length = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sections of a sealed entry as they stand in the file.
#[derive(Clone, Debug)]
pub(crate) struct Sections<'a> {
    pub(crate) run: Section<'a>,
    at: u64,
}

impl<'a> Sections<'a> {
    /// Returns the sections in a run of them.
    pub(crate) const fn of(run: Section<'a>) -> Self {
        Self { run, at: 0 }
    }

    /// Returns the bytes of the section with that tag.
    pub(crate) fn find(self, tag: u32) -> Option<&'a [u8]> {
        let mut sound = self.map_while(Result::ok);
        sound.find(|section| section.tag == tag).map(|section| section.bytes.bytes())
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<SealSection<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = self.run.length();
        if self.at == length {
            return None;
        }
        let read = format::read::<SealSection<'_>>(self.run, self.at, self.run);
        // After an error there is nothing to go on from.
        self.at = read.as_ref().map_or(length, |(_, end)| *end);
        Some(read.map(|(section, _)| section))
    }
}

impl fmt::Display for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Checksum => "sealed with a checksum",
            Self::Mac(_) => "sealed with a MAC",
        })
    }
}

//! What a sealed entry has behind its body: the binding to key and machine, sections, and a digest of every byte.

use super::digest::{Digest, DigestValue, MacKey};
use super::identity::Identity;
use crate::error::{Bound, Error, Field};
use crate::format::{self, Footer, Run, Seal, Section};
use crate::words::{Arch, CpuFeatures, Key, Os, Target, size};

/// The tag of the section that [`Builder::metadata`](crate::Builder::metadata) writes.
///
/// Tags from here on are the format's; the ones below are the engine's.
pub(crate) const METADATA: u32 = 1 << 31;

/// The tags of what code is linked to.
pub(crate) const IMPORTS: u32 = METADATA + 1;
pub(crate) const DATA: u32 = METADATA + 2;
pub(crate) const RELOCATIONS: u32 = METADATA + 3;
pub(crate) const SYMBOLS: u32 = METADATA + 4;
pub(crate) const UNWIND_TABLES: u32 = METADATA + 5;

/// The tag of what the key of an entry is made of.
pub(crate) const RECIPE: u32 = METADATA + 6;

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
    pub(crate) fn read(file: Run<'a>, header_end: u64, kind: u8, identity: &Identity) -> Result<Self, Error> {
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
        let found = check_target(self.at.saturating_add(Seal::ARCH), *arch, *os, identity)?;
        let (needed, there) = (CpuFeatures::from_bits(found.arch, *cpu_features), identity.cpu());
        if !needed.missing_from(there).is_empty() {
            return Err(Error::CpuFeatures { at: self.cpu_features_at(), expected: there, found: needed });
        }
        let (expected, found) = (identity.build_id(), build_id.bytes());
        if expected != found {
            return Err(Error::BuildId { at: build_id.at(), expected: expected.into(), found: found.into() });
        }
        self.check_sections(|tag| match tag {
            METADATA | RECIPE => true,
            // Where offsets count from the start of the code, it lies in memory in no known place of a page.
            IMPORTS..=UNWIND_TABLES => identity.alignment().in_file,
            tag => identity.knows_section(tag),
        })
    }

    /// Checks that tags rise, that flags are known ones, and that whatever is required `is_known`.
    pub(crate) fn check_sections(&self, is_known: impl Fn(u32) -> bool) -> Result<(), Error> {
        let mut lowest = 0;
        let mut at = self.seal.sections.at();
        for section in self.sections() {
            let Section { tag, flags, bytes } = section?;
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
    pub(crate) fn check_digest(&self, digest: Digest, is_mac: bool) -> Result<(), Error> {
        let part = Digested {
            field: Field::File,
            at: 0,
            digest_at: self.digest_at(),
            expected: DigestValue(self.footer.digest.0),
        };
        part.check(digest.finish(), is_mac)
    }

    /// Returns what the rows of the source map, which lie at `at`, have to be.
    pub(crate) fn source_map(&self, at: u64, mac_key: Option<MacKey>) -> SourceMapDigest {
        let expected = DigestValue(self.footer.source_map_digest.0);
        let digest_at = self.digest_at().saturating_sub(size(&expected.0));
        SourceMapDigest { part: Digested { field: Field::SourceMap, at, digest_at, expected }, mac_key }
    }
}

/// Returns footer and seal as they stand at the end of a file, with nothing compared but the magic. There is no seal
/// where the footer leads to none, or where it was not read.
pub(super) fn at_end(file: Run<'_>) -> Option<(Footer, Option<Seal<'_>>)> {
    let length = file.length();
    let footer_at = length.checked_sub(Footer::SIZE)?;
    let (footer, _) = format::read::<Footer>(file.part(&(footer_at..length)), 0, ()).ok()?;
    let inside = file.part(&(length.saturating_sub(footer.seal_length)..footer_at));
    let seal = format::read::<Seal<'_>>(inside, 0, inside).ok();
    (footer.magic == Footer::MAGIC).then(|| (footer, seal.map(|(seal, _)| seal)))
}

/// Compares a target with that of an identity: its numbers stand at `at`, one behind the other.
pub(super) fn check_target(at: u64, arch: u16, os: u16, identity: &Identity) -> Result<Target, Error> {
    let (expected, found) = (identity.target(), target(at, arch, os)?);
    if found == expected { Ok(found) } else { Err(Error::Target { at, expected, found }) }
}

/// Returns the target of those numbers, which stand at `at`.
pub(super) fn target(at: u64, arch: u16, os: u16) -> Result<Target, Error> {
    Ok(Target {
        arch: Arch::from_number(arch).ok_or_else(|| unknown(Field::Arch, at, arch, Arch::LAST))?,
        os: Os::from_number(os).ok_or_else(|| unknown(Field::Os, at.saturating_add(2), os, Os::LAST))?,
    })
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
        let mut digest = Digest::of_source_map(mac_key);
        digest.add(rows);
        self.part.check(digest.finish(), mac_key.is_some())
    }
}

/// A part of a file, and the digest that it must have.
#[derive(Debug)]
pub(super) struct Digested {
    pub(super) field: Field,
    pub(super) at: u64,
    /// Where the digest stands in the file.
    pub(super) digest_at: u64,
    pub(super) expected: DigestValue,
}

impl Digested {
    pub(super) fn check(&self, found: DigestValue, is_mac: bool) -> Result<(), Error> {
        match (self.expected == found, is_mac) {
            (true, _) => Ok(()),
            (false, true) => Err(Error::Forged { at: self.digest_at }),
            (false, false) => {
                let (expected, found) = (self.expected.beginning(), found.beginning());
                Err(Error::Checksum { field: self.field, at: self.at, expected, found })
            }
        }
    }
}

/// The sections of a sealed entry as they stand in the file.
#[derive(Clone, Debug)]
pub(crate) struct Sections<'a> {
    pub(crate) run: Run<'a>,
    at: u64,
}

impl<'a> Sections<'a> {
    /// Returns the sections in a run of them.
    pub(crate) const fn of(run: Run<'a>) -> Self {
        Self { run, at: 0 }
    }

    /// Returns the bytes of the section with that tag, and where they lie.
    pub(crate) fn find(self, tag: u32) -> Option<Run<'a>> {
        let mut sound = self.map_while(Result::ok);
        sound.find(|section| section.tag == tag).map(|section| section.bytes)
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<Section<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = self.run.length();
        if self.at == length {
            return None;
        }
        let read = format::read::<Section<'_>>(self.run, self.at, self.run);
        // After an error there is nothing to go on from.
        self.at = read.as_ref().map_or(length, |(_, end)| *end);
        Some(read.map(|(section, _)| section))
    }
}

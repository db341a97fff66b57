//! An entry as a view: what stands in it, and whether it is sound.

use std::io::{self, Write};
use std::ops::Range;

use super::alignment::Alignment;
use super::digest::{Digest, MacKey, Sum, crc32c};
use super::identity::Identity;
use super::parts::Parts;
use super::seal::{METADATA, RECIPE, Sealed, SourceMapDigest};
use super::tables::{FunctionOffsets, SourceMap, TryTables};
use crate::error::{Bound, Error, Field};
use crate::format::{self, Body, CatchClauses, Header, Run, Violation};
use crate::words::{Key, Magic, Revision, Target, Version, size};

/// An entry, borrowed from the bytes of its file or from the [`Builder`](crate::Builder) that made it.
///
/// [`Entry::parse`] looks at lengths only and takes the same time for any size; [`Entry::verify`] reads everything.
///
/// ```
/// use jitcache::{Builder, Entry, Identity, Key};
///
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let key = Key::of(&identity).source(b"fn main() {}").finish();
/// let mut builder = Builder::new();
/// builder.code(&[0xc3][..]).function(0);
/// let file = builder.finish(&identity, &key)?.to_vec();
///
/// let entry = Entry::parse(&file, &identity)?;
/// entry.verify()?;
/// assert_eq!(entry.code(), [0xc3]);
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub(crate) header: Header<'a>,
    /// How the body is laid out.
    pub(crate) revision: Revision,
    pub(crate) body: Body<'a>,
    pub(crate) sealed: Option<Sealed<'a>>,
    /// The file that the entry was read from; empty if it was built, and then its digest is right by construction.
    pub(super) file: Run<'a>,
    /// The machine of the identity.
    pub(super) target: Target,
    pub(super) alignment: Alignment,
    pub(super) mac_key: Option<MacKey>,
}

/// Entries are equal if they are the same bytes, wherever those lie.
impl PartialEq for Entry<'_> {
    fn eq(&self, other: &Self) -> bool {
        (&self.header, &self.body) == (&other.header, &other.body)
            && self.sealed.as_ref().map(|sealed| (&sealed.seal, &sealed.footer))
                == other.sealed.as_ref().map(|sealed| (&sealed.seal, &sealed.footer))
    }
}

impl<'a> Entry<'a> {
    /// Borrows the entry that `file` is.
    ///
    /// Only lengths and what the entry says it is for are checked, and nothing is allocated. Magic and version are
    /// compared before anything behind them is looked at, and the seal before the body.
    ///
    /// # Errors
    ///
    /// [`Error::Stale`], [`Error::UnknownLayout`], or any rejection: see [`Error::is_rejection`].
    pub fn parse(file: &'a [u8], identity: &Identity) -> Result<Self, Error> {
        Self::read(Run::new(file), identity)
    }

    /// Does the same for a file that may lie in pieces.
    pub(crate) fn read(file: Run<'a>, identity: &Identity) -> Result<Self, Error> {
        let (header, at) = read_header(file, identity)?;
        let kind = identity.sealing().digest_kind();
        let revision = identity.revision().of_body(kind.is_some());
        let read_body = |end| {
            let part = file.part(&(0..end));
            format::read::<Body<'_>>(part, at, (part, revision))
        };
        let sealed = kind.map(|kind| Sealed::read(file, at, kind, identity)).transpose().or_else(|error| {
            // A file without the end of a seal was cut, or never sealed: if the cut is in the body, that is the news.
            match error {
                Error::Unsealed { .. } | Error::Truncated { field: Field::SealLength, .. } => {
                    read_body(file.length()).and(Err(error))
                }
                error => Err(error),
            }
        })?;
        let body_end = sealed.as_ref().map_or(file.length(), |sealed| sealed.at);
        let (body, end) = read_body(body_end)?;
        let (target, alignment) = (identity.target(), identity.alignment());
        let mac_key = identity.sealing().mac_key().cloned();
        let entry = Self { header, revision, body, sealed, file, target, alignment, mac_key };
        entry.check_source_map_flag()?;
        entry.check_revision()?;
        if end != body_end {
            return Err(Error::Trailing { at: end, expected: end, found: body_end });
        }
        Ok(entry)
    }

    /// Compares a key with the one that the entry was sealed under. A plain entry does not tell, and passes.
    ///
    /// # Errors
    ///
    /// [`Error::Key`].
    pub fn check_key(&self, key: &Key) -> Result<(), Error> {
        self.sealed.as_ref().map_or(Ok(()), |sealed| sealed.check_key(key))
    }

    /// Checks that readers of an identity take the entry. What was read is verified for it; what was built is sound.
    pub(crate) fn check_identity(&self, identity: &Identity) -> Result<(), Error> {
        let invalid = |rule| Err(Error::Invalid { what: "entry", rule });
        let sealing = identity.sealing();
        let kind = self.sealed.as_ref().map(|sealed| sealed.footer.digest_kind);
        if self.magic() != identity.magic() || self.version() != identity.version().as_bytes() {
            return invalid("must have the magic and the version of the store");
        }
        if kind != sealing.digest_kind() || self.mac_key.as_ref() != sealing.mac_key() {
            return invalid("must be sealed as those of the store are, and under its MAC key");
        }
        match &self.sealed {
            Some(sealed) => sealed.check_identity(identity)?,
            None if self.target != identity.target() => return invalid("must be for the target of the store"),
            None => {}
        }
        self.check_readable_in(identity.revision().of_body(kind.is_some()))?;
        let read_there = Entry { alignment: identity.alignment(), ..self.clone() };
        if self.file.length() > 0 { read_there.verify() } else { read_there.check_function_offsets() }
    }

    /// Checks everything that can be checked: the checksum of the code, every function offset, every row of the source
    /// map, every catch clause and, if the entry is sealed, the digest of every byte.
    ///
    /// # Errors
    ///
    /// Any rejection: see [`Error::is_rejection`].
    pub fn verify(&self) -> Result<(), Error> {
        if let Some(mut sum) = self.begin_sum() {
            sum.add_code(self.body.code.bytes());
            self.end_sum(sum)?;
        }
        if let Some(digest) = self.source_map_digest() {
            digest.check(self.part(&self.source_map_rows()))?;
        }
        self.check_code_checksum(crc32c(0, self.body.code.bytes()))?;
        self.check_tables()
    }

    /// Returns the six bytes that the entry begins with.
    #[must_use]
    pub const fn magic(&self) -> Magic {
        Magic(self.header.magic.0)
    }

    /// Returns the version of the engine that wrote the entry.
    #[must_use]
    pub fn version(&self) -> &'a [u8] {
        self.header.version.bytes()
    }

    /// Returns the machine code, as the engine handed it in.
    #[must_use]
    pub fn code(&self) -> &'a [u8] {
        let padding = usize::try_from(self.padding()).unwrap_or(usize::MAX);
        self.body.code.bytes().get(padding..).unwrap_or_default()
    }

    /// Returns how many bytes of padding stand in front of the engine's code, so that it is aligned in its file: see
    /// [`Alignment`]. No offset but [`Entry::code_range`] counts them.
    #[must_use]
    pub fn padding(&self) -> u64 {
        self.alignment.padding(self.body.code.at()).min(self.body.code.length())
    }

    /// Returns the extent of the code in the file, in bytes, with its padding.
    #[must_use]
    pub fn code_range(&self) -> Range<u64> {
        self.body.code.range()
    }

    /// Returns the extent of the engine's code in the file, in bytes, without the padding.
    pub(super) fn engine_range(&self) -> Range<u64> {
        let code = self.code_range();
        code.start.saturating_add(self.padding())..code.end
    }

    /// Returns the CRC-32C that the entry gives for its code.
    #[must_use]
    pub const fn code_checksum(&self) -> u32 {
        self.body.code_checksum
    }

    /// Returns the offsets of the functions in the code.
    #[must_use]
    pub fn functions(&self) -> FunctionOffsets<'a> {
        FunctionOffsets::new(self.body.function_offsets, self.padding())
    }

    /// Returns the source map, if the entry has one.
    #[must_use]
    pub fn source_map(&self) -> Option<SourceMap<'a>> {
        self.body.source_map.as_ref().map(|map| SourceMap::new(map.rows, self.padding()))
    }

    /// Returns every try table; nothing for an entry of [`Revision::SourceMap`].
    #[must_use]
    pub fn try_tables(&self) -> TryTables<'a> {
        self.body.catch_clauses.as_ref().map_or_else(TryTables::default, |tables| TryTables::of(tables, self.revision))
    }

    /// Returns the key that a sealed entry is bound to.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        self.sealed.as_ref().map(Sealed::key)
    }

    /// Returns the section with the engine's `tag`, if a sealed entry has it.
    #[must_use]
    pub fn section(&self, tag: u32) -> Option<&'a [u8]> {
        Some(self.sealed.as_ref()?.sections().find(tag)?.bytes())
    }

    /// Returns what the engine keeps with the code, if a sealed entry has any: see [`Builder::metadata`].
    ///
    /// [`Builder::metadata`]: crate::Builder::metadata
    #[must_use]
    pub fn metadata(&self) -> Option<&'a [u8]> {
        self.section(METADATA)
    }

    /// Returns what the key of the entry is made of, if a sealed entry keeps that: see [`Builder::recipe`].
    ///
    /// [`Builder::recipe`]: crate::Builder::recipe
    #[must_use]
    pub fn recipe(&self) -> Option<Parts<'a>> {
        self.sealed.as_ref()?.sections().find(RECIPE).map(Parts::of)
    }

    /// Returns how long the entry is as a file, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        let mut length = Length(0);
        // Counting cannot fail.
        let counted = self.write(&mut length);
        debug_assert!(counted.is_ok(), "{counted:?}");
        length.0
    }

    /// Writes the entry as a file.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        format::write(&self.header, &mut to)?;
        format::write(&self.body, &mut to)?;
        if let Some(sealed) = &self.sealed {
            format::write(&sealed.seal, &mut to)?;
            format::write(&sealed.footer, &mut to)?;
        }
        Ok(())
    }

    /// Returns the entry as the bytes of a file. Where memory may run out there is [`Entry::write`].
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut file = Vec::new();
        // Writing to memory cannot fail, and every length of an entry fits its field: it was read or built from there.
        let written = self.write(&mut file);
        debug_assert!(written.is_ok(), "{written:?}");
        file
    }

    /// Begins the sum of a file, with what stands in front of the code; `None` if the entry was built.
    pub(crate) fn begin_sum(&self) -> Option<Sum> {
        if self.file.length() == 0 {
            return None;
        }
        Some(if self.sealed.is_some() {
            let mut digest = Digest::new(self.mac_key.as_ref());
            digest.add(self.part(&(0..self.body.code.at())));
            Sum::Sealed(digest)
        } else {
            Sum::Plain(0)
        })
    }

    /// Ends the sum of a file, to which the code was added, and compares it with what the entry gives.
    pub(crate) fn end_sum(&self, sum: Sum) -> Result<(), Error> {
        match (sum, &self.sealed) {
            (Sum::Sealed(mut digest), Some(sealed)) => {
                let rows = self.source_map_rows();
                for part in [self.body.code.range().end..rows.start, rows.end..sealed.digest_at()] {
                    digest.add(self.part(&part));
                }
                sealed.check_digest(digest, self.mac_key.is_some())
            }
            (Sum::Plain(found), _) => self.check_code_checksum(found),
            // A sum is of the kind that the identity has, and so is the entry.
            (Sum::Sealed(_), None) => Ok(()),
        }
    }

    fn check_code_checksum(&self, found: u32) -> Result<(), Error> {
        let (at, expected) = (self.body.code.at(), self.body.code_checksum);
        if expected == found {
            return Ok(());
        }
        Err(Error::Checksum { field: Field::Code, at, expected: expected.into(), found: found.into() })
    }

    /// Returns a part of the file that is to be checked.
    fn part(&self, range: &Range<u64>) -> &'a [u8] {
        let part = self.file.part(range);
        // A file in pieces is cut within none of these parts, and none of them is left out.
        debug_assert_eq!(size(part.bytes()), part.length(), "{range:?}");
        part.bytes()
    }

    /// Returns where the rows of the source map lie in the file, which have a digest of their own; an empty place
    /// behind the code if there are none.
    pub(crate) fn source_map_rows(&self) -> Range<u64> {
        let end = self.body.code.range().end;
        self.body.source_map.as_ref().map_or(end..end, |map| map.rows.run().range())
    }

    /// Returns what the rows of the source map have to be, if the entry was read and sealed.
    pub(crate) fn source_map_digest(&self) -> Option<SourceMapDigest> {
        let sealed = self.sealed.as_ref().filter(|_| self.file.length() > 0)?;
        Some(sealed.source_map(self.source_map_rows().start, self.mac_key.clone()))
    }

    pub(crate) fn check_tables(&self) -> Result<(), Error> {
        self.check_source_map_flag()?;
        self.check_function_offsets()?;
        if let Some(map) = &self.body.source_map {
            let range = self.padding()..self.body.code.length();
            let checked = map.rows.check_column(SourceMap::CODE, 1, 0, range);
            checked.map_err(|violation| violation.of(Field::SourceMap))?;
        }
        self.check_try_tables()?;
        self.check_linkage()?;
        self.recipe().map_or(Ok(()), |recipe| recipe.check())
    }

    /// Checks the try tables, and that nothing is behind them.
    ///
    /// Every load does: without it, a header in front of zeros is an entry without code.
    pub(crate) fn check_try_tables(&self) -> Result<(), Error> {
        self.try_tables().try_for_each(|table| table?.clauses().try_for_each(|clause| clause.map(drop)))
    }

    /// Returns where the try tables lie in the file, and whatever is behind them; an empty place if there are none.
    pub(crate) fn try_table_range(&self) -> Range<u64> {
        self.body.catch_clauses.as_ref().map_or(0..0, |tables| tables.try_tables.range())
    }

    /// Checks that there are no try tables in a layout that is not known.
    fn check_revision(&self) -> Result<(), Error> {
        match &self.body.catch_clauses {
            Some(CatchClauses { try_table_count: found @ 1.., try_tables }) if self.revision == Revision::Unknown => {
                Err(Error::UnknownLayout { at: try_tables.at().saturating_sub(4), found: *found })
            }
            _ => Ok(()),
        }
    }

    /// Checks that whoever reads entries of `revision` reads this one as it is.
    pub(crate) fn check_readable_in(&self, revision: Revision) -> Result<(), Error> {
        match &self.body.catch_clauses {
            _ if self.revision == revision => Ok(()),
            Some(CatchClauses { try_table_count: 0, .. }) if revision != Revision::SourceMap => Ok(()),
            Some(CatchClauses { try_table_count, .. }) if revision == Revision::Unknown => {
                let (field, expected) = (Field::TryTableCount, Bound::Exactly(0));
                Err(Error::Unwritable { field, expected, found: u64::from(*try_table_count) })
            }
            _ => Err(Error::Invalid { what: "entry", rule: "must be of the revision of the store" }),
        }
    }

    pub(crate) fn check_function_offsets(&self) -> Result<(), Error> {
        let at = self.body.code.at();
        let displacement = u64::try_from(self.alignment.displacement(at)).unwrap_or(0);
        let range = self.padding()..self.body.code.length();
        let checked = self.body.function_offsets.check_column(0, self.alignment.bytes, displacement, range);
        checked.map_err(|violation| violation.of(Field::FunctionOffsets))
    }

    /// Returns the machine that the code is for.
    pub(crate) const fn target(&self) -> Target {
        self.target
    }

    /// Returns how the code has to lie in memory.
    pub(crate) const fn alignment(&self) -> Alignment {
        self.alignment
    }

    /// The flag is 0 or 1, and 0 if there is no code: wazero's reader fails on a source map without code.
    fn check_source_map_flag(&self) -> Result<(), Error> {
        let highest = u8::from(self.body.code.length() > 0);
        let found = self.body.source_map_flag;
        if found <= highest {
            return Ok(());
        }
        let at = self.body.code.range().end.saturating_add(4);
        Err(Error::Value {
            field: Field::SourceMapFlag,
            at,
            expected: Bound::AtMost(highest.into()),
            found: found.into(),
        })
    }
}

/// Reads the header of an entry, and compares magic and version; returns the offset of its end.
pub(crate) fn read_header<'a>(file: Run<'a>, identity: &Identity) -> Result<(Header<'a>, u64), Error> {
    read_header_at(file, 0, identity)
}

/// Does the same for a header that stands at `at` in the file.
pub(super) fn read_header_at<'a>(file: Run<'a>, at: u64, identity: &Identity) -> Result<(Header<'a>, u64), Error> {
    let magic = at..at.saturating_add(size(&identity.magic().0));
    if let Some(&found) = file.part(&magic).bytes().first_chunk()
        && found != identity.magic().0
    {
        return Err(Error::Magic { at, expected: identity.magic(), found: Magic(found) });
    }
    let (header, end) = format::read::<Header<'_>>(file, at, file)?;
    if header.version.bytes() != identity.version().as_bytes() {
        let found = Version::of(header.version.bytes());
        return Err(Error::Stale { at: header.version.at(), expected: identity.version().clone(), found });
    }
    Ok((header, end))
}

/// Counts the bytes that are written.
pub(crate) struct Length(pub(crate) u64);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(size(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Violation {
    fn of(self, field: Field) -> Error {
        Error::Value { field, at: self.at, expected: self.expected, found: self.found }
    }
}

//! An entry as a view: what stands in it, and whether it is sound.

use std::io::{self, Write};
use std::ops::Range;

use crate::error::{Bound, Error, Field};
use crate::format::{self, Body, Header, Section, Table, Violation, size};
use crate::identity::{Identity, Magic, Revision, Version};
use crate::tables::{FunctionOffsets, SourceMap, TryTables};

/// An entry, borrowed from the bytes of its file or from the [`Builder`](crate::Builder) that made it.
///
/// [`Entry::parse`] looks at lengths only and takes the same time for any size; [`Entry::verify`] reads everything.
///
/// ```
/// use jitcache::{Builder, Entry, Identity};
///
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let mut builder = Builder::new();
/// builder.code(&[0xc3][..]).function(0);
/// let file = builder.finish(&identity)?.to_vec();
///
/// let entry = Entry::parse(&file, &identity)?;
/// entry.verify()?;
/// assert_eq!(entry.code(), [0xc3]);
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<'a> {
    pub(crate) header: Header<'a>,
    pub(crate) body: Body<'a>,
    pub(crate) function_alignment: u64,
}

impl<'a> Entry<'a> {
    /// Borrows the entry that `file` is.
    ///
    /// Only lengths, magic and version are checked, and nothing is allocated. The magic and the version are compared
    /// before anything behind them is looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Magic`], [`Error::Stale`], [`Error::Truncated`], [`Error::Value`] or [`Error::Trailing`].
    pub fn parse(file: &'a [u8], identity: &Identity) -> Result<Self, Error> {
        if let Some(&found) = file.first_chunk()
            && found != identity.magic().0
        {
            return Err(Error::Magic { at: 0, expected: identity.magic(), found: Magic(found) });
        }
        let whole = Section::new(file);
        let (header, at) = format::read::<Header<'_>>(whole, 0, file)?;
        if header.version.bytes() != identity.version().as_bytes() {
            let found = Version::found(header.version.bytes());
            return Err(Error::Stale { at: header.version.at(), expected: identity.version().clone(), found });
        }
        let has_catch_clauses = identity.revision() == Revision::CatchClauses;
        let (body, end) = format::read::<Body<'_>>(whole, at, (file, has_catch_clauses))?;
        let entry = Self { header, body, function_alignment: identity.function_alignment() };
        entry.check_source_map_flag()?;
        if end != size(file) {
            return Err(Error::Trailing { at: end, expected: end, found: size(file) });
        }
        Ok(entry)
    }

    /// Checks everything that can be checked: the checksum of the code, every function offset, every row of the source
    /// map and every catch clause.
    ///
    /// # Errors
    ///
    /// [`Error::Checksum`], [`Error::Value`], [`Error::Truncated`] or [`Error::Trailing`], for the first of those that is
    /// wrong.
    pub fn verify(&self) -> Result<(), Error> {
        self.check_code(crc32c::crc32c(self.code()))?;
        self.check_tables()
    }

    /// Returns the six bytes that the entry begins with.
    #[must_use]
    pub const fn magic(&self) -> Magic {
        Magic(self.header.magic.0)
    }

    /// Returns the version of the engine that wrote the entry.
    #[must_use]
    pub const fn version(&self) -> &'a [u8] {
        self.header.version.bytes()
    }

    /// Returns the machine code.
    #[must_use]
    pub const fn code(&self) -> &'a [u8] {
        self.body.code.bytes()
    }

    /// Returns the extent of the code in the file, in bytes; it starts at 0 for an entry that is not from a file.
    #[must_use]
    pub fn code_range(&self) -> Range<u64> {
        self.body.code.range()
    }

    /// Returns the CRC-32C that the entry gives for its code.
    #[must_use]
    pub const fn code_checksum(&self) -> u32 {
        self.body.code_checksum
    }

    /// Returns the offsets of the functions in the code.
    #[must_use]
    pub const fn functions(&self) -> FunctionOffsets<'a> {
        FunctionOffsets(self.body.function_offsets)
    }

    /// Returns the source map, if the entry has one.
    #[must_use]
    pub fn source_map(&self) -> Option<SourceMap<'a>> {
        self.body.source_map.as_ref().map(|map| SourceMap(map.rows))
    }

    /// Returns the catch clauses of every try table; nothing for an entry of [`Revision::SourceMap`].
    #[must_use]
    pub fn try_tables(&self) -> TryTables<'a> {
        self.body.catch_clauses.as_ref().map_or_else(TryTables::default, TryTables::of)
    }

    /// Writes the entry as a file.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        format::write(&self.header, &mut to)?;
        format::write(&self.body, &mut to)
    }

    /// Returns the entry as the bytes of a file.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut file = Vec::new();
        // Writing to memory cannot fail, and every length of an entry fits its field: it was read or built from there.
        let written = self.write(&mut file);
        debug_assert!(written.is_ok(), "{written:?}");
        file
    }

    pub(crate) fn check_code(&self, found: u32) -> Result<(), Error> {
        let expected = self.body.code_checksum;
        if expected == found {
            return Ok(());
        }
        Err(Error::Checksum { field: Field::Code, at: self.body.code.at(), expected, found })
    }

    pub(crate) fn check_tables(&self) -> Result<(), Error> {
        self.check_source_map_flag()?;
        self.check_function_offsets(self.body.function_offsets)?;
        if let Some(map) = self.source_map() {
            let checked = map.0.check_column(SourceMap::CODE, 1, size(self.code()));
            checked.map_err(|violation| violation.of(Field::SourceMap))?;
        }
        self.try_tables().try_for_each(|table| table?.try_for_each(|clause| clause.map(drop)))
    }

    /// Checks the function offsets, or a copy of them.
    pub(crate) fn check_function_offsets(&self, offsets: Table<'_, 1>) -> Result<(), Error> {
        let checked = offsets.check_column(0, self.function_alignment, size(self.code()));
        checked.map_err(|violation| violation.of(Field::FunctionOffsets))
    }

    /// The flag is 0 or 1, and 0 if there is no code: wazero's reader fails on a source map without code.
    fn check_source_map_flag(&self) -> Result<(), Error> {
        let highest = u8::from(!self.code().is_empty());
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

impl Violation {
    fn of(self, field: Field) -> Error {
        Error::Value { field, at: self.at, expected: self.expected, found: self.found }
    }
}

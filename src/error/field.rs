//! The parts of an entry that errors point at, and the values they may have.

use std::fmt;

/// A part of an entry that an error can point at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The six bytes that name the engine.
    Magic,
    /// The length of the version, one byte.
    VersionLength,
    /// The version of the engine.
    Version,
    /// The number of functions.
    FunctionCount,
    /// The table of function offsets.
    FunctionOffsets,
    /// The length of the code in bytes.
    CodeLength,
    /// The machine code.
    Code,
    /// The CRC-32C of the code.
    CodeChecksum,
    /// The byte that tells whether a source map follows.
    SourceMapFlag,
    /// The number of source map rows.
    SourceMapLength,
    /// The rows of the source map.
    SourceMap,
    /// The number of try tables.
    TryTableCount,
    /// The number of locals that one try table keeps.
    LocalCount,
    /// The byte that tells whether a try table keeps its locals where the one around it does.
    ReuseFlag,
    /// The number of clauses of one try table.
    CatchClauseCount,
    /// The catch clauses of one try table.
    CatchClauses,
    /// The key that a sealed entry is bound to.
    Key,
    /// The number of the architecture.
    Arch,
    /// The number of the operating system.
    Os,
    /// The processor features that the code needs.
    CpuFeatures,
    /// The length of the build id, one byte.
    BuildIdLength,
    /// The build id of the engine.
    BuildId,
    /// The tag of a section.
    SectionTag,
    /// The flags of a section.
    SectionFlags,
    /// The length of a section.
    SectionLength,
    /// The bytes of a section.
    Section,
    /// The length of the name of an import.
    ImportLength,
    /// The name of an import.
    Import,
    /// The length of the data that nobody writes to.
    ReadOnlyLength,
    /// The data beside the code.
    Data,
    /// The addresses that are written when an entry is loaded.
    Relocations,
    /// The number of symbols.
    SymbolCount,
    /// The symbols.
    Symbols,
    /// The unwind tables.
    UnwindTables,
    /// The number that tells what a part of a recipe is.
    PartKind,
    /// The length of the name of a part of a recipe.
    PartNameLength,
    /// The name of a part of a recipe.
    PartName,
    /// The length of the value of a part of a recipe.
    PartValueLength,
    /// The value of a part of a recipe.
    PartValue,
    /// The length of seal and footer.
    SealLength,
    /// The length of the whole file.
    FileLength,
    /// The number that tells how the digest is made.
    DigestKind,
    /// The digest of the rows of the source map.
    SourceMapDigest,
    /// The digest of everything in front of it, except the rows of the source map.
    Digest,
    /// The eight bytes that a sealed entry ends with.
    SealMagic,
    /// The whole file, up to its digest.
    File,
    /// The eight bytes that a pack begins with.
    PackMagic,
    /// The offset of an entry in a pack.
    EntryOffset,
    /// The length of an entry in a pack.
    EntryLength,
    /// The index of a pack, with what the pack is for.
    Index,
    /// The number of entries in a pack.
    EntryCount,
}

impl Field {
    /// Returns the name of the field as SPEC.md writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Magic => "magic",
            Self::VersionLength => "version length",
            Self::Version => "version",
            Self::FunctionCount => "function count",
            Self::FunctionOffsets => "function offsets",
            Self::CodeLength => "code length",
            Self::Code => "code",
            Self::CodeChecksum => "code checksum",
            Self::SourceMapFlag => "source map flag",
            Self::SourceMapLength => "source map length",
            Self::SourceMap => "source map",
            Self::TryTableCount => "try table count",
            Self::LocalCount => "local count",
            Self::ReuseFlag => "reuse flag",
            Self::CatchClauseCount => "catch clause count",
            Self::CatchClauses => "catch clauses",
            Self::Key => "key",
            Self::Arch => "architecture",
            Self::Os => "operating system",
            Self::CpuFeatures => "CPU features",
            Self::BuildIdLength => "build id length",
            Self::BuildId => "build id",
            Self::SectionTag => "section tag",
            Self::SectionFlags => "section flags",
            Self::SectionLength => "section length",
            Self::Section => "section",
            Self::ImportLength => "import length",
            Self::Import => "import",
            Self::ReadOnlyLength => "read-only length",
            Self::Data => "data",
            Self::Relocations => "relocations",
            Self::SymbolCount => "symbol count",
            Self::Symbols => "symbols",
            Self::UnwindTables => "unwind tables",
            Self::PartKind => "part kind",
            Self::PartNameLength => "part name length",
            Self::PartName => "part name",
            Self::PartValueLength => "part value length",
            Self::PartValue => "part value",
            Self::SealLength => "seal length",
            Self::FileLength => "file length",
            Self::DigestKind => "digest kind",
            Self::SourceMapDigest => "source map digest",
            Self::Digest => "digest",
            Self::SealMagic => "seal magic",
            Self::File => "file",
            Self::PackMagic => "pack magic",
            Self::EntryOffset => "entry offset",
            Self::EntryLength => "entry length",
            Self::Index => "index",
            Self::EntryCount => "entry count",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The values that a number in an entry may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// Exactly this value.
    Exactly(u64),
    /// This value or a smaller one.
    AtMost(u64),
    /// A value smaller than this one.
    Below(u64),
    /// A value larger than this one.
    Above(u64),
    /// A multiple of this value.
    MultipleOf(u64),
}

impl Bound {
    /// Returns what is allowed of values that are counted from `start` on.
    pub(crate) const fn behind(self, start: u64) -> Self {
        match self {
            Self::Exactly(value) => Self::Exactly(value.saturating_sub(start)),
            Self::AtMost(value) => Self::AtMost(value.saturating_sub(start)),
            Self::Below(value) => Self::Below(value.saturating_sub(start)),
            Self::Above(value) => Self::Above(value.saturating_sub(start)),
            Self::MultipleOf(value) => Self::MultipleOf(value),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(f, "{value}"),
            Self::AtMost(value) => write!(f, "at most {value}"),
            Self::Below(value) => write!(f, "less than {value}"),
            Self::Above(value) => write!(f, "more than {value}"),
            Self::MultipleOf(value) => write!(f, "a multiple of {value}"),
        }
    }
}

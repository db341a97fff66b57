//! What can be wrong, where, and what was expected there.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::identity::{Magic, Version};

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
    /// The number of clauses of one try table.
    CatchClauseCount,
    /// The catch clauses of one try table.
    CatchClauses,
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
            Self::CatchClauseCount => "catch clause count",
            Self::CatchClauses => "catch clauses",
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

/// Everything that can go wrong, with the place and both values.
///
/// The first group of variants are *rejections*: they say what is wrong with the bytes of an entry, `at` being the offset
/// in the file. The remedy for all of them is to compile again. [`Error::Stale`] is not damage: another version of the
/// engine wrote the entry. The last group are failures of the machine or mistakes of the caller.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file is of another engine, or no entry at all.
    Magic {
        /// Offset of the magic.
        at: u64,
        /// Magic of the identity that asked.
        expected: Magic,
        /// Magic in the file.
        found: Magic,
    },
    /// Another version of the engine wrote the entry; nothing behind the version was looked at.
    Stale {
        /// Offset of the version.
        at: u64,
        /// Version of the identity that asked.
        expected: Version,
        /// Version in the file.
        found: Version,
    },
    /// The file ends inside a field.
    Truncated {
        /// The field that is cut.
        field: Field,
        /// Offset at which the field starts.
        at: u64,
        /// Bytes that the field needs from there.
        expected: u64,
        /// Bytes that are left there.
        found: u64,
    },
    /// A number has a value that no writer gives it.
    Value {
        /// The field that holds the number.
        field: Field,
        /// Offset of the number.
        at: u64,
        /// The values it may have.
        expected: Bound,
        /// The value it has.
        found: u64,
    },
    /// The bytes of a field do not have the checksum that the entry gives for them.
    Checksum {
        /// The field whose bytes were summed.
        field: Field,
        /// Offset at which those bytes start.
        at: u64,
        /// The checksum that the entry gives.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// The file goes on behind the end of the entry.
    Trailing {
        /// Offset of the end of the entry.
        at: u64,
        /// Length that the file should have, in bytes.
        expected: u64,
        /// Length that the file has, in bytes.
        found: u64,
    },
    /// What stands under the name of an entry is no regular file.
    NotAFile {
        /// The name that was opened.
        path: PathBuf,
    },

    /// A system call on a file failed.
    Io {
        /// What was being done, as in "cannot *read*".
        action: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The reason the system gave.
        source: io::Error,
    },
    /// The system refused memory for code or for a file.
    Memory {
        /// What was being done, as in "cannot *allocate*".
        action: &'static str,
        /// Bytes it was to be done to.
        length: u64,
        /// The reason the system gave.
        source: io::Error,
    },
    /// Code cannot be made executable on this machine: the crate does not know how to keep its caches coherent.
    UnsupportedMachine,
    /// A name, version or key given by the caller cannot be used.
    Invalid {
        /// What was given.
        what: &'static str,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// What the caller asked to write is no valid entry.
    Unwritable {
        /// The field that would be wrong.
        field: Field,
        /// The values it may have.
        expected: Bound,
        /// The value that was given.
        found: u64,
    },
}

impl Error {
    /// Returns whether another version of the engine wrote the entry.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// Returns whether the bytes of an entry are at fault, and not the machine or the caller.
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        matches!(
            self,
            Self::Magic { .. }
                | Self::Truncated { .. }
                | Self::Value { .. }
                | Self::Checksum { .. }
                | Self::Trailing { .. }
                | Self::NotAFile { .. }
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { at, expected, found } => {
                write!(f, "magic at {at:#x}: expected {expected}, found {found}")
            }
            Self::Stale { at, expected, found } => {
                write!(f, "version at {at:#x}: expected {expected}, found {found}")
            }
            Self::Truncated { field, at, expected, found } => {
                write!(f, "{field} at {at:#x}: expected {expected} bytes, found {found}")
            }
            Self::Value { field, at, expected, found } => {
                write!(f, "{field} at {at:#x}: expected {expected}, found {found}")
            }
            Self::Checksum { field, at, expected, found } => {
                write!(f, "checksum of {field} at {at:#x}: expected {expected:08x}, found {found:08x}")
            }
            Self::Trailing { at, expected, found } => {
                write!(f, "end of the entry at {at:#x}: expected a file of {expected} bytes, found {found}")
            }
            Self::NotAFile { path } => write!(f, "{}: expected a regular file", path.display()),
            Self::Io { action, path, source } => write!(f, "cannot {action} {}: {source}", path.display()),
            Self::Memory { action, length, source } => write!(f, "cannot {action} {length} bytes of memory: {source}"),
            Self::UnsupportedMachine => f.write_str("code cannot be made executable on this machine"),
            Self::Invalid { what, rule } => write!(f, "the {what} {rule}"),
            Self::Unwritable { field, expected, found } => {
                write!(f, "{field}: expected {expected}, was given {found}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Memory { source, .. } => Some(source),
            _ => None,
        }
    }
}

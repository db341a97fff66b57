//! What can be wrong, where, and what was expected there.

mod explain;
mod field;
pub(crate) mod heap;

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::words::{CpuFeatures, Key, Magic, Place, RelocationKind, Target, Version};
pub use field::{Bound, Field};

/// What this crate returns: a result whose error is an [`enum@Error`] unless it is said to be another.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with the place and both values.
///
/// The first group of variants are *rejections*: they say what is wrong with the bytes of an entry, `at` being the
/// offset in the file. The remedy for all of them is to compile again. [`Error::Stale`] is not damage: another version
/// of the engine wrote the entry. Neither is [`Error::UnknownLayout`]: others can read the entry, so it is to be left.
/// The last group are failures of the machine or mistakes of the caller.
///
/// An error prints as one line that is whole: the reason that the system gave is part of it. So that a report does not
/// tell that twice, [`source`](std::error::Error::source) returns `None`; the [`io::Error`] is in the field of that
/// name.
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
    /// The entry has try tables, and how its version lays them out is not known: see
    /// [`Revision::Unknown`](crate::Revision::Unknown).
    UnknownLayout {
        /// Offset of the try table count.
        at: u64,
        /// The number of try tables.
        found: u32,
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
    /// The bytes of a field do not have the checksum or the digest that the entry gives for them; of a digest the first
    /// eight bytes are told.
    Checksum {
        /// The field whose bytes were summed.
        field: Field,
        /// Offset at which those bytes start.
        at: u64,
        /// The checksum that the entry gives.
        expected: u64,
        /// The checksum of the bytes.
        found: u64,
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
    /// The entry must be sealed, and the file does not end with a seal.
    Unsealed {
        /// Offset at which the seal's magic should stand.
        at: u64,
        /// The magic.
        expected: [u8; 8],
        /// What stands there.
        found: [u8; 8],
    },
    /// The file is no pack, or one of another layout.
    NotAPack {
        /// Offset of the pack's magic.
        at: u64,
        /// The magic.
        expected: [u8; 8],
        /// What stands there.
        found: [u8; 8],
    },
    /// The entry was sealed under another key: it was renamed, or its key is not what was compiled.
    Key {
        /// Offset of the key.
        at: u64,
        /// The key that was asked for.
        expected: Key,
        /// The key in the entry.
        found: Key,
    },
    /// The code is for another architecture or operating system.
    Target {
        /// Offset of the architecture.
        at: u64,
        /// The target of the identity that asked.
        expected: Target,
        /// The target in the entry.
        found: Target,
    },
    /// The code needs features that the processor does not have.
    CpuFeatures {
        /// Offset of the features.
        at: u64,
        /// The features that are there.
        expected: CpuFeatures,
        /// The features that the code needs.
        found: CpuFeatures,
    },
    /// Another build of the engine wrote the entry.
    BuildId {
        /// Offset of the build id.
        at: u64,
        /// The build id of the identity that asked, empty if it has none.
        expected: Box<[u8]>,
        /// The build id in the entry, empty if it has none.
        found: Box<[u8]>,
    },
    /// The entry has a section that must be understood, and is not.
    UnknownSection {
        /// Offset of the section.
        at: u64,
        /// Tag of the section.
        tag: u32,
    },
    /// The MAC of the file is not the one it carries. The right one is not told: it would be a valid signature.
    Forged {
        /// Offset of the MAC.
        at: u64,
    },
    /// What stands under the name of an entry is no regular file.
    NotAFile {
        /// The name that was opened.
        path: PathBuf,
    },
    /// Others than those whom the store trusts can write to a directory or an entry: see [`Trust`](crate::Trust).
    Untrusted {
        /// The directory or file.
        path: PathBuf,
        /// The user who owns it.
        owner: u32,
        /// Its mode, of which the last twelve bits are told.
        mode: u32,
        /// The rule it breaks.
        rule: &'static str,
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
    /// The store was opened for reading alone, and is not changed.
    ReadOnly {
        /// The directory of its entries.
        path: PathBuf,
    },
    /// There is no module of the key in memory and none in the store, and nothing is to be compiled.
    NotCompiled {
        /// The key that was asked for.
        key: Key,
    },
    /// The code is for another target than this program's, and cannot run in it.
    Foreign {
        /// The target of this program.
        expected: Target,
        /// The target of the identity that the entry was read or built with.
        found: Target,
    },
    /// The code needs features that the identity has, and this machine does not: it cannot run here.
    LesserProcessor {
        /// The features that are missing.
        missing: CpuFeatures,
    },
    /// The entry imports a name that the engine has no address for: see [`Linker`](crate::Linker).
    UnboundImport {
        /// The name; what is no text in it is escaped.
        name: Box<str>,
    },
    /// A relocation that an engine handed in cannot be resolved.
    Relocation {
        /// Where the address was to be written.
        at: Place,
        /// How it was to be written.
        kind: RelocationKind,
        /// What it was the address of.
        target: Place,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// An object file cannot become an entry.
    Object {
        /// What of it cannot be, and why.
        reason: Box<str>,
    },
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { at, expected, found } => {
                write!(f, "magic at {at:#x}: expected {expected}, found {found}")
            }
            Self::Stale { at, expected, found } => {
                write!(f, "version at {at:#x}: expected {expected}, found {found}")
            }
            Self::UnknownLayout { at, found } => {
                write!(f, "try table count at {at:#x}: expected 0 in a version of unknown layout, found {found}")
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
            Self::Unsealed { at, expected, found } => {
                write!(
                    f,
                    "seal magic at {at:#x}: expected \"{}\", found \"{}\"",
                    expected.escape_ascii(),
                    found.escape_ascii()
                )
            }
            Self::NotAPack { at, expected, found } => {
                write!(
                    f,
                    "pack magic at {at:#x}: expected \"{}\", found \"{}\"",
                    expected.escape_ascii(),
                    found.escape_ascii()
                )
            }
            Self::Key { at, expected, found } => write!(f, "key at {at:#x}: expected {expected}, found {found}"),
            Self::Target { at, expected, found } => write!(f, "target at {at:#x}: expected {expected}, found {found}"),
            Self::CpuFeatures { at, expected, found } => {
                let missing = found.missing_from(*expected);
                write!(f, "CPU features at {at:#x}: expected among {expected}, found {found}: missing are {missing}")
            }
            Self::BuildId { at, expected, found } => {
                write!(
                    f,
                    "build id at {at:#x}: expected \"{}\", found \"{}\"",
                    expected.escape_ascii(),
                    found.escape_ascii()
                )
            }
            Self::UnknownSection { at, tag } => {
                write!(
                    f,
                    "section at {at:#x}: expected a known tag or an optional section, found tag {tag:#x}, required"
                )
            }
            Self::Forged { at } => write!(f, "MAC at {at:#x}: expected that of the file under the key, found another"),
            Self::NotAFile { path } => write!(f, "{}: expected a regular file", path.display()),
            Self::Untrusted { path, owner, mode, rule } => {
                write!(
                    f,
                    "{} {rule}: expected one that only this user can change, found owner {owner}, mode {mode:04o}",
                    path.display()
                )
            }
            Self::Io { action, path, source } => write!(f, "cannot {action} {}: {source}", path.display()),
            Self::Memory { action, length, source } => write!(f, "cannot {action} {length} bytes of memory: {source}"),
            Self::ReadOnly { path } => write!(f, "{}: the store was opened for reading alone", path.display()),
            Self::NotCompiled { key } => write!(f, "{key}: not in the cache, which never compiles"),
            Self::UnsupportedMachine => f.write_str("code cannot be made executable on this machine"),
            Self::Foreign { expected, found } => {
                write!(f, "target: expected that of this program, {expected}, found {found}")
            }
            Self::LesserProcessor { missing } => {
                write!(f, "CPU features: expected those of this machine, which has no {missing}")
            }
            Self::UnboundImport { name } => write!(f, "import \"{name}\": expected an address, the engine gave none"),
            Self::Relocation { at, kind, target, rule } => {
                write!(f, "relocation {kind:?} at {at:?} to {target:?}: it {rule}")
            }
            Self::Object { reason } => write!(f, "object file: {reason}"),
            Self::Invalid { what, rule } => write!(f, "the {what} {rule}"),
            Self::Unwritable { field, expected, found } => {
                write!(f, "{field}: expected {expected}, was given {found}")
            }
        }
    }
}

// No `source`: what it would return is told already.
impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_report_that_walks_the_chain_tells_the_reason_of_the_system_once() {
        let source = || io::Error::other("the reason");
        for error in [
            Error::Io { action: "read", path: "file".into(), source: source() },
            Error::Memory { action: "allocate", length: 8, source: source() },
        ] {
            let mut report = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                report = format!("{report}: {error}");
                cause = error.source();
            }
            assert_eq!(report.matches("the reason").count(), 1, "{report}");
        }
    }
}

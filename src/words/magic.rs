//! What an entry begins with: the magic of an engine and its version.

use std::fmt;

/// The six bytes an entry begins with, which name the engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Magic(pub [u8; 6]);

impl Magic {
    /// The magic of wazero's optimizing compiler.
    pub const WAZERO: Self = Self(*b"WAZEVO");
}

impl fmt::Display for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Magic({self})")
    }
}

/// The version of an engine: at most 255 bytes, compared as bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Box<[u8]>);

impl Version {
    /// Returns the version as it stands in the entry.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Keeps a version that fits the byte that holds its length: one found in an entry, or checked by the caller.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_printed_escaped() {
        assert_eq!(Magic(*b"AB\0\xff\"C").to_string(), r#""AB\x00\xff\"C""#);
        assert_eq!(Version::of(b"1\n").to_string(), r#""1\n""#);
    }
}

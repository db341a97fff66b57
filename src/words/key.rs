//! The names of entries.

use std::fmt;

/// The key of an entry: 32 bytes, printed and parsed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Returns the key with those bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 64 digits that name the key, which stand in `digits` then.
    ///
    /// At once and without a formatter: each of these shows in what loading a tiny entry takes.
    pub(crate) fn hexadecimal<'a>(&self, digits: &'a mut [[u8; 2]; 32]) -> &'a str {
        for (digits, byte) in digits.iter_mut().zip(self.0) {
            *digits =
                [byte >> 4, byte & 0xf].map(|digit| digit.wrapping_add(if digit < 10 { b'0' } else { b'a' - 10 }));
        }
        str::from_utf8(digits.as_flattened()).unwrap_or_default()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hexadecimal(&mut Default::default()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

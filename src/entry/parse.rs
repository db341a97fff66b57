//! Words out of text.

use std::str::FromStr;

use crate::error::Error;
use crate::words::{Arch, CpuFeatures, Key};

impl FromStr for Key {
    type Err = Error;

    /// Parses 64 hexadecimal digits; upper-case ones are refused, so that no two file names are one key.
    fn from_str(text: &str) -> Result<Self, Error> {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
            b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
            _ => None,
        };
        let mut key = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut well_formed = rest.is_empty() && pairs.len() == key.len();
        for (byte, &[high, low]) in key.iter_mut().zip(pairs) {
            match (digit(high), digit(low)) {
                (Some(high), Some(low)) => *byte = high << 4 | low,
                _ => well_formed = false,
            }
        }
        if well_formed {
            Ok(Self::from_bytes(key))
        } else {
            Err(Error::Invalid { what: "key", rule: "must be 64 lower-case hexadecimal digits" })
        }
    }
}

impl CpuFeatures {
    /// Returns the features of a level of x86-64: `x86-64-v1`, the baseline, to `x86-64-v4`.
    ///
    /// SPEC.md lists what each has. LAHF and SAHF, which are part of the second, have no bit; OSXSAVE is detected with
    /// AVX.
    ///
    /// ```
    /// use jitcache::CpuFeatures;
    ///
    /// let level = CpuFeatures::level("x86-64-v3")?;
    /// assert!(level.has(&["avx2", "bmi2", "sse4.2"]));
    /// assert!(!level.has(&["avx512f"]));
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for any other name.
    pub fn level(name: &str) -> Result<Self, Error> {
        Self::of_level(name).ok_or(Error::Invalid { what: "CPU level", rule: "must be x86-64-v1, -v2, -v3 or -v4" })
    }

    /// Returns the features of those names, such as `avx2` on [`Arch::Amd64`] or `lse` on [`Arch::Arm64`]; SPEC.md has
    /// the list.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that is not in the list of `arch`.
    pub fn of(arch: Arch, names: &[&str]) -> Result<Self, Error> {
        Self::named(arch, names).ok_or(Error::Invalid { what: "CPU feature", rule: "must be one that SPEC.md lists" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_lower_case_digits_and_nothing_else() {
        let text = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        for wrong in
            ["", &text[1..], &format!("{text}0"), &format!("{text}00"), &text.to_uppercase(), &text.replace('0', "g")]
        {
            assert!(wrong.parse::<Key>().is_err(), "{wrong:?}");
        }
    }
}

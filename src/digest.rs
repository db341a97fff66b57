//! What stands for all the bytes of a file: a checksum against damage, or a MAC against forgery.

use std::fmt;
use std::num::NonZero;
use std::thread;

use sha2::{Digest as _, Sha256};

use crate::format::size;

/// The key of a message authentication code: 32 bytes that whoever writes to the directory must not know.
///
/// It is never written anywhere, and printing it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// Returns the key with those bytes, which should be random or come from a key derivation function.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns a hash that tells keys apart and that everybody may know.
    ///
    /// It is one that no MAC uses, so that it helps nobody make one: what is left is to try keys, which anybody who has an entry
    /// can do without it.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"jitcache MAC key").chain_update(self.0).finalize().into()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(secret)")
    }
}

/// The context in which the key for source maps is derived.
const SOURCE_MAP: &str = "jitcache 2026-11-22 source map";

/// A digest in the making, over the bytes of a file in order.
///
/// Code is shown in steps while it is at hand, and need not be summed twice: its own CRC-32C is combined with the rest.
#[derive(Debug)]
pub(crate) enum Digest {
    /// CRC-32C.
    Checksum(u32),
    /// Keyed BLAKE3.
    Mac(Box<blake3::Hasher>),
}

/// A finished digest, as it stands in the file. Two are compared in constant time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DigestValue(pub(crate) [u8; 32]);

impl DigestValue {
    /// Returns the CRC-32C that the digest of [`Digest::Checksum`] holds.
    pub(crate) fn checksum(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

impl PartialEq for DigestValue {
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Digest {
    pub(crate) fn new(key: Option<&MacKey>) -> Self {
        match key {
            None => Self::Checksum(0),
            Some(key) => Self::Mac(Box::new(blake3::Hasher::new_keyed(&key.0))),
        }
    }

    /// Returns the digest of the rows of a source map, which stands apart from that of the file.
    pub(crate) fn of_source_map(rows: &[u8], key: Option<&MacKey>) -> DigestValue {
        match key {
            None => Self::Checksum(crc32c(0, rows)).finish(),
            // A key of its own: otherwise rows could be chosen so that their MAC is that of a file. The hasher is no `Self`,
            // which would be allocated: the rows may be checked in a signal handler.
            Some(key) => DigestValue(*blake3::keyed_hash(&blake3::derive_key(SOURCE_MAP, &key.0), rows).as_bytes()),
        }
    }

    /// Adds bytes in front of the code or behind it.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Checksum(sum) => *sum = crc32c(*sum, bytes),
            Self::Mac(hasher) => drop(hasher.update(bytes)),
        }
    }

    /// Adds a step of the code, whose checksum [`Digest::end_code`] brings.
    pub(crate) fn add_code(&mut self, step: &[u8]) {
        if let Self::Mac(hasher) = self {
            hasher.update(step);
        }
    }

    /// Says that all of the code was added, and what its CRC-32C is.
    pub(crate) fn end_code(&mut self, code: &[u8], checksum: u32) {
        if let Self::Checksum(sum) = self {
            *sum = combine(*sum, checksum, size(code));
        }
    }

    /// Returns whether a file with this code is better added at once when it is whole: little code is summed again faster than
    /// its sum is combined.
    pub(crate) const fn prefers_all_at_once(&self, code: &[u8]) -> bool {
        matches!(self, Self::Checksum(_)) && code.len() < STEP / 16
    }

    pub(crate) fn finish(self) -> DigestValue {
        let mut value = [0; 32];
        match self {
            Self::Checksum(sum) => {
                for (to, from) in value.iter_mut().zip(sum.to_le_bytes()) {
                    *to = from;
                }
            }
            Self::Mac(hasher) => value = *hasher.finalize().as_bytes(),
        }
        DigestValue(value)
    }
}

/// The checksum of the code in the making and, of a sealed file, the digest of the whole.
#[derive(Debug)]
pub(crate) struct CodeDigest {
    pub(crate) checksum: u32,
    pub(crate) whole: Option<Digest>,
}

impl CodeDigest {
    /// Adds all of the code, summed by as many threads as there are parts of it that are worth one.
    pub(crate) fn add_large_code(&mut self, code: &[u8], threads: NonZero<usize>) {
        let parts = threads.get().min(code.len() / PART);
        match &self.whole {
            Some(Digest::Mac(_)) => code.chunks(STEP).for_each(|step| self.add_code(step)),
            _ if parts < 2 => self.add_code(code),
            _ => self.add_summed_code(code, sum_in_parts(code, code.len().div_ceil(parts))),
        }
    }

    /// Adds all of the code, whose checksum is known.
    pub(crate) fn add_summed_code(&mut self, code: &[u8], checksum: u32) {
        self.checksum = checksum;
        if let Some(whole) = &mut self.whole {
            whole.add_code(code);
        }
    }

    /// Adds a step of the code.
    pub(crate) fn add_code(&mut self, step: &[u8]) {
        self.checksum = crc32c(self.checksum, step);
        if let Some(whole) = &mut self.whole {
            whole.add_code(step);
        }
    }
}

/// Returns the CRC-32C of bytes behind others whose CRC-32C is `sum`; that of none is 0.
pub(crate) fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    // The state of the computation is the checksum without the final exclusive or.
    let mut state = crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc32Iscsi, (!sum).into());
    state.update(bytes);
    // A CRC of 32 bits fits: the upper half of the state is 0.
    u32::try_from(state.finalize()).unwrap_or(0)
}

/// How much code is copied, read or hashed before it is summed, in bytes: small enough to be in the cache still.
pub(crate) const STEP: usize = 256 * 1024;

/// How much code is worth a thread, in bytes: less is summed before the thread has started.
const PART: usize = 2 << 20;

/// Returns the CRC-32C of bytes whose parts of `length` bytes are summed at the same time.
fn sum_in_parts(bytes: &[u8], length: usize) -> u32 {
    let mut parts = bytes.chunks(length);
    let first = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> =
            parts.map(|part| (part, thread::Builder::new().spawn_scoped(scope, || crc32c(0, part)).ok())).collect();
        others.into_iter().fold(crc32c(0, first), |sum, (part, thread)| {
            // A part without a thread is summed by this one.
            let found = thread.and_then(|thread| thread.join().ok()).unwrap_or_else(|| crc32c(0, part));
            combine(sum, found, size(part))
        })
    })
}

/// Returns the CRC-32C of two runs of bytes one behind the other, of which the second has `length` bytes.
///
/// A CRC is the remainder of a polynomial over GF(2), so appending n bytes multiplies what was there by x^8n. The initial
/// value and the final exclusive or cancel out.
fn combine(first: u32, second: u32, length: u64) -> u32 {
    let bits = (0..u64::BITS).zip(POWERS);
    let set = bits.filter(|(bit, _)| (length >> bit) & 1 == 1);
    set.fold(first, |sum, (_, power)| multiply(sum, power)) ^ second
}

/// The polynomial of CRC-32C, the coefficient of x^31 in bit 0.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x to the power of 8 · 2^i, modulo the polynomial.
const POWERS: [u32; 64] = {
    let mut powers = [0; 64];
    // x^8: the coefficient of x^0 is in bit 31.
    let mut power = 1 << 23;
    let mut rest: &mut [u32] = &mut powers;
    while let Some((first, others)) = rest.split_first_mut() {
        *first = power;
        power = multiply(power, power);
        rest = others;
    }
    powers
};

/// Multiplies two polynomials modulo that of CRC-32C.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_whole_is_combined_from_those_of_its_parts() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        for at in [0, 1, 7, 4096, 299_999, 300_000] {
            for end in
                [at, at + 1, at + 8, at + 255, at + 256, at + 70_001, bytes.len()].map(|end| end.min(bytes.len()))
            {
                let (first, second) = (&bytes[..at], &bytes[at..end]);
                let combined = combine(crc32c(0, first), crc32c(0, second), size(second));
                assert_eq!(combined, crc32c(0, &bytes[..end]), "{at} {end}");
            }
        }
    }

    #[test]
    fn checksums_are_those_of_another_implementation() {
        // Lengths and places at which an implementation changes its stride; appended in two parts, which carries a sum over.
        let bytes: Vec<u8> = (0..70_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let lengths = (0..=1100).chain([2047, 2048, 2049, 4095, 4097, 16_384, 65_535, 65_536, 65_537, 69_990]);
        for length in lengths {
            for start in [0, 1, 3, 8] {
                let bytes = &bytes[start..start + length];
                let (first, second) = bytes.split_at(length / 3);
                let expected = crc32c::crc32c(bytes);
                assert_eq!(crc32c(0, bytes), expected, "{length} from {start}");
                assert_eq!(crc32c(crc32c(0, first), second), expected, "{length} from {start}");
            }
        }
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(0, &[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn lengths_beyond_memory_are_combined_as_another_implementation_does() {
        for length in [1 << 31, (1 << 40) + 12345, (1 << 62) + 1] {
            let expected = crc32c::crc32c_combine(0x1234_5678, 0x9abc_def0, length);
            assert_eq!(combine(0x1234_5678, 0x9abc_def0, u64::try_from(length).unwrap()), expected);
        }
    }

    #[test]
    fn large_code_has_the_same_digest_however_many_threads_there_are() {
        let code: Vec<u8> = (0..2_500_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for length in [0, 1, 1000, STEP + 1, PART, 2 * PART - 1, 2 * PART, code.len()] {
            let code = &code[..length];
            for key in [None, Some(&MacKey::new([7; 32]))] {
                let [expected, found @ ..] = [1, 2, 3, 200].map(|threads| {
                    let mut digest = CodeDigest { checksum: 0, whole: Some(Digest::new(key)) };
                    digest.add_large_code(code, NonZero::new(threads).unwrap());
                    (digest.checksum, digest.whole.map(|whole| whole.finish().0))
                });
                assert_eq!(expected.0, crc32c::crc32c(code));
                assert!(found.into_iter().all(|found| found == expected), "{length}");
            }
        }
        for length in [4096, 9999, 20_000, 40_000, code.len()] {
            assert_eq!(sum_in_parts(&code[..40_000], length), crc32c::crc32c(&code[..40_000]));
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_how_the_bytes_are_handed_in() {
        let key = MacKey::new([7; 32]);
        for key in [None, Some(&key)] {
            let whole = {
                let mut digest = Digest::new(key);
                digest.add(b"head code tail");
                digest.finish()
            };
            let mut digest = Digest::new(key);
            digest.add(b"head");
            digest.add_code(b" co");
            digest.add_code(b"de");
            digest.end_code(b" code", crc32c(0, b" code"));
            digest.add(b" tail");
            assert_eq!(whole, digest.finish());
        }
        let mut digest = Digest::new(Some(&key));
        digest.add(b"head code tail");
        assert_eq!(digest.finish().0, *blake3::keyed_hash(&[7; 32], b"head code tail").as_bytes());
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", MacKey::new([42; 32])), "MacKey(secret)");
    }
}

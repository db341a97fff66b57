//! What stands for bytes of a file: a MAC of all of them, which finds damage under a key that everybody knows and
//! forgery under one that is secret; and the checksum that wazero has of code.

use std::fmt;

use aegis::aegis128x2::Aegis128X2Mac;
use constant_time_eq::constant_time_eq_32;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

/// The key of a message authentication code: 32 bytes that whoever writes to the directory must not know.
///
/// It is never written anywhere, printing it shows nothing, and its bytes are wiped when it is dropped. The states of
/// digests that are made of it are not wiped.
#[derive(Clone)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// Returns the key with those bytes, which should be random or come from a key derivation function.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns a hash that tells keys apart and that everybody may know.
    ///
    /// It is one that no MAC uses, so that it helps nobody make one: what is left is to try keys, which anybody who has
    /// an entry can do without it.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"jitcache MAC key").chain_update(self.0).finalize().into()
    }
}

impl PartialEq for MacKey {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq_32(&self.0, &other.0)
    }
}

impl Eq for MacKey {}

impl Drop for MacKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(secret)")
    }
}

/// The bytes that stand for a key where there is none. Everybody knows them: under them a digest finds damage, and no
/// more.
const KNOWN: [u8; 32] = [0; 32];

/// What a digest is of. Each has a key of its own: otherwise rows could be chosen so that their MAC is that of a file.
#[derive(Clone, Copy)]
enum Domain {
    File,
    SourceMap,
    Pack,
}

impl Domain {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::File => b"jitcache 1 file",
            Self::SourceMap => b"jitcache 1 source map",
            Self::Pack => b"jitcache 1 pack",
        }
    }
}

/// A digest in the making, over bytes in order: AEGISMAC-128X2 with a tag of 256 bits.
///
/// It lies on the stack, allocates nothing and takes no lock but the one under which the processor is looked at, once
/// in a process: a source map may be checked in a signal handler, after the file it came from.
#[derive(Clone)]
pub(crate) struct Digest(Aegis128X2Mac<32>);

impl Digest {
    /// Begins the digest of a file: a MAC if there is a key.
    pub(crate) fn new(key: Option<&MacKey>) -> Self {
        Self::keyed(key, Domain::File)
    }

    /// Begins the digest of the rows of a source map, which stands apart from that of the file.
    pub(crate) fn of_source_map(key: Option<&MacKey>) -> Self {
        Self::keyed(key, Domain::SourceMap)
    }

    /// Begins the digest of what of a pack is around its entries.
    pub(super) fn of_pack(key: Option<&MacKey>) -> Self {
        Self::keyed(key, Domain::Pack)
    }

    fn keyed(key: Option<&MacKey>, domain: Domain) -> Self {
        let hash = Sha256::new().chain_update(domain.name()).chain_update(key.map_or(&KNOWN, |key| &key.0));
        let mut derived: [u8; 32] = hash.finalize().into();
        let (mut key, mut nonce) = ([0; 16], [0; 16]);
        for (to, from) in key.iter_mut().chain(&mut nonce).zip(derived) {
            *to = from;
        }
        let digest = Self(Aegis128X2Mac::new_with_nonce(&key, &nonce));
        for secret in [&mut derived[..], &mut key, &mut nonce] {
            secret.zeroize();
        }
        digest
    }

    /// Adds bytes behind those that were added.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> DigestValue {
        DigestValue(self.0.finalize())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// A finished digest, as it stands in the file. Two are compared in constant time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DigestValue(pub(crate) [u8; 32]);

impl DigestValue {
    /// Returns the first eight bytes, by which an error tells two digests apart.
    pub(crate) fn beginning(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl PartialEq for DigestValue {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq_32(&self.0, &other.0)
    }
}

/// What a load sums of a file on the way to its code and over it: every byte of a sealed file, the code alone of a
/// plain one.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a load has one, on its stack; a box would allocate")]
pub(crate) enum Sum {
    Sealed(Digest),
    Plain(u32),
}

impl Sum {
    /// Adds what stands in front of the code.
    pub(crate) fn add_head(&mut self, bytes: &[u8]) {
        if let Self::Sealed(digest) = self {
            digest.add(bytes);
        }
    }

    /// Adds code behind the code that was added.
    pub(crate) fn add_code(&mut self, code: &[u8]) {
        match self {
            Self::Sealed(digest) => digest.add(code),
            Self::Plain(sum) => *sum = crc32c(*sum, code),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(digits: &str) -> [u8; N] {
        let (pairs, _) = digits.as_bytes().as_chunks::<2>();
        std::array::from_fn(|i| u8::from_str_radix(str::from_utf8(&pairs[i]).unwrap(), 16).unwrap())
    }

    fn noise(length: u32) -> Vec<u8> {
        (0..length).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
    }

    fn of(mut digest: Digest, bytes: &[u8]) -> [u8; 32] {
        digest.add(bytes);
        digest.finish().0
    }

    #[test]
    fn the_primitive_has_the_tag_that_its_authors_publish() {
        // RFC 10032, "AEGISMAC-128X2 Test Vector".
        let key = hex("10010000000000000000000000000000");
        let nonce = hex("10000200000000000000000000000000");
        let data: [u8; 35] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let expected = hex("afcba3fc2d63c8d6c7f2d63f3ec8fbbbaf022e15ac120e78ffa7755abccd959c");
        assert_eq!(of(Digest(Aegis128X2Mac::new_with_nonce(&key, &nonce)), &data), expected);
    }

    #[test]
    fn key_and_nonce_are_the_halves_of_a_hash_of_what_is_summed_and_the_key() {
        let bytes = noise(1000);
        for (name, key) in
            [("file", None), ("file", Some([7; 32])), ("source map", None), ("source map", Some([7; 32]))]
        {
            let input = [b"jitcache 1 ", name.as_bytes(), &key.unwrap_or_default()].concat();
            let hash: [u8; 32] = Sha256::digest(&input).into();
            let (first, second) = hash.split_at(16);
            let mac = Aegis128X2Mac::new_with_nonce(first.try_into().unwrap(), second.try_into().unwrap());
            let key = key.map(MacKey::new);
            let digest = if name == "file" { Digest::new(key.as_ref()) } else { Digest::of_source_map(key.as_ref()) };
            assert_eq!(of(digest, &bytes), of(Digest(mac), &bytes), "{name} {key:?}");
        }
    }

    #[test]
    fn what_is_summed_and_the_key_make_the_digest_another() {
        let keys = [None, Some(MacKey::new([7; 32])), Some(MacKey::new([8; 32]))];
        let digests = keys.iter().flat_map(|key| [Digest::new(key.as_ref()), Digest::of_source_map(key.as_ref())]);
        for bytes in [&b""[..], b"rows"] {
            let mut found: Vec<_> = digests.clone().map(|digest| of(digest, bytes)).collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), 6);
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_how_the_bytes_are_handed_in() {
        let bytes = noise(70_001);
        for length in (0..=300).chain([4095, 4096, 4097, 65_536, 70_001]) {
            let bytes = &bytes[..length];
            let whole = of(Digest::new(None), bytes);
            for step in [1, 3, 63, 64, 65, 127, 128, 129, 1000, 65_536] {
                let mut digest = Digest::new(None);
                digest.add(&[]);
                bytes.chunks(step).for_each(|step| digest.add(step));
                assert_eq!(digest.finish().0, whole, "{length} in steps of {step}");
            }
        }
    }

    #[test]
    fn a_digest_sees_code_whose_checksum_stands_behind_it() {
        // A CRC of bytes followed by their own CRC depends on their length alone.
        let [one, other] = [noise(5000), noise(5001)[1..].to_vec()].map(|mut code| {
            code.extend_from_slice(&crc32c(0, &code).to_le_bytes());
            code
        });
        assert_eq!(crc32c(0, &one), crc32c(0, &other));
        assert_ne!(of(Digest::new(None), &one), of(Digest::new(None), &other));
    }

    #[test]
    fn every_bit_every_length_and_every_order_of_blocks_shows() {
        let bytes = noise(300);
        let whole = of(Digest::new(None), &bytes);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of(Digest::new(None), &damaged), whole, "bit {bit}");
        }
        for rotated in 1..bytes.len() {
            let mut damaged = bytes.clone();
            damaged.rotate_left(rotated);
            assert_ne!(of(Digest::new(None), &damaged), whole, "rotated by {rotated}");
        }
        // Blocks are padded with zeros.
        let zeros: Vec<_> = (0..200).map(|length| of(Digest::new(None), &vec![0; length])).collect();
        for (length, digest) in zeros.iter().enumerate() {
            assert!(!zeros[..length].contains(digest), "{length} zeros");
        }
    }

    #[test]
    fn digests_and_keys_are_equal_only_with_all_their_bytes() {
        let (value, key) = (DigestValue([5; 32]), MacKey::new([5; 32]));
        assert!(value == DigestValue([5; 32]) && key == MacKey::new([5; 32]));
        for at in 0..32 {
            let mut other = [5; 32];
            other[at] ^= 0x80;
            assert!(value != DigestValue(other) && key != MacKey::new(other), "{at}");
        }
    }

    #[test]
    fn a_key_is_wiped_when_it_is_dropped_and_never_printed() {
        assert!(std::mem::needs_drop::<MacKey>());
        let mut key = MacKey::new([42; 32]);
        assert_eq!(format!("{key:?} {:?}", Digest::new(Some(&key))), "MacKey(secret) Digest(..)");
        // What a drop does; memory cannot be looked at behind one.
        key.0.zeroize();
        assert!(key == MacKey::new([0; 32]));
    }

    #[test]
    fn checksums_are_those_of_the_standard_and_of_another_implementation() {
        // RFC 3720, appendix B.4.
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        let read = hex::<48>(
            "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000",
        );
        for (bytes, expected) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (&falling, 0x113f_db5c),
            (&read, 0xd996_3a56),
        ] {
            assert_eq!(crc32c(0, bytes), expected);
        }
        // Lengths and places at which an implementation changes its stride; appended in two parts, which carries a sum
        // over.
        let bytes = noise(70_000);
        for length in (0..=1100).chain([2047, 2048, 2049, 4095, 4097, 16_384, 65_535, 65_536, 65_537, 69_990]) {
            for start in [0, 1, 3, 8] {
                let bytes = &bytes[start..start + length];
                let (first, second) = bytes.split_at(length / 3);
                let expected = crc32c::crc32c(bytes);
                assert_eq!(crc32c(0, bytes), expected, "{length} from {start}");
                assert_eq!(crc32c(crc32c(0, first), second), expected, "{length} from {start}");
            }
        }
    }
}

//! The names of entries: what was compiled, by whom and for which machine, as a SHA-256.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::cpu::CpuFeatures;
use crate::error::Error;
use crate::identity::{Alignment, Identity, Revision};
use crate::magic::Magic;
use crate::seal::Sealing;
use crate::target::Arch;

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

    /// Begins the key of something that the engine `identity` compiles.
    ///
    /// What of the identity an entry must agree with goes in first - magic, version, target, CPU features, build id, sealing
    /// with the MAC key, revision, alignment and sections - so that entries which some of its readers would reject have keys of their
    /// own, and lie beside each other. Of the MAC key it is a hash, from which nobody finds a key that is as random as
    /// [`MacKey`](crate::MacKey) wants it. Everything else that changes the code has to be handed in:
    ///
    /// ```
    /// use jitcache::{Identity, Key};
    ///
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let key = Key::of(&identity).source(b"fn main() {}").flag("opt", "2").finish();
    /// let other = Key::of(&identity).source(b"fn main() {}").flag("opt", "3").finish();
    /// assert_ne!(key, other);
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    pub fn of(identity: &Identity) -> KeyBuilder {
        let Alignment { bytes, in_file } = identity.alignment();
        let revision: u8 = match identity.revision() {
            Revision::SourceMap => 0,
            Revision::CatchClauses => 1,
        };
        let (sealing, fingerprint) = match identity.sealing() {
            Sealing::Plain => ("plain", None),
            Sealing::Checksum => ("checksum", None),
            Sealing::Mac(key) => ("mac", Some(key.fingerprint())),
        };
        KeyBuilder(Sha256::new())
            .part(b"jitcache key 2")
            .part(&identity.magic().0)
            .part(identity.version().as_bytes())
            .part(identity.target().to_string().as_bytes())
            .part(&identity.cpu().bits().to_le_bytes())
            .part(identity.build_id())
            .part(sealing.as_bytes())
            .part(fingerprint.as_ref().map_or(&[], <[u8; 32]>::as_slice))
            .part(&[revision])
            .part(&bytes.to_le_bytes())
            .part(&[in_file.into()])
            .part(identity.sections().map(u32::to_le_bytes).collect::<Vec<_>>().as_flattened())
    }

    /// Returns the key that wazero gives a module.
    ///
    /// `feature_word` is what [`WazeroFeatures::word`] gives for the machine and the release.
    #[must_use]
    pub fn wazero(module: WazeroModuleId, feature_word: u64) -> Self {
        let hash = Sha256::new().chain_update(module.0).chain_update(Magic::WAZERO.0);
        Self(hash.chain_update(feature_word.to_le_bytes()).finalize().into())
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
            Ok(Self(key))
        } else {
            Err(Error::Invalid { what: "key", rule: "must be 64 lower-case hexadecimal digits" })
        }
    }
}

/// A key in the making. Returned by [`Key::of`].
///
/// Every part goes in behind a word that says what it is, and behind its length, so that no two different lists of parts
/// are the same bytes. The order counts: the same parts in another order give another key.
#[derive(Clone, Debug)]
#[must_use = "a key is made by `finish`"]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Adds what is compiled: source text, bytecode, a query, or a digest of it.
    pub fn source(self, source: &[u8]) -> Self {
        self.part(b"source").part(source)
    }

    /// Adds a setting that changes the code, such as an optimization level.
    pub fn flag(self, name: &str, value: &str) -> Self {
        self.part(b"flag").part(name.as_bytes()).part(value.as_bytes())
    }

    /// Returns the key.
    #[must_use]
    pub fn finish(self) -> Key {
        Key(self.0.finalize().into())
    }

    fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update(crate::format::size(bytes).to_le_bytes());
        self.0.update(bytes);
        self
    }
}

/// What wazero calls a module by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WazeroModuleId([u8; 32]);

impl WazeroModuleId {
    /// Returns the id of a module.
    ///
    /// `listeners` tells of each function whether a listener is attached; it is empty where no listeners are in use.
    /// `ensure_termination` is set by programs that close a module when their context is done.
    #[must_use]
    pub fn new(wasm: &[u8], listeners: &[bool], ensure_termination: bool) -> Self {
        let mut hash = Sha256::new().chain_update(wasm);
        for (index, &listener) in (0_u32..).zip(listeners) {
            hash.update(index.to_le_bytes());
            hash.update([u8::from(listener)]);
        }
        Self(hash.chain_update([u8::from(ensure_termination)]).finalize().into())
    }
}

/// The meaning of the word of CPU features in wazero's keys, which has changed between releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WazeroFeatures {
    /// wazero up to 1.9; on x86-64: bit 0 SSE3, bit 1 SSE4.1, bit 2 SSE4.2, bit 3 ABM.
    UpTo1_9,
    /// wazero from 1.11 on; on x86-64: bit 0 SSE4.1, bit 1 BMI1, bit 2 BMI1 with BMI2 and POPCNT.
    From1_11,
}

impl WazeroFeatures {
    /// Returns the word for a machine with these features. On arm64 bit 0 is LSE in every release.
    #[must_use]
    pub fn word(self, features: CpuFeatures) -> u64 {
        let sets: &[&[&str]] = match (features.arch(), self) {
            (Arch::Amd64, Self::UpTo1_9) => &[&["sse3"], &["sse4.1"], &["sse4.2"], &["lzcnt"]],
            (Arch::Amd64, Self::From1_11) => &[&["sse4.1"], &["bmi1"], &["bmi1", "bmi2", "popcnt"]],
            (Arch::Arm64, _) => &[&["lse"]],
            _ => &[],
        };
        (0..).zip(sets).fold(0, |word, (bit, set)| word | u64::from(features.has(set)) << bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::MacKey;
    use crate::target::{Os, Target};

    fn identity() -> Identity {
        Identity::new("test", *b"TEST\0\0", "1").unwrap()
    }

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

    #[test]
    fn parts_do_not_run_into_each_other() {
        let keys = [
            Key::of(&identity()).finish(),
            Key::of(&identity()).source(b"ab").finish(),
            Key::of(&identity()).source(b"a").source(b"b").finish(),
            Key::of(&identity()).flag("ab", "c").finish(),
            Key::of(&identity()).flag("a", "bc").finish(),
            Key::of(&identity()).flag("a", "b").flag("c", "").finish(),
            Key::of(&identity()).flag("c", "").flag("a", "b").finish(),
            Key::of(&identity()).source(b"flag").finish(),
        ];
        let mut sorted = keys;
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    }

    #[test]
    fn whatever_a_reader_compares_is_part_of_the_key() {
        let mac = |byte| Sealing::Mac(MacKey::new([byte; 32]));
        let identities = [
            identity(),
            Identity::new("test", *b"TEST\0\0", "11").unwrap(),
            Identity::new("test", *b"TEST\0B", "1").unwrap(),
            identity().with_target(Target { arch: Arch::S390x, os: Os::Linux }),
            identity().with_target(Target { arch: Arch::S390x, os: Os::Other }),
            identity().with_cpu(CpuFeatures::from_bits(Arch::host(), 1 << 100)),
            identity().with_cpu(CpuFeatures::from_bits(Arch::host(), 1 << 101)),
            identity().with_build_id(b"1").unwrap(),
            identity().with_build_id(b"2").unwrap(),
            identity().with_sealing(Sealing::Plain),
            identity().with_sealing(mac(1)),
            identity().with_sealing(mac(2)),
            identity().with_revision(Revision::SourceMap),
            identity().with_function_alignment(64).unwrap(),
            identity().with_alignment_in_file(64).unwrap(),
            identity().with_sections(&[1]),
            identity().with_sections(&[1, 2]),
        ];
        let mut keys: Vec<_> = identities.iter().map(|identity| Key::of(identity).finish()).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    }

    #[test]
    fn the_same_parts_are_the_same_key_for_ever() {
        let target = Target { arch: Arch::Amd64, os: Os::Linux };
        let features = CpuFeatures::of(Arch::Amd64, &["sse3", "tsc"]).unwrap();
        let identity = identity().with_cpu(features).with_target(target).with_build_id(b"abc").unwrap();
        let identity = identity.with_sealing(Sealing::Mac(MacKey::new([7; 32]))).with_alignment_in_file(16).unwrap();
        let identity = identity.with_sections(&[9, 3, 9]);
        let key = Key::of(&identity).source(b"x").flag("opt", "2").finish();
        assert_eq!(key.to_string(), "153cbc51524953a652a09bd8280d5786d357e2abbf9dba2bff904feabefdef15");
    }

    #[test]
    fn listeners_and_termination_are_part_of_a_module() {
        let plain = WazeroModuleId::new(b"wasm", &[], false);
        assert_ne!(plain, WazeroModuleId::new(b"wasm", &[], true));
        assert_ne!(plain, WazeroModuleId::new(b"wasm", &[false], false));
        assert_ne!(WazeroModuleId::new(b"wasm", &[false], false), WazeroModuleId::new(b"wasm", &[true], false));
    }

    #[test]
    fn the_feature_word_follows_the_release() {
        let all =
            CpuFeatures::of(Arch::Amd64, &["sse3", "sse4.1", "sse4.2", "lzcnt", "bmi1", "bmi2", "popcnt"]).unwrap();
        let old = CpuFeatures::of(Arch::Amd64, &["sse3", "sse4.1"]).unwrap();
        let partial = CpuFeatures::of(Arch::Amd64, &["bmi1", "bmi2"]).unwrap();
        for (features, up_to_1_9, from_1_11) in [(all, 15, 7), (old, 3, 1), (partial, 0, 2)] {
            assert_eq!(WazeroFeatures::UpTo1_9.word(features), up_to_1_9, "{features}");
            assert_eq!(WazeroFeatures::From1_11.word(features), from_1_11, "{features}");
        }
        assert_eq!(WazeroFeatures::UpTo1_9.word(CpuFeatures::of(Arch::Arm64, &["lse"]).unwrap()), 1);
    }
}

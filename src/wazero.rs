//! wazero's own: how it names modules and keys.

use sha2::{Digest, Sha256};

use crate::words::{Arch, CpuFeatures, Key, Magic};

impl Key {
    /// Returns the key that wazero gives a module.
    ///
    /// `feature_word` is what [`Features::word`] gives for the machine and the release.
    #[must_use]
    pub fn wazero(module: ModuleId, feature_word: u64) -> Self {
        let hash = Sha256::new().chain_update(module.0).chain_update(Magic::WAZERO.0);
        Self::from_bytes(hash.chain_update(feature_word.to_le_bytes()).finalize().into())
    }
}

/// What wazero calls a module by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModuleId([u8; 32]);

impl ModuleId {
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
pub enum Features {
    /// wazero 1.7.3 to 1.10; on x86-64: bit 0 SSE3, bit 1 SSE4.1, bit 2 SSE4.2, bit 3 ABM.
    UpTo1_10,
    /// wazero from 1.11 on; on x86-64: bit 0 SSE4.1, bit 1 BMI1, bit 2 BMI1 with BMI2 and POPCNT.
    From1_11,
}

impl Features {
    /// Returns the word for a machine with these features. On arm64 bit 0 is LSE in every release.
    #[must_use]
    pub fn word(self, features: CpuFeatures) -> u64 {
        let sets: &[&[&str]] = match (features.arch(), self) {
            (Arch::Amd64, Self::UpTo1_10) => &[&["sse3"], &["sse4.1"], &["sse4.2"], &["lzcnt"]],
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

    #[test]
    fn listeners_and_termination_are_part_of_a_module() {
        let plain = ModuleId::new(b"wasm", &[], false);
        assert_ne!(plain, ModuleId::new(b"wasm", &[], true));
        assert_ne!(plain, ModuleId::new(b"wasm", &[false], false));
        assert_ne!(ModuleId::new(b"wasm", &[false], false), ModuleId::new(b"wasm", &[true], false));
    }

    #[test]
    fn the_feature_word_follows_the_release() {
        let all =
            CpuFeatures::of(Arch::Amd64, &["sse3", "sse4.1", "sse4.2", "lzcnt", "bmi1", "bmi2", "popcnt"]).unwrap();
        let old = CpuFeatures::of(Arch::Amd64, &["sse3", "sse4.1"]).unwrap();
        let partial = CpuFeatures::of(Arch::Amd64, &["bmi1", "bmi2"]).unwrap();
        for (features, up_to_1_10, from_1_11) in [(all, 15, 7), (old, 3, 1), (partial, 0, 2)] {
            assert_eq!(Features::UpTo1_10.word(features), up_to_1_10, "{features}");
            assert_eq!(Features::From1_11.word(features), from_1_11, "{features}");
        }
        assert_eq!(Features::UpTo1_10.word(CpuFeatures::of(Arch::Arm64, &["lse"]).unwrap()), 1);
    }
}

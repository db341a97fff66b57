//! The features of a processor that code may need beyond the baseline of its architecture.

use std::fmt;
use std::sync::LazyLock;

use super::target::Arch;

/// A set of processor features of one architecture.
///
/// ```
/// use jitcache::{Arch, CpuFeatures};
///
/// let needed = CpuFeatures::of(Arch::Amd64, &["avx2", "bmi1"])?;
/// let there = CpuFeatures::of(Arch::Amd64, &["bmi1", "sse4.1"])?;
/// assert_eq!(needed.missing_from(there).to_string(), "avx2");
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CpuFeatures {
    arch: Arch,
    bits: u128,
}

/// Tells the names of an architecture's features in the order of their bits, and which of them this machine has.
///
/// The numbers are part of the format: names are added at the end and never moved or removed. The standard library
/// detects all of them, and no others, in stable Rust of the version that Cargo.toml asks for.
macro_rules! features {
    ($names:ident, $($arch:literal)|+, $detect:path, [$($name:tt)*]) => {
        const $names: &[&str] = &[$($name),*];

        #[cfg(any($(target_arch = $arch),+))]
        fn host_bits() -> u128 {
            use $detect as detected;
            [$(detected!($name)),*].into_iter().rev().fold(0, |bits, there| (bits << 1) | u128::from(there))
        }
    };
}

features!(X86, "x86_64" | "x86", std::arch::is_x86_feature_detected, [
    "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "avx" "avx2" "fma" "f16c" "movbe" "cmpxchg16b"
    "aes" "pclmulqdq" "sha" "adx" "rdrand" "rdseed" "gfni" "vaes" "vpclmulqdq" "avx512f" "avx512dq" "avx512cd"
    "avx512bw" "avx512vl" "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq"
    "avx512bf16" "avx512fp16" "avx512vp2intersect" "avx512er" "avx512pf" "avxvnni" "avxifma" "avxneconvert"
    "avxvnniint8" "avxvnniint16" "sha512" "sm3" "sm4" "kl" "widekl" "xsave" "xsaveopt" "xsavec" "xsaves" "rtm" "sse4a"
    "tbm" "ermsb" "tsc"
]);

features!(ARM64, "aarch64", std::arch::is_aarch64_feature_detected, [
    "lse" "lse2" "crc" "aes" "sha2" "sha3" "pmull" "fp16" "dotprod" "rdm" "rcpc" "rcpc2" "jsconv" "fcma" "flagm" "bf16"
    "i8mm" "sve" "sve2" "paca" "pacg" "bti" "mte" "sb" "ssbs" "dpb" "dpb2" "dit" "f32mm" "f64mm" "fhm" "frintts" "rand"
    "sm4" "sve2-aes" "sve2-bitperm" "sve2-sha3" "sve2-sm4" "tme"
]);

features!(RISCV64, "riscv64", std::arch::is_riscv_feature_detected, [
    "m" "a" "c" "zba" "zbb" "zbc" "zbs" "zbkb" "zbkc" "zbkx" "zknd" "zkne" "zknh" "zksed" "zksh" "zkr" "zkn" "zks" "zk"
    "zkt"
]);

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64", target_arch = "riscv64")))]
fn host_bits() -> u128 {
    0
}

/// What every x86 has that the format is for, and every processor of 64-bit ARM: there are no bits for it.
const X86_BASELINE: &[&str] = &["mmx", "sse", "sse2", "fxsr"];
const ARM64_BASELINE: &[&str] = &["fp", "neon"];

/// The levels of x86-64, each with what it adds to the one before.
const LEVELS: [(&str, &[&str]); 4] = [
    ("x86-64-v1", &[]),
    ("x86-64-v2", &["cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"]),
    ("x86-64-v3", &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"]),
    ("x86-64-v4", &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
];

impl CpuFeatures {
    /// Returns the features that this machine has, of those the crate knows.
    ///
    /// It knows those that the standard library detects; AMX, AVX10 and the vectors of RISC-V are not yet among them.
    /// An engine that uses such makes them part of its keys: [`KeyBuilder::flag`](crate::entry::KeyBuilder::flag).
    #[must_use]
    pub fn host() -> Self {
        Self { arch: Arch::host(), bits: host_bits() }
    }

    /// Returns those of these features that this machine does not have; a bit without a name cannot be looked for, and is
    /// left out.
    #[must_use]
    pub fn missing_here(self) -> Self {
        static HOST: LazyLock<CpuFeatures> = LazyLock::new(CpuFeatures::host);
        let missing = self.missing_from(*HOST);
        let unnamed =
            u32::try_from(known(self.arch).0.len()).map_or(0, |names| u128::MAX.checked_shl(names).unwrap_or(0));
        Self { bits: missing.bits & !unnamed, ..missing }
    }

    /// Returns what every processor of `arch` has, which no bit stands for: an empty set.
    #[must_use]
    pub const fn baseline(arch: Arch) -> Self {
        Self { arch, bits: 0 }
    }

    /// Returns the features of the level of x86-64 with that name, if there is one.
    pub(crate) fn of_level(name: &str) -> Option<Self> {
        let last = LEVELS.iter().position(|(level, _)| *level == name)?;
        let names = LEVELS.iter().take(last.saturating_add(1)).flat_map(|(_, names)| *names);
        names.copied().try_fold(Self::baseline(Arch::Amd64), Self::and)
    }

    /// Returns the features of those names, or `None` if one is not in the list of `arch`.
    pub(crate) fn named(arch: Arch, names: &[&str]) -> Option<Self> {
        names.iter().copied().try_fold(Self::baseline(arch), Self::and)
    }

    /// Returns these features and that of a name.
    fn and(self, name: &str) -> Option<Self> {
        let (known, baseline) = known(self.arch);
        let bit = known.iter().position(|known| *known == name);
        match bit.and_then(|bit| u32::try_from(bit).ok()).and_then(|bit| 1_u128.checked_shl(bit)) {
            Some(bit) => Some(Self { bits: self.bits | bit, ..self }),
            None => baseline.contains(&name).then_some(self),
        }
    }

    /// Returns the features whose bits are set in `bits`, as SPEC.md numbers them.
    #[must_use]
    pub const fn from_bits(arch: Arch, bits: u128) -> Self {
        Self { arch, bits }
    }

    /// Returns the architecture whose features these are.
    #[must_use]
    pub const fn arch(self) -> Arch {
        self.arch
    }

    /// Returns the features as SPEC.md numbers them.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.bits
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Returns whether all of `names` are there; a name that is in no list never is.
    #[must_use]
    pub fn has(self, names: &[&str]) -> bool {
        Self::named(self.arch, names).is_some_and(|wanted| wanted.missing_from(self).is_empty())
    }

    /// Returns those of these features that `there` does not have: all of them if it is of another architecture.
    #[must_use]
    pub fn missing_from(self, there: Self) -> Self {
        let bits = if self.arch == there.arch { self.bits & !there.bits } else { self.bits };
        Self { bits, ..self }
    }
}

/// Returns the names that have a bit, in the order of the bits, and those that need none.
const fn known(arch: Arch) -> (&'static [&'static str], &'static [&'static str]) {
    match arch {
        Arch::Amd64 | Arch::X86 => (X86, X86_BASELINE),
        Arch::Arm64 => (ARM64, ARM64_BASELINE),
        Arch::Riscv64 => (RISCV64, &[]),
        Arch::S390x | Arch::Arm | Arch::Ppc64le | Arch::Loong64 | Arch::Wasm | Arch::Other => (&[], &[]),
    }
}

impl fmt::Display for CpuFeatures {
    /// Writes the names, separated by commas; a bit without a name by its number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = (0..u128::BITS).filter(|bit| (self.bits >> bit) & 1 == 1);
        for (i, bit) in set.enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            match usize::try_from(bit).ok().and_then(|bit| known(self.arch).0.get(bit)) {
                Some(name) => f.write_str(name)?,
                None => write!(f, "bit {bit}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuFeatures({}: {self})", self.arch.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_is_longer_than_the_word_that_holds_it_or_names_a_feature_twice() {
        for arch in [Arch::Amd64, Arch::Arm64, Arch::Riscv64] {
            let (names, baseline) = known(arch);
            assert!(names.len() <= 128);
            let mut sorted = [names, baseline].concat();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), names.len() + baseline.len());
        }
    }

    #[test]
    fn the_first_name_is_bit_0() {
        assert_eq!(CpuFeatures::of(Arch::Amd64, &["sse3"]).unwrap().bits(), 1);
        assert_eq!(CpuFeatures::of(Arch::Arm64, &["lse", "crc"]).unwrap().bits(), 0b101);
        assert!(CpuFeatures::of(Arch::Arm64, &["sse3"]).is_err());
    }

    #[test]
    fn what_every_processor_has_is_known_and_takes_no_bit() {
        for (arch, names) in [(Arch::Amd64, X86_BASELINE), (Arch::X86, X86_BASELINE), (Arch::Arm64, ARM64_BASELINE)] {
            assert_eq!(CpuFeatures::of(arch, names).unwrap(), CpuFeatures::baseline(arch));
            assert!(CpuFeatures::baseline(arch).has(names));
        }
        assert!(CpuFeatures::of(Arch::Amd64, &["neon"]).is_err());
    }

    #[test]
    fn the_host_has_what_the_standard_library_detects() {
        #[cfg(target_arch = "x86_64")]
        for (name, there) in [
            ("sse2", true),
            ("sse3", is_x86_feature_detected!("sse3")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("avx512vpopcntdq", is_x86_feature_detected!("avx512vpopcntdq")),
            ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
            ("tsc", is_x86_feature_detected!("tsc")),
        ] {
            assert_eq!(CpuFeatures::host().has(&[name]), there, "{name}");
        }
        assert!(!CpuFeatures::host().has(&["no such feature"]));
    }

    /// The names that the macros of Rust 1.89 and 1.95 take without a feature gate, but for `abm`, `avx512gfni`,
    /// `avx512vaes`, `avx512vpclmulqdq` and `asimd`, which are other words for names that are here.
    #[test]
    fn every_feature_that_stable_rust_detects_has_a_name_here() {
        let x86 = "aes pclmulqdq rdrand rdseed tsc mmx sse sse2 sse3 ssse3 sse4.1 sse4.2 sse4a sha avx avx2 sha512 sm3 sm4 \
            avx512f avx512cd avx512er avx512pf avx512bw avx512dq avx512vl avx512ifma avx512vbmi avx512vpopcntdq avx512vbmi2 \
            gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512bf16 avx512vp2intersect avx512fp16 avxifma avxneconvert \
            avxvnni avxvnniint16 avxvnniint8 f16c fma bmi1 bmi2 lzcnt tbm popcnt fxsr xsave xsaveopt xsaves xsavec \
            cmpxchg16b kl widekl adx rtm movbe ermsb";
        let arm64 = "neon pmull fp aes bf16 bti crc dit dpb dpb2 dotprod f32mm f64mm fcma fhm flagm fp16 frintts i8mm jsconv \
            lse lse2 mte paca pacg rand rcpc rcpc2 rdm sb sha2 sha3 sm4 ssbs sve sve2 sve2-aes sve2-bitperm sve2-sha3 \
            sve2-sm4 tme";
        let riscv64 = "m a c zba zbb zbc zbs zbkb zbkc zbkx zknd zkne zknh zksed zksh zkr zkn zks zk zkt";
        for (arch, detected) in [(Arch::Amd64, x86), (Arch::Arm64, arm64), (Arch::Riscv64, riscv64)] {
            let (names, baseline) = known(arch);
            let mut known = [names, baseline].concat();
            let mut detected: Vec<_> = detected.split_whitespace().collect();
            known.sort_unstable();
            detected.sort_unstable();
            assert_eq!(known, detected);
        }
    }

    #[test]
    fn a_level_has_all_of_the_one_before() {
        let level = |name| CpuFeatures::level(name).unwrap();
        assert_eq!(level("x86-64-v1"), CpuFeatures::baseline(Arch::Amd64));
        let sizes = LEVELS.map(|(name, _)| level(name).bits().count_ones());
        assert_eq!(sizes, [0, 6, 15, 20]);
        for pair in LEVELS.windows(2) {
            assert!(level(pair[0].0).missing_from(level(pair[1].0)).is_empty());
        }
        for name in ["", "x86-64", "x86-64-v5", "avx2"] {
            assert!(CpuFeatures::level(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_feature_of_another_architecture_is_missing() {
        let needed = CpuFeatures::from_bits(Arch::Arm64, 1);
        assert_eq!(needed.missing_from(CpuFeatures::from_bits(Arch::Amd64, u128::MAX)), needed);
        assert!(needed.missing_from(CpuFeatures::from_bits(Arch::Arm64, u128::MAX)).is_empty());
    }

    #[test]
    fn a_bit_without_a_name_is_printed_by_its_number() {
        assert_eq!(CpuFeatures::from_bits(Arch::Amd64, 1 << 127 | 2).to_string(), "ssse3, bit 127");
    }
}

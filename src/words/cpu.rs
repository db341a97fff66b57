//! The features of a processor that code may need beyond the baseline of its architecture.

use std::fmt;

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
    bits: u64,
}

/// Tells the names of an architecture's features in the order of their bits, and which of them this machine has.
///
/// The numbers are part of the format: names are added at the end and never moved or removed.
macro_rules! features {
    ($names:ident, $host:ident, $arch:literal, $detect:path, [$($name:tt)*]) => {
        const $names: &[&str] = &[$($name),*];

        #[cfg(target_arch = $arch)]
        fn $host() -> u64 {
            use $detect as detected;
            [$(detected!($name)),*].into_iter().rev().fold(0, |bits, there| (bits << 1) | u64::from(there))
        }
    };
}

features!(AMD64, host_bits, "x86_64", std::arch::is_x86_feature_detected, [
    "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "avx" "avx2" "fma" "f16c" "movbe" "cmpxchg16b"
    "aes" "pclmulqdq" "sha" "adx" "rdrand" "rdseed" "gfni" "vaes" "vpclmulqdq" "avx512f" "avx512dq" "avx512cd"
    "avx512bw" "avx512vl" "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq"
]);

features!(ARM64, host_bits, "aarch64", std::arch::is_aarch64_feature_detected, [
    "lse" "lse2" "crc" "aes" "sha2" "sha3" "pmull" "fp16" "dotprod" "rdm" "rcpc" "rcpc2" "jsconv" "fcma" "flagm" "bf16"
    "i8mm" "sve" "sve2" "paca" "pacg" "bti" "mte" "sb" "ssbs" "dpb"
]);

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn host_bits() -> u64 {
    0
}

impl CpuFeatures {
    /// Returns the features that this machine has, of those the crate knows.
    #[must_use]
    pub fn host() -> Self {
        Self { arch: Arch::host(), bits: host_bits() }
    }

    /// Returns the features of those names, or `None` if one is not in the list of `arch`.
    pub(crate) fn named(arch: Arch, names: &[&str]) -> Option<Self> {
        let bits = names.iter().try_fold(0, |bits, name| {
            let bit = known(arch).iter().position(|known| known == name)?;
            Some(bits | 1_u64.checked_shl(u32::try_from(bit).ok()?)?)
        })?;
        Some(Self { arch, bits })
    }

    /// Returns the features whose bits are set in `bits`, as SPEC.md numbers them.
    #[must_use]
    pub const fn from_bits(arch: Arch, bits: u64) -> Self {
        Self { arch, bits }
    }

    /// Returns the architecture whose features these are.
    #[must_use]
    pub const fn arch(self) -> Arch {
        self.arch
    }

    /// Returns the features as SPEC.md numbers them.
    #[must_use]
    pub const fn bits(self) -> u64 {
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

fn known(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 => AMD64,
        Arch::Arm64 => ARM64,
        Arch::Riscv64 | Arch::S390x | Arch::Other => &[],
    }
}

impl fmt::Display for CpuFeatures {
    /// Writes the names, separated by commas; a bit without a name by its number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = (0..u64::BITS).filter(|bit| (self.bits >> bit) & 1 == 1);
        for (i, bit) in set.enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            match usize::try_from(bit).ok().and_then(|bit| known(self.arch).get(bit)) {
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
        for names in [AMD64, ARM64] {
            assert!(names.len() <= 64);
            let mut sorted = names.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), names.len());
        }
    }

    #[test]
    fn the_first_name_is_bit_0() {
        assert_eq!(CpuFeatures::of(Arch::Amd64, &["sse3"]).unwrap().bits(), 1);
        assert_eq!(CpuFeatures::of(Arch::Arm64, &["lse", "crc"]).unwrap().bits(), 0b101);
        assert!(CpuFeatures::of(Arch::Arm64, &["sse3"]).is_err());
    }

    #[test]
    fn the_host_has_what_the_standard_library_detects() {
        #[cfg(target_arch = "x86_64")]
        for (name, there) in [
            ("sse3", is_x86_feature_detected!("sse3")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("avx512vpopcntdq", is_x86_feature_detected!("avx512vpopcntdq")),
        ] {
            assert_eq!(CpuFeatures::host().has(&[name]), there, "{name}");
        }
        assert!(!CpuFeatures::host().has(&["no such feature"]));
    }

    #[test]
    fn a_feature_of_another_architecture_is_missing() {
        let needed = CpuFeatures::from_bits(Arch::Arm64, 1);
        assert_eq!(needed.missing_from(CpuFeatures::from_bits(Arch::Amd64, u64::MAX)), needed);
        assert!(needed.missing_from(CpuFeatures::from_bits(Arch::Arm64, u64::MAX)).is_empty());
    }

    #[test]
    fn a_bit_without_a_name_is_printed_by_its_number() {
        assert_eq!(CpuFeatures::from_bits(Arch::Amd64, 1 << 63 | 2).to_string(), "ssse3, bit 63");
    }
}

//! The machines that code is compiled for.

use std::fmt;

/// A processor architecture, named as Go names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
    /// 64-bit RISC-V.
    Riscv64,
    /// IBM z/Architecture.
    S390x,
    /// 32-bit x86 with SSE2.
    X86,
    /// 32-bit ARM.
    Arm,
    /// 64-bit POWER, little-endian.
    Ppc64le,
    /// 64-bit LoongArch.
    Loong64,
    /// 32-bit WebAssembly.
    Wasm,
    /// Anything else. Sealed entries for it are never read: nobody can tell one such architecture from another.
    Other,
}

impl Arch {
    /// The largest number there is.
    pub(crate) const LAST: u16 = 9;

    const ALL: [Self; 10] = [
        Self::Other,
        Self::Amd64,
        Self::Arm64,
        Self::Riscv64,
        Self::S390x,
        Self::X86,
        Self::Arm,
        Self::Ppc64le,
        Self::Loong64,
        Self::Wasm,
    ];

    /// Returns the architecture that this program was compiled for.
    #[must_use]
    pub const fn host() -> Self {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Self::Amd64
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little", target_pointer_width = "64")) {
            Self::Arm64
        } else if cfg!(target_arch = "riscv64") {
            Self::Riscv64
        } else if cfg!(target_arch = "s390x") {
            Self::S390x
        } else if cfg!(target_arch = "x86") {
            Self::X86
        } else if cfg!(all(target_arch = "arm", target_endian = "little")) {
            Self::Arm
        } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
            Self::Ppc64le
        } else if cfg!(target_arch = "loongarch64") {
            Self::Loong64
        } else if cfg!(target_arch = "wasm32") {
            Self::Wasm
        } else {
            Self::Other
        }
    }

    /// Returns the name, as Go's `GOARCH` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Riscv64 => "riscv64",
            Self::S390x => "s390x",
            Self::X86 => "386",
            Self::Arm => "arm",
            Self::Ppc64le => "ppc64le",
            Self::Loong64 => "loong64",
            Self::Wasm => "wasm",
            Self::Other => "other",
        }
    }

    /// Returns the number, as the seal has it; that of [`Arch::Other`], 0, is in no seal that can be read.
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::Other => 0,
            Self::Amd64 => 1,
            Self::Arm64 => 2,
            Self::Riscv64 => 3,
            Self::S390x => 4,
            Self::X86 => 5,
            Self::Arm => 6,
            Self::Ppc64le => 7,
            Self::Loong64 => 8,
            Self::Wasm => 9,
        }
    }

    /// Returns the architecture of that number; `None` for 0, which is no one's.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.number() == number && number > 0)
    }

    /// Returns the architecture of that name, or `None` for a name that [`Arch::name`] never gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// Returns the size of the largest page that systems on the architecture have, in bytes: parts of an image that are
    /// protected in their own ways lie so far apart.
    pub(crate) const fn largest_page(self) -> u64 {
        match self {
            Self::Amd64 | Self::X86 => 4096,
            _ => 65536,
        }
    }

    /// Returns the byte that traps when it is run, however many of it there are and wherever among them one begins:
    /// `int3` on x86, `unreachable` in WebAssembly; elsewhere what the architecture has for an illegal instruction.
    pub(crate) const fn trap(self) -> u8 {
        match self {
            Self::Amd64 | Self::X86 => 0xcc,
            // Zeros are no trap there: they are `andeq r0, r0, r0`.
            Self::Arm => 0xff,
            Self::Arm64 | Self::Riscv64 | Self::S390x | Self::Ppc64le | Self::Loong64 | Self::Wasm | Self::Other => 0,
        }
    }
}

/// An operating system, named as Go names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Os {
    /// Linux.
    Linux,
    /// macOS.
    Darwin,
    /// Windows.
    Windows,
    /// FreeBSD.
    Freebsd,
    /// Android.
    Android,
    /// iOS.
    Ios,
    /// NetBSD.
    Netbsd,
    /// OpenBSD.
    Openbsd,
    /// DragonFly BSD.
    Dragonfly,
    /// Solaris.
    Solaris,
    /// illumos.
    Illumos,
    /// WASI, first preview.
    Wasip1,
    /// Anything else. Sealed entries for it are never read: nobody can tell one such operating system from another.
    Other,
}

impl Os {
    /// The largest number there is.
    pub(crate) const LAST: u16 = 12;

    const ALL: [Self; 13] = [
        Self::Other,
        Self::Linux,
        Self::Darwin,
        Self::Windows,
        Self::Freebsd,
        Self::Android,
        Self::Ios,
        Self::Netbsd,
        Self::Openbsd,
        Self::Dragonfly,
        Self::Solaris,
        Self::Illumos,
        Self::Wasip1,
    ];

    /// Returns the operating system that this program was compiled for.
    #[must_use]
    pub const fn host() -> Self {
        if cfg!(target_os = "linux") {
            Self::Linux
        } else if cfg!(target_os = "macos") {
            Self::Darwin
        } else if cfg!(target_os = "windows") {
            Self::Windows
        } else if cfg!(target_os = "freebsd") {
            Self::Freebsd
        } else if cfg!(target_os = "android") {
            Self::Android
        } else if cfg!(target_os = "ios") {
            Self::Ios
        } else if cfg!(target_os = "netbsd") {
            Self::Netbsd
        } else if cfg!(target_os = "openbsd") {
            Self::Openbsd
        } else if cfg!(target_os = "dragonfly") {
            Self::Dragonfly
        } else if cfg!(target_os = "solaris") {
            Self::Solaris
        } else if cfg!(target_os = "illumos") {
            Self::Illumos
        } else if cfg!(all(target_os = "wasi", target_env = "p1")) {
            Self::Wasip1
        } else {
            Self::Other
        }
    }

    /// Returns the name, as Go's `GOOS` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Darwin => "darwin",
            Self::Windows => "windows",
            Self::Freebsd => "freebsd",
            Self::Android => "android",
            Self::Ios => "ios",
            Self::Netbsd => "netbsd",
            Self::Openbsd => "openbsd",
            Self::Dragonfly => "dragonfly",
            Self::Solaris => "solaris",
            Self::Illumos => "illumos",
            Self::Wasip1 => "wasip1",
            Self::Other => "other",
        }
    }

    /// Returns the number, as the seal has it; that of [`Os::Other`], 0, is in no seal that can be read.
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::Other => 0,
            Self::Linux => 1,
            Self::Darwin => 2,
            Self::Windows => 3,
            Self::Freebsd => 4,
            Self::Android => 5,
            Self::Ios => 6,
            Self::Netbsd => 7,
            Self::Openbsd => 8,
            Self::Dragonfly => 9,
            Self::Solaris => 10,
            Self::Illumos => 11,
            Self::Wasip1 => 12,
        }
    }

    /// Returns the operating system of that number; `None` for 0, which is no one's.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|os| os.number() == number && number > 0)
    }

    /// Returns the operating system of that name, or `None` for a name that [`Os::name`] never gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|os| os.name() == name)
    }
}

/// An architecture and an operating system; printed as in `amd64-linux`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The architecture.
    pub arch: Arch,
    /// The operating system.
    pub os: Os,
}

impl Target {
    /// Returns the target that this program was compiled for.
    #[must_use]
    pub const fn host() -> Self {
        Self { arch: Arch::host(), os: Os::host() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.arch.name(), self.os.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_number_leads_back_to_what_it_names() {
        for arch in Arch::ALL {
            assert_eq!(Arch::from_name(arch.name()), Some(arch));
            assert_eq!(Arch::from_number(arch.number()), (arch != Arch::Other).then_some(arch));
        }
        for os in Os::ALL {
            assert_eq!(Os::from_name(os.name()), Some(os));
            assert_eq!(Os::from_number(os.number()), (os != Os::Other).then_some(os));
        }
        assert_eq!(Arch::from_name("AMD64"), None);
        assert_eq!(Os::from_name(""), None);
    }

    #[test]
    fn the_numbers_are_those_up_to_the_last() {
        let (archs, oss) = (Arch::ALL.map(Arch::number), Os::ALL.map(Os::number));
        assert!(archs.into_iter().eq(0..=Arch::LAST), "{archs:?}");
        assert!(oss.into_iter().eq(0..=Os::LAST), "{oss:?}");
    }
}

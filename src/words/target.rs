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
    /// Anything else.
    Other,
}

impl Arch {
    const ALL: [Self; 5] = [Self::Amd64, Self::Arm64, Self::Riscv64, Self::S390x, Self::Other];

    /// Returns the architecture that this program was compiled for.
    #[must_use]
    pub const fn host() -> Self {
        if cfg!(target_arch = "x86_64") {
            Self::Amd64
        } else if cfg!(target_arch = "aarch64") {
            Self::Arm64
        } else if cfg!(target_arch = "riscv64") {
            Self::Riscv64
        } else if cfg!(target_arch = "s390x") {
            Self::S390x
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
            Self::Other => "other",
        }
    }

    /// Returns the number, as the seal has it.
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::Other => 0,
            Self::Amd64 => 1,
            Self::Arm64 => 2,
            Self::Riscv64 => 3,
            Self::S390x => 4,
        }
    }

    /// Returns the architecture of that number.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.number() == number)
    }

    /// Returns the architecture of that name, or `None` for a name that [`Arch::name`] never gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.name() == name)
    }
}

/// What running off the end of the code runs into: `int3` on x86-64, `udf` on arm64.
pub(crate) const TRAP: u8 = if cfg!(target_arch = "aarch64") { 0x00 } else { 0xcc };

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
    /// Anything else.
    Other,
}

impl Os {
    const ALL: [Self; 5] = [Self::Linux, Self::Darwin, Self::Windows, Self::Freebsd, Self::Other];

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
            Self::Other => "other",
        }
    }

    /// Returns the number, as the seal has it.
    pub(crate) const fn number(self) -> u16 {
        match self {
            Self::Other => 0,
            Self::Linux => 1,
            Self::Darwin => 2,
            Self::Windows => 3,
            Self::Freebsd => 4,
        }
    }

    /// Returns the operating system of that number.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|os| os.number() == number)
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
            assert_eq!(Arch::from_number(arch.number()), Some(arch));
        }
        for os in Os::ALL {
            assert_eq!(Os::from_name(os.name()), Some(os));
            assert_eq!(Os::from_number(os.number()), Some(os));
        }
        assert_eq!(Arch::from_name("AMD64"), None);
        assert_eq!(Os::from_name(""), None);
    }
}

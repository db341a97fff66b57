//! How code and data refer to each other and to what is outside.

use super::target::Arch;

/// A place in the image that an entry becomes when it is loaded: see [`Builder::relocate`](crate::Builder::relocate).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// So many bytes behind the first one of the engine's code.
    Code(u64),
    /// So many bytes behind the first one of the data that nobody writes to.
    ReadOnly(u64),
    /// So many bytes behind the first one of the data that the code may write to.
    Writable(u64),
    /// What the engine calls by a name; the number is that of the import.
    Import(u32),
}

impl Place {
    /// Returns the place so many bytes behind this one; an import is the same however far behind.
    #[must_use]
    pub const fn behind(self, bytes: u64) -> Self {
        match self {
            Self::Code(at) => Self::Code(at.saturating_add(bytes)),
            Self::ReadOnly(at) => Self::ReadOnly(at.saturating_add(bytes)),
            Self::Writable(at) => Self::Writable(at.saturating_add(bytes)),
            Self::Import(import) => Self::Import(import),
        }
    }
}

/// How the address of a target is written, under the names that Cranelift and the psABIs have.
///
/// `S` is the address of the target, `A` the addend, `P` the place that is written to, and `G` a slot in the image that
/// holds `S`. A page has 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RelocationKind {
    /// `S + A` in 8 bytes, which is written when the entry is loaded. In data alone.
    Abs8,
    /// `S + A - P` in 4 bytes. Not of an import.
    X86PCRel4,
    /// The same of a call, which reaches an import through a stub.
    X86CallPCRel4,
    /// The same.
    X86CallPLTRel4,
    /// `G + A - P` in 4 bytes: what is loaded from there is `S`.
    X86GOTPCRel4,
    /// `S + A - P` of `bl` and `b`, which reach an import through a stub.
    Arm64Call,
    /// The distance of the pages of `S + A` and `P`, of `adrp`. Not of an import.
    Aarch64AdrPrelPgHi21,
    /// `S + A` within its page, of `add`. Not of an import.
    Aarch64AddAbsLo12Nc,
    /// The same of `ldr` and `str`, in units of what they load or store.
    Aarch64LdStAbsLo12Nc,
    /// The distance of the pages of `G` and `P`, of `adrp`.
    Aarch64AdrGotPage21,
    /// `G` within its page, of `ldr` of 8 bytes.
    Aarch64Ld64GotLo12Nc,
    /// `S + A - P` in 4 bytes, on arm64. Not of an import.
    Aarch64Prel32,
}

impl RelocationKind {
    /// Returns whose instructions it is for; `None` if those of any.
    pub(crate) const fn arch(self) -> Option<Arch> {
        match self {
            Self::Abs8 => None,
            Self::X86PCRel4 | Self::X86CallPCRel4 | Self::X86CallPLTRel4 | Self::X86GOTPCRel4 => Some(Arch::Amd64),
            Self::Arm64Call
            | Self::Aarch64AdrPrelPgHi21
            | Self::Aarch64AddAbsLo12Nc
            | Self::Aarch64LdStAbsLo12Nc
            | Self::Aarch64AdrGotPage21
            | Self::Aarch64Ld64GotLo12Nc
            | Self::Aarch64Prel32 => Some(Arch::Arm64),
        }
    }

    /// Returns whether it is a call, which may go by way of a stub.
    pub(crate) const fn is_call(self) -> bool {
        matches!(self, Self::X86CallPCRel4 | Self::X86CallPLTRel4 | Self::Arm64Call)
    }

    /// Returns whether it refers to a slot.
    pub(crate) const fn is_slot(self) -> bool {
        matches!(self, Self::X86GOTPCRel4 | Self::Aarch64AdrGotPage21 | Self::Aarch64Ld64GotLo12Nc)
    }
}

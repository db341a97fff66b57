//! The machine of this program, as ELF numbers it.

use jitcache::Arch;

/// Returns the number (`e_machine`), if it is known here.
pub(crate) fn number() -> Option<u16> {
    Some(match Arch::host() {
        Arch::X86 => 3,
        Arch::Ppc64le => 21,
        Arch::S390x => 22,
        Arch::Arm => 40,
        Arch::Amd64 => 62,
        Arch::Arm64 => 183,
        Arch::Riscv64 => 243,
        Arch::Loong64 => 258,
        _ => return None,
    })
}

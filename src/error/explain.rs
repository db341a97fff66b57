//! What errors are called, how they are counted, and what to do about them.

use super::Error;

impl Error {
    /// Returns whether another version of the engine wrote the entry.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// Returns whether the bytes of an entry are at fault, and not the machine or the caller.
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        matches!(self.number(), 2..100)
    }

    /// Returns the number of the error, which never changes: 1 for a stale entry, 2 to 99 for a rejection, from 100 on
    /// for failures of the machine, mistakes of the caller and what this crate does not know.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.told().0
    }

    /// Returns the name of the error, which never changes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.told().1
    }

    /// Returns a sentence that tells a person what to do.
    #[must_use]
    pub const fn explain(&self) -> &'static str {
        self.told().2
    }

    const fn told(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Stale { .. } => (1, "stale", "The engine was updated: compile again, and replace the entry."),
            Self::Magic { .. } => {
                (2, "magic", "This is no entry of the engine: see what else writes to the directory.")
            }
            Self::Truncated { .. } => {
                (3, "truncated", "The file was cut short: compile again, and see whether the disk is full or failing.")
            }
            Self::Value { .. } => (
                4,
                "value",
                "The file is damaged, or its writer has a bug: compile again, and see whether it comes back.",
            ),
            Self::Checksum { .. } => {
                (5, "checksum", "The file is damaged: compile again, and see whether the disk is failing.")
            }
            Self::Trailing { .. } => {
                (6, "trailing", "Something was appended, or the entry is of a later revision: compile again.")
            }
            Self::NotAFile { .. } => (7, "not-a-file", "Something else has the name of an entry: remove it by hand."),
            Self::Unsealed { .. } => {
                (8, "unsealed", "The entry was written without a seal, or cut short: compile again.")
            }
            Self::Key { .. } => {
                (9, "key", "The file was renamed or copied from elsewhere: compile again, and see who does that.")
            }
            Self::Target { .. } => (
                10,
                "target",
                "The directory was copied from another kind of machine: compile again, or give each its own.",
            ),
            Self::CpuFeatures { .. } => (
                11,
                "cpu-features",
                "The code needs a better processor: compile again, or give the identity features that all machines share.",
            ),
            Self::BuildId { .. } => (12, "build-id", "Another build of the engine wrote the entry: compile again."),
            Self::UnknownSection { .. } => {
                (13, "unknown-section", "A later version of the engine wrote the entry: compile again, or update.")
            }
            Self::Forged { .. } => (
                14,
                "forged",
                "The file was changed by somebody without the key, or the key was changed: compile again, and find out who.",
            ),
            Self::Untrusted { .. } => (
                15,
                "untrusted",
                "Others could have their code run: take the right to write from them, give a root of your own, or trust them.",
            ),
            Self::NotAPack { .. } => {
                (16, "not-a-pack", "Write the pack again, by this version of jitcache: nothing in it can be found.")
            }
            Self::Io { .. } => (
                100,
                "io",
                "See to the file system, permissions, space and the limit on open files (RLIMIT_NOFILE); the engine works without the cache.",
            ),
            Self::Memory { .. } => (
                101,
                "memory",
                "Free memory, allow the process to have executable memory, or more mappings (vm.max_map_count).",
            ),
            Self::UnsupportedMachine => (
                102,
                "unsupported-machine",
                "Run on x86-64, x86, arm64, armv7, riscv64 or s390x, or use the format alone.",
            ),
            Self::Invalid { .. } => (103, "invalid", "The caller has to give another value."),
            Self::Unwritable { .. } => {
                (104, "unwritable", "The engine has to hand over other parts: no reader would accept these.")
            }
            Self::UnknownLayout { .. } => (
                105,
                "unknown-layout",
                "Leave the entry, and compile: to read it, update jitcache, or give the revision.",
            ),
            Self::Foreign { .. } => {
                (106, "foreign", "Load it in a program of its target; here its bytes can be read and verified.")
            }
            Self::UnboundImport { .. } => (
                108,
                "unbound-import",
                "Give the linker an address for the name, or give the entries of another engine another version.",
            ),
            Self::Relocation { .. } => (
                109,
                "relocation",
                "The compiler has to refer to it in another way: as position-independent code does.",
            ),
            Self::Object { .. } => {
                (110, "object", "Have the compiler write a relocatable object of position-independent code (-c -fPIC).")
            }
            Self::NotCompiled { .. } => (
                115,
                "not-compiled",
                "Fill the cache with what this program asks for, or leave it a cache that compiles: see what its events tell.",
            ),
            Self::LesserProcessor { .. } => (
                116,
                "lesser-processor",
                "Give the identity the features that all its machines have, and compile for them.",
            ),
            Self::ReadOnly { .. } => (107, "read-only", "Open the store with `Store::open` to write to it."),
        }
    }
}

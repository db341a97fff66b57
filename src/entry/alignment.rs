//! How code is aligned in files and in memory.

/// How functions are aligned.
///
/// The engine's code begins at a multiple of 16 bytes, or of `bytes` if that is more, so that constants in it may be
/// aligned: in memory always, and in the file too if `in_file` is set. There, padding stands in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alignment {
    /// What the offset of every function is a multiple of, in bytes: a power of two.
    pub bytes: u64,
    /// Whether offsets count from the start of the file, and not from the start of the code.
    pub in_file: bool,
}

impl Alignment {
    /// Returns what the address of the code is a multiple of, in bytes.
    pub(crate) const fn of_code(self) -> u64 {
        if self.bytes < 16 { 16 } else { self.bytes }
    }

    /// Returns what the offset of an entry in a pack is a multiple of, in bytes.
    pub(crate) const fn of_entry(self) -> u64 {
        if self.in_file { self.of_code() } else { 16 }
    }

    /// Returns how many bytes of padding align code in its file that lies at `at` with them.
    pub(crate) fn padding(self, at: u64) -> u64 {
        let padding = if self.in_file { at.wrapping_neg().checked_rem(self.of_code()) } else { None };
        padding.unwrap_or(0)
    }

    /// Returns how far behind a multiple of [`Alignment::of_code`] code begins in memory that lies at `at` in its file,
    /// in bytes.
    pub(crate) fn displacement(self, at: u64) -> usize {
        let rest = if self.in_file { at.checked_rem(self.of_code()) } else { None };
        rest.and_then(|rest| usize::try_from(rest).ok()).unwrap_or(0)
    }

    /// Returns whether code that lies at `at` in its file is aligned where it is if that is mapped.
    pub(crate) fn allows_in_place(self, at: u64) -> bool {
        self.in_file || at.checked_rem(self.of_code()) == Some(0)
    }
}

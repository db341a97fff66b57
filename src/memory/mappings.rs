//! Mappings, of which a process may have some ten thousands: how many this crate holds, and giving them back.

use std::io::{self, ErrorKind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits;
use crate::error::Error;

/// How many mappings are held now.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Counts mappings that are made: the most there can be, because neighbours may be joined.
pub(super) fn count(more: usize) {
    HELD.fetch_add(more, Ordering::Relaxed);
}

/// Counts mappings that are given back.
pub(super) fn uncount(fewer: usize) {
    HELD.fetch_sub(fewer, Ordering::Relaxed);
}

/// Mappings that are counted as long as the value lives.
#[derive(Debug)]
pub(super) struct Mappings(AtomicUsize);

impl Mappings {
    pub(super) fn new(made: usize) -> Self {
        count(made);
        Self(AtomicUsize::new(made))
    }

    /// Counts so many more.
    pub(super) fn add(&self, more: usize) {
        count(more);
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        uncount(*self.0.get_mut());
    }
}

/// Returns whether half of the mappings that the process may have are held here: the others are for the program.
pub(crate) fn are_scarce() -> bool {
    static SHARE: OnceLock<usize> = OnceLock::new();
    let share = SHARE.get_or_init(|| limits::most_mappings().map_or(usize::MAX, |most| most / 2));
    HELD.load(Ordering::Relaxed) >= *share
}

/// Returns the error for memory of that length that the system refused.
pub(super) fn refused(action: &'static str, length: usize, error: io::Error) -> Error {
    Error::Memory { action, length: u64::try_from(length).unwrap_or(u64::MAX), source: explained(error) }
}

/// Says of memory that was refused if it was for want of mappings.
pub(crate) fn explained(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::OutOfMemory
        && error.raw_os_error().is_some()
        && let Some((used, most)) = limits::mappings()
        // Some come and go while they are counted.
        && used >= most.saturating_sub(most / 64)
    {
        let told = format!("{used} mappings of the {most} that vm.max_map_count allows are in use: {error}");
        return io::Error::new(ErrorKind::OutOfMemory, told);
    }
    error
}

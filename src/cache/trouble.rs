//! When a store that fails over and over is left alone, and for how long.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How reading from a store, or writing to it, has gone of late.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Failures in a row, but for those while the store is left alone.
    failures: AtomicU32,
    /// Whether the last try failed, for whatever reason.
    has_failed: AtomicBool,
    /// Until when the store is left alone, in nanoseconds: zero if it is not.
    until: AtomicU64,
}

/// What is told of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// The failure.
    Failure,
    /// That the store is left alone for it.
    LeftAlone,
    /// Nothing any more.
    Nothing,
}

/// After so many failures in a row a store is left alone.
const TOLERATED: u32 = 8;

/// The first pause, and the longest; each is twice as long as the one before.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

impl Trouble {
    /// Returns whether the store is to be left alone. Whoever asks when the pause is over tries it.
    pub(super) fn is_left_alone(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && now() < until
    }

    /// Returns whether the last try failed.
    pub(super) fn is_failing(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    pub(super) fn succeeded(&self) {
        // A hit only reads.
        if self.is_failing() {
            self.has_failed.store(false, Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a failure that says nothing of the store.
    pub(super) fn failed_once(&self) -> Telling {
        self.has_failed.store(true, Ordering::Relaxed);
        Telling::Failure
    }

    pub(super) fn failed(&self) -> Telling {
        self.has_failed.store(true, Ordering::Relaxed);
        // Those who were on their way when the pause began do not make it longer.
        if self.is_left_alone() {
            return Telling::Nothing;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let Some(more) = failures.checked_sub(TOLERATED) else { return Telling::Failure };
        let pause = PAUSES[0].saturating_mul(1 << more.min(16)).min(PAUSES[1]);
        self.until.store(now().saturating_add(nanoseconds(pause)), Ordering::Relaxed);
        if more == 0 { Telling::LeftAlone } else { Telling::Nothing }
    }
}

/// Returns the time since the first call, which is not zero.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    nanoseconds(START.get_or_init(Instant::now).elapsed()).saturating_add(1)
}

/// Returns a duration in nanoseconds, or the longest that fits, of five hundred years.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_have_a_store_left_alone_which_is_told_once() {
        let trouble = Trouble::default();
        for _ in 0..3 {
            for _ in 1..TOLERATED {
                assert_eq!(trouble.failed(), Telling::Failure);
                assert!(!trouble.is_left_alone());
            }
            trouble.succeeded();
        }
        let mut told = Vec::new();
        for _ in 0..u32::MAX.ilog2() + TOLERATED {
            told.push(trouble.failed());
            let is_left_alone = trouble.is_left_alone();
            assert_eq!(is_left_alone, *told.last().unwrap() != Telling::Failure);
            assert!(!is_left_alone || trouble.failed() == Telling::Nothing);
            // The pause is over.
            let until = trouble.until.load(Ordering::Relaxed);
            assert!(until <= now() + nanoseconds(PAUSES[1]));
            trouble.until.store(until.min(1), Ordering::Relaxed);
        }
        let tolerated = usize::try_from(TOLERATED).unwrap();
        assert!(told[..tolerated - 1].iter().all(|told| *told == Telling::Failure));
        assert_eq!(told[tolerated - 1], Telling::LeftAlone);
        assert!(told[tolerated..].iter().all(|told| *told == Telling::Nothing));
        trouble.succeeded();
        assert_eq!(trouble.failed(), Telling::Failure);
    }
}

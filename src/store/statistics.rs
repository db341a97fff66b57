//! What is counted of a cache.

use std::time::Duration;

/// How many numbers there are.
pub(super) const COUNTS: usize = 16;

/// How often a cache did what since it was opened, as [`Cache::statistics`](crate::Cache::statistics) tells, or how
/// often all caches over a directory did, as [`Cache::tally`](crate::Cache::tally) and
/// [`Store::tally`](crate::Store::tally) tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Modules that were in memory.
    pub memory_hits: u64,
    /// Modules that were loaded from the store.
    pub hits: u64,
    /// Modules of which the store had no entry.
    pub misses: u64,
    /// Modules of which the store had an entry of another version.
    pub stale: u64,
    /// Modules of which the store had a damaged entry.
    pub rejected: u64,
    /// Modules of which the store had an entry of an unknown layout.
    pub unknown_layouts: u64,
    /// What could not be done with the store, opening it included: see [`Event`](crate::Event).
    pub failures: u64,
    /// Modules that somebody else compiled meanwhile, and was waited for.
    pub waits: u64,
    /// Modules that were compiled.
    pub compilations: u64,
    /// How long the compilers took.
    pub compiling: Duration,
    /// Modules that were stored.
    pub stored: u64,
    /// Bytes of code that was loaded from the store.
    pub bytes_loaded: u64,
    /// Bytes of the files that were stored.
    pub bytes_stored: u64,
    /// Modules that went out of memory for the budget.
    pub evicted: u64,
    /// Entries that went out of the store for its budget, by what this cache put there.
    pub trimmed: u64,
    /// Bytes of their files.
    pub bytes_trimmed: u64,
}

impl Statistics {
    /// Returns which part of the modules that were not in memory the store had, from 0 to 1, or `None` if there were
    /// none.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let others = [self.misses, self.stale, self.rejected, self.unknown_layouts].into_iter();
        let asked = others.fold(self.hits, u64::saturating_add);
        // Of more than 2^32 nobody asks for the difference.
        let as_float =
            |count: u64| u32::try_from(count >> asked.max(1).ilog2().saturating_sub(31)).map_or(0.0, f64::from);
        (asked > 0).then(|| as_float(self.hits) / as_float(asked))
    }

    /// Returns how long compiling the modules would have taken that were loaded from the store instead, if they take as
    /// long in the mean as those that were compiled, or `None` if none was compiled.
    ///
    /// An estimate: an entry does not say how long it took. How long the loads took is not taken off it.
    #[must_use]
    pub fn time_saved(&self) -> Option<Duration> {
        let compiling = self.compiling.as_nanos().saturating_mul(self.hits.into());
        let saved = compiling.checked_div(self.compilations.into())?;
        Some(Duration::from_nanos(saved.try_into().unwrap_or(u64::MAX)))
    }

    /// Returns the numbers in their order, of the duration the nanoseconds.
    pub(super) fn counts(&self) -> [u64; COUNTS] {
        let compiling = self.compiling.as_nanos().try_into().unwrap_or(u64::MAX);
        [
            self.memory_hits,
            self.hits,
            self.misses,
            self.stale,
            self.rejected,
            self.unknown_layouts,
            self.failures,
            self.waits,
            self.compilations,
            compiling,
            self.stored,
            self.bytes_loaded,
            self.bytes_stored,
            self.evicted,
            self.trimmed,
            self.bytes_trimmed,
        ]
    }

    /// Makes statistics of such numbers.
    pub(super) const fn of_counts(counts: [u64; COUNTS]) -> Self {
        let [
            memory_hits,
            hits,
            misses,
            stale,
            rejected,
            unknown_layouts,
            failures,
            waits,
            compilations,
            compiling,
            stored,
            bytes_loaded,
            bytes_stored,
            evicted,
            trimmed,
            bytes_trimmed,
        ] = counts;
        let compiling = Duration::from_nanos(compiling);
        Self {
            memory_hits,
            hits,
            misses,
            stale,
            rejected,
            unknown_layouts,
            failures,
            waits,
            compilations,
            compiling,
            stored,
            bytes_loaded,
            bytes_stored,
            evicted,
            trimmed,
            bytes_trimmed,
        }
    }

    /// Returns the sums.
    pub(crate) fn plus(&self, more: &Self) -> Self {
        self.with(more, u64::saturating_add)
    }

    /// Returns what has come since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    fn with(&self, other: &Self, compute: impl Fn(u64, u64) -> u64) -> Self {
        let mut counts = self.counts();
        counts.iter_mut().zip(other.counts()).for_each(|(count, other)| *count = compute(*count, other));
        Self::of_counts(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_rate_is_a_part_of_what_was_not_in_memory() {
        let of = |hits, misses| Statistics { hits, misses, memory_hits: 9, ..Statistics::default() }.hit_rate();
        assert_eq!([of(0, 0), of(0, 3), of(3, 1), of(3, 0)], [None, Some(0.0), Some(0.75), Some(1.0)]);
        assert_eq!(of(3 << 50, 1 << 50), Some(0.75));
    }

    #[test]
    fn what_hits_have_saved_is_what_as_many_compilations_take() {
        let of = |hits, compilations, seconds| {
            let compiling = Duration::from_secs(seconds);
            Statistics { hits, compilations, compiling, ..Statistics::default() }.time_saved()
        };
        let expected = [None, Some(Duration::ZERO), Some(Duration::from_secs(15)), Some(Duration::from_millis(1500))];
        assert_eq!([of(9, 0, 0), of(0, 4, 20), of(3, 4, 20), of(3, 4, 2)], expected);
        assert_eq!(of(u64::MAX, 1, u64::MAX / 3), Some(Duration::from_nanos(u64::MAX)));
    }

    #[test]
    fn numbers_are_added_and_taken_off_one_by_one() {
        let numbers = |first| Statistics::of_counts(std::array::from_fn(|at| first + u64::try_from(at).unwrap()));
        assert_eq!(numbers(3).counts(), std::array::from_fn(|at| 3 + u64::try_from(at).unwrap()));
        assert_eq!(numbers(3).plus(&numbers(4)).since(&numbers(4)), numbers(3));
        assert_eq!(numbers(3).since(&numbers(4)), Statistics::default());
        assert_eq!(numbers(u64::MAX - 15).plus(&numbers(15)).counts(), [u64::MAX; COUNTS]);
    }
}

//! Free room: ranges of a line, of which parts are taken and given back.

use std::ops::Range;

use super::start::Start;
use crate::error::{Error, heap};

/// What ranges begin and end at a multiple of.
const GRAIN: usize = 16;

/// How many bytes stay between pieces at least: an instruction.
pub(super) const GAP: usize = 4;

/// Returns what a piece of `length` bytes at `at` takes, if there are such places.
pub(super) fn extent(at: usize, length: usize) -> Option<Range<usize>> {
    let end = at.checked_add(length)?.checked_add(GAP)?.checked_next_multiple_of(GRAIN)?;
    Some(at & GRAIN.wrapping_neg()..end)
}

/// The ranges that are free, in order, none next to another.
#[derive(Debug, Default)]
pub(super) struct Free {
    ranges: Vec<Range<usize>>,
    /// How many pieces are taken: there are no more ranges than these and one.
    pub(super) taken: usize,
}

impl Free {
    /// Makes room for what taking one piece, and giving all pieces back, may need.
    pub(super) fn reserve(&mut self) -> Result<(), Error> {
        let more = self.taken.saturating_add(4).saturating_sub(self.ranges.len());
        heap::reserve(&mut self.ranges, more)
    }

    /// Takes what `length` bytes need from the first range that has it, and returns where they start.
    pub(super) fn take(&mut self, length: usize, start: Start) -> Option<usize> {
        let (index, at, taken) = self.ranges.iter().enumerate().find_map(|(index, free)| {
            let at = free.start.checked_next_multiple_of(start.alignment)?.checked_add(start.displacement)?;
            let taken = extent(at, length).filter(|taken| taken.end <= free.end)?;
            Some((index, at, taken))
        })?;
        let free = self.ranges.get_mut(index)?;
        let (before, behind) = (free.start..taken.start, taken.end..free.end);
        match (before.is_empty(), behind.is_empty()) {
            (true, true) => drop(self.ranges.remove(index)),
            (true, false) => *free = behind,
            (false, true) => *free = before,
            (false, false) => {
                *free = before;
                self.ranges.insert(index.saturating_add(1), behind);
            }
        }
        self.taken = self.taken.saturating_add(1);
        Some(at)
    }

    /// Takes a range back.
    pub(super) fn give(&mut self, taken: Range<usize>) {
        self.taken = self.taken.saturating_sub(1);
        self.add(taken);
    }

    /// Adds a range that was not part of the line, or not free.
    pub(super) fn add(&mut self, new: Range<usize>) {
        let at = self.ranges.partition_point(|free| free.start < new.start);
        let before = at.checked_sub(1).and_then(|at| self.ranges.get_mut(at)).filter(|free| free.end == new.start);
        match before {
            Some(before) => {
                before.end = new.end;
                if let Some(behind) = self.ranges.get(at).filter(|free| free.start == new.end).map(|free| free.end)
                    && let Some(before) = at.checked_sub(1).and_then(|at| self.ranges.get_mut(at))
                {
                    before.end = behind;
                    self.ranges.remove(at);
                }
            }
            None => match self.ranges.get_mut(at) {
                Some(behind) if behind.start == new.end => behind.start = new.start,
                _ => self.ranges.insert(at, new),
            },
        }
    }

    /// Returns how many bytes are free at the end of the line, which ends at `end`.
    pub(super) fn at_end(&self, end: usize) -> usize {
        self.ranges.last().filter(|free| free.end == end).map_or(0, |free| free.end.saturating_sub(free.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_overlap_and_all_that_is_given_back_is_one_range_again() {
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        for alignment in [16, 64, 4096] {
            let mut free = Free::default();
            free.add(0..1 << 18);
            let mut taken: Vec<(Range<usize>, Range<usize>)> = Vec::new();
            for _ in 0..3000 {
                if random(3) < 2 {
                    let (length, displacement) = (1 + random(3000), random(alignment));
                    free.reserve().unwrap();
                    let capacity = free.ranges.capacity();
                    let Some(code) = free.take(length, Start { alignment, displacement }) else { continue };
                    let room = extent(code, length).unwrap();
                    assert_eq!(free.ranges.capacity(), capacity, "room was made before");
                    assert_eq!(code % alignment, displacement);
                    assert!(room.start <= code && code + length + GAP <= room.end && room.end <= 1 << 18);
                    assert!(room.start.is_multiple_of(GRAIN) && room.end.is_multiple_of(GRAIN));
                    assert!(room.len() < length + GAP + 2 * GRAIN, "no more is taken than is needed");
                    assert!(taken.iter().all(|(other, _)| room.end <= other.start || other.end <= room.start));
                    taken.push((room, code..code + length));
                } else if !taken.is_empty() {
                    let capacity = free.ranges.capacity();
                    free.give(taken.swap_remove(random(taken.len())).0);
                    assert_eq!(free.ranges.capacity(), capacity, "giving back needs no memory");
                }
                assert_eq!(free.taken, taken.len());
                assert!(free.ranges.len() <= taken.len() + 1);
                assert!(free.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
                let used: usize = taken.iter().map(|(room, _)| room.len()).sum();
                assert_eq!(used + free.ranges.iter().map(Range::len).sum::<usize>(), 1 << 18);
            }
            taken.into_iter().for_each(|(room, _)| free.give(room));
            assert!(free.ranges.len() == 1 && free.at_end(1 << 18) == 1 << 18);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_taken() {
        let mut free = Free::default();
        free.add(16..4096);
        assert!(free.take(1, Start { alignment: 4096, displacement: 0 }).is_none());
        let start = Start { alignment: 16, displacement: 0 };
        for length in [4077, 4081, usize::MAX - 4096, usize::MAX] {
            assert!(free.take(length, start).is_none());
        }
        assert_eq!(free.at_end(4096), 4080);
        assert_eq!(free.take(4076, start), Some(16));
        assert_eq!(free.at_end(4096), 0);
    }
}

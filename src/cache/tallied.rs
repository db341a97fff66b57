//! What of a cache's counters is in the tally of its directory, in a process and its forks.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::event::Counters;
use crate::file::OfProcess;
use crate::store::{Statistics, Store};

/// What of a cache's counters is in the tally.
#[derive(Debug)]
pub(super) struct Tallied {
    /// A child of a fork has counted nothing of what its parent had.
    state: OfProcess<State>,
}

#[derive(Debug)]
struct State {
    counted: Statistics,
    at: Instant,
}

/// How long a cache that compiles waits before it adds to the tally again, which takes longer than to store a small
/// module.
const EVERY: Duration = Duration::from_secs(1);

/// How long a cache that comes to its end waits for those who do at the same time.
const PATIENCE: Duration = Duration::from_millis(20);

impl Tallied {
    /// Returns that of a cache that has counted nothing.
    pub(super) fn new() -> Self {
        Self { state: OfProcess::here(State { counted: Statistics::default(), at: Instant::now() }) }
    }

    /// Leaves out what a parent has counted, in a child of a fork, which cannot tell it from its own until then.
    pub(super) fn notice_fork(&self, counters: &Counters) {
        if !self.state.is_here() {
            drop(self.state(counters));
        }
    }

    /// Returns what is in the tally, or `None` while another thread adds to it, or did when this process was forked.
    fn state(&self, counters: &Counters) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock(|state| state.counted = counters.read())
    }

    /// Adds what was counted to the tally of a store, unless that was done a moment ago.
    pub(super) fn add_at_times(&self, counters: &Counters, store: Option<&Store>) {
        self.add_if(|state| state.at.elapsed() >= EVERY, Duration::ZERO, counters, store);
    }

    /// Adds what was counted to the tally of a store, and returns what could not be added. That is tried again the next
    /// time.
    pub(super) fn add(&self, counters: &Counters, store: Option<&Store>) -> Statistics {
        self.add_if(|_| true, PATIENCE, counters, store)
    }

    fn add_if(
        &self,
        is_time: impl Fn(&State) -> bool,
        patience: Duration,
        counters: &Counters,
        store: Option<&Store>,
    ) -> Statistics {
        let Some(mut state) = self.state(counters).filter(|state| is_time(state)) else {
            return Statistics::default();
        };
        let counted = counters.read();
        let more = counted.since(&state.counted);
        let is_added = more == Statistics::default()
            || store.is_some_and(|store| store.add_to_tally(&more, patience).unwrap_or(false));
        state.at = Instant::now();
        if !is_added {
            return more;
        }
        state.counted = counted;
        Statistics::default()
    }
}

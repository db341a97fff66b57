//! Single flight: of the threads that want a key, one compiles and the others wait for it, but not for ever.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::file::OfProcess;
use crate::store::Store;
use crate::words::Key;

/// Whether processes wait for each other.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// What the engine says, if it says anything.
    pub(super) wait: Option<bool>,
    /// Whether locks are to be relied upon.
    is_local: OnceLock<bool>,
}

/// Which thread compiles what.
pub(super) struct Flights(OfProcess<State>);

#[derive(Default)]
struct State {
    flights: HashMap<Key, Arc<Flight>>,
    /// The threads that wait, and for which key.
    waiting: HashMap<ThreadId, Key>,
}

struct Flight {
    leader: ThreadId,
    /// Whether the leader waits for another process.
    is_held_up: AtomicBool,
    /// It is over, or held up.
    changed: Condvar,
}

thread_local! {
    /// How many leads this thread has, of whichever caches.
    static LEADS: Cell<usize> = const { Cell::new(0) };
}

/// What a thread has to do for its module.
pub(super) enum Seat<'f, T> {
    /// Nothing: it is there.
    Passenger(T),
    /// Compile; those who wait go on when the lead falls. Without one, nobody waits.
    Pilot {
        lead: Option<Lead<'f>>,
        /// Whether somebody else was waited for, in vain.
        has_waited: bool,
    },
}

/// The lead of a flight, which ends when this falls, whatever came of it.
pub(super) struct Lead<'f> {
    flights: &'f Flights,
    key: Key,
    flight: Arc<Flight>,
}

impl Flights {
    pub(super) fn new() -> Self {
        Self(OfProcess::new(State::default()))
    }

    /// Waits for whoever compiles a key, until `find` has the module or this thread is to compile it.
    ///
    /// A thread compiles without waiting if the one that it would wait for waits for it - for one, if that is itself -,
    /// and once it has waited `since` then for so long as its `patience`: then it takes the lead over. Nor does a
    /// thread that has a lead wait for one that waits for another process, where somebody may wait for the former; and
    /// one that has a lead in another cache waits for nobody, as here is not seen who waits for that.
    pub(super) fn join<T>(
        &self,
        key: &Key,
        since: Instant,
        patience: Duration,
        find: impl Fn() -> Option<T>,
    ) -> Seat<'_, T> {
        let mut has_waited = false;
        loop {
            let lead = self.lead_or_wait(key, patience.saturating_sub(since.elapsed()));
            match (find(), lead) {
                (Some(found), _) => return Seat::Passenger(found),
                (None, Some(lead)) => return Seat::Pilot { lead, has_waited },
                (None, None) => has_waited = true,
            }
        }
    }

    /// Returns what this thread compiles with, or `None` after it has waited.
    fn lead_or_wait(&self, key: &Key, left: Duration) -> Option<Option<Lead<'_>>> {
        let (me, has_lead) = (thread::current().id(), LEADS.get() > 0);
        let Some(mut state) = self.state() else { return Some(None) };
        let leads_here = || state.flights.values().filter(|flight| flight.leader == me).count();
        let leads_elsewhere = has_lead && LEADS.get() > leads_here();
        if state.flights.try_reserve(1).is_err() || state.waiting.try_reserve(1).is_err() {
            return Some(None);
        }
        match state.flights.get(key).map(Arc::clone) {
            Some(flight) if state.waits_for(key, me) || leads_elsewhere || has_lead && flight.is_held_up() => {
                Some(None)
            }
            Some(flight) if !left.is_zero() => {
                state.waiting.insert(me, *key);
                let is_on = |state: &mut State| state.is_on(key, &flight) && !(has_lead && flight.is_held_up());
                let waited = flight.changed.wait_timeout_while(state, left, is_on);
                waited.unwrap_or_else(PoisonError::into_inner).0.waiting.remove(&me);
                None
            }
            _ => {
                let flight =
                    Arc::new(Flight { leader: me, is_held_up: AtomicBool::new(false), changed: Condvar::new() });
                if let Some(late) = state.flights.insert(*key, Arc::clone(&flight)) {
                    late.changed.notify_all();
                }
                LEADS.set(LEADS.get().saturating_add(1));
                Some(Some(Lead { flights: self, key: *key, flight }))
            }
        }
    }

    /// A child of a fork has none of the threads that compile in its parent.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        self.0.lock(|state| *state = State::default())
    }
}

impl Processes {
    /// Returns whether they do over a store.
    pub(super) fn wait_over(&self, store: &Store) -> bool {
        let is_local = || {
            self.is_local.get().copied().or_else(|| {
                // What cannot be found out now is asked again.
                let is_local = store.has_local_locks()?;
                Some(*self.is_local.get_or_init(|| is_local))
            })
        };
        self.wait.or_else(is_local).unwrap_or(false)
    }
}

impl State {
    fn is_on(&self, key: &Key, flight: &Arc<Flight>) -> bool {
        self.flights.get(key).is_some_and(|other| Arc::ptr_eq(other, flight))
    }

    /// Returns whether a thread would wait for itself if it waited for a key, through however many others.
    ///
    /// It comes to an end: as nobody waits for whom this finds, the threads that wait for each other are in no circle.
    fn waits_for(&self, key: &Key, me: ThreadId) -> bool {
        let mut key = key;
        while let Some(flight) = self.flights.get(key) {
            if flight.leader == me {
                return true;
            }
            let Some(next) = self.waiting.get(&flight.leader) else { return false };
            key = next;
        }
        false
    }
}

impl Flight {
    fn is_held_up(&self) -> bool {
        self.is_held_up.load(Ordering::Relaxed)
    }
}

impl Lead<'_> {
    /// Returns whether this thread has no other lead: then nobody waits for it but those who want this key.
    pub(super) fn is_only() -> bool {
        LEADS.get() == 1
    }

    /// Says whether this thread waits for another process.
    pub(super) fn set_held_up(&self, is_held_up: bool) {
        let _state = self.flights.state();
        self.flight.is_held_up.store(is_held_up, Ordering::Relaxed);
        if is_held_up {
            self.flight.changed.notify_all();
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        LEADS.set(LEADS.get().saturating_sub(1));
        let Some(mut state) = self.flights.state() else { return };
        if state.is_on(&self.key, &self.flight) {
            state.flights.remove(&self.key);
        }
        // A system call, which whoever is alone need not make.
        if state.waiting.values().any(|key| *key == self.key) {
            drop(state);
            self.flight.changed.notify_all();
        }
    }
}

//! Single flight among processes: one compiles a module, and the others look whether it is there, but not for ever.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Cache;
use super::flight::Lead;
use crate::error::Error;
use crate::file::Lock;
use crate::load::Module;
use crate::store::{Found, Lookup};
use crate::words::Key;

/// The first pause between two looks, which are twice as long each time.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_millis(16);

impl Cache {
    /// Looks into the store, once more whenever another process may have published the module, until it is there or
    /// this process is to compile it: it has the lock then, which is to be kept until the module is published, or has
    /// waited for long enough.
    ///
    /// A thread that has another lead waits for no process. So no two processes wait for each other, through however
    /// many threads. Nor does a process wait, or is waited for, whose last put failed or whose puts wait: where nobody
    /// publishes, all would compile one after the other.
    pub(super) fn look_up_or_lock(&self, key: &Key, lead: Option<&Lead<'_>>, since: Instant) -> Looked {
        let mut found = self.look_up(key);
        let (Some(store), Some(lead)) = (self.store_to_write(), lead) else {
            return Looked { found, lock: None, has_waited: false };
        };
        let may_wait =
            is_to_publish(&found) && !self.patience.is_zero() && !self.writes.is_failing() && !self.behind.is_set();
        if !may_wait || !self.processes.wait_over(store) {
            return Looked { found, lock: None, has_waited: false };
        }
        let mut seen = found.as_ref().map_or(None, |(_, file)| *file);
        let (mut pause, mut has_waited) = (SHORTEST, false);
        let lock = loop {
            let lock = store.try_lock(key);
            // Whoever had the lock until then has published before.
            let there = store.file_of(key);
            if there.is_some() && there != seen {
                (seen, found) = (there, self.look_up(key));
                if !is_to_publish(&found) {
                    break None;
                }
            }
            let left = self.patience.saturating_sub(since.elapsed());
            match lock {
                Ok(None) if !left.is_zero() && Lead::is_only() => {}
                lock => break lock.unwrap_or(None),
            }
            if !has_waited {
                lead.set_held_up(true);
                has_waited = true;
            }
            thread::sleep(pause.min(left));
            pause = pause.saturating_mul(2).min(LONGEST);
        };
        if has_waited {
            lead.set_held_up(false);
        }
        Looked { found, lock, has_waited }
    }
}

/// What came of looking into the store.
pub(super) struct Looked {
    pub(super) found: Result<Found<Arc<Module>>, Error>,
    /// What this process compiles with, if others may wait for it.
    pub(super) lock: Option<Lock>,
    pub(super) has_waited: bool,
}

/// Returns whether what is compiled then will be published, so that others may wait for it.
const fn is_to_publish<T>(found: &Result<Found<T>, Error>) -> bool {
    matches!(found, Ok((Lookup::Miss | Lookup::Stale(_) | Lookup::Rejected(_), _)))
}

//! What was compiled and waits in memory to be stored.

use std::collections::VecDeque;
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Duration;

use crate::entry::Entry;
use crate::error::heap;
use crate::file::OfProcess;
use crate::words::{Key, size};

/// The entries that wait to be stored.
pub(super) struct Behind {
    /// How many bytes of them there may be.
    pub(super) most: u64,
    queue: OfProcess<Queue>,
    /// Something is no longer on its way to the store.
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Key, Vec<u8>)>,
    bytes: u64,
    /// The keys of what is being stored.
    under_way: Vec<Key>,
}

/// An entry on its way to the store, where it is when this falls, unless that failed.
pub(super) struct UnderWay<'b> {
    behind: &'b Behind,
    pub(super) key: Key,
    pub(super) file: Vec<u8>,
}

impl Behind {
    pub(super) const fn new() -> Self {
        let queue = Queue { waiting: VecDeque::new(), bytes: 0, under_way: Vec::new() };
        Self { most: 0, queue: OfProcess::new(queue), arrived: Condvar::new() }
    }

    /// Returns whether entries may wait.
    pub(super) const fn is_set(&self) -> bool {
        self.most > 0
    }

    /// Has a copy of an entry wait, and returns whether it does: not if too much waits already. Then none of its key
    /// waits any more, so that no older one is stored after it; see [`Behind::discard`].
    pub(super) fn push(&self, key: &Key, entry: &Entry<'_>, patience: Duration) -> bool {
        if !self.is_set() {
            return false;
        }
        let waits = self.try_push(key, entry);
        if !waits {
            self.discard(key, patience);
        }
        waits
    }

    fn try_push(&self, key: &Key, entry: &Entry<'_>) -> bool {
        let length = entry.length();
        if length > self.most {
            return false;
        }
        let mut file = Vec::new();
        let has_room = heap::reserve(&mut file, usize::try_from(length).unwrap_or(usize::MAX)).is_ok();
        if !has_room || entry.write(&mut file).is_err() {
            return false;
        }
        let Some(mut queue) = self.queue() else { return false };
        let bytes = queue.bytes.saturating_add(length);
        if bytes > self.most || queue.waiting.try_reserve(1).is_err() {
            return false;
        }
        queue.bytes = bytes;
        queue.waiting.push_back((*key, file));
        true
    }

    /// Returns what has waited for longest, or `None` if nothing waits, or another thread has been storing an older
    /// entry of its key for as long as there is `patience`.
    pub(super) fn next(&self, patience: Duration) -> Option<UnderWay<'_>> {
        let is_taken = |queue: &mut Queue| queue.waiting.front().is_some_and(|(key, _)| queue.under_way.contains(key));
        let queue = self.arrived.wait_timeout_while(self.queue()?, patience, is_taken);
        let (mut queue, waited) = queue.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() || queue.under_way.try_reserve(1).is_err() {
            return None;
        }
        let (key, file) = queue.waiting.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(size(&file));
        queue.under_way.push(key);
        Some(UnderWay { behind: self, key, file })
    }

    /// Has an entry wait no longer, and returns whether it did. If another thread is storing it, that is waited for, for
    /// as long as there is `patience`.
    pub(super) fn discard(&self, key: &Key, patience: Duration) -> bool {
        let Some(queue) = self.queue() else { return false };
        let is_under_way = |queue: &mut Queue| queue.under_way.contains(key);
        let waited = self.arrived.wait_timeout_while(queue, patience, is_under_way);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        let before = queue.waiting.len();
        queue.waiting.retain(|(other, _)| other != key);
        queue.bytes = queue.waiting.iter().map(|(_, file)| size(file)).fold(0, u64::saturating_add);
        queue.waiting.len() < before
    }

    /// A child of a fork leaves what waits to its parent.
    fn queue(&self) -> Option<MutexGuard<'_, Queue>> {
        self.queue.lock(|queue| *queue = Queue::default())
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Some(mut queue) = self.behind.queue() else { return };
        queue.under_way.retain(|key| *key != self.key);
        self.behind.arrived.notify_all();
    }
}

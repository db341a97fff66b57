//! The hook of a cache, which can do the cache no harm.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::event::Event;
use crate::words::Key;

type Call = dyn Fn(&Key, Event<'_>) + Send + Sync;

/// What an engine wants to be called with every event.
#[derive(Default)]
pub(super) struct Hook(Option<Box<Call>>);

thread_local! {
    /// Whether this thread is in a hook.
    static IS_IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

impl Hook {
    pub(super) fn new(call: impl Fn(&Key, Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(call)))
    }

    /// Returns whether anybody listens.
    pub(super) const fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Calls the hook, unless this thread is in one. It must hold no lock, and all that the event is of must be done.
    pub(super) fn tell(&self, key: &Key, event: Event<'_>) {
        let Some(call) = &self.0 else { return };
        if IS_IN_HOOK.replace(true) {
            return;
        }
        // What a hook that panics leaves half done is its own. The panic was reported, and nobody here can do more.
        let told = catch_unwind(AssertUnwindSafe(|| call(key, event)));
        IS_IN_HOOK.set(false);
        drop(told);
    }
}

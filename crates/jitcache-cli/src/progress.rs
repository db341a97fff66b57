//! How far something is that takes a while.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::text;

/// One line on a terminal, which is gone when this is dropped.
pub(crate) struct Progress<'a> {
    on: Option<&'a Mutex<Box<dyn Write + Send>>>,
    what: String,
    /// How many entries there are; zero if nobody knows.
    entries: u64,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    entries: u64,
    bytes: u64,
    told: Option<Instant>,
}

/// How long a line stays as it is.
const PAUSE: Duration = Duration::from_millis(100);

impl<'a> Progress<'a> {
    /// Returns one that tells nothing if there is no terminal to tell it on.
    pub(crate) fn new(on: Option<&'a Mutex<Box<dyn Write + Send>>>, what: &str, entries: u64) -> Self {
        Self { on, what: text::clean(what), entries, done: Mutex::default() }
    }

    /// Adds what was done.
    pub(crate) fn add(&self, entries: u64, bytes: u64) {
        let Some(on) = self.on else { return };
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.entries = done.entries.saturating_add(entries);
        done.bytes = done.bytes.saturating_add(bytes);
        if done.told.is_some_and(|told| told.elapsed() < PAUSE) {
            return;
        }
        done.told = Some(Instant::now());
        let of = if self.entries > 0 { format!(" of {}", self.entries) } else { String::new() };
        let bytes = if done.bytes > 0 { format!(", {}", text::bytes(done.bytes)) } else { String::new() };
        let mut on = on.lock().unwrap_or_else(PoisonError::into_inner);
        // What was longer is erased.
        let _ = write!(on, "\r{}: {}{of} entries{bytes}\x1b[K", self.what, done.entries);
        let _ = on.flush();
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        let is_told = self.done.get_mut().unwrap_or_else(PoisonError::into_inner).told.is_some();
        if let Some(on) = self.on.filter(|_| is_told) {
            let mut on = on.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = write!(on, "\r\x1b[K");
            let _ = on.flush();
        }
    }
}

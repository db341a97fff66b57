//! What the caches over a directory have counted.

use jitcache::{Identity, Statistics};
use serde_json::{Value, json};

use crate::entries::{Cache, Directory};
use crate::judge::NO_KEY;
use crate::out::{Failure, Out};
use crate::table::{Cell, Column};
use crate::text;

/// Returns what the caches over a directory have counted; `None` if they have counted nothing.
pub(crate) fn of(directory: &Directory, out: &Out) -> Option<Statistics> {
    let identity = Identity::of_entry(&directory.name, &[], &NO_KEY)?;
    match Cache::store(&directory.path, identity).and_then(|store| Ok(store.tally()?)) {
        Ok(tally) => Some(tally).filter(|tally| *tally != Statistics::default()),
        Err(failure) => {
            if let Failure::Usage(reason) = failure {
                out.tell(&format!("{}: what was counted there cannot be read: {reason}", directory.name));
            }
            None
        }
    }
}

pub(crate) fn as_json(tally: &Statistics) -> Value {
    json!({
        "memory_hits": tally.memory_hits,
        "hits": tally.hits,
        "misses": tally.misses,
        "stale": tally.stale,
        "rejected": tally.rejected,
        "unknown_layouts": tally.unknown_layouts,
        "failures": tally.failures,
        "waits": tally.waits,
        "compilations": tally.compilations,
        "compiling_seconds": tally.compiling.as_secs_f64(),
        "stored": tally.stored,
        "bytes_loaded": tally.bytes_loaded,
        "bytes_stored": tally.bytes_stored,
        "evicted": tally.evicted,
        "trimmed": tally.trimmed,
        "bytes_trimmed": tally.bytes_trimmed,
        "hit_rate": tally.hit_rate(),
        "seconds_saved": tally.time_saved().map(|saved| saved.as_secs_f64()),
    })
}

/// Prints the tallies of directories, unless there are none.
pub(crate) fn print(tallies: &[(&Directory, &Statistics)], out: &mut Out) -> Result<(), Failure> {
    if tallies.is_empty() {
        return Ok(());
    }
    out.line("")?;
    let cells = tallies.iter().map(|(directory, tally)| {
        let [engine, version, target] = directory.parts().map(Cell::from);
        let rejected = [tally.stale, tally.rejected, tally.unknown_layouts].into_iter().fold(0, u64::saturating_add);
        let counts = [tally.memory_hits, tally.hits, tally.misses, rejected, tally.failures];
        let [in_memory, hits, misses, rejected, failures] = counts.map(|count| Cell::from(count.to_string()));
        let rate = tally.hit_rate().map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", rate * 100.0));
        let saved = tally.time_saved().map_or_else(|| "-".to_owned(), text::duration);
        [engine, version, target, in_memory, hits, misses, rejected, failures, rate.into(), saved.into()]
    });
    let [engine, version, target] = ["engine", "version", "target"].map(Column::Left);
    let counts = ["in memory", "hits", "misses", "rejected", "failures", "hit rate", "time saved"].map(Column::Right);
    let [in_memory, hits, misses, rejected, failures, rate, saved] = counts;
    out.table([engine, version, target, in_memory, hits, misses, rejected, failures, rate, saved], cells)
}

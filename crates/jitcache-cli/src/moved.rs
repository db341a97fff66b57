//! What was put elsewhere, and how it got there.

use std::path::Path;

use jitcache::{Entry, Key, MacKey, Store};
use serde_json::{Value, json};

use crate::Outcome;
use crate::judge::{State, judge};
use crate::out::{Failure, Out};
use crate::text;

/// Entries that were put elsewhere, or would be.
pub(crate) struct Moved {
    pub(crate) entries: Vec<One>,
    /// What was left behind.
    pub(crate) passed_over: Vec<String>,
    pub(crate) is_dry: bool,
}

pub(crate) struct One {
    pub(crate) key: Key,
    pub(crate) directory: String,
    pub(crate) bytes: u64,
}

impl Moved {
    /// Prints it: entries are `done`, as in "copied".
    pub(crate) fn print(&self, done: &str, out: &mut Out) -> Result<Outcome, Failure> {
        for passed_over in &self.passed_over {
            out.tell(&format!("passed over {passed_over}"));
        }
        let name = if self.is_dry { format!("would_be_{done}") } else { done.to_owned() };
        if out.is_json {
            let mut entries = self.entries.iter().map(
                |entry| json!({ "key": entry.key.to_string(), "directory": entry.directory, "bytes": entry.bytes }),
            );
            let mut passed_over = self.passed_over.iter().map(|text| Value::from(&text[..]));
            out.json_lists(&[], &mut [(&name, &mut entries), ("passed_over", &mut passed_over)])?;
        } else {
            let bytes = self.entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
            out.line(&format!("{} entries, {} {}", self.entries.len(), text::bytes(bytes), name.replace('_', " ")))?;
        }
        Ok(Outcome::unsound_if(!self.passed_over.is_empty()))
    }
}

/// Puts an entry of a directory of that name into the cache under `to` if every byte of it is right; or else returns
/// why it was not put.
pub(crate) fn put(
    directory: &str,
    key: &Key,
    file: &[u8],
    to: &Path,
    mac_key: Option<&MacKey>,
    is_dry: bool,
) -> Result<(), String> {
    let judged = judge(directory, file, key, mac_key);
    if let Some(error) = judged.error {
        return Err(error.to_string());
    }
    let (State::Sound | State::Foreign, Some(identity)) = (judged.state, judged.identity) else {
        return Err(format!("{}, not every byte of it was checked", judged.state.name()));
    };
    if is_dry {
        return Ok(());
    }
    let put = Store::open(to, identity).and_then(|store| store.put(key, &Entry::parse(file, store.identity())?));
    put.map_err(|error| error.to_string())
}

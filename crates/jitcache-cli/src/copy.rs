//! `copy`: sound entries, from one cache to another.

use std::path::Path;

use jitcache::{Access, Entry, FileBytes, MacKey, Store};
use serde_json::{Value, json};

use crate::Outcome;
use crate::arguments::Copy;
use crate::entries::{Cache, Found, State, judge};
use crate::out::{self, Failure, Out};

pub(crate) fn run(copy: &Copy, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let mut cache = Cache::open(&copy.from)?;
    let entries = if copy.keys.is_empty() {
        cache.entries.clone()
    } else {
        let (entries, mut missing) = cache.find_all(&copy.keys)?;
        cache.passed_over.append(&mut missing);
        entries
    };
    let mut copied = Vec::new();
    for entry in &entries {
        match put(&cache, entry, &copy.to, mac_key) {
            Ok(true) => copied.push(entry),
            Ok(false) => {}
            Err(reason) => cache.passed_over.push(reason),
        }
    }
    cache.tell_passed_over();
    if out.is_json {
        out.raw("{")?;
        let members = copied.iter().map(
            |entry| json!({ "key": entry.key.to_string(), "directory": cache.directory(entry), "bytes": entry.bytes }),
        );
        out.json_list("copied", members)?;
        out.raw(", ")?;
        out.json_list("passed_over", cache.passed_over.iter().map(|text| Value::from(&text[..])))?;
        out.raw("}\n")?;
    } else {
        let bytes = copied.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
        out.line(&format!("{} entries, {} copied", copied.len(), out::bytes(bytes)))?;
    }
    Ok(Outcome::unsound_if(!cache.passed_over.is_empty()))
}

/// Puts an entry into the cache under `to` if every byte of it is right, and returns whether it was there; or else why
/// it was not put.
fn put(cache: &Cache, found: &Found, to: &Path, mac_key: Option<&MacKey>) -> Result<bool, String> {
    let path = cache.path(found);
    let Some(file) = FileBytes::open(&path, Access::READ).map_err(|error| error.to_string())? else { return Ok(false) };
    let told = |error: jitcache::Error| format!("{}: {error}", path.display());
    let judged = judge(cache.directory(found), &file, &found.key, mac_key);
    if let Some(error) = judged.error {
        return Err(told(error));
    }
    let (State::Sound | State::Foreign, Some(identity)) = (judged.state, judged.identity) else {
        return Err(format!("{}: {}, not every byte of it was checked", path.display(), judged.state.name()));
    };
    let store = Store::open(to, identity).map_err(told)?;
    let entry = Entry::parse(&file, store.identity()).map_err(told)?;
    store.put(&found.key, &entry).map_err(told)?;
    Ok(true)
}

//! `verify`: every byte.

use jitcache::{Error, MacKey};
use serde_json::{Value, json};

use crate::Outcome;
use crate::arguments::Verify;
use crate::entries::{Cache, Found, count};
use crate::judge::State;
use crate::out::{Failure, Out};
use crate::table::{Cell, Column};
use crate::text;

pub(crate) fn run(verify: &Verify, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let cache = Cache::open(&verify.dir, out)?;
    cache.tell_passed_over(out);
    let (entries, missing) =
        if verify.all { (cache.entries.clone(), Vec::new()) } else { cache.find_all(&verify.keys)? };
    missing.iter().for_each(|missing| out.tell(missing));
    let judged = all(&cache, &entries, mac_key, out);
    let bytes = entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
    let checked: Vec<(&Found, &Checked)> =
        entries.iter().zip(&judged).filter_map(|(entry, judged)| Some((entry, judged.as_ref()?))).collect();
    let vanished = entries.len().saturating_sub(checked.len());
    let bad = checked.iter().filter(|(_, judged)| judged.state.is_bad()).count();
    if out.is_json {
        let mut members = checked.iter().map(|(entry, judged)| {
            json!({
                "key": entry.key.to_string(),
                "directory": cache.directory(entry),
                "state": judged.state.name(),
                "bytes": entry.bytes,
                "error": judged.error.as_ref().map(error_json),
            })
        });
        out.json_lists(&[], &mut [("entries", &mut members), ("passed_over", &mut cache.passed_over_json())])?;
    } else {
        let told = checked.iter().filter(|(_, judged)| !verify.all || judged.error.is_some());
        let cells = told.clone().map(|(entry, judged)| {
            let state = Cell::new(judged.state.name(), judged.state.paint());
            let error = judged.error.as_ref().map(ToString::to_string).unwrap_or_default();
            [cache.directory(entry).into(), entry.key.to_string().into(), state, error.into()]
        });
        if told.clone().next().is_some() {
            let [directory, state, error] = ["directory", "state", "error"].map(Column::Left);
            out.table([directory, cache.key_column(), state, error], cells)?;
            out.line("")?;
        }
        let size = text::bytes(bytes);
        let vanished = if vanished > 0 { format!(", {vanished} have vanished meanwhile") } else { String::new() };
        out.line(&format!("{} entries checked, {size}: {bad} unsound or unreadable{vanished}", checked.len()))?;
    }
    Ok(Outcome::unsound_if(!missing.is_empty() || bad > 0 || !cache.passed_over.is_empty()))
}

/// What checking an entry came to: no more than that, as there may be many.
pub(crate) struct Checked {
    pub(crate) state: State,
    error: Option<Error>,
}

/// Checks entries. `None` stands for those that have vanished.
pub(crate) fn all(cache: &Cache, entries: &[Found], mac_key: Option<&MacKey>, out: &Out) -> Vec<Option<Checked>> {
    cache.each(entries, &out.progress("verifying", count(entries)), |entry| {
        let judged = cache.verify(entry, mac_key)?;
        Some(Checked { state: judged.state, error: judged.error })
    })
}

/// Returns what an error tells.
pub(crate) fn error_json(error: &Error) -> Value {
    json!({
        "name": error.name(),
        "number": error.number(),
        "message": error.to_string(),
        "remedy": error.explain(),
    })
}

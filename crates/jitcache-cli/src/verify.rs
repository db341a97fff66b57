//! `verify`: every byte.

use std::io::{IsTerminal, Write};

use jitcache::{Error, MacKey};
use serde_json::{Value, json};

use crate::Outcome;
use crate::arguments::Verify;
use crate::entries::{Cache, Found, State};
use crate::out::{self, Failure, Out, Paint, Side};

pub(crate) fn run(verify: &Verify, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let cache = Cache::open(&verify.dir)?;
    cache.tell_passed_over();
    let (entries, missing) =
        if verify.all { (cache.entries.clone(), Vec::new()) } else { cache.find_all(&verify.keys)? };
    missing.iter().for_each(|missing| out::tell(missing));
    let judged = all(&cache, &entries, mac_key);
    let bytes = entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
    let checked: Vec<(&Found, &Checked)> =
        entries.iter().zip(&judged).filter_map(|(entry, judged)| Some((entry, judged.as_ref()?))).collect();
    let vanished = entries.len().saturating_sub(checked.len());
    let bad = checked.iter().filter(|(_, judged)| judged.state.is_bad()).count();
    if out.is_json {
        out.raw("{")?;
        let members = checked.iter().map(|(entry, judged)| {
            json!({
                "key": entry.key.to_string(),
                "directory": cache.directory(entry),
                "state": judged.state.name(),
                "bytes": entry.bytes,
                "error": judged.error.as_ref().map(error_json),
            })
        });
        out.json_list("entries", members)?;
        out.raw(", ")?;
        out.json_list("passed_over", cache.passed_over.iter().map(|text| Value::from(&text[..])))?;
        out.raw("}\n")?;
    } else {
        let told = checked.iter().filter(|(_, judged)| !verify.all || judged.error.is_some());
        let cells = told.clone().map(|(entry, judged)| {
            [
                (cache.directory(entry).to_owned(), Paint::Plain),
                (entry.key.to_string(), Paint::Plain),
                (judged.state.name().to_owned(), judged.state.paint()),
                (judged.error.as_ref().map(ToString::to_string).unwrap_or_default(), Paint::Plain),
            ]
        });
        if told.clone().next().is_some() {
            let head = [("directory", Side::Left), ("key", Side::Left), ("state", Side::Left), ("error", Side::Left)];
            out.table(head, cells)?;
            out.line("")?;
        }
        let size = out::bytes(bytes);
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

/// Checks entries, and tells on a terminal how far it is. `None` stands for those that have vanished.
pub(crate) fn all(cache: &Cache, entries: &[Found], mac_key: Option<&MacKey>) -> Vec<Option<Checked>> {
    let is_terminal = std::io::stderr().is_terminal();
    let judged = cache.each(
        entries,
        |entry| {
            let judged = cache.verify(entry, mac_key)?;
            Some(Checked { state: judged.state, error: judged.error })
        },
        |at| {
            if is_terminal {
                let _ = write!(std::io::stderr(), "\r{at} of {} entries", entries.len());
            }
        },
    );
    if is_terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    judged
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

//! `list`: one line for each entry.

use std::path::Path;
use std::time::UNIX_EPOCH;

use jitcache::MacKey;
use serde_json::{Value, json};

use crate::Outcome;
use crate::arguments::{List, Sort};
use crate::entries::{Cache, Found, count};
use crate::judge::State;
use crate::out::{Failure, Out};
use crate::table::{Cell, Column};
use crate::text;

struct Row {
    found: Found,
    state: State,
    functions: Option<u64>,
    error: Option<String>,
}

pub(crate) fn run(list: &List, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let mut cache = Cache::open(&list.dir, out)?;
    let mut entries = std::mem::take(&mut cache.entries);
    entries.retain(|entry| {
        let age = cache.age(entry);
        let engine = cache.directories.get(entry.directory).map(|directory| directory.parts()[0]);
        list.engine.as_deref().is_none_or(|wanted| engine == Some(wanted))
            && list.older_than.is_none_or(|least| age >= least)
            && list.newer_than.is_none_or(|most| age <= most)
            && list.min_size.is_none_or(|least| entry.bytes >= least)
            && list.max_size.is_none_or(|most| entry.bytes <= most)
    });
    let looked = |entry: &Found| {
        let judged = cache.outline(entry, mac_key)?;
        let (functions, error) = (judged.functions(), judged.error.map(|error| error.to_string()));
        Some(Row { found: entry.clone(), state: judged.state, functions, error })
    };
    let rows = cache.each(&entries, &out.progress("listing", count(&entries)), looked);
    let vanished = rows.iter().filter(|row| row.is_none()).count();
    if vanished > 0 {
        cache.passed_over.push(format!("{vanished} entries that have vanished meanwhile"));
    }
    let mut rows: Vec<Row> = rows.into_iter().flatten().collect();
    rows.retain(|row| list.state.is_none_or(|state| row.state == state));
    match list.sort {
        Sort::Key => {}
        Sort::Age => rows.sort_by_key(|row| cache.age(&row.found)),
        Sort::Size => rows.sort_by_key(|row| row.found.bytes),
        Sort::State => rows.sort_by_key(|row| row.state),
    }
    if list.reverse {
        rows.reverse();
    }
    if out.is_json {
        let mut entries = rows.iter().map(|row| as_json(&cache, row));
        out.json_lists(&[], &mut [("entries", &mut entries), ("passed_over", &mut cache.passed_over_json())])?;
    } else {
        print(&cache, &list.dir, &rows, out)?;
    }
    Ok(Outcome::unsound_if(rows.iter().any(|row| row.state.is_bad())))
}

fn as_json(cache: &Cache, row: &Row) -> Value {
    let modified = row.found.modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    json!({
        "key": row.found.key.to_string(),
        "directory": cache.directory(&row.found),
        "state": row.state.name(),
        "bytes": row.found.bytes,
        "age_seconds": cache.age(&row.found).as_secs(),
        "modified": modified.map(|time| time.as_secs()),
        "functions": row.functions,
        "error": row.error,
    })
}

fn print(cache: &Cache, dir: &Path, rows: &[Row], out: &mut Out) -> Result<(), Failure> {
    cache.tell_passed_over(out);
    for (at, directory) in cache.directories.iter().enumerate() {
        let here = rows.iter().filter(move |row| row.found.directory == at);
        if here.clone().next().is_none() {
            continue;
        }
        out.line(&format!("{}:", directory.name))?;
        let [state, functions] = [Column::Left("state"), Column::Right("functions")];
        let columns = [cache.key_column(), state, Column::Right("size"), Column::Right("age"), functions];
        let cells = here.map(|row| {
            let [key, size, age] = cache.cells(&row.found);
            let functions = row.functions.map_or_else(|| "-".to_owned(), |functions| functions.to_string());
            [key, Cell::new(row.state.name(), row.state.paint()), size, age, functions.into()]
        });
        out.table(columns, cells)?;
        out.line("")?;
    }
    let bytes = rows.iter().map(|row| row.found.bytes).fold(0, u64::saturating_add);
    let what = if cache.directories.is_empty() {
        format!("no engine's directory in {}", dir.display())
    } else {
        String::new()
    };
    let total = format!("{} entries, {}", rows.len(), text::bytes(bytes));
    out.line(if what.is_empty() { &total } else { &what })
}

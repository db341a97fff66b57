//! `prune`: the only command that removes anything.

use std::fs;
use std::path::Path;

use jitcache::MacKey;
use serde_json::json;

use crate::Outcome;
use crate::arguments::Prune;
use crate::entries::{Cache, Found, count};
use crate::judge::State;
use crate::out::{Failure, Out};
use crate::table::Column;
use crate::text;
use crate::verify;

pub(crate) fn run(prune: &Prune, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let mut cache = Cache::open(&prune.dir, out)?;
    let wanted = |entry: &Found| {
        let version = cache.directories.get(entry.directory).map(|directory| directory.parts()[1]);
        prune.older_than.is_none_or(|least| cache.age(entry) >= least)
            && prune.version.as_deref().is_none_or(|wanted| version == Some(wanted))
    };
    let mut entries: Vec<Found> = cache.entries.iter().filter(|entry| wanted(entry)).cloned().collect();
    if prune.unsound {
        let judged = verify::all(&cache, &entries, mac_key, out);
        let mut judged = judged.iter();
        let is_unsound = |_: &Found| {
            judged.next().is_some_and(|judged| judged.as_ref().is_some_and(|judged| judged.state == State::Unsound))
        };
        entries.retain(is_unsound);
    }
    // How much there is to remove.
    let mut surplus = prune.budget.map(|budget| {
        let all = cache.entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
        all.saturating_sub(budget)
    });
    if surplus.is_some() {
        entries.sort_by_key(|entry| entry.modified);
    }
    let (mut removed, mut kept) = (Vec::new(), Vec::new());
    let progress = out.progress("pruning", count(&entries));
    for entry in entries {
        progress.add(1, entry.bytes);
        if surplus == Some(0) {
            break;
        }
        let path = cache.path(&entry);
        match remove(&path, &entry, prune.dry_run) {
            Ok(true) => {
                surplus = surplus.map(|surplus| surplus.saturating_sub(entry.bytes));
                removed.push(entry);
            }
            Ok(false) => kept.push(format!("{}: no regular file, or used or replaced meanwhile", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => kept.push(format!("{}: {error}", path.display())),
        }
    }
    cache.passed_over.append(&mut kept);
    drop(progress);
    cache.tell_passed_over(out);
    let bytes = removed.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
    if out.is_json {
        let mut members = removed.iter().map(|entry| {
            json!({
                "key": entry.key.to_string(),
                "directory": cache.directory(entry),
                "bytes": entry.bytes,
                "age_seconds": cache.age(entry).as_secs(),
            })
        });
        let name = if prune.dry_run { "would_remove" } else { "removed" };
        out.json_lists(&[], &mut [(name, &mut members), ("passed_over", &mut cache.passed_over_json())])?;
    } else {
        if !removed.is_empty() {
            let columns = [Column::Left("directory"), cache.key_column(), Column::Right("size"), Column::Right("age")];
            let cells = removed.iter().map(|entry| {
                let [key, size, age] = cache.cells(entry);
                [cache.directory(entry).into(), key, size, age]
            });
            out.table(columns, cells)?;
            out.line("")?;
        }
        let what = if prune.dry_run { "would be removed" } else { "removed" };
        out.line(&format!("{} entries, {} {what}", removed.len(), text::bytes(bytes)))?;
    }
    Ok(Outcome::unsound_if(!cache.passed_over.is_empty()))
}

/// Removes an entry if it is a regular file and still what was looked at, and returns whether it was.
fn remove(path: &Path, entry: &Found, is_dry: bool) -> std::io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.len() != entry.bytes || metadata.modified().ok() != entry.modified {
        return Ok(false);
    }
    if !is_dry {
        fs::remove_file(path)?;
    }
    Ok(true)
}

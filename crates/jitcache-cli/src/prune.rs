//! `prune`: the only command that removes anything.

use std::fs;
use std::path::Path;

use jitcache::MacKey;
use serde_json::{Value, json};

use crate::Outcome;
use crate::arguments::Prune;
use crate::entries::{Cache, Found, State};
use crate::out::{self, Failure, Out, Paint, Side};
use crate::verify;

pub(crate) fn run(prune: &Prune, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let mut cache = Cache::open(&prune.dir)?;
    let wanted = |entry: &Found| {
        let version = jitcache_version(cache.directory(entry));
        prune.older_than.is_none_or(|least| cache.age(entry) >= least)
            && prune.version.as_deref().is_none_or(|wanted| version == Some(wanted))
    };
    let mut entries: Vec<Found> = cache.entries.iter().filter(|entry| wanted(entry)).cloned().collect();
    if prune.unsound {
        let judged = verify::all(&cache, &entries, mac_key);
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
    for entry in entries {
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
    cache.tell_passed_over();
    let bytes = removed.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
    if out.is_json {
        out.raw("{")?;
        let members = removed.iter().map(|entry| {
            json!({
                "key": entry.key.to_string(),
                "directory": cache.directory(entry),
                "bytes": entry.bytes,
                "age_seconds": cache.age(entry).as_secs(),
            })
        });
        out.json_list(if prune.dry_run { "would_remove" } else { "removed" }, members)?;
        out.raw(", ")?;
        out.json_list("passed_over", cache.passed_over.iter().map(|text| Value::from(&text[..])))?;
        out.raw("}\n")?;
    } else {
        if !removed.is_empty() {
            let head = [("directory", Side::Left), ("key", Side::Left), ("size", Side::Right), ("age", Side::Right)];
            let cells = removed.iter().map(|entry| {
                [
                    (cache.directory(entry).to_owned(), Paint::Plain),
                    (entry.key.to_string(), Paint::Plain),
                    (out::bytes(entry.bytes), Paint::Plain),
                    (out::age(cache.age(entry)), Paint::Plain),
                ]
            });
            out.table(head, cells)?;
            out.line("")?;
        }
        let what = if prune.dry_run { "would be removed" } else { "removed" };
        out.line(&format!("{} entries, {} {what}", removed.len(), out::bytes(bytes)))?;
    }
    if cache.passed_over.is_empty() { Ok(Outcome::Fine) } else { Ok(Outcome::Unsound) }
}

/// Returns the version in the name of a directory of entries, `<name>-<version>-<arch>-<os>`.
fn jitcache_version(directory: &str) -> Option<&str> {
    let (rest, _os) = directory.rsplit_once('-')?;
    let (rest, _arch) = rest.rsplit_once('-')?;
    Some(rest.split_once('-')?.1)
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

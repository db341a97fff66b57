//! Lists what is in a compilation cache of wazero.
//!
//! ```text
//! cargo run --example read_wazero DIRECTORY
//! ```
//!
//! The directory is the one that wazero was given, or one of those named `wazero-<version>-<arch>-<os>` in it. Nothing
//! in it is changed.

use std::error::Error;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use jitcache::{Entry, Identity, Key, Lookup, Store};

const HEADINGS: [&str; 9] = ["version", "target", "key", "bytes", "functions", "code", "source rows", "tries", "state"];

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: read_wazero DIRECTORY")?).canonicalize()?;
    let mut rows = Vec::new();
    for (root, identity) in caches(&directory)? {
        let store = Store::options(identity).read_only().open(root)?;
        let mut keys = store.list()?.collect::<Result<Vec<Key>, _>>()?;
        keys.sort_unstable();
        for key in keys {
            rows.push(row(&store, &key)?);
        }
    }
    print_table(&rows);

    let count = |state: &str| rows.iter().filter(|row| row.last().is_some_and(|cell| cell.starts_with(state))).count();
    let bytes: u64 = rows.iter().filter_map(|row| row.get(3)?.parse::<u64>().ok()).sum();
    let (sound, stale, rejected) = (count("sound"), count("stale"), count("rejected"));
    print!("\n{} entries, {bytes} bytes: {sound} sound, {stale} stale, {rejected} rejected", rows.len());
    match count("unknown") {
        0 => println!(),
        unknown => println!(", {unknown} of an unknown layout"),
    }
    Ok(())
}

/// Finds the caches in a directory, or the one that it is: what `StoreOptions::open` takes.
fn caches(directory: &Path) -> Result<Vec<(PathBuf, Identity)>, Box<dyn Error>> {
    let cache = |path: PathBuf| {
        let identity = Identity::wazero_from_directory_name(path.file_name()?.to_str()?)?;
        path.is_dir().then_some((path.parent()?.to_owned(), identity))
    };
    if let Some(itself) = cache(directory.to_owned()) {
        return Ok(vec![itself]);
    }
    let mut paths = directory.read_dir()?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    let caches: Vec<_> = paths.into_iter().filter_map(cache).collect();
    if caches.is_empty() { Err(format!("{}: no cache of wazero", directory.display()).into()) } else { Ok(caches) }
}

fn row(store: &Store, key: &Key) -> Result<[String; 9], Box<dyn Error>> {
    let size = store.path(key).symlink_metadata().ok().filter(Metadata::is_file).map_or(0, |file| file.len());
    let mut numbers = [const { String::new() }; 4];
    let state = match store.get(key)? {
        Lookup::Hit(file) => {
            let entry = Entry::parse(&file, store.identity())?;
            let source_rows = entry.source_map().map_or_else(|| "-".to_owned(), |map| map.len().to_string());
            let [functions, code, tries] =
                [entry.functions().len(), entry.code().len(), entry.try_tables().flatten().count()];
            numbers = [functions.to_string(), code.to_string(), source_rows, tries.to_string()];
            entry.verify().map_or_else(|error| format!("rejected: {error}"), |()| "sound".to_owned())
        }
        Lookup::Stale(version) => format!("stale: written by {version}"),
        Lookup::Rejected(error) => format!("rejected: {error}"),
        Lookup::UnknownLayout(error) => format!("unknown layout: {error}"),
        Lookup::Miss => "gone".to_owned(),
        other => format!("{other:?}"),
    };
    let [functions, code, source_rows, tries] = numbers;
    let version = String::from_utf8_lossy(store.identity().version().as_bytes()).into_owned();
    let (target, key) = (store.identity().target().to_string(), format!("{:.12}", key.to_string()));
    Ok([version, target, key, size.to_string(), functions, code, source_rows, tries, state])
}

fn print_table(rows: &[[String; 9]]) {
    let headings = HEADINGS.map(str::to_owned);
    let lines = || std::iter::once(&headings).chain(rows);
    let widths: [usize; 9] =
        std::array::from_fn(|column| lines().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0));
    for line in lines() {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            3..8 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

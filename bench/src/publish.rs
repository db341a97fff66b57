//! Publishing entries, against writing and syncing as many bytes.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use jitcache::{Durability, Store};

use crate::measure::since;
use crate::report;
use crate::subject::{Seal, Subject, entry, work_directory};
use crate::way::Outcome;

/// A way to publish, and the nanoseconds of its runs.
type Published<'a> = (String, Box<dyn FnMut() -> Outcome<()> + 'a>, Vec<u64>);

/// Returns tables of microseconds for a disk and, where there is one, a file system in memory, where syncing takes
/// nothing.
pub fn measure(subjects: &[Subject], budget: Duration) -> Outcome<String> {
    let memory = Path::new("/dev/shm/jitcache-bench");
    let mut text = table("µs, on disk", &work_directory().join("publish"), subjects, budget)?;
    if memory.parent().is_some_and(Path::exists) {
        text += &table("µs, in memory", memory, subjects, budget)?;
    }
    Ok(text)
}

fn table(corner: &str, directory: &Path, subjects: &[Subject], budget: Duration) -> Outcome<String> {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for subject in subjects {
        for (line, (name, runs)) in row(directory, subject, budget)?.into_iter().enumerate() {
            if lines.len() == line {
                lines.push((name, Vec::new()));
            }
            lines[line].1.push(report::spread_micros(&runs));
        }
    }
    let columns: Vec<_> = subjects.iter().map(|subject| subject.name.clone()).collect();
    Ok(report::table(corner, &columns, &lines))
}

fn row(directory: &Path, subject: &Subject, budget: Duration) -> Outcome<Vec<(String, Vec<u64>)>> {
    fs::create_dir_all(directory)?;
    let (code, functions) = (fs::read(subject.code_file())?, subject.functions()?);
    let store = Store::open(directory.join("plain"), Seal::Plain.identity()?)?;
    let file = entry(&code, &functions, 0).finish(store.identity(), &subject.key(&store))?.to_vec();
    let mut ways: Vec<Published<'_>> = Vec::new();
    for (name, sync) in [("floor: write, no sync", false), ("floor: write and sync", true)] {
        let file = &file;
        ways.push((name.into(), Box::new(move || Ok(write(directory, file, sync)?)), Vec::new()));
    }
    for seal in Seal::ALL {
        // A plain entry is synced in either case.
        for (name, durability) in [("put", Durability::Lazy), ("put and sync", Durability::Synced)] {
            let store = Store::options(seal.identity()?).durability(durability).open(directory.join(seal.name()))?;
            let key = subject.key(&store);
            let mut entry = entry(&code, &functions, 0);
            let publish = move || Ok(store.put(&key, &entry.finish(store.identity(), &key)?)?);
            ways.push((format!("{name}, {}", seal.name()), Box::new(publish), Vec::new()));
        }
    }
    let end = Instant::now() + budget * u32::try_from(ways.len())?;
    while ways[0].2.len() < 5 || Instant::now() < end {
        for (_, publish, runs) in &mut ways {
            let start = Instant::now();
            publish()?;
            runs.push(since(start));
        }
    }
    fs::remove_dir_all(directory)?;
    Ok(ways.into_iter().map(|(name, _, runs)| (name, runs)).collect())
}

/// What cannot be left out if a file is to appear whole, and if it is to survive a power cut.
fn write(directory: &Path, bytes: &[u8], sync: bool) -> std::io::Result<()> {
    let (temporary, path) = (directory.join("temporary"), directory.join("file"));
    let mut file = File::create_new(&temporary)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    fs::rename(temporary, path)?;
    if sync { File::open(directory)?.sync_all() } else { Ok(()) }
}

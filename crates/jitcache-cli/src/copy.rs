//! `copy`: sound entries, from one cache to another.

use jitcache::{Access, FileBytes, MacKey};

use crate::Outcome;
use crate::arguments::Copy;
use crate::entries::{Cache, count};
use crate::moved::{Moved, One, put};
use crate::out::{Failure, Out};

pub(crate) fn run(copy: &Copy, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let mut cache = Cache::open(&copy.from, out)?;
    let entries = if copy.keys.is_empty() {
        cache.entries.clone()
    } else {
        let (entries, mut missing) = cache.find_all(&copy.keys)?;
        cache.passed_over.append(&mut missing);
        entries
    };
    let passed_over = std::mem::take(&mut cache.passed_over);
    let mut moved = Moved { entries: Vec::new(), passed_over, is_dry: copy.dry_run };
    let progress = out.progress("copying", count(&entries));
    for entry in &entries {
        progress.add(1, entry.bytes);
        let (path, directory) = (cache.path(entry), cache.directory(entry));
        let put = match FileBytes::open(&path, Access::READ) {
            Ok(Some(file)) => put(directory, &entry.key, &file, &copy.to, mac_key, copy.dry_run),
            // It has vanished.
            Ok(None) => continue,
            Err(error) => Err(error.to_string()),
        };
        match put {
            Ok(()) => {
                let (directory, bytes) = (directory.to_owned(), entry.bytes);
                moved.entries.push(One { key: entry.key, directory, bytes });
            }
            Err(reason) => moved.passed_over.push(format!("{}: {reason}", path.display())),
        }
    }
    drop(progress);
    moved.print("copied", out)
}

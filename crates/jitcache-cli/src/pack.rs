//! `pack` and `unpack`: the entries of an engine into one file, and out of it.

use std::path::Path;

use jitcache::{Access, CpuFeatures, Identity, MacKey, Pack, Sealing};

use crate::Outcome;
use crate::arguments::{self, Unpack};
use crate::entries::{Cache, Directory, Found, count};
use crate::judge::{NO_KEY, State};
use crate::moved::{Moved, One, put};
use crate::out::{Failure, Out};

pub(crate) fn pack(pack: &arguments::Pack, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let cache = Cache::open(&pack.dir, out)?;
    let directory = one_directory(&cache, &pack.dir)?;
    let judged = cache.each(&cache.entries, &out.progress("verifying", count(&cache.entries)), |entry| {
        let judged = cache.verify(entry, mac_key)?;
        Some(match (judged.error, judged.state, judged.identity) {
            (None, State::Sound | State::Foreign, Some(identity)) => Ok(identity),
            (error, state, _) => Err(error.map_or_else(|| state.name().to_owned(), |error| error.to_string())),
        })
    });
    let mut moved = Moved { entries: Vec::new(), passed_over: cache.passed_over.clone(), is_dry: pack.dry_run };
    let mut sound = Vec::new();
    for (entry, judged) in cache.entries.iter().zip(judged) {
        match judged {
            Some(Ok(identity)) => sound.push((entry, identity)),
            Some(Err(reason)) => moved.passed_over.push(format!("{}: {reason}", cache.path(entry).display())),
            None => {}
        }
    }
    let Some((_, newest)) = sound.iter().max_by_key(|(entry, _)| entry.modified) else {
        let none = format!("{}: there is no sound entry", pack.dir.display());
        moved.passed_over.push(none);
        return moved.print("packed", out);
    };
    let newest = newest.clone();
    if *newest.sealing() == Sealing::Plain {
        let rule = "plain entries, such as wazero's, do not tell their keys and cannot be packed";
        return Err(Failure::Usage(format!("{}: {rule}", pack.dir.display())));
    }
    let fits = |identity: &Identity| {
        identity.build_id() == newest.build_id() && identity.sealing().to_string() == newest.sealing().to_string()
    };
    let (fitting, others): (Vec<(&Found, Identity)>, _) = sound.into_iter().partition(|(_, of)| fits(of));
    for (entry, _) in others {
        let path = cache.path(entry);
        let reason = "its build id or its sealing is another than that of the entry used last";
        moved.passed_over.push(format!("{}: {reason}", path.display()));
    }
    let bits = fitting.iter().fold(0, |bits, (_, identity)| bits | identity.cpu().bits());
    let sections: Vec<u32> = fitting.iter().flat_map(|(_, identity)| identity.sections()).collect();
    let cpu = CpuFeatures::from_bits(newest.target().arch, bits);
    let identity = newest.with_cpu(cpu).with_sections(&sections).with_alignment_in_file(pack.alignment)?;
    let expected = count_of(fitting.len());
    moved.entries = fitting
        .into_iter()
        .map(|(entry, _)| One { key: entry.key, directory: directory.name.clone(), bytes: entry.bytes })
        .collect();
    if !pack.dry_run {
        let written = Cache::store(&directory.path, identity)?.write_pack(&pack.to)?;
        if written != expected {
            moved.passed_over.push(format!("{written} entries were written: others came or went meanwhile"));
        }
    }
    moved.print("packed", out)
}

pub(crate) fn unpack(unpack: &Unpack, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let pack = Pack::open_any(&unpack.pack, &unpack.engine, mac_key.unwrap_or(&NO_KEY), Access::READ)?;
    let pack = pack.ok_or_else(|| Failure::Usage(format!("{}: there is no such file", unpack.pack.display())))?;
    let directory = pack.identity().directory_name();
    let mut moved = Moved { entries: Vec::new(), passed_over: Vec::new(), is_dry: unpack.dry_run };
    let progress = out.progress("unpacking", count_of(pack.list().count()));
    for key in pack.list() {
        let Some(file) = pack.bytes(&key)? else { continue };
        let bytes = u64::try_from(file.len()).unwrap_or(u64::MAX);
        progress.add(1, bytes);
        match put(&directory, &key, &file, &unpack.to, mac_key, unpack.dry_run) {
            Ok(()) => moved.entries.push(One { key, directory: directory.clone(), bytes }),
            Err(reason) => moved.passed_over.push(format!("{key}: {reason}")),
        }
    }
    drop(progress);
    moved.print("unpacked", out)
}

/// Returns the only directory that has entries.
fn one_directory<'c>(cache: &'c Cache, dir: &Path) -> Result<&'c Directory, Failure> {
    let mut with_entries = cache.entries.iter().map(|entry| entry.directory);
    let first = with_entries.next();
    if with_entries.any(|other| Some(other) != first) {
        let rule = "a pack holds the entries of one engine, version and target: give one directory of entries";
        return Err(Failure::Usage(format!("{}: {rule}", dir.display())));
    }
    let directory = first.and_then(|first| cache.directories.get(first));
    let none = || Failure::Usage(format!("{}: there are no entries", dir.display()));
    directory.ok_or_else(none)
}

fn count_of(many: usize) -> u64 {
    u64::try_from(many).unwrap_or(u64::MAX)
}

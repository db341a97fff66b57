//! Commands that change something, and nothing else.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use jitcache::entry::Locals;
use jitcache::{Arch, Builder, CpuFeatures, Entry, Identity, Key, Revision, Sealing, Store};
use jitcache_testkit::generate::add_try_table;
use jitcache_testkit::scratch::Scratch;
use serde_json::Value;

use crate::kit::{damaged, engine, entry, files, golden, here, jitcache, mac_key, sealed};

#[test]
fn pruning_removes_what_was_announced_and_nothing_else() {
    let scratch = damaged();
    let dir = scratch.path().to_str().unwrap();
    let before = files(scratch.path());
    let announced = jitcache(&["prune", dir, "--unsound", "--dry-run", "--json"]);
    assert_eq!(files(scratch.path()), before);
    let removed = jitcache(&["prune", dir, "--unsound", "--json"]);
    let keys = |output: &Output, list: &str| {
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        told[list].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let removed = keys(&removed, "removed");
    assert_eq!(removed, keys(&announced, "would_remove"));
    let gone: Vec<_> = before.iter().filter(|path| !path.exists() && !path.is_symlink()).collect();
    let mut names: Vec<_> = gone.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, removed);
    let digits = |number: u8| Key::from_bytes([number; 32]).to_string();
    for stays in [0x01, 0x05, 0x0a, 0x0c, 0x0d, 0xa2] {
        assert!(!removed.contains(&digits(stays)), "{stays:x} is whole, another's, or no file");
    }
    for goes in [0x02, 0x03, 0x04, 0x06, 0x07, 0x08, 0x09, 0x0b, 0xa1] {
        assert!(removed.contains(&digits(goes)), "{goes:x}");
    }
}

#[test]
fn entries_whose_revision_no_name_tells_are_not_unsound() {
    let scratch = Scratch::new();
    let locals = Locals { count: 3, reuse: false };
    for (n, version, sealing, revision, tables) in [
        (1, "1", Sealing::Plain, Revision::SourceMap, &[][..]),
        (2, "2", Sealing::Plain, Revision::Locals, &[Some(locals)]),
        (3, "3", Sealing::Checksum, Revision::Locals, &[Some(locals), Some(locals)]),
    ] {
        let identity = Identity::new("engine", *b"ENGINE", version).unwrap();
        let identity = identity.with_sealing(sealing).with_revision(revision);
        let (key, mut builder) = (Key::from_bytes([n; 32]), Builder::new());
        builder.code(vec![0xc3; 40]).function(0).source(0, 7);
        tables.iter().for_each(|locals| add_try_table(&mut builder, *locals, &[]));
        let store = Store::open(scratch.path(), identity.clone()).unwrap();
        store.put(&key, &builder.finish(&identity, &key).unwrap()).unwrap();
    }
    let before = files(scratch.path());
    let output = jitcache(&["prune", scratch.path().to_str().unwrap(), "--unsound"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(files(scratch.path()), before);
    let output = jitcache(&["verify", "--all", "--json", scratch.path().to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(!told.contains("unsound\"") && told.contains("unknown-layout"), "{told}");
}

#[test]
fn pruning_takes_the_entries_that_fulfil_every_condition() {
    let scratch = golden();
    let dir = scratch.path().to_str().unwrap();
    let young = scratch
        .path()
        .join(here("wazero-v1.9.0-amd64-linux"))
        .join("0ed44085cff6da24f45fd2c0a3dd5e8bd6d0c51fdd2e63ad894af02273c4a530");
    File::options().write(true).open(&young).unwrap().set_modified(SystemTime::now()).unwrap();
    let note = scratch.path().join(here("wazero-v1.9.0-amd64-linux")).join("README");
    fs::write(&note, "kept").unwrap();
    let before = files(scratch.path()).len();
    let output = jitcache(&["prune", dir, "--version", "v1.9.0", "--older-than", "2d"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(before - files(scratch.path()).len(), 13);
    assert!(young.exists() && note.exists());
    assert_eq!(jitcache(&["prune", dir]).status.code(), Some(2), "no condition is no wish to remove everything");
}

#[test]
fn pruning_to_a_budget_takes_the_least_recently_used_and_no_more_than_it_has_to() {
    let scratch = sealed();
    let dir = scratch.path().to_str().unwrap();
    let entries: Vec<_> = files(scratch.path()).into_iter().filter(|path| is_entry(path)).collect();
    assert!(entries.len() > 2);
    for (at, path) in entries.iter().enumerate() {
        let used = SystemTime::now() - Duration::from_secs(1000 - 10 * at as u64);
        File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(used)).unwrap();
    }
    let total: u64 = entries.iter().map(|path| length(path)).sum();
    let first = length(&entries[0]);
    let prune = |budget: u64, more: &[&str]| {
        let budget = budget.to_string();
        let output = jitcache(&[&["prune", dir, "--budget", &budget], more].concat());
        assert_eq!(output.status.code(), Some(0));
        entries.iter().filter(|path| !path.exists()).count()
    };
    assert_eq!(prune(total, &[]), 0);
    assert_eq!(prune(0, &["--older-than", "1d"]), 0);
    assert_eq!(prune(total - first - 1, &["--dry-run"]), 0);
    assert_eq!(prune(total - first, &[]), 1);
    assert!(!entries[0].exists());
    assert_eq!(prune(total - first - 1, &[]), 2);
    assert!(!entries[1].exists());
    assert_eq!(prune(0, &[]), entries.len());
}

#[test]
fn what_stats_say_would_be_evicted_is_what_a_store_removes() {
    let version = |version| Identity::new("engine", *b"ENGINE", version).unwrap().with_sections(&[5]);
    let versions = ["1.0", "2.0"].map(version);
    for budget in [0, 1000, 1500, 2500, 3500, 100_000] {
        let scratch = Scratch::new();
        let dir = scratch.path().to_str().unwrap();
        for (at, identity) in versions.iter().enumerate() {
            for number in 0..5 {
                let (key, file) = entry(identity, number);
                let store = Store::open(scratch.path(), identity.clone()).unwrap();
                store.put(&key, &Entry::parse(&file, identity).unwrap()).unwrap();
                let used = SystemTime::now() - Duration::from_secs(1000 * u64::from(number + 1) - at as u64);
                File::options().write(true).open(store.path(&key)).unwrap().set_modified(used).unwrap();
            }
        }
        let output = jitcache(&["stats", dir, "--budget", &budget.to_string(), "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let told = told["evicted"].as_array().unwrap();
        let told: Vec<_> = told.iter().map(|of| (of["directory"].as_str().unwrap(), &of["entries"])).collect();
        let count = || versions.clone().map(|of| Store::open(dir, of).unwrap().list().unwrap().count());
        let before = count();
        let bytes: u64 = files(scratch.path()).iter().filter(|path| is_entry(path)).map(|path| length(path)).sum();
        if bytes > budget {
            Store::open(dir, versions[1].clone()).unwrap().trim_to(budget - budget.div_ceil(4)).unwrap().unwrap();
        }
        let gone = count().into_iter().zip(before).map(|(after, before)| Value::from(before - after));
        let gone: Vec<_> = versions.iter().map(Identity::directory_name).zip(gone).collect();
        let gone: Vec<_> = gone.iter().map(|(of, gone)| (&of[..], gone)).filter(|(_, gone)| **gone != 0).collect();
        assert_eq!(told, gone, "{budget}");
    }
}

fn is_entry(path: &Path) -> bool {
    path.is_file() && path.file_name().unwrap().to_str().unwrap().parse::<Key>().is_ok()
}

fn length(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

#[test]
fn copying_takes_what_is_sound_byte_for_byte_and_tells_what_it_leaves_behind() {
    for (from, code, left) in [(golden(), 0, 0), (damaged(), 1, 13), (sealed(), 1, 2)] {
        let to = Scratch::new();
        let target = to.path().join("made");
        let [dir, target] = [from.path(), &target].map(|path| path.to_str().unwrap());
        let output = jitcache(&["copy", dir, target, "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        let copied = told["copied"].as_array().unwrap();
        assert_eq!(told["passed_over"].as_array().unwrap().len(), left, "{told}");
        for entry in copied {
            let [directory, key] = ["directory", "key"].map(|name| entry[name].as_str().unwrap());
            let [original, copy] =
                [dir, target].map(|root| fs::read(Path::new(root).join(directory).join(key)).unwrap());
            assert_eq!(original, copy, "{directory} {key}");
        }
        let there = files(Path::new(target)).iter().filter(|path| path.is_file()).count();
        // And the tag of a cache.
        assert_eq!(there, copied.len() + usize::from(!copied.is_empty()));
        let verified = jitcache(&["verify", target, "--all"]);
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    }
    let (from, to) = (sealed(), Scratch::new());
    let [dir, target] = [from.path(), to.path()].map(|path| path.to_str().unwrap().to_owned());
    let mac = from.path().join("mac");
    let output = jitcache(&["--mac-key-file", mac.to_str().unwrap(), "copy", &dir, &target, "10"]);
    assert_eq!((output.status.code(), &output.stdout[..10]), (Some(0), &b"1 entries,"[..]));
}

#[test]
fn what_was_packed_is_unpacked_byte_for_byte_and_what_does_not_fit_is_told() {
    let (from, to) = (sealed(), Scratch::new());
    let identity = engine(Sealing::Checksum);
    let directory = identity.directory_name();
    // Of an older build, of a better processor, and damaged.
    let old = identity.clone().with_build_id(b"build 0").unwrap();
    let better = identity.clone().with_cpu(CpuFeatures::from_bits(Arch::Amd64, 1 << 100));
    let place = |number: u8| from.path().join(&directory).join(Key::from_bytes([number; 32]).to_string());
    fs::write(place(0x31), entry(&better, 0x31).1).unwrap();
    fs::write(place(0x33), &entry(&identity, 0x33).1[..100]).unwrap();
    fs::write(place(0x32), entry(&old, 0x32).1).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(1_000_000);
    File::options().write(true).open(place(0x32)).unwrap().set_modified(long_ago).unwrap();
    let [dir, pack, cache] = [from.path().join(&directory), to.path().join("a.pack"), to.path().join("cache")];
    let run = |arguments: &[&str]| {
        let arguments = [arguments, &["--json"]].concat();
        let output = jitcache(&arguments);
        let told: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), told)
    };
    let [dir, pack, cache] = [&dir, &pack, &cache].map(|path| path.to_str().unwrap());
    let keys = |told: &Value| -> Vec<String> {
        told.as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()[..2].to_owned()).collect()
    };

    let (code, told) = run(&["pack", dir, pack, "--dry-run"]);
    assert_eq!((code, Path::new(pack).exists()), (Some(1), false));
    assert_eq!(keys(&told["would_be_packed"]), ["11", "21", "31"]);
    let (code, told) = run(&["pack", dir, pack]);
    assert_eq!((code, keys(&told["packed"])), (Some(1), vec!["11".into(), "21".into(), "31".into()]));
    let left: Vec<_> = told["passed_over"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(left.len() == 2 && left[0].contains("3333") && left[1].contains("3232"), "{left:?}");
    assert!(left[1].contains("build id"), "{left:?}");

    let unpack = ["unpack", pack, cache, "--engine", "engine"];
    let (code, told) = run(&[&unpack[..], &["--dry-run"]].concat());
    assert_eq!((code, Path::new(cache).exists()), (Some(0), false));
    assert_eq!(keys(&told["would_be_unpacked"]), ["11", "21", "31"]);
    let (code, told) = run(&unpack);
    assert_eq!((code, keys(&told["unpacked"]).len()), (Some(0), 3));
    for number in [0x11, 0x21, 0x31] {
        let name = Key::from_bytes([number; 32]).to_string();
        let [original, copy] = [Path::new(dir).join(&name), Path::new(cache).join(&directory).join(&name)];
        assert_eq!(fs::read(original).unwrap(), fs::read(copy).unwrap());
    }
    assert_eq!(jitcache(&["verify", cache, "--all"]).status.code(), Some(0));

    // One that was damaged is refused, and so is what is none.
    let mut bytes = fs::read(pack).unwrap();
    let at = bytes.len() - 60;
    bytes[at] ^= 1;
    fs::write(pack, &bytes).unwrap();
    assert_eq!(jitcache(&unpack).status.code(), Some(2));
    let no_pack = place(0x11);
    assert_eq!(jitcache(&["unpack", no_pack.to_str().unwrap(), cache, "--engine", "engine"]).status.code(), Some(2));
}

#[test]
fn a_pack_under_a_mac_needs_its_key_and_plain_entries_make_none() {
    let (from, to) = (sealed(), Scratch::new());
    let [pack, cache, mac] = [to.path().join("a.pack"), to.path().join("cache"), from.path().join("mac")];
    let [pack, cache, mac] = [&pack, &cache, &mac].map(|path| path.to_str().unwrap());
    let dir = from.path().join(engine(Sealing::Mac(mac_key())).directory_name());
    let dir = dir.to_str().unwrap();
    let code = |arguments: &[&str]| jitcache(arguments).status.code();
    assert_eq!((code(&["pack", dir, pack]), Path::new(pack).exists()), (Some(1), false));
    assert_eq!(code(&["pack", dir, pack, "--mac-key-file", mac]), Some(0));
    assert_eq!(code(&["unpack", pack, cache, "--engine", "signed"]), Some(2));
    assert_eq!(code(&["unpack", pack, cache, "--engine", "signed", "--mac-key-file", mac]), Some(0));
    assert_eq!(code(&["verify", cache, "--all", "--mac-key-file", mac]), Some(0));
    let golden = golden();
    let plain = golden.path().join(here("wazero-v1.9.0-amd64-linux"));
    let other = to.path().join("b.pack");
    assert_eq!((code(&["pack", plain.to_str().unwrap(), other.to_str().unwrap()]), other.exists()), (Some(2), false));
    // More than one directory.
    assert_eq!(code(&["pack", from.path().to_str().unwrap(), pack]), Some(2));
}

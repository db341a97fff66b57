//! The program, as people and scripts see it: on the golden entries, on sealed ones, on damaged ones and on hostile
//! ones.
//!
//! `UPDATE_SNAPSHOTS=1` writes what is printed as what is expected.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use jitcache::{Arch, Builder, CpuFeatures, Identity, Key, MacKey, Os, Recipe, Sealing, Store, Target};
use jitcache_testkit::random::Random;
use jitcache_testkit::scratch::Scratch;
use jitcache_testkit::skip::skip;
use jitcache_testkit::targets::repair;
use serde_json::Value;

const AMD64: Target = Target { arch: Arch::Amd64, os: Os::Linux };

/// Every command that only reads, with a key that is there where one is needed.
fn reading(dir: &str, key: &str) -> Vec<Vec<String>> {
    let commands = [
        &["list", dir][..],
        &["list", dir, "--sort", "size", "--reverse", "--state", "whole"],
        &["show", dir, key],
        &["verify", dir, "--all"],
        &["verify", dir, key],
        &["why", dir, key],
        &["stats", dir],
        &["prune", dir, "--older-than", "0s", "--unsound", "--dry-run"],
        &["doctor", dir],
    ];
    commands.iter().map(|command| command.iter().map(|word| (*word).to_owned()).collect()).collect()
}

fn jitcache(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jitcache")).args(arguments).output().unwrap()
}

/// Compares what a command prints, in both forms, with what it printed before.
fn snapshot(name: &str, root: &Path, arguments: &[&str], code: i32) {
    for (form, extra) in [("txt", &[][..]), ("json", &["--json"])] {
        let all: Vec<&str> = arguments.iter().chain(extra).copied().collect();
        let output = jitcache(&all);
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{all:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        if form == "json" {
            serde_json::from_str::<Value>(&printed).unwrap();
        }
        compare(&format!("{name}.{form}"), &stable(&printed, root));
    }
}

fn compare(name: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, printed).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(printed, expected, "{name}");
}

/// Takes out what is another each time: where the scratch directory lies, and the time.
fn stable(printed: &str, root: &Path) -> String {
    let mut printed = printed.replace(root.to_str().unwrap(), "DIR");
    for name in ["\"modified\":", "\"age_seconds\":", "\"youngest_seconds\":", "\"oldest_seconds\":"] {
        let mut parts = printed.split(name);
        let first = parts.next().unwrap().to_owned();
        printed = parts.fold(first, |before, part| {
            format!("{before}{name}0{}", part.trim_start_matches(|c: char| c.is_ascii_digit()))
        });
    }
    printed
}

/// Gives every file below a directory the same age.
fn age(root: &Path) {
    let used = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60 + 1800);
    for path in files(root) {
        if path.is_file() && !path.is_symlink() {
            File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(used)).unwrap();
        }
    }
}

/// Returns all that lies below a directory.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}

fn golden() -> Scratch {
    let scratch = Scratch::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    for path in files(&from) {
        let name = path.strip_prefix(&from).unwrap();
        if name.to_str().unwrap().starts_with("wazero-") && path.is_file() {
            let to = scratch.path().join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, to).unwrap();
        }
    }
    age(scratch.path());
    scratch
}

fn mac_key() -> MacKey {
    MacKey::new([7; 32])
}

fn engine(sealing: Sealing) -> Identity {
    let name = if sealing == Sealing::Checksum { "engine" } else { "signed" };
    let identity = Identity::new(name, *b"ENGINE", "1.0").unwrap().with_target(AMD64).with_sealing(sealing);
    identity.with_cpu(CpuFeatures::baseline(Arch::Amd64)).with_sections(&[5]).with_build_id(b"build 1").unwrap()
}

fn entry(identity: &Identity, number: u8) -> (Key, Vec<u8>) {
    let key = Key::from_bytes([number; 32]);
    let mut builder = Builder::new();
    builder.code(vec![0xc3; 64]).function(0).source(0, 12).function(32).source(32, 40);
    builder.section(5, true, b"required").metadata(b"of the engine's");
    let file = builder.finish(identity, &key).unwrap().to_vec();
    (key, file)
}

fn sealed() -> Scratch {
    let scratch = Scratch::new();
    for sealing in [Sealing::Checksum, Sealing::Mac(mac_key())] {
        let identity = engine(sealing);
        let store = Store::open(scratch.path(), identity.clone()).unwrap();
        for number in [0x10, 0x20] {
            let (key, file) = entry(&identity, number + u8::from(*identity.sealing() == Sealing::Checksum));
            store.put(&key, &jitcache::Entry::parse(&file, &identity).unwrap()).unwrap();
        }
    }
    fs::write(scratch.path().join("mac"), [7; 32]).unwrap();
    age(scratch.path());
    scratch
}

/// Makes an entry with each fault, under a key that begins with a number of its own.
fn damaged() -> Scratch {
    let scratch = Scratch::new();
    let identity = engine(Sealing::Checksum);
    let directory = scratch.path().join(identity.directory_name());
    fs::create_dir(&directory).unwrap();
    let name = |number: u8| directory.join(Key::from_bytes([number; 32]).to_string());
    type Damage = fn(&mut Vec<u8>);
    let damages: [(u8, Damage); 8] = [
        (0x01, |_| {}),
        (0x02, |file| file.truncate(20)),
        (0x03, |file| file[60] ^= 1),
        (0x04, |file| file.push(0)),
        (0x05, |file| file[7] = b'9'),
        (0x06, |file| file.clear()),
        (0x07, |file| {
            let at = file.len() - 80;
            file[at] ^= 1;
        }),
        (0x08, |file| {
            let at = file.len() - 1;
            file[at] = b'2';
        }),
    ];
    for (number, damage) in damages {
        let (_, mut file) = entry(&identity, number);
        damage(&mut file);
        fs::write(name(number), file).unwrap();
    }
    // Renamed; for a processor that nobody has; from another directory.
    fs::write(name(0x09), entry(&identity, 0x99).1).unwrap();
    let better = CpuFeatures::from_bits(Arch::Amd64, CpuFeatures::host().bits() | 1 << 127);
    fs::write(name(0x0a), entry(&identity.clone().with_cpu(better), 0x0a).1).unwrap();
    let arm64 = Target { arch: Arch::Arm64, os: Os::Linux };
    fs::write(name(0x0b), entry(&identity.clone().with_target(arm64), 0x0b).1).unwrap();
    fs::create_dir(name(0x0c)).unwrap();
    symlink(name(0x01), name(0x0d)).unwrap();
    // wazero's: another engine's entry, and try tables in a layout that nobody knows.
    let wazero = scratch.path().join("wazero-dev-amd64-linux");
    fs::create_dir(&wazero).unwrap();
    let (key, file) = entry(&identity, 0xa1);
    fs::write(wazero.join(key.to_string()), file).unwrap();
    let golden = golden();
    let catch = "wazero-v1.12.0-amd64-linux/5923a7b0c0d3ea7502f7042e466883969cff4ee36a1d33ccdbd0294961a2e8ef";
    let mut file = fs::read(golden.path().join(catch)).unwrap();
    file.splice(6..14, *b"\x03dev");
    fs::write(wazero.join(Key::from_bytes([0xa2; 32]).to_string()), file).unwrap();
    age(scratch.path());
    scratch
}

#[test]
fn each_command_on_the_golden_entries() {
    let scratch = golden();
    let dir = scratch.path().to_str().unwrap();
    let one = scratch.path().join("wazero-v1.12.0-amd64-linux");
    let one = one.to_str().unwrap();
    snapshot("golden-list", scratch.path(), &["list", dir], 0);
    snapshot(
        "golden-list-filtered",
        scratch.path(),
        &["list", one, "--sort", "size", "--reverse", "--min-size", "1K"],
        0,
    );
    snapshot("golden-list-none", scratch.path(), &["list", dir, "--newer-than", "1d"], 0);
    snapshot("golden-show", scratch.path(), &["show", one, "5923"], 0);
    snapshot("golden-verify", scratch.path(), &["verify", dir, "--all"], 0);
    snapshot("golden-verify-two", scratch.path(), &["verify", one, "5923", "baee"], 0);
    snapshot("golden-why", scratch.path(), &["why", one, "5923"], 0);
    let ambiguous = jitcache(&["why", dir, "0919"]);
    assert_eq!((ambiguous.status.code(), &ambiguous.stdout[..]), (Some(2), &b""[..]));
    compare("golden-why-ambiguous.txt", &stable(&String::from_utf8(ambiguous.stderr).unwrap(), scratch.path()));
    let foreign = format!("{dir}/wazero-v1.12.0-arm64-linux");
    snapshot("golden-why-arm64", scratch.path(), &["why", &foreign, "0919"], 1);
    snapshot("golden-stats", scratch.path(), &["stats", dir], 0);
    snapshot("golden-prune", scratch.path(), &["prune", one, "--older-than", "1d", "--dry-run"], 0);
}

#[test]
fn each_command_on_sealed_entries_with_their_key_and_without_it() {
    let scratch = sealed();
    let dir = scratch.path().to_str().unwrap();
    let mac = format!("{dir}/mac");
    snapshot("sealed-list", scratch.path(), &["list", dir], 0);
    snapshot("sealed-show", scratch.path(), &["show", dir, "11"], 0);
    snapshot("sealed-show-mac", scratch.path(), &["show", dir, "10", "--mac-key-file", &mac], 0);
    snapshot("sealed-verify", scratch.path(), &["verify", dir, "10", "11"], 0);
    snapshot("sealed-verify-mac", scratch.path(), &["verify", dir, "10", "11", "--mac-key-file", &mac], 0);
    snapshot("sealed-why", scratch.path(), &["why", dir, "10"], 1);
    snapshot("sealed-why-mac", scratch.path(), &["why", dir, "10", "--mac-key-file", &mac], 0);
    snapshot("sealed-stats", scratch.path(), &["stats", dir], 0);
    fs::write(&mac, "08".repeat(32)).unwrap();
    snapshot("sealed-why-other-mac", scratch.path(), &["why", dir, "10", "--mac-key-file", &mac], 1);
    fs::write(&mac, "08").unwrap();
    assert_eq!(jitcache(&["list", dir, "--mac-key-file", &mac]).status.code(), Some(2));
}

#[test]
fn an_entry_that_keeps_its_recipe_is_compared_with_those_that_come_nearest() {
    let scratch = Scratch::new();
    let engine = engine(Sealing::Checksum);
    let recipe = |identity: &Identity, opt, source: &[u8]| {
        Recipe::of(identity).flag("opt", opt).flag("name", "\u{1b}[31m\u{202e}").source(source).finish()
    };
    let older = engine.clone().with_build_id(b"build 0").unwrap();
    let mut keys = Vec::new();
    for (identity, opt, source) in
        [(&engine, "2", b"main"), (&engine, "3", b"main"), (&engine, "2", b"else"), (&older, "2", b"main")]
    {
        let recipe = recipe(identity, opt, source);
        let store = Store::open(scratch.path(), identity.clone()).unwrap();
        let mut builder = Builder::new();
        let entry = builder.code(vec![0xc3; 64]).function(0).recipe(&recipe).finish(identity, recipe.key()).unwrap();
        store.put(recipe.key(), &entry).unwrap();
        keys.push(recipe.key().to_string());
    }
    let root = scratch.path().to_str().unwrap();
    snapshot("recipe-show", scratch.path(), &["show", root, &keys[0]], 0);
    snapshot("recipe-why", scratch.path(), &["why", root, &keys[0]], 0);
}

#[test]
fn each_command_on_entries_with_every_kind_of_fault() {
    let scratch = damaged();
    let dir = scratch.path().to_str().unwrap();
    snapshot("damaged-list", scratch.path(), &["list", dir], 1);
    snapshot("damaged-verify", scratch.path(), &["verify", dir, "--all"], 1);
    snapshot("damaged-stats", scratch.path(), &["stats", dir], 1);
    snapshot("damaged-show", scratch.path(), &["show", dir, "03"], 1);
    let whys: String = ["02", "03", "04", "05", "06", "07", "08", "09", "0b", "0c", "0d", "a1", "a2", "ff"]
        .into_iter()
        .map(|key| {
            let output = jitcache(&["why", dir, key]);
            assert_eq!(output.status.code(), Some(1), "{key}");
            format!("{key}\n{}\n", String::from_utf8(output.stdout).unwrap())
        })
        .collect();
    compare("damaged-why.txt", &stable(&whys, scratch.path()));
    // The features of the processor that runs the test are told, too.
    let output = jitcache(&["why", dir, "0a", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &told["state"], &told["error"]["name"]),
        (Some(1), &"foreign".into(), &"cpu-features".into())
    );
    snapshot("damaged-prune", scratch.path(), &["prune", dir, "--unsound", "--dry-run"], 1);
}

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
fn pruning_takes_the_entries_that_fulfil_every_condition() {
    let scratch = golden();
    let dir = scratch.path().to_str().unwrap();
    let young = scratch
        .path()
        .join("wazero-v1.9.0-amd64-linux/0ed44085cff6da24f45fd2c0a3dd5e8bd6d0c51fdd2e63ad894af02273c4a530");
    File::options().write(true).open(&young).unwrap().set_modified(SystemTime::now()).unwrap();
    let note = scratch.path().join("wazero-v1.9.0-amd64-linux/README");
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
    let mut entries: Vec<_> = files(scratch.path()).into_iter().filter(|path| path.is_file()).collect();
    entries.retain(|path| path.file_name().unwrap().to_str().unwrap().parse::<Key>().is_ok());
    assert!(entries.len() > 2);
    for (at, path) in entries.iter().enumerate() {
        let used = SystemTime::now() - Duration::from_secs(1000 - 10 * at as u64);
        File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(used)).unwrap();
    }
    let total: u64 = entries.iter().map(|path| path.metadata().unwrap().len()).sum();
    let first = entries[0].metadata().unwrap().len();
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
fn a_command_that_reads_changes_nothing() {
    let scratch = damaged();
    let dir = scratch.path().to_str().unwrap();
    let look = || {
        let mut all = files(scratch.path());
        all.push(scratch.path().to_owned());
        let look = |path: PathBuf| {
            let metadata = fs::symlink_metadata(&path).unwrap();
            (path, metadata.len(), metadata.mtime_nsec(), metadata.mtime(), metadata.ctime_nsec(), metadata.mode())
        };
        all.into_iter().map(look).collect::<Vec<_>>()
    };
    let before = look();
    for command in reading(dir, "01") {
        assert_ne!(jitcache(&command).status.code(), Some(2), "{command:?}");
        assert_eq!(look(), before, "{command:?}");
    }
    let missing = format!("{dir}/missing");
    for command in reading(&missing, "01") {
        assert_ne!(jitcache(&command).status.code(), Some(0), "{command:?}");
    }
    assert!(!Path::new(&missing).exists());
}

#[test]
fn a_command_that_reads_opens_nothing_for_writing() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("a_command_that_reads_opens_nothing_for_writing", "there is no strace");
    }
    let scratch = golden();
    let dir = scratch.path().join("wazero-v1.12.0-amd64-linux");
    let log = scratch.path().join("log");
    for command in reading(dir.to_str().unwrap(), "5923") {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=file,desc", "-o"])
            .arg(&log)
            .arg(env!("CARGO_BIN_EXE_jitcache"))
            .args(&command)
            .output()
            .unwrap();
        let calls = fs::read_to_string(&log).unwrap_or_default();
        if !calls.contains("execve(") {
            return skip("a_command_that_reads_opens_nothing_for_writing", "strace may not trace here");
        }
        assert_eq!(strace.status.code(), Some(0), "{command:?}: {}", String::from_utf8_lossy(&strace.stderr));
        assert!(calls.contains("O_RDONLY"), "{command:?}");
        for call in calls.lines() {
            for writes in [
                "O_WRONLY",
                "O_RDWR",
                "O_CREAT",
                "O_TRUNC",
                "mkdir",
                "unlink",
                "rename",
                "utime",
                "chmod",
                "chown",
                "truncate(",
                "link(",
                "mknod",
            ] {
                // Code is made executable by way of a file that is in memory alone.
                assert!(
                    !call.contains(writes) || call.contains("readlink(") || call.contains("ftruncate("),
                    "{command:?}: {call}"
                );
            }
        }
    }
}

#[test]
fn no_byte_of_a_name_or_a_file_reaches_a_terminal_unescaped() {
    let scratch = Scratch::new();
    let hostile = scratch.path().join(std::ffi::OsStr::from_bytes(b"a\x1b[31m\xff\xc2\x9b\n\xe2\x80\xae"));
    let identity = Identity::new("engine", *b"\x1b[2J\x07\x9b", "1.0").unwrap().with_target(AMD64);
    let directory = hostile.join(identity.directory_name());
    fs::create_dir_all(&directory).unwrap();
    fs::create_dir(hostile.join(std::ffi::OsStr::from_bytes(b"\x1b[2Jevil-1-amd64-linux"))).unwrap();
    let key = Key::from_bytes([1; 32]);
    let mut builder = Builder::new();
    builder.code(vec![0xc3; 8]).function(0);
    builder.import("\x1b]0;import\x07");
    let identity = identity.with_build_id(b"\x1b[1m").unwrap();
    fs::write(directory.join(key.to_string()), builder.finish(&identity, &key).unwrap().to_vec()).unwrap();
    // A version that only the file has.
    let stale = directory.join(Key::from_bytes([2; 32]).to_string());
    fs::write(&stale, b"\x1b[2J\x07\x9b\x04\x1b[2J").unwrap();
    symlink("nowhere", directory.join(Key::from_bytes([3; 32]).to_string())).unwrap();
    let mut random = 1_u64;
    for number in 0x10..0x30 {
        let mut bytes = identity.magic().0.to_vec();
        bytes.extend_from_slice(b"\x031.0");
        for _ in 0..number {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            bytes.push(if random >> 40 & 1 == 0 { 0 } else { 0x1b });
        }
        fs::write(directory.join(Key::from_bytes([number; 32]).to_string()), bytes).unwrap();
    }
    let mut seen = 0;
    for key in ["01", "02", "03", "10", "1f", "2f", "f0"] {
        for command in ["list", "show", "verify", "why", "stats", "doctor"] {
            for form in [None, Some("--json")] {
                let needs_key = ["show", "verify", "why"].contains(&command);
                let mut run = Command::new(env!("CARGO_BIN_EXE_jitcache"));
                run.arg(command).arg(&hostile).args(needs_key.then_some(key)).args(form);
                let output = run.output().unwrap();
                assert!(output.status.code().is_some_and(|code| code <= 2), "{command} {key}");
                seen += length_of_clean(output);
            }
        }
    }
    assert!(seen > 0);
}

/// Returns how much was printed, none of which a terminal takes for more than a letter.
fn length_of_clean(output: Output) -> usize {
    let printed = [output.stdout, output.stderr].map(|printed| String::from_utf8(printed).unwrap());
    for text in &printed {
        let is_clean = |c: char| c == '\n' || c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric();
        assert!(text.chars().all(is_clean), "{text:?}");
    }
    printed.iter().map(String::len).sum()
}

#[test]
fn entries_damaged_at_random_are_shown_or_refused_in_clean_text() {
    let scratch = Scratch::new();
    let identity = Identity::new("engine", *b"ENGINE", "1.0").unwrap().with_target(AMD64);
    let identity = identity.with_alignment_in_file(1).unwrap();
    let recipe = Recipe::of(&identity).flag("\u{1b}[2J", "\u{202e}").source(b"main").finish();
    let mut builder = Builder::new();
    builder.code(vec![0xc3; 64]).function_named(0, 64, "\u{1b}[1m").source(0, 12).recipe(&recipe);
    builder.import("\u{9b}2J");
    let linked = builder.finish(&identity, recipe.key()).unwrap().to_vec();
    let catch = "wazero-v1.12.0-amd64-linux/5923a7b0c0d3ea7502f7042e466883969cff4ee36a1d33ccdbd0294961a2e8ef";
    let wazero = Identity::wazero("v1.12.0").unwrap().with_target(AMD64);
    let entries = [(identity, linked), (wazero, fs::read(golden().path().join(catch)).unwrap())];
    let mut random = Random(7);
    let mut states = BTreeMap::new();
    for round in 0..120 {
        let (identity, file) = &entries[round % 2];
        let mut file = file.clone();
        for _ in 0..random.below(4) {
            let at = random.index(file.len());
            match random.below(4) {
                0 => file.truncate(at + 1),
                1 => file.insert(at, 0x1b),
                2 => file[at] = 0x9b,
                _ => file[at] ^= 1 << random.below(8),
            }
        }
        if random.below(4) > 0 {
            repair(&mut file, identity);
        }
        let directory = scratch.path().join(identity.directory_name());
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(recipe.key().to_string()), &file).unwrap();
        let directory = directory.to_str().unwrap();
        let key = recipe.key().to_string();
        for (command, form) in [("show", None), ("show", Some("--json")), ("why", None)] {
            let arguments: Vec<_> = [command, directory, &key[..8]].into_iter().chain(form).collect();
            let output = jitcache(&arguments);
            let code = output.status.code();
            assert!(
                code.is_some_and(|code| code <= 1),
                "{command} {file:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            *states.entry(code).or_insert(0) += 1;
            assert!(length_of_clean(output) > 0);
        }
    }
    assert_eq!(states.len(), 2, "both sound and damaged ones were seen: {states:?}");
}

#[test]
fn whoever_stops_reading_ends_the_program_quietly() {
    let scratch = golden();
    let mut child = Command::new(env!("CARGO_BIN_EXE_jitcache"))
        .arg("list")
        .arg(scratch.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

#[test]
fn colours_are_there_when_they_are_asked_for() {
    let scratch = golden();
    let dir = scratch.path().to_str().unwrap();
    for (when, is_colored) in [("always", true), ("never", false), ("auto", false)] {
        let output = jitcache(&["list", dir, "--color", when]);
        assert_eq!(output.stdout.contains(&0x1b), is_colored, "{when}");
    }
}

#[test]
fn a_directory_that_others_can_write_to_is_found_bad_by_the_doctor() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = golden();
    let doctor = || {
        let output = jitcache(&["doctor", scratch.path().to_str().unwrap(), "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = told["checks"].as_array().unwrap().clone();
        (output.status.code(), checks.into_iter().find(|check| check["check"] == "owner and mode").unwrap())
    };
    assert_eq!(doctor().1["verdict"], "fine");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (code, check) = doctor();
    assert_eq!((code, &check["verdict"]), (Some(1), &"bad".into()));
    assert!(check["remedy"].is_string());
}

#[test]
fn the_documentation_shows_what_is_printed() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(package.join(name)).unwrap();
    for (file, screens) in [
        (
            "../../docs/tool.md",
            &["list-filtered", "show", "verify", "verify-two", "why-arm64", "why", "stats", "prune"][..],
        ),
        ("../../README.md", &["list-filtered", "why-arm64"]),
    ] {
        let text = read(file);
        for screen in screens {
            assert!(text.contains(&read(&format!("tests/snapshots/golden-{screen}.txt"))), "{screen} in {file}");
        }
    }
}

#[test]
fn completions_and_the_manual_have_every_command() {
    let printed = |arguments: &[&str]| String::from_utf8(jitcache(arguments).stdout).unwrap();
    let (completions, manual) = (printed(&["completions", "bash"]), printed(&["manual"]));
    for command in ["list", "show", "verify", "why", "stats", "prune", "doctor"] {
        assert!(completions.contains(&format!("jitcache,{command})")), "{command}");
        assert!(manual.contains(&format!(".TH jitcache-{command} 1")), "{command}");
    }
}

#[test]
fn a_terminal_has_colours_and_progress() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("a_terminal_has_colours_and_progress", "there is no script(1)");
    }
    let scratch = damaged();
    let in_terminal = |command: &str| {
        let line = format!("'{}' {command} '{}'", env!("CARGO_BIN_EXE_jitcache"), scratch.path().display());
        let mut script = Command::new("script");
        let output =
            script.args(["-qec", &line, "/dev/null"]).env_remove("NO_COLOR").stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, listed) = in_terminal("list");
    assert_eq!(code, Some(1));
    assert!(listed.contains("\x1b[31munsound\x1b[0m"), "{listed:?}");
    let (code, verified) = in_terminal("verify --all");
    assert_eq!(code, Some(1));
    assert!(verified.contains("of 15 entries"), "{verified:?}");
    assert!(
        !String::from_utf8_lossy(&jitcache(&["verify", scratch.path().to_str().unwrap(), "--all"]).stderr)
            .contains("of 15")
    );
}

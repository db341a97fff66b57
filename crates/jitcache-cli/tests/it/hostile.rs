//! Names and files that somebody else made.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jitcache::{Builder, Identity, Key, Recipe};
use jitcache_testkit::mend::repair;
use jitcache_testkit::random::Random;
use jitcache_testkit::scratch::Scratch;
use serde_json::Value;

use crate::any_file::AnyFile;
use crate::kit::{AMD64, ARM64, files, golden, here, jitcache, length_of_clean, linked};

#[test]
#[cfg(unix)] // names of such bytes are of Unix
fn no_byte_of_a_name_or_a_file_reaches_a_terminal_unescaped() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use crate::kit::command;

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
        for verb in ["list", "show", "disasm", "verify", "why", "stats", "doctor"] {
            for form in [None, Some("--json")] {
                let needs_key = ["show", "disasm", "verify", "why"].contains(&verb);
                let mut run = command();
                run.arg(verb).arg(&hostile).args(needs_key.then_some(key)).args(form);
                let output = run.output().unwrap();
                assert!(output.status.code().is_some_and(|code| code <= 2), "{verb} {key}");
                seen += length_of_clean(output);
            }
        }
    }
    assert!(seen > 0);
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
    let catch = here("wazero-v1.12.0-amd64-linux/5923a7b0c0d3ea7502f7042e466883969cff4ee36a1d33ccdbd0294961a2e8ef");
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
        for (command, form) in [("show", None), ("show", Some("--json")), ("disasm", None), ("why", None)] {
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
fn any_file_under_the_name_of_an_entry_is_shown_or_refused() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut seen, any_file) = (0, AnyFile::new());
    for seeds in ["tool", "load", "deserialize"].map(|name| package.join("../../fuzz/corpus").join(name)) {
        for seed in files(&seeds) {
            any_file.look_at(&fs::read(seed).unwrap());
            seen += 1;
        }
    }
    assert!(seen > 100);
    for cache in [golden(), linked()] {
        let entries = files(cache.path()).into_iter().filter(|path| path.is_file());
        entries.for_each(|path| any_file.look_at(&fs::read(path).unwrap()));
    }
}

#[test]
fn code_of_any_bytes_is_disassembled() {
    let mut random = Random(19);
    for target in [AMD64, ARM64] {
        let scratch = Scratch::new();
        let identity = Identity::new("engine", *b"ENGINE", "1.0").unwrap().with_target(target);
        let directory = scratch.path().join(identity.directory_name());
        fs::create_dir(&directory).unwrap();
        let key = Key::from_bytes([1; 32]);
        let mut builder = Builder::new();
        builder.code(random.bytes(50_000)).function(0).function(25_001);
        fs::write(directory.join(key.to_string()), builder.finish(&identity, &key).unwrap().to_vec()).unwrap();
        let output = jitcache(&["disasm", directory.to_str().unwrap(), "01", "--json"]);
        assert_eq!(output.status.code(), Some(0));
        // Every byte has its place.
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut bytes = 0;
        for function in told["functions"].as_array().unwrap() {
            for instruction in function["instructions"].as_array().unwrap() {
                assert_eq!(instruction["offset"], bytes);
                bytes += instruction["bytes"].as_str().unwrap().len() / 2;
            }
        }
        assert_eq!(bytes, 50_000);
        assert!(length_of_clean(output) > 0);
    }
}

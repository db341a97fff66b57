//! What each command prints.

use std::fs;
use std::path::Path;

use jitcache::{Builder, Cache, Error, Identity, Key};
use jitcache_testkit::scratch::Scratch;
use serde_json::Value;

use crate::kit::{command, compare, damaged, golden, here, jitcache, linked, narrow, sealed, snapshot, stable};

#[test]
fn each_command_on_the_golden_entries() {
    let scratch = golden();
    let dir = scratch.path().to_str().unwrap();
    let one = scratch.path().join(here("wazero-v1.12.0-amd64-linux"));
    let one = one.to_str().unwrap();
    snapshot("golden-list", scratch.path(), &["list", dir], 0);
    snapshot(
        "golden-list-filtered",
        scratch.path(),
        &["list", one, "--sort", "size", "--reverse", "--min-size", "1K"],
        0,
    );
    let listed = |engine| String::from_utf8(jitcache(&["list", dir, "--engine", engine]).stdout).unwrap();
    assert_eq!(listed("waz"), "0 entries, 0 B\n");
    assert_eq!(listed("wazero").lines().last(), Some("49 entries, 220.1 KiB"));
    snapshot("golden-list-none", scratch.path(), &["list", dir, "--newer-than", "1d"], 0);
    snapshot("golden-show", scratch.path(), &["show", one, "5923"], 0);
    snapshot("golden-verify", scratch.path(), &["verify", dir, "--all"], 0);
    snapshot("golden-verify-two", scratch.path(), &["verify", one, "5923", "baee"], 0);
    snapshot("golden-why", scratch.path(), &["why", one, "5923"], 0);
    let ambiguous = jitcache(&["why", dir, "0919"]);
    assert_eq!((ambiguous.status.code(), &ambiguous.stdout[..]), (Some(2), &b""[..]));
    compare("golden-why-ambiguous.txt", &stable(&String::from_utf8(ambiguous.stderr).unwrap(), scratch.path()));
    let foreign = format!("{dir}/{}", here("wazero-v1.12.0-arm64-linux"));
    snapshot("golden-why-arm64", scratch.path(), &["why", &foreign, "0919"], 1);
    snapshot("golden-stats", scratch.path(), &["stats", dir, "--budget", "64K"], 0);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/modules/catch.wasm");
    let source = source.to_str().unwrap();
    snapshot("golden-disasm", scratch.path(), &["disasm", one, "5923"], 0);
    snapshot("golden-disasm-function", scratch.path(), &["disasm", one, "5923", "3", "--source", source], 0);
    snapshot("golden-disasm-arm64", scratch.path(), &["disasm", &foreign, "0919"], 0);
    narrow("golden-list", scratch.path(), &["list", dir], 0);
    narrow("golden-show", scratch.path(), &["show", one, "5923"], 0);
    narrow("golden-stats", scratch.path(), &["stats", dir, "--budget", "64K"], 0);
    narrow("golden-why-arm64", scratch.path(), &["why", &foreign, "0919"], 1);
    narrow("golden-prune", scratch.path(), &["prune", dir, "--older-than", "1d", "--dry-run"], 0);
    snapshot("golden-copy", scratch.path(), &["copy", one, &format!("{dir}/to"), "--dry-run"], 0);
    snapshot("golden-prune", scratch.path(), &["prune", one, "--older-than", "1d", "--dry-run"], 0);
}

#[test]
fn every_golden_entry_has_the_fields_the_functions_and_the_code_that_its_manifest_tells() {
    let scratch = golden();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/manifest.tsv");
    let manifest = fs::read_to_string(manifest).unwrap();
    let mut lines = manifest.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let titles = lines.next().unwrap();
    let mut seen = 0;
    for line in lines {
        let told = |title| line[titles.iter().position(|it| *it == title).unwrap()];
        let (directory, key) = told("entry").split_once('/').unwrap();
        let directory = scratch.path().join(here(directory));
        let run = |command| -> Value {
            let output = jitcache(&[command, directory.to_str().unwrap(), key, "--json"]);
            let code = i32::from(command == "why" && told("arch") != "amd64");
            assert_eq!(output.status.code(), Some(code), "{command} {key}");
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let (shown, listing, why) = (run("show"), run("disasm"), run("why"));
        let number = |title| told(title).parse::<u64>().unwrap();
        let mut at = 0;
        for field in shown["fields"].as_array().unwrap() {
            assert_eq!(field["offset"], at, "{key}");
            at += field["bytes"].as_u64().unwrap();
        }
        assert_eq!((at, &shown["bytes"]), (number("bytes"), &at.into()));
        let functions = listing["functions"].as_array().unwrap();
        assert_eq!(functions.len(), number("functions") as usize);
        assert_eq!(functions.len(), shown["functions"].as_array().unwrap().len());
        let code: u64 = functions.iter().map(|function| function["bytes"].as_u64().unwrap()).sum();
        assert_eq!(code, number("code_len"));
        assert_eq!(why["state"], if told("arch") == "amd64" { "sound" } else { "foreign" });
        seen += 1;
    }
    assert!(seen >= 30, "{seen}");
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
    snapshot("sealed-disasm", scratch.path(), &["disasm", dir, "11"], 0);
    snapshot("sealed-disasm-mac", scratch.path(), &["disasm", dir, "10", "--mac-key-file", &mac], 0);
    snapshot("sealed-prune", scratch.path(), &["prune", dir, "--budget", "400", "--dry-run"], 0);
    snapshot("sealed-copy", scratch.path(), &["copy", dir, &format!("{dir}/to"), "--dry-run"], 1);
    snapshot("sealed-copy-mac", scratch.path(), &["copy", dir, &format!("{dir}/to"), "--mac-key-file", &mac], 0);
    let [engine, pack] = ["engine-1.0-amd64-linux", "pack"].map(|name| format!("{dir}/{}", here(name)));
    snapshot("sealed-pack", scratch.path(), &["pack", &engine, &pack], 0);
    snapshot("sealed-unpack", scratch.path(), &["unpack", &pack, &format!("{dir}/to"), "--engine", "engine"], 0);
    fs::write(&mac, "08".repeat(32)).unwrap();
    snapshot("sealed-why-other-mac", scratch.path(), &["why", dir, "10", "--mac-key-file", &mac], 1);
    fs::write(&mac, "08").unwrap();
    assert_eq!(jitcache(&["list", dir, "--mac-key-file", &mac]).status.code(), Some(2));
}

#[test]
#[cfg(unix)] // the name of the target is in the recipe, which makes lengths of its own
fn an_entry_that_keeps_its_recipe_is_compared_with_those_that_come_nearest() {
    use jitcache::{Recipe, Sealing, Store};

    use crate::kit::engine;

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
fn code_is_shown_with_what_it_imports_its_names_its_data_and_its_source() {
    let scratch = linked();
    let dir = scratch.path().to_str().unwrap();
    let source = format!("{dir}/source");
    for (key, arch) in [("c1", "amd64"), ("c2", "arm64")] {
        let name = format!("linked-disasm-{arch}");
        snapshot(&name, scratch.path(), &["disasm", dir, key, "--source", &source], 0);
        snapshot(&format!("{name}-leaf"), scratch.path(), &["disasm", dir, key, "leaf <\\x1b>"], 0);
        snapshot(&format!("linked-show-{arch}"), scratch.path(), &["show", dir, key], 0);
    }
    let none = jitcache(&["disasm", dir, "c1", "mein"]);
    assert_eq!((none.status.code(), &none.stdout[..]), (Some(2), &b""[..]));
}

#[test]
fn pictures_have_every_field_and_every_sum() {
    let scratch = linked();
    let svg = scratch.path().join("picture.svg");
    let dir = scratch.path().to_str().unwrap();
    for (name, arguments) in [("show", &["show", dir, "c1"][..]), ("stats", &["stats", dir])] {
        let output = command().args(arguments).arg("--svg").arg(&svg).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        compare(&format!("linked-{name}.svg"), &stable(&fs::read_to_string(&svg).unwrap(), scratch.path()));
    }
}

#[test]
fn what_caches_have_counted_is_told_of_each_directory() {
    let scratch = Scratch::new();
    for (name, hits) in [("engine", 3), ("other", 1), ("idle", 0)] {
        let identity = Identity::new(name, *b"ENGINE", "1.0").unwrap();
        for _ in 0..=hits {
            let cache = Cache::open(scratch.path(), identity.clone()).unwrap();
            if name != "idle" {
                let compile = |builder: &mut Builder<'_>| {
                    builder.code(&[0xc3][..]).function(0);
                    Ok::<(), Error>(())
                };
                cache.get_or_compile(&Key::from_bytes([1; 32]), compile).unwrap();
            }
            cache.tally().unwrap();
        }
    }
    let dir = scratch.path().to_str().unwrap();
    let told: Value = serde_json::from_slice(&jitcache(&["stats", dir, "--json"]).stdout).unwrap();
    let tallies: Vec<_> = told["directories"].as_array().unwrap().iter().map(|of| &of["tally"]).collect();
    let engine = tallies[0];
    assert_eq!((&engine["hits"], &engine["misses"], &engine["hit_rate"]), (&3.into(), &1.into(), &0.75.into()));
    assert!(engine["seconds_saved"].is_f64());
    assert_eq!((tallies.len(), tallies[1]), (3, &Value::Null), "{told}");
    let printed = String::from_utf8(jitcache(&["stats", dir]).stdout).unwrap();
    assert!(printed.contains("  hit rate  ") && printed.contains("  75.0 %  ") && printed.contains("  50.0 %  "));
}

#[test]
fn each_command_on_entries_with_every_kind_of_fault() {
    let scratch = damaged();
    let dir = scratch.path().to_str().unwrap();
    snapshot("damaged-list", scratch.path(), &["list", dir], 1);
    snapshot("damaged-verify", scratch.path(), &["verify", dir, "--all"], 1);
    snapshot("damaged-stats", scratch.path(), &["stats", dir], 1);
    let keys = ["02", "03", "04", "05", "06", "07", "08", "09", "0b", "0c", "0d", "a1", "a2", "ff"];
    for (command, form) in [("why", None), ("why", Some("--json")), ("show", None), ("show", Some("--json"))] {
        let told = keys.iter().map(|key| {
            let arguments: Vec<_> = [command, dir, key].into_iter().chain(form).collect();
            let output = jitcache(&arguments);
            // An unknown layout is no damage.
            let code = i32::from((command, *key) != ("show", "a2"));
            assert_eq!(output.status.code(), Some(code), "{arguments:?}");
            format!("{key}\n{}\n", String::from_utf8(output.stdout).unwrap())
        });
        let name = format!("damaged-{command}.{}", if form.is_some() { "json" } else { "txt" });
        compare(&name, &stable(&told.collect::<String>(), scratch.path()));
    }
    let [engine, to] = ["engine-1.0-amd64-linux", "to"].map(|name| format!("{dir}/{}", here(name)));
    snapshot("damaged-copy", scratch.path(), &["copy", dir, &to, "--dry-run"], 1);
    snapshot("damaged-pack", scratch.path(), &["pack", &engine, &to, "--dry-run"], 1);
    // The features of the processor that runs the test are told, too.
    let output = jitcache(&["why", dir, "0a", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &told["state"], &told["error"]["name"]),
        (Some(1), &"foreign".into(), &"cpu-features".into())
    );
    narrow("damaged-verify", scratch.path(), &["verify", dir, "02", "03", "05", "09", "a1"], 1);
    // Damaged code is disassembled as it is.
    for (key, code) in [("01", 0), ("03", 1), ("06", 1), ("07", 1), ("a2", 1)] {
        snapshot(&format!("damaged-disasm-{key}"), scratch.path(), &["disasm", dir, key], code);
    }
    snapshot("damaged-prune", scratch.path(), &["prune", dir, "--unsound", "--dry-run"], 1);
}

#[test]
fn the_doctor_names_a_directory_as_people_write_it_and_finds_it_fine() {
    let scratch = golden();
    let dir = fs::canonicalize(scratch.path()).unwrap();
    let dir = dir.to_str().unwrap().trim_start_matches(r"\\?\");
    let output = jitcache(&["doctor", scratch.path().to_str().unwrap(), "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = told["checks"].as_array().unwrap();
    let of = |what: &str| checks.iter().find(|check| check["check"] == what).unwrap();
    assert_eq!((output.status.code(), &of("directory")["found"]), (Some(0), &dir.into()));
    assert_eq!(of("executable memory")["verdict"], "fine");
}

#[test]
#[cfg(unix)]
fn a_directory_that_others_can_write_to_is_found_bad_by_the_doctor() {
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    let scratch = golden();
    let doctor = || {
        let output = jitcache(&["doctor", scratch.path().to_str().unwrap(), "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = told["checks"].as_array().unwrap().clone();
        (output.status.code(), checks.into_iter().find(|check| check["check"] == "owner and mode").unwrap())
    };
    assert_eq!(doctor().1["verdict"], "fine");
    let printed = |dir: &Path| String::from_utf8(jitcache(&["doctor", dir.to_str().unwrap()]).stdout).unwrap();
    assert!(printed(scratch.path()).contains("clock              fine "));
    let ahead = SystemTime::now() + Duration::from_secs(30_000_000);
    let directory = File::open(scratch.path().join("wazero-v1.9.0-amd64-linux")).unwrap();
    directory.set_times(FileTimes::new().set_modified(ahead)).unwrap();
    let printed = printed(scratch.path());
    assert!(printed.contains("clock              odd ") && printed.contains(" 347d in the future"), "{printed}");
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
            &["list-filtered", "show", "verify", "verify-two", "why-arm64", "why", "disasm-function", "stats", "prune"]
                [..],
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
    for command in ["list", "show", "disasm", "verify", "why", "stats", "prune", "copy", "pack", "unpack", "doctor"] {
        assert!(completions.contains(&format!("jitcache,{command})")), "{command}");
        assert!(manual.contains(&format!(".TH jitcache-{command} 1")), "{command}");
    }
}

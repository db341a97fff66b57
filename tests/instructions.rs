//! How many instructions it takes to load a tiny entry: unlike time, that does not depend on what else the machine
//! does.
//!
//! Counted by `valgrind`; without it the test says so and passes.

#![cfg(target_os = "linux")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a panic is how a test fails, and tests compute with numbers they have chosen"
)]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod kit;

use std::path::Path;
use std::process::Command;

use jitcache::{Arch, Builder, CpuFeatures, Identity, Key, Store};
use kit::skip::skip;

const LOADS: &str = "JITCACHE_LOADS";
const DIRECTORY: &str = "JITCACHE_DIRECTORY";

/// About twice as many as there are, without optimization across crates: a new pass over the file would not be seen,
/// what is done for each byte or digit at a time would.
const MOST: u64 = 60_000;

fn store(root: &Path) -> Store {
    // valgrind's processor has less than the machine's.
    let identity = Identity::new("tiny", *b"TINY\0\0", "1").unwrap().with_cpu(CpuFeatures::baseline(Arch::host()));
    Store::open(root, identity).unwrap()
}

fn key() -> Key {
    Key::from_bytes([7; 32])
}

#[test]
#[ignore = "a child of the test below"]
fn load() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = store(directory.as_ref());
    for _ in 0..std::env::var(LOADS).unwrap().parse().unwrap() {
        store.load(&key()).unwrap().hit().unwrap();
    }
}

/// Runs the child, and returns how many instructions that took in all.
fn instructions(loads: u64, directory: &Path) -> Option<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(std::env::current_exe().unwrap()).args(["--ignored", "--exact", "load"]);
    let output = valgrind.env(LOADS, loads.to_string()).env(DIRECTORY, directory).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| Some(line.split_once("I   refs:")?.1.trim().replace(',', "")));
    Some(count.unwrap().parse().unwrap())
}

#[test]
fn a_tiny_entry_is_loaded_in_few_instructions() {
    let root = std::env::temp_dir().join(format!("jitcache-instructions-{}", std::process::id()));
    let store = store(&root);
    let mut builder = Builder::new();
    builder.code(vec![0xc3; 300]).function(0).source(0, 5);
    store.put(&key(), &builder.finish(store.identity(), &key()).unwrap()).unwrap();
    // What starting the process takes is in both, and cancels out.
    match [0, 100].map(|loads| instructions(loads, &root)) {
        [Some(none), Some(hundred)] => {
            let each = (hundred - none) / 100;
            println!("{each} instructions a load");
            assert!(each > 1000, "they were not counted");
            assert!(each < MOST, "{each} instructions a load");
        }
        _ => skip("instructions", "there is no valgrind"),
    }
    std::fs::remove_dir_all(&root).unwrap();
}

//! Inputs that fuzzing has found worth keeping: those that reached something new, and those that once failed.

use std::fs;
use std::path::Path;

use crate::golden::Golden;
use crate::skip::skip;
use crate::targets;

fn replay(name: &str, target: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    if seeds.exists() {
        let mut replayed = 0;
        for seed in fs::read_dir(seeds).unwrap() {
            target(&fs::read(seed.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed > 0);
    } else {
        skip("replay", "the seeds of the fuzz targets are not in the package");
    }
    // What wazero wrote is where the fuzzer starts from.
    Golden::all().iter().filter(|golden| golden.file.len() < 3000).for_each(|golden| target(&golden.file));
}

#[test]
fn the_seeds_of_deserialize_are_clean() {
    replay("deserialize", targets::deserialize);
}

#[test]
fn the_seeds_of_structured_are_clean() {
    replay("structured", targets::structured);
}

#[test]
fn the_seeds_of_load_are_clean() {
    replay("load", targets::load);
}

#[test]
fn the_seeds_of_place_are_clean() {
    replay("place", targets::place);
}

#[test]
fn the_seeds_of_store_are_clean() {
    replay("store", targets::store);
}

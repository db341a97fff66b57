#![no_main]

#[path = "../../crates/jitcache-cli/tests/it/any_file.rs"]
mod any_file;

libfuzzer_sys::fuzz_target!(|input: &[u8]| any_file::any_file(input));

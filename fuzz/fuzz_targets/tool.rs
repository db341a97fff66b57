#![no_main]

use std::sync::LazyLock;

#[path = "../../crates/jitcache-cli/tests/it/any_file.rs"]
mod any_file;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static ANY_FILE: LazyLock<any_file::AnyFile> = LazyLock::new(any_file::AnyFile::new);
    ANY_FILE.look_at(input);
});

//! Any bytes: parsed and verified without a panic, to the same outcome as by the naive reader.

#![no_main]

#[path = "../../tests/it/generate.rs"]
#[allow(dead_code, reason = "what the tests use and this target does not")]
mod generate;
#[path = "../../tests/it/naive.rs"]
#[allow(dead_code, reason = "what the tests use and this target does not")]
mod naive;
#[path = "../../tests/it/oracle.rs"]
mod oracle;

use jitcache::{Identity, Revision, Sealing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    for version in ["v1.9.0", "v1.12.0"] {
        oracle::compare(file, &Identity::wazero(version).unwrap());
    }
    // The same bytes behind a header that fits, so that the fuzzer need not find one.
    let identity = Identity::new("fuzz", *b"FUZZED", "1").unwrap();
    oracle::compare(&[b"FUZZED\x011", file].concat(), &identity);
    let identity = identity.with_sealing(Sealing::Plain);
    let body = [b"FUZZED\x011", file].concat();
    oracle::compare(&body, &identity);
    oracle::compare(&body, &identity.with_revision(Revision::SourceMap));
});

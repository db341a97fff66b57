#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| jitcache_testkit::targets::deserialize(input));

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| jitcache_fuzz::targets::place(input));

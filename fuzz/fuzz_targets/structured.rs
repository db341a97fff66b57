//! A valid entry, damaged, its length, checksum and digest repaired: past them, the naive reader still agrees.

#![no_main]

#[path = "../../tests/it/generate.rs"]
mod generate;
#[path = "../../tests/it/naive.rs"]
#[allow(dead_code, reason = "what the tests use and this target does not")]
mod naive;
#[path = "../../tests/it/oracle.rs"]
mod oracle;

use arbitrary::Unstructured;
use generate::Parts;
use jitcache::{Entry, Identity, Sealing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut from = Unstructured::new(bytes);
    let Ok(parts) = Parts::take(&mut from) else { return };
    let mut file = parts.file();
    oracle::compare(&file, &parts.identity);
    damage(&mut file, &mut from);
    repair(&mut file, &parts.identity);
    oracle::compare(&file, &parts.identity);
});

/// Makes length, checksum and digest fit again what the fuzzer has changed.
fn repair(file: &mut [u8], identity: &Identity) {
    let length = file.len();
    let sealed = *identity.sealing() != Sealing::Plain && length > 57;
    if sealed {
        file[length - 49..length - 41].copy_from_slice(&(length as u64).to_le_bytes());
        file[length - 8..].copy_from_slice(b"JITSEAL1");
    }
    if let Ok(entry) = Entry::parse(file, identity) {
        let checksum = crc32c::crc32c(entry.code()).to_le_bytes();
        let at = entry.code_range().end as usize;
        file[at..at + 4].copy_from_slice(&checksum);
    }
    if sealed {
        let (covered, rest) = file.split_at_mut(length - 40);
        let digest = match identity.sealing() {
            Sealing::Mac(_) => *blake3::keyed_hash(&generate::MAC_KEY, covered).as_bytes(),
            _ => std::array::from_fn(|i| crc32c::crc32c(covered).to_le_bytes().get(i).copied().unwrap_or(0)),
        };
        rest[..32].copy_from_slice(&digest);
    }
}

/// Changes bytes and numbers, cuts and appends, as `from` has it.
fn damage(file: &mut Vec<u8>, from: &mut Unstructured<'_>) {
    for _ in 0..from.int_in_range(0..=4).unwrap_or(0) {
        let at = from.choose_index(file.len()).unwrap_or(0);
        let number: u64 = from.arbitrary().unwrap_or(0);
        let length = from.int_in_range(1..=8).unwrap_or(1).min(file.len() - at);
        file[at..at + length].copy_from_slice(&number.to_le_bytes()[..length]);
    }
    if from.ratio(1, 4).unwrap_or(false) {
        file.truncate(from.int_in_range(1..=file.len()).unwrap_or(1));
    }
    if from.ratio(1, 4).unwrap_or(false) {
        file.extend_from_slice(from.peek_bytes(from.len().min(16)).unwrap_or_default());
    }
}

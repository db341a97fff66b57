//! Hostile files: what each comes to is what the naive reader says, with field, offset and both values.

use jitcache::{Entry, Error, Identity, Revision, Sealing};

use crate::golden::Golden;
use crate::mend::repair;
use crate::oracle::compare;
use crate::seal::{is_long, seal, sealings};
use crate::specification;

/// Numbers that lengths are set to, beside those around the right one: where counting, signs, widths and products
/// break.
const NUMBERS: [u64; 10] = [0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 60, 1 << 61, (1 << 63) - 1, 1 << 63, u64::MAX];

/// Returns the entries of wazero of less than so many bytes, each sealed in both ways and plain.
fn small(below: usize) -> Vec<(Vec<u8>, Identity)> {
    let golden = Golden::all().into_iter().filter(|golden| golden.file.len() < below);
    let each = golden.flat_map(|golden| {
        let sealed = sealings().map(|sealing| seal(&golden, sealing));
        sealed.into_iter().chain([(golden.file.clone(), golden.identity())])
    });
    each.collect()
}

fn is_accepted(file: &[u8], identity: &Identity) -> bool {
    Entry::parse(file, identity).is_ok_and(|entry| entry.verify().is_ok())
}

#[test]
fn every_length_and_every_two_of_them_with_every_number_are_rejected() {
    let [checksum, mac] = sealings();
    for (revision, sealing, fields) in [
        (Revision::SourceMap, Sealing::Plain, 4),
        (Revision::CatchClauses, Sealing::Plain, 7),
        (Revision::Locals, Sealing::Plain, 7),
        (Revision::CatchClauses, checksum.clone(), 11),
        (Revision::Locals, checksum, 11),
        (Revision::CatchClauses, mac, 11),
    ] {
        let (sound, identity) = match sealing {
            Sealing::Plain => specification::file(revision),
            _ => specification::sealed(revision, sealing.clone()),
        };
        let lengths = specification::lengths(&sound, revision, &sealing);
        assert_eq!(lengths.len(), fields);
        let cases: Vec<_> = lengths.iter().flat_map(|&field| numbers(&sound, field)).collect();
        for (i, one) in cases.iter().enumerate() {
            for two in &cases[..=i] {
                let mut file = sound.clone();
                for (at, number) in [two, one] {
                    file[*at..at + number.len()].copy_from_slice(number);
                }
                compare(&file, &identity);
                assert!(file == sound || !is_accepted(&file, &identity), "{one:?} {two:?}");
                // Past checksum and digest, which somebody who forges a file would make fit.
                repair(&mut file, &identity);
                compare(&file, &identity);
            }
        }
    }
}

/// Returns the numbers for a length at `at`, of `size` bytes, as they stand there.
fn numbers(file: &[u8], (at, size): (usize, usize)) -> Vec<(usize, Vec<u8>)> {
    let mut right = [0; 8];
    right[..size].copy_from_slice(&file[at..at + size]);
    let right = u64::from_le_bytes(right);
    let mut numbers = NUMBERS.to_vec();
    numbers.extend([right.wrapping_sub(1), right, right + 1]);
    let mut numbers: Vec<_> = numbers.into_iter().map(|number| (at, number.to_le_bytes()[..size].to_vec())).collect();
    numbers.sort();
    numbers.dedup();
    numbers
}

#[test]
fn every_byte_around_the_code_with_every_value_comes_to_what_the_naive_reader_says() {
    for (mut file, identity) in small(if is_long() { 1500 } else { 300 }) {
        let code = Entry::parse(&file, &identity).unwrap().code_range();
        let around = (0..code.start as usize).chain(code.end as usize..file.len());
        for at in around {
            let right = file[at];
            for value in 0..=u8::MAX {
                file[at] = value;
                compare(&file, &identity);
                assert!(value == right || *identity.sealing() == Sealing::Plain || !is_accepted(&file, &identity));
            }
            file[at] = right;
        }
    }
}

#[test]
fn every_flip_comes_to_what_the_naive_reader_says() {
    for (mut file, identity) in small(if is_long() { 1500 } else { 800 }) {
        for bit in 0..file.len() * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            compare(&file, &identity);
            file[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn two_plain_entries_spliced_at_any_boundary_come_to_what_the_naive_reader_says() {
    let golden: Vec<_> = Golden::all().into_iter().filter(|golden| golden.file.len() < 800).collect();
    for (one, two) in golden.iter().zip(&golden[1..]).filter(|(one, two)| one.directory == two.directory) {
        let (identity, one, two) = (one.identity(), &one.file, &two.file);
        for (one, two) in [(one, two), (two, one)] {
            for at in 0..one.len() {
                let behind = [at.min(two.len()), (two.len() + at).saturating_sub(one.len())];
                for behind in behind {
                    compare(&[&one[..at], &two[behind..]].concat(), &identity);
                }
            }
        }
    }
}

#[test]
fn bytes_behind_a_plain_entry_are_told_by_where_it_ends() {
    for golden in Golden::all() {
        let (identity, length) = (golden.identity(), golden.file.len() as u64);
        for more in [&[0][..], &[0xff], &[0; 57], &golden.file] {
            let file = [&golden.file, more].concat();
            match Entry::parse(&file, &identity).and_then(|entry| entry.verify()) {
                Err(Error::Trailing { at, expected, found }) => {
                    assert_eq!((at, expected, found), (length, length, file.len() as u64));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

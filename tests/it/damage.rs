//! Damaged entries: each is a clean outcome, with the right field, offset and values.

use std::collections::BTreeMap;

use jitcache::entry::CatchClause;
use jitcache::error::{Bound, Field};
use jitcache::{Builder, Entry, Error, Identity, Magic, Module, Place, Revision, Sealing, Target};

use crate::generate::Parts;
use crate::golden::Golden;
use crate::machine::KEY;

/// Offsets in the file of [`sound`].
mod at {
    pub const VERSION: usize = 7;
    pub const FUNCTION_COUNT: usize = 8;
    pub const FUNCTIONS: usize = 12;
    pub const CODE_LENGTH: usize = 28;
    pub const CODE: usize = 36;
    pub const CHECKSUM: usize = 68;
    pub const MAP_FLAG: usize = 72;
    pub const MAP_LENGTH: usize = 73;
    pub const MAP: usize = 81;
    pub const TRY_TABLE_COUNT: usize = 113;
    pub const CLAUSE_COUNT: usize = 117;
    pub const CLAUSE: usize = 121;
    pub const END: usize = 126;
}

fn identity() -> Identity {
    let identity = Identity::new("damage", *b"DAMAGE", "1").unwrap().with_sealing(Sealing::Plain);
    identity.with_function_alignment(4).unwrap()
}

/// Two functions at 0 and 16 in 32 bytes of code, two rows, one clause.
fn sound() -> Vec<u8> {
    let mut builder = Builder::new();
    builder.code(vec![0xcc; 32]).function(0).function(16).source(3, 10).source(20, 11);
    builder.try_table(&[CatchClause { kind: 0, tag: 9 }]);
    let file = builder.finish(&identity(), &KEY).unwrap().to_vec();
    assert_eq!(file.len(), at::END);
    file
}

fn put(at: usize, bytes: &[u8]) -> impl Fn(&mut Vec<u8>) {
    move |file| file[at..at + bytes.len()].copy_from_slice(bytes)
}

fn put_u64(at: usize, value: u64) -> impl Fn(&mut Vec<u8>) {
    move |file| put(at, &value.to_le_bytes())(file)
}

fn value(field: Field, at: usize, expected: Bound, found: u64) -> Error {
    Error::Value { field, at: at as u64, expected, found }
}

fn truncated(field: Field, at: usize, expected: u64) -> Error {
    Error::Truncated { field, at: at as u64, expected, found: (at::END - at) as u64 }
}

#[test]
fn each_damage_is_told_with_its_field_offset_and_both_values() {
    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let sum = |file: &[u8]| u64::from(crc32c::crc32c(&file[at::CODE..at::CHECKSUM]));
    let (whole, mut flipped) = (sound(), sound());
    flipped[at::CODE + 5] ^= 1;
    let cases: Vec<(Damage, Error)> = vec![
        (Box::new(put(0, b"X")), Error::Magic { at: 0, expected: Magic(*b"DAMAGE"), found: Magic(*b"XAMAGE") }),
        (Box::new(put(6, &[200])), truncated(Field::Version, at::VERSION, 200)),
        (
            Box::new(put(at::FUNCTION_COUNT, &[0xff; 4])),
            truncated(Field::FunctionOffsets, at::FUNCTIONS, 8 * 0xffff_ffff),
        ),
        (Box::new(put_u64(at::FUNCTIONS, 16)), value(Field::FunctionOffsets, at::FUNCTIONS + 8, Bound::Above(16), 16)),
        (Box::new(put_u64(at::FUNCTIONS, 2)), value(Field::FunctionOffsets, at::FUNCTIONS, Bound::MultipleOf(4), 2)),
        (
            Box::new(put_u64(at::FUNCTIONS + 8, 32)),
            value(Field::FunctionOffsets, at::FUNCTIONS + 8, Bound::Below(32), 32),
        ),
        (
            Box::new(put_u64(at::FUNCTIONS + 8, u64::MAX)),
            value(Field::FunctionOffsets, at::FUNCTIONS + 8, Bound::Below(32), u64::MAX),
        ),
        (Box::new(put_u64(at::CODE_LENGTH, 1 << 63)), truncated(Field::Code, at::CODE, 1 << 63)),
        (Box::new(put_u64(at::CODE_LENGTH, u64::MAX)), truncated(Field::Code, at::CODE, u64::MAX)),
        (
            Box::new(|file| file[at::CODE + 5] ^= 1),
            Error::Checksum { field: Field::Code, at: at::CODE as u64, expected: sum(&whole), found: sum(&flipped) },
        ),
        (
            Box::new(put(at::CHECKSUM, &[0; 4])),
            Error::Checksum { field: Field::Code, at: at::CODE as u64, expected: 0, found: sum(&whole) },
        ),
        (Box::new(put(at::MAP_FLAG, &[2])), value(Field::SourceMapFlag, at::MAP_FLAG, Bound::AtMost(1), 2)),
        (Box::new(put_u64(at::MAP_LENGTH, 3)), truncated(Field::SourceMap, at::MAP, 48)),
        (Box::new(put_u64(at::MAP_LENGTH, u64::MAX)), truncated(Field::SourceMap, at::MAP, u64::MAX)),
        (Box::new(put_u64(at::MAP + 8, 20)), value(Field::SourceMap, at::MAP + 24, Bound::Above(20), 20)),
        (Box::new(put_u64(at::MAP + 24, 32)), value(Field::SourceMap, at::MAP + 24, Bound::Below(32), 32)),
        (Box::new(put(at::TRY_TABLE_COUNT, &[2])), truncated(Field::CatchClauseCount, at::END, 4)),
        (
            Box::new(put(at::TRY_TABLE_COUNT, &[0])),
            Error::Trailing { at: at::CLAUSE_COUNT as u64, expected: at::CLAUSE_COUNT as u64, found: at::END as u64 },
        ),
        (Box::new(put(at::CLAUSE_COUNT, &[0xff; 4])), truncated(Field::CatchClauses, at::CLAUSE, 5 * 0xffff_ffff)),
        (Box::new(put(at::CLAUSE, &[4])), value(Field::CatchClauses, at::CLAUSE, Bound::AtMost(3), 4)),
        (
            Box::new(|file| file.push(0)),
            Error::Trailing { at: at::END as u64, expected: at::END as u64, found: at::END as u64 + 1 },
        ),
    ];
    for (i, (damage, expected)) in cases.iter().enumerate() {
        let mut file = sound();
        damage(&mut file);
        let found = Entry::parse(&file, &identity()).and_then(|entry| entry.verify()).unwrap_err();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "case {i}");
        assert!(found.is_rejection(), "{found:?}");
        assert!(found.to_string().contains("at 0x"), "{found}");
    }
}

#[test]
fn another_version_is_stale_whatever_its_body_is() {
    for cut in [at::FUNCTION_COUNT, at::FUNCTION_COUNT + 1, at::END] {
        let mut file = sound();
        file[at::VERSION] = b'2';
        file.truncate(cut);
        let error = Entry::parse(&file, &identity()).unwrap_err();
        assert!(error.is_stale() && !error.is_rejection());
        assert_eq!(error.to_string(), r#"version at 0x7: expected "1", found "2""#);
    }
}

#[test]
fn a_source_map_without_code_is_an_error() {
    let identity = identity().with_revision(Revision::SourceMap);
    let mut file = Builder::new().finish(&identity, &KEY).unwrap().to_vec();
    Entry::parse(&file, &identity).unwrap().verify().unwrap();
    let flag = file.len() - 1;
    file[flag] = 1;
    file.extend(0_u64.to_le_bytes());
    match Entry::parse(&file, &identity) {
        Err(Error::Value { field: Field::SourceMapFlag, at, expected: Bound::AtMost(0), found: 1 }) => {
            assert_eq!(at, flag as u64);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_header_in_front_of_zeros_is_not_loaded_as_an_entry_without_code() {
    // What a file is that was cut behind its header, and grew again: no functions, no code, no try tables.
    let mut file = sound();
    file[at::FUNCTION_COUNT..].fill(0);
    let end = (at::FUNCTION_COUNT + 21) as u64;
    let parsed = Entry::parse(&file, &identity()).unwrap();
    for outcome in [
        parsed.verify(),
        Module::load(&parsed).map(drop),
        Module::load_file(file.clone().into(), &identity(), &KEY).map(drop),
    ] {
        assert!(matches!(outcome, Err(Error::Trailing { at, .. }) if at == end), "{outcome:?}");
    }
}

#[test]
fn every_cut_and_every_flip_of_what_wazero_wrote_is_a_clean_outcome_of_parsing_and_loading() {
    for golden in Golden::all().iter().filter(|golden| golden.file.len() < 1500) {
        // Plain entries do not tell: those of another machine are loaded, and not run.
        let identity = golden.identity().with_target(Target::host());
        for length in 0..golden.file.len() {
            let outcome = Entry::parse(&golden.file[..length], &identity).and_then(|entry| entry.verify());
            assert!(matches!(outcome, Err(Error::Truncated { .. })), "{length}: {outcome:?}");
        }
        for bit in 0..golden.file.len() * 8 {
            let mut file = golden.file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            let sound = Entry::parse(&file, &identity).and_then(|entry| entry.verify());
            let loaded = Module::load_file(file.into(), &identity, &KEY);
            // Loading leaves out what can only ever become a wrong number, and finds everything else.
            assert!(sound.is_err() || loaded.is_ok(), "{bit}: {sound:?}, {loaded:?}");
            for error in sound.err().into_iter().chain(loaded.err()) {
                assert!(error.is_rejection() || error.is_stale(), "{error:?}");
            }
        }
    }
}

#[test]
fn what_no_reader_would_accept_is_not_written() {
    let unwritable = |builder: &mut Builder<'_>, identity: &Identity| match builder.finish(identity, &KEY) {
        Err(Error::Unwritable { field, expected, found }) => (field, expected, found),
        other => panic!("{other:?}"),
    };
    let mut code = Builder::new();
    code.code(vec![0xcc; 32]);
    // With and without padding in front of the code, which the engine does not count.
    for identity in [identity(), identity().with_alignment_in_file(4).unwrap()] {
        for (found, expected) in [
            (unwritable(code.clone().function(32), &identity), (Field::FunctionOffsets, Bound::Below(32), 32)),
            (unwritable(code.clone().function(4).function(4), &identity), (Field::FunctionOffsets, Bound::Above(4), 4)),
            (unwritable(code.clone().function(5), &identity), (Field::FunctionOffsets, Bound::MultipleOf(4), 5)),
            (unwritable(code.clone().source(40, 0), &identity), (Field::SourceMap, Bound::Below(32), 40)),
            (unwritable(Builder::new().with_source_map(), &identity), (Field::SourceMapFlag, Bound::AtMost(0), 1)),
            (unwritable(Builder::new().function(0), &identity), (Field::FunctionOffsets, Bound::Below(0), 0)),
            (
                unwritable(code.clone().try_table(&[CatchClause { kind: 4, tag: 0 }]), &identity),
                (Field::CatchClauses, Bound::AtMost(3), 4),
            ),
            (
                unwritable(code.clone().try_table(&[]), &identity.clone().with_revision(Revision::SourceMap)),
                (Field::TryTableCount, Bound::Exactly(0), 1),
            ),
        ] {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn the_generator_makes_entries_of_every_shape() {
    let parts: Vec<_> = (0..400_u32)
        .map(|seed| {
            let bytes: Vec<u8> =
                (0..1200_u32).map(|i| (seed.wrapping_mul(2_654_435_761).wrapping_add(i * i * 97) >> 7) as u8).collect();
            Parts::from_bytes(&bytes)
        })
        .collect();
    let some = |what: &str, shape: fn(&Parts) -> bool| assert!(parts.iter().any(shape), "{what}");
    some("no code", |parts| parts.code.is_empty());
    some("many functions", |parts| parts.functions.len() > 10);
    some("a source map", |parts| parts.source_map.as_ref().is_some_and(|rows| rows.len() > 5));
    some("an empty source map", |parts| parts.source_map.as_ref().is_some_and(Vec::is_empty));
    some("clauses", |parts| parts.try_tables.iter().any(|(_, clauses)| !clauses.is_empty()));
    some("locals", |parts| parts.try_tables.iter().any(|(locals, _)| locals.is_some_and(|locals| locals.reuse)));
    some("the oldest revision", |parts| parts.identity.revision() == Revision::SourceMap);
    some("imports and their addresses", |parts| {
        let linked = parts.linked.as_ref();
        linked.is_some_and(|linked| linked.relocations.iter().any(|row| matches!(row.2, Place::Import(_))))
    });
    some("unwind tables", |parts| parts.linked.as_ref().is_some_and(|linked| linked.has_unwind_tables));
    some("symbols", |parts| parts.linked.as_ref().is_some_and(|linked| linked.symbols.len() > 1));
    some("recipes", |parts| parts.recipe.as_ref().is_some_and(|recipe| recipe.parts().count() > 8));
    some("an unknown revision", |parts| parts.identity.revision() == Revision::Unknown);
}

/// What of a plain entry can be another without breaking a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unseen {
    FunctionOffset,
    SourceOffset,
    CodeOffset,
    TryTables,
}

/// Returns what a sound entry of wazero has at a byte, if the format cannot see that a bit of it was flipped.
fn unseen(sound: &Entry<'_>, revision: Revision, at: usize, bit: usize) -> Option<Unseen> {
    let flipped = |numbers: &mut [u64], byte: usize| numbers[byte / 8] ^= 1 << (byte % 8 * 8 + bit);
    let rise = |numbers: &[u64], alignment: u64| {
        let within = |number: &u64| *number < sound.code().len() as u64 && number.is_multiple_of(alignment);
        numbers.is_sorted_by(|a, b| a < b) && numbers.iter().all(within)
    };
    let code = sound.code_range();
    let mut functions: Vec<_> = sound.functions().iter().collect();
    let functions_at = code.start as usize - 8 - 8 * functions.len();
    if let Some(byte) = at.checked_sub(functions_at).filter(|byte| *byte < 8 * functions.len()) {
        flipped(&mut functions, byte);
        return rise(&functions, 16).then_some(Unseen::FunctionOffset);
    }
    // Behind code, checksum and flag, and the length of the source map if there is one.
    let mut end = code.end as usize + 5;
    if let Some(map) = sound.source_map() {
        end += 8;
        let byte = at.checked_sub(end).filter(|byte| *byte < 16 * map.len());
        end += 16 * map.len();
        match byte {
            Some(byte) if byte % 16 < 8 => return Some(Unseen::SourceOffset),
            Some(byte) => {
                let mut rows: Vec<_> = map.iter().map(|row| row.code).collect();
                flipped(&mut rows, byte / 16 * 8 + byte % 8);
                return rise(&rows, 1).then_some(Unseen::CodeOffset);
            }
            None => {}
        }
    }
    let mut tables = sound.to_vec().split_off(end);
    *tables.get_mut(at.checked_sub(end)?)? ^= 1 << bit;
    are_try_tables(&tables, revision).then_some(Unseen::TryTables)
}

/// Returns whether try tables, their count in front, end where the bytes do.
fn are_try_tables(bytes: &[u8], revision: Revision) -> bool {
    let number = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let mut at = 4;
    for _ in 0..number(0).unwrap_or(0) {
        if revision == Revision::Locals {
            if bytes.get(at + 4).is_none_or(|flag| *flag > 1) {
                return false;
            }
            at += 5;
        }
        let Some(clauses) = number(at) else { return false };
        at += 4;
        let kinds = (0..clauses).map_while(|i| bytes.get(at + 5 * i));
        if !kinds.into_iter().all(|kind| *kind <= 3) {
            return false;
        }
        at += 5 * clauses;
    }
    at == bytes.len()
}

#[test]
fn the_flips_that_plain_entries_do_not_show_are_in_offsets_and_try_tables_that_keep_the_rules() {
    let (mut accepted, mut flips, mut cuts) = (BTreeMap::new(), 0, 0);
    for golden in Golden::all() {
        let identity = golden.identity();
        let sound = Entry::parse(&golden.file, &identity).unwrap();
        let mut file = golden.file.clone();
        for at in 0..file.len() {
            for bit in 0..8 {
                file[at] ^= 1 << bit;
                let outcome = Entry::parse(&file, &identity).and_then(|entry| entry.verify());
                let unseen = unseen(&sound, identity.revision(), at, bit);
                assert_eq!(outcome.is_ok(), unseen.is_some(), "{}: bit {bit} of byte {at}: {outcome:?}", golden.name);
                unseen.into_iter().for_each(|unseen| *accepted.entry(unseen).or_insert(0) += 1);
                file[at] ^= 1 << bit;
            }
            flips += 8;
            let outcome = Entry::parse(&file[..at], &identity).and_then(|entry| entry.verify());
            assert!(matches!(outcome, Err(Error::Truncated { .. })), "{at}: {outcome:?}");
            cuts += 1;
        }
    }
    assert_eq!((flips, cuts), (1_803_552, 225_444));
    let expected = [
        (Unseen::FunctionOffset, 5209),
        (Unseen::SourceOffset, 113_408),
        (Unseen::CodeOffset, 10_536),
        (Unseen::TryTables, 1390),
    ];
    assert_eq!(accepted, BTreeMap::from(expected));
}

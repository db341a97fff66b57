//! What holds for every entry and for every file.

use jitcache::{Entry, Error, Identity, Revision};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::Parts;
use crate::golden::Golden;
use crate::naive;

/// Opens and verifies `file` with the crate and with the naive reader, and compares all they say.
pub fn compare(file: &[u8], identity: &Identity) {
    let oracle = naive::Identity {
        magic: identity.magic().0,
        version: identity.version().as_bytes(),
        revision: match identity.revision() {
            Revision::SourceMap => naive::Revision::SourceMap,
            Revision::CatchClauses => naive::Revision::CatchClauses,
        },
        function_alignment: identity.function_alignment(),
    };
    let (ours, theirs) = match (Entry::parse(file, identity), naive::open(file, &oracle)) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (ours, theirs) => return assert_eq!(ours.err().map(wrong), theirs.err()),
    };
    let theirs = match (ours.verify(), naive::verify(&theirs)) {
        (Ok(()), Ok(theirs)) => theirs,
        (ours, theirs) => return assert_eq!(ours.err().map(wrong), theirs.err()),
    };
    assert_eq!(ours.to_vec(), file);
    assert_eq!(ours.functions().iter().collect::<Vec<_>>(), theirs.functions);
    assert_eq!((ours.code_range().start, ours.code()), (theirs.code_at, &theirs.code[..]));
    assert_eq!(ours.code_checksum(), theirs.code_checksum);
    let rows = ours.source_map().map(|map| map.iter().map(|row| (row.source, row.code)).collect::<Vec<_>>());
    assert_eq!(rows, theirs.source_map);
    let clauses = ours.try_tables().map(|table| table.unwrap().map(Result::unwrap));
    let clauses = clauses.map(|table| table.map(|clause| (clause.kind, clause.tag)).collect::<Vec<_>>());
    assert_eq!(clauses.collect::<Vec<_>>(), theirs.try_tables);
    let map = ours.source_map();
    for offset in 0..theirs.code.len() as u64 + 2 {
        assert_eq!(ours.functions().containing(offset), naive::function_at(&theirs, offset));
        let before = map.and_then(|map| map.before_return(offset)).map(|row| row.source);
        assert_eq!(before, naive::source_before_return(&theirs, offset));
        let at = map.and_then(|map| map.at_instruction(offset)).map(|row| row.source);
        assert_eq!(at, naive::source_at_instruction(&theirs, offset));
    }
}

/// Returns what the naive reader calls an error of the crate.
fn wrong(error: Error) -> naive::Wrong {
    match error {
        Error::Magic { at: 0, .. } => naive::Wrong::Magic,
        Error::Stale { .. } => naive::Wrong::Stale,
        Error::Truncated { field, at, .. } => naive::Wrong::Truncated { field: field.name(), at },
        Error::Value { field, at, .. } => naive::Wrong::Value { field: field.name(), at },
        Error::Checksum { .. } => naive::Wrong::Checksum,
        Error::Trailing { at, .. } => naive::Wrong::Trailing { at },
        error => panic!("no file should lead to {error:?}"),
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    vec(any::<u8>(), 0..1500).prop_map(|bytes| Parts::from_bytes(&bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_entry_survives_a_round_trip(parts in parts()) {
        let file = parts.file();
        let entry = Entry::parse(&file, &parts.identity).unwrap();
        entry.verify().unwrap();
        let builder = parts.builder();
        prop_assert_eq!(&entry, &builder.finish(&parts.identity).unwrap());
        prop_assert_eq!(entry.code(), &parts.code[..]);
        prop_assert_eq!(entry.functions().iter().collect::<Vec<_>>(), parts.functions);
        let rows = entry.source_map().map(|map| map.iter().map(|row| (row.source, row.code)).collect::<Vec<_>>());
        prop_assert_eq!(rows, parts.source_map);
        let clauses = entry.try_tables().map(|table| table.unwrap().map(Result::unwrap).collect::<Vec<_>>());
        prop_assert_eq!(clauses.collect::<Vec<_>>(), parts.try_tables);
        prop_assert_eq!(entry.to_vec(), file);
    }

    #[test]
    fn the_view_and_the_naive_reader_agree_on_valid_entries(parts in parts()) {
        compare(&parts.file(), &parts.identity);
    }

    #[test]
    fn the_view_and_the_naive_reader_agree_on_damaged_entries(
        parts in parts(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in prop::option::of(any::<prop::sample::Index>()),
        more in vec(any::<u8>(), 0..3),
    ) {
        let mut file = parts.file();
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(length) = length {
            file.truncate(length.index(file.len()));
        }
        file.extend(more);
        compare(&file, &parts.identity);
    }

    #[test]
    fn the_view_and_the_naive_reader_agree_on_any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        let identity = Identity::new("any", *b"ABCDEF", "1").unwrap();
        compare(&bytes, &identity);
        compare(&[b"ABCDEF\x011", &bytes[..]].concat(), &identity);
        compare(&[b"ABCDEF\x011", &bytes[..]].concat(), &identity.with_revision(Revision::SourceMap));
    }
}

#[test]
fn the_view_and_the_naive_reader_agree_on_what_wazero_wrote() {
    for golden in Golden::all() {
        compare(&golden.file, &golden.identity());
    }
}

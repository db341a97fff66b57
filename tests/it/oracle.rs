//! The crate and the naive reader side by side: they must agree on every file, sound or not.

use jitcache::{Entry, Error, Identity, Revision};

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

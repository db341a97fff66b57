//! The crate and the naive reader side by side: they must agree on every file, sound or not.

use jitcache::entry::Part;
use jitcache::error::Bound;
use jitcache::{Entry, Error, Identity, Revision, Sealing};

use super::generate::{KNOWN, MAC_KEY};
use super::naive;

/// Opens and verifies `file` with the crate and with the naive reader, and compares all they say.
///
/// An identity whose entries are sealed must know the sections [`KNOWN`], and its MAC key must be [`MAC_KEY`].
pub fn compare(file: &[u8], identity: &Identity) {
    let (target, cpu) = (identity.target(), identity.cpu());
    let expected = |mac_key| naive::Expected {
        arch: number("other amd64 arm64 riscv64 s390x 386 arm ppc64le loong64 wasm", target.arch.name()),
        os: number(
            "other linux darwin windows freebsd android ios netbsd openbsd dragonfly solaris illumos wasip1",
            target.os.name(),
        ),
        cpu_features: cpu.bits(),
        build_id: identity.build_id(),
        sections: &KNOWN,
        mac_key,
    };
    let oracle = naive::Identity {
        seal: match identity.sealing() {
            Sealing::Plain => None,
            Sealing::Checksum => Some(expected(None)),
            Sealing::Mac(_) => Some(expected(Some(MAC_KEY))),
        },
        magic: identity.magic().0,
        version: identity.version().as_bytes(),
        revision: match identity.revision() {
            Revision::SourceMap => naive::Revision::SourceMap,
            Revision::CatchClauses => naive::Revision::CatchClauses,
            Revision::Locals => naive::Revision::Locals,
            Revision::Unknown => naive::Revision::Unknown,
            revision => panic!("the naive reader does not know {revision:?}"),
        },
        function_alignment: identity.alignment().bytes,
        is_aligned_in_file: identity.alignment().in_file,
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
    assert_eq!(
        (ours.functions().len(), ours.functions().is_empty()),
        (theirs.functions.len(), theirs.functions.is_empty())
    );
    assert_eq!((ours.code_range().start, ours.code()), (theirs.code_at, &theirs.code[..]));
    assert_eq!(ours.code_checksum(), theirs.code_checksum);
    let rows = ours.source_map().map(|map| map.iter().map(|row| (row.source, row.code)).collect::<Vec<_>>());
    assert_eq!(rows, theirs.source_map);
    let counted = ours.source_map().map(|map| (map.len(), map.is_empty()));
    assert_eq!(counted, theirs.source_map.as_ref().map(|rows| (rows.len(), rows.is_empty())));
    let tables = ours.try_tables().map(|table| {
        let table = table.unwrap();
        let clauses = table.clauses().map(Result::unwrap).map(|clause| (clause.kind, clause.tag)).collect();
        naive::TryTable { locals: table.locals().map(|locals| (locals.count, locals.reuse)), clauses }
    });
    assert_eq!(tables.collect::<Vec<_>>(), theirs.try_tables);
    let seal = theirs.seal.as_ref();
    assert_eq!(ours.key().map(|key| *key.as_bytes()), seal.map(|seal| seal.key));
    for (tag, _, bytes) in seal.iter().flat_map(|seal| &seal.sections) {
        assert_eq!(ours.section(*tag), Some(&bytes[..]));
    }
    let recipe = ours.recipe().map(|parts| {
        let parts = parts.map(|part| match part {
            Part::Setting { name, value } => (0, name.to_owned(), value.as_bytes().to_vec()),
            Part::Flag { name, value } => (1, name.to_owned(), value.as_bytes().to_vec()),
            Part::Source { length, digest } => (2, String::new(), [&length.to_le_bytes()[..], &digest].concat()),
            part => panic!("the naive reader does not know {part:?}"),
        });
        parts.collect::<Vec<_>>()
    });
    assert_eq!(recipe.as_ref(), seal.and_then(|seal| seal.recipe.as_ref()));
    let map = ours.source_map();
    for offset in 0..theirs.code.len() as u64 + 2 {
        assert_eq!(ours.functions().containing(offset), naive::function_at(&theirs, offset));
        let before = map.and_then(|map| map.before_return(offset)).map(|row| row.source);
        assert_eq!(before, naive::source_before_return(&theirs, offset));
        let at = map.and_then(|map| map.at_instruction(offset)).map(|row| row.source);
        assert_eq!(at, naive::source_at_instruction(&theirs, offset));
    }
}

/// Returns which of `names`, counted from 0, is `name`.
fn number(names: &str, name: &str) -> u16 {
    names.split(' ').position(|known| known == name).unwrap() as u16
}

/// Returns what the naive reader calls an error of the crate.
fn wrong(error: Error) -> naive::Wrong {
    match error {
        Error::Magic { at: 0, .. } => naive::Wrong::Magic,
        Error::Stale { .. } => naive::Wrong::Stale,
        Error::UnknownLayout { at, found } => naive::Wrong::UnknownLayout { at, found },
        Error::Truncated { field, at, expected, found } => {
            naive::Wrong::Truncated { field: field.name(), at, expected, found }
        }
        Error::Value { field, at, expected, found } => {
            naive::Wrong::Value { field: field.name(), at, expected: allowed(expected), found }
        }
        Error::Checksum { expected, found, .. } => naive::Wrong::Checksum { expected, found },
        Error::Unsealed { at, .. } => naive::Wrong::Unsealed { at },
        Error::Target { at, .. } => naive::Wrong::Target { at },
        Error::CpuFeatures { at, .. } => naive::Wrong::CpuFeatures { at },
        Error::BuildId { at, .. } => naive::Wrong::BuildId { at },
        Error::UnknownSection { at, .. } => naive::Wrong::UnknownSection { at },
        Error::Forged { at } => naive::Wrong::Forged { at },
        Error::Trailing { at, expected, found } if at == expected => naive::Wrong::Trailing { at, found },
        error => panic!("no file should lead to {error:?}"),
    }
}

fn allowed(bound: Bound) -> naive::Allowed {
    match bound {
        Bound::Exactly(value) => naive::Allowed::Exactly(value),
        Bound::AtMost(value) => naive::Allowed::AtMost(value),
        Bound::Below(value) => naive::Allowed::Below(value),
        Bound::Above(value) => naive::Allowed::Above(value),
        Bound::MultipleOf(value) => naive::Allowed::MultipleOf(value),
        bound => panic!("no file should lead to {bound:?}"),
    }
}

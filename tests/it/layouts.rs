//! Try tables of every revision, and of none that is known.

use jitcache::entry::{CatchClause, Locals};
use jitcache::error::{Bound, Field};
use jitcache::{Builder, Entry, Error, Identity, MacKey, Module, Revision, Sealing};

use crate::generate::add_try_table;
use crate::machine::KEY;

fn identity() -> Identity {
    Identity::new("layouts", *b"LAYOUT", "1").unwrap().with_sealing(Sealing::Plain)
}

#[test]
fn damage_of_a_try_table_with_locals_is_told_with_its_field_offset_and_both_values() {
    let identity = identity().with_revision(Revision::Locals);
    let mut builder = Builder::new();
    builder.try_table_with_locals(Locals { count: 3, reuse: false }, &[CatchClause { kind: 0, tag: 9 }]);
    builder.try_table_with_locals(Locals { count: 3, reuse: true }, &[]);
    let sound = builder.finish(&identity, &KEY).unwrap().to_vec();
    let (end, one) = (sound.len(), sound.len() - 23);
    let two = one + 14;
    let truncated = |field, at: usize, expected| {
        let (at, found) = (at as u64, (end - at) as u64);
        Error::Truncated { field, at, expected, found }
    };
    let value = |field, at: usize, expected, found| Error::Value { field, at: at as u64, expected, found };
    let trailing = |at: usize| Error::Trailing { at: at as u64, expected: at as u64, found: end as u64 };
    for (at, damage, expected) in [
        (one - 4, 3, truncated(Field::LocalCount, end, 4)),
        (one - 4, 1, trailing(two)),
        (one + 4, 2, value(Field::ReuseFlag, one + 4, Bound::AtMost(1), 2)),
        (one + 4, 0xff, value(Field::ReuseFlag, one + 4, Bound::AtMost(1), 0xff)),
        (two + 4, 3, value(Field::ReuseFlag, two + 4, Bound::AtMost(1), 3)),
        (one + 5, 4, truncated(Field::CatchClauses, one + 9, 20)),
        (one + 5, 0, truncated(Field::CatchClauses, one + 18, 15)),
        (one + 9, 4, value(Field::CatchClauses, one + 9, Bound::AtMost(3), 4)),
        (two + 5, 1, truncated(Field::CatchClauses, end, 5)),
    ] {
        let mut file = sound.clone();
        file[at] = damage;
        let parsed = Entry::parse(&file, &identity).unwrap();
        for outcome in [
            parsed.verify(),
            Module::load(&parsed).map(drop),
            Module::load_file(file.clone().into(), &identity, &KEY).map(drop),
        ] {
            assert_eq!(format!("{:?}", outcome.unwrap_err()), format!("{expected:?}"), "{at}");
        }
    }
    // An error ends the iteration.
    let mut file = sound.clone();
    file[one + 4] = 2;
    assert_eq!(Entry::parse(&file, &identity).unwrap().try_tables().count(), 1);
}

#[test]
fn try_tables_of_an_unknown_layout_are_neither_stale_nor_damaged_and_nothing_else_is_taken_for_them() {
    for sealing in [Sealing::Plain, Sealing::Checksum, Sealing::Mac(MacKey::new([1; 32]))] {
        let identity = identity().with_sealing(sealing).with_revision(Revision::Unknown);
        for known in [Revision::CatchClauses, Revision::Locals] {
            let writer = identity.clone().with_revision(known);
            let mut builder = Builder::new();
            builder.code(vec![0xcc; 32]).function(0).source(3, 10);
            let without = builder.finish(&writer, &KEY).unwrap().to_vec();
            assert_eq!(builder.finish(&identity, &KEY).unwrap().to_vec(), without);
            Entry::parse(&without, &identity).unwrap().verify().unwrap();
            Module::load_file(without.into(), &identity, &KEY).unwrap();

            let clauses = [CatchClause { kind: 0, tag: 9 }];
            for _ in 0..2 {
                let locals = (known == Revision::Locals).then_some(Locals { count: 1, reuse: false });
                add_try_table(&mut builder, locals, &clauses);
            }
            let at = builder.finish(&writer, &KEY).unwrap().code_range().end + 4 + 1 + 8 + 16;
            let file = builder.finish(&writer, &KEY).unwrap().to_vec();
            let parsed = Entry::parse(&file, &identity).map(drop);
            for outcome in [parsed, Module::load_file(file.clone().into(), &identity, &KEY).map(drop)] {
                let error = outcome.unwrap_err();
                assert!(!error.is_stale() && !error.is_rejection());
                let expected =
                    format!("try table count at {at:#x}: expected 0 in a version of unknown layout, found 2");
                assert_eq!(error.to_string(), expected);
                assert!(matches!(error, Error::UnknownLayout { found: 2, .. }));
            }
            // What is wrong in front of the count is told first, and so is what ends there.
            let mut file = file;
            file.truncate(at as usize + 3);
            assert!(Entry::parse(&file, &identity).is_err_and(|error| error.is_rejection()));
            file[at as usize - 25] = 2;
            assert!(Entry::parse(&file, &identity).is_err_and(|error| error.is_rejection()));
            file[7] ^= 1;
            assert!(Entry::parse(&file, &identity).is_err_and(|error| error.is_stale()));
        }
    }
}

#[test]
fn try_tables_that_do_not_fit_the_revision_are_not_written() {
    const WITHOUT: Option<Locals> = None;
    const WITH: Option<Locals> = Some(Locals { count: 0, reuse: false });
    let told = |field, expected, found| Some((field, Bound::Exactly(expected), found));
    for (revision, tables, refused) in [
        (Revision::SourceMap, &[][..], None),
        (Revision::SourceMap, &[WITHOUT], told(Field::TryTableCount, 0, 1)),
        (Revision::SourceMap, &[WITH], told(Field::TryTableCount, 0, 1)),
        (Revision::CatchClauses, &[], None),
        (Revision::CatchClauses, &[WITHOUT; 2], None),
        (Revision::CatchClauses, &[WITHOUT, WITH], told(Field::LocalCount, 0, 1)),
        (Revision::Locals, &[], None),
        (Revision::Locals, &[WITH; 2], None),
        (Revision::Locals, &[WITHOUT, WITH], told(Field::LocalCount, 2, 1)),
        (Revision::Unknown, &[], None),
        (Revision::Unknown, &[WITHOUT; 2], told(Field::TryTableCount, 0, 2)),
        (Revision::Unknown, &[WITH], told(Field::TryTableCount, 0, 1)),
    ] {
        let mut builder = Builder::new();
        tables.iter().for_each(|&locals| add_try_table(&mut builder, locals, &[]));
        for sealing in [Sealing::Plain, Sealing::Checksum] {
            let identity = identity().with_revision(revision).with_sealing(sealing);
            let found = match builder.finish(&identity, &KEY) {
                Ok(entry) => {
                    assert_eq!(entry.try_tables().count(), tables.len());
                    None
                }
                Err(Error::Unwritable { field, expected, found }) => Some((field, expected, found)),
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(found, refused, "{revision:?} {tables:?}");
        }
    }
}

//! The byte table of SPEC.md is the schema: every field is where the table puts it, and as long.

use jitcache::{Builder, CatchClause, Entry, Error, Identity, Revision};

const V: u64 = 5;
const F: u64 = 3;
const C: u64 = 40;
const N: u64 = 2;

/// An entry with every field, all of different lengths.
fn file(revision: Revision) -> (Vec<u8>, Identity) {
    let identity = Identity::new("spec", *b"SPEC\0\0", "1.2.3").unwrap().with_revision(revision);
    let mut builder = Builder::new();
    builder.code(vec![0xcc; C as usize]).function(0).function(8).function(16).source(0, 7).source(16, 5);
    if revision == Revision::CatchClauses {
        builder.try_table(&[CatchClause { kind: 0, tag: 1 }]).try_table(&[]);
    }
    (builder.finish(&identity).unwrap().to_vec(), identity)
}

/// Returns name, offset and size of every field, as SPEC.md has them.
fn table() -> Vec<(String, u64, u64)> {
    let text = include_str!("../../SPEC.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| field | size in bytes |")).skip(2);
    let mut at = 0;
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let size = match cells[2] {
            "V" => V,
            "8 · F" => 8 * F,
            "C" => C,
            "16 · N" => 16 * N,
            "to the end" => 4 + 5 + 4,
            number => number.parse().unwrap(),
        };
        let row = (cells[1].to_owned(), at, size);
        at += size;
        row
    });
    rows.collect()
}

#[test]
fn a_cut_at_every_byte_names_the_field_that_the_table_has_there() {
    let table = table();
    assert_eq!(table.len(), 13);
    for revision in [Revision::SourceMap, Revision::CatchClauses] {
        let (file, identity) = file(revision);
        let fields = if revision == Revision::SourceMap { &table[..11] } else { &table[..12] };
        let end = fields.last().map(|(_, at, size)| at + size).unwrap();
        for length in 0..end {
            let (name, start, size) = fields.iter().find(|(_, at, size)| (*at..at + size).contains(&length)).unwrap();
            match Entry::parse(&file[..length as usize], &identity) {
                Err(Error::Truncated { field, at, expected, found }) => {
                    assert_eq!((field.name(), at, expected, found), (&name[..], *start, *size, length - start));
                }
                other => panic!("{length}: {other:?}"),
            }
        }
        if revision == Revision::SourceMap {
            assert_eq!(file.len() as u64, end);
        }
    }
}

#[test]
fn a_cut_in_the_try_tables_names_the_part_of_them() {
    let (file, identity) = file(Revision::CatchClauses);
    let (name, start, size) = table().pop().unwrap();
    assert_eq!((&name[..], start + size), ("try tables", file.len() as u64));
    for length in start..file.len() as u64 {
        let entry = Entry::parse(&file[..length as usize], &identity).unwrap();
        let (name, at) = match length - start {
            0..4 => ("catch clause count", start),
            4..9 => ("catch clauses", start + 4),
            _ => ("catch clause count", start + 9),
        };
        match entry.verify() {
            Err(Error::Truncated { field, at: found, .. }) => assert_eq!((field.name(), found), (name, at)),
            other => panic!("{length}: {other:?}"),
        }
    }
}

//! The byte table of SPEC.md is the schema: every field is where the table puts it, and as long.

use jitcache::{Arch, Builder, CatchClause, CpuFeatures, Entry, Error, Identity, Os, Revision, Sealing, Target};

use crate::generate::KNOWN;
use crate::machine::KEY;

const V: u64 = 5;
const F: u64 = 3;
const C: u64 = 40;
const N: u64 = 2;

/// A plain entry with every field, all of different lengths.
pub fn file(revision: Revision) -> (Vec<u8>, Identity) {
    let identity = Identity::new("spec", *b"SPEC\0\0", "1.2.3").unwrap();
    let identity = identity.with_revision(revision).with_sealing(Sealing::Plain);
    (builder(revision).finish(&identity, &KEY).unwrap().to_vec(), identity)
}

fn builder(revision: Revision) -> Builder<'static> {
    let mut builder = Builder::new();
    builder.code(vec![0xcc; C as usize]).function(0).function(8).function(16).source(0, 7).source(16, 5);
    if revision == Revision::CatchClauses {
        builder.try_table(&[CatchClause { kind: 0, tag: 1 }]).try_table(&[]);
    }
    builder
}

/// Returns name, offset and size of every field of the body, as SPEC.md has them.
fn table() -> Vec<(String, u64, u64)> {
    fields("## 1. Bytes", "| field |")
}

/// An entry with every field of a seal, all of different lengths.
pub fn sealed(sealing: Sealing) -> (Vec<u8>, Identity) {
    let (_, plain) = file(Revision::CatchClauses);
    let target = Target { arch: Arch::Arm64, os: Os::Darwin };
    let features = CpuFeatures::from_bits(Arch::Arm64, 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let identity = plain.with_sealing(sealing).with_build_id(b"abc").unwrap();
    let identity = identity.with_target(target).with_cpu(features).with_sections(&KNOWN);
    let mut builder = builder(Revision::CatchClauses);
    builder.cpu(features).section(KNOWN[1], true, b"xy");
    (builder.finish(&identity, &KEY).unwrap().to_vec(), identity)
}

/// Returns offset and size of every field that says how long something is, in an entry that [`file`] or [`sealed`] made.
pub fn lengths(file: &[u8], revision: Revision, sealing: &Sealing) -> Vec<(usize, usize)> {
    let start = file.len() as u64;
    let seal = fields("## 2. Seal", "| field |");
    let seal_start = start.wrapping_sub(seal.iter().map(|(_, _, size)| size).sum());
    let section = fields("## 2. Seal", "| field of a section |");
    let sections = seal_start.wrapping_add(seal.iter().find(|(name, ..)| name == "sections").unwrap().1);
    let clauses = table().pop().unwrap().1;
    let clauses = [clauses, clauses + 9].map(|at| ("clause count".to_owned(), at, 4));
    let mut tables = vec![(0, table())];
    if revision == Revision::CatchClauses {
        tables.push((0, clauses.into()));
    }
    if *sealing != Sealing::Plain {
        tables.extend([(seal_start, seal), (sections, section)]);
    }
    let fields = tables.into_iter().flat_map(|(start, fields)| fields.into_iter().map(move |field| (start, field)));
    let lengths = fields.filter(|(_, (name, ..))| name.ends_with(" length") || name.ends_with(" count"));
    let lengths = lengths.filter(|(_, (name, ..))| revision == Revision::CatchClauses || name != "try table count");
    lengths.map(|(start, (_, at, size))| ((start + at) as usize, size as usize)).collect()
}

/// Returns name, offset and size of every field in the first table of a chapter that starts so.
fn fields(chapter: &str, heading: &str) -> Vec<(String, u64, u64)> {
    let text = include_str!("../../SPEC.md");
    let chapter = text.lines().skip_while(|line| !line.starts_with(chapter));
    let rows = chapter.skip_while(|line| !line.starts_with(heading)).skip(2);
    let mut at = 0;
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let size = match cells[2] {
            "V" => V,
            "8 · F" => 8 * F,
            "C" => C,
            "16 · N" => 16 * N,
            "to the end" => 4 + 5 + 4,
            "B" => 3,
            "L" => 2,
            "to the footer" => 15,
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

#[test]
fn every_field_of_the_seal_is_where_its_table_puts_it() {
    let (file, identity) = sealed(Sealing::Checksum);
    Entry::parse(&file, &identity).unwrap().verify().unwrap();

    let seal = fields("## 2. Seal", "| field |");
    let section = fields("## 2. Seal", "| field of a section |");
    let length = seal.last().map(|(_, at, size)| at + size).unwrap();
    let start = file.len() as u64 - length;
    let rows = crate::targets::rows(&file, &identity);
    let digest = crc32c::crc32c(&crate::targets::covered(&file, &rows)).to_le_bytes();
    let source_map_digest = crc32c::crc32c(&file[rows]).to_le_bytes();
    let expected = |name: &str| match name {
        "key" => [7; 32].to_vec(),
        "architecture" => vec![2, 0],
        "operating system" => vec![2, 0],
        "CPU features" => (1..=16).rev().collect(),
        "build id length" => vec![3],
        "build id" => b"abc".to_vec(),
        "sections" => file[(start + seal[6].1) as usize..][..15].to_vec(),
        "seal length" => length.to_le_bytes().to_vec(),
        "file length" => (file.len() as u64).to_le_bytes().to_vec(),
        "digest kind" => vec![0],
        "source map digest" => [&source_map_digest[..], &[0; 28]].concat(),
        "digest" => [&digest[..], &[0; 28]].concat(),
        "seal magic" => b"JITSEAL1".to_vec(),
        "section tag" => KNOWN[1].to_le_bytes().to_vec(),
        "section flags" => vec![1],
        "section length" => vec![2, 0, 0, 0, 0, 0, 0, 0],
        "section" => b"xy".to_vec(),
        name => panic!("{name} is not tested"),
    };
    let sections = start + seal[6].1;
    for (fields, start) in [(&seal, start), (&section, sections)] {
        for (name, at, size) in fields {
            assert_eq!(file[(start + at) as usize..][..*size as usize], expected(name), "{name}");
        }
    }
    assert_eq!((seal.len(), section.len()), (13, 4));
}

//! The byte table of SPEC.md is the schema: every field is where the table puts it, and as long.

use jitcache::entry::{CatchClause, Locals};
use jitcache::{
    Arch, Builder, CpuFeatures, Entry, Error, Identity, Key, MacKey, Os, Place, Recipe, RelocationKind, Revision,
    Sealing, Target,
};
use sha2::{Digest, Sha256};

use crate::generate::{KNOWN, add_try_table};
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
    if matches!(revision, Revision::CatchClauses | Revision::Locals) {
        for (reuse, clauses) in [(false, &[CatchClause { kind: 0, tag: 1 }][..]), (true, &[])] {
            let locals = Locals { count: 0x0403_0201, reuse };
            add_try_table(&mut builder, (revision == Revision::Locals).then_some(locals), clauses);
        }
    }
    builder
}

/// Returns name, offset and size of every field of the body, as SPEC.md has them.
fn table() -> Vec<(String, u64, u64)> {
    fields("## 1. Bytes", "| field |")
}

/// An entry with every field of a seal, all of different lengths.
pub fn sealed(revision: Revision, sealing: Sealing) -> (Vec<u8>, Identity) {
    let (_, plain) = file(revision);
    let target = Target { arch: Arch::Arm64, os: Os::Darwin };
    let features = CpuFeatures::from_bits(Arch::Arm64, 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let identity = plain.with_sealing(sealing).with_build_id(b"abc").unwrap();
    let identity = identity.with_target(target).with_cpu(features).with_sections(&KNOWN);
    let mut builder = builder(revision);
    builder.cpu(features).section(KNOWN[1], true, b"xy");
    (builder.finish(&identity, &KEY).unwrap().to_vec(), identity)
}

/// Returns offset and size of every field that says how long something is, in an entry that [`file`] or [`sealed`]
/// made.
pub fn lengths(file: &[u8], revision: Revision, sealing: &Sealing) -> Vec<(usize, usize)> {
    let start = file.len() as u64;
    let seal = fields("## 2. Seal", "| field |");
    let seal_start = start.wrapping_sub(seal.iter().map(|(_, _, size)| size).sum());
    let section = fields("## 2. Seal", "| field of a section |");
    let sections = seal_start.wrapping_add(seal.iter().find(|(name, ..)| name == "sections").unwrap().1);
    let mut tables = vec![(0, table())];
    if revision != Revision::SourceMap {
        let try_tables = table().pop().unwrap().1;
        tables.push((try_tables, try_table_fields(revision)));
    }
    if *sealing != Sealing::Plain {
        tables.extend([(seal_start, seal), (sections, section)]);
    }
    let fields = tables.into_iter().flat_map(|(start, fields)| fields.into_iter().map(move |field| (start, field)));
    let lengths = fields.filter(|(_, (name, ..))| name.ends_with(" length") || name.ends_with(" count"));
    // How many locals there are makes nothing in the file longer.
    let lengths = lengths.filter(|(_, (name, ..))| name != "local count");
    let lengths = lengths.filter(|(_, (name, ..))| revision != Revision::SourceMap || name != "try table count");
    lengths.map(|(start, (_, at, size))| ((start + at) as usize, size as usize)).collect()
}

/// Returns name, offset and size of every field of the two try tables that [`builder`] makes, as SPEC.md has them.
fn try_table_fields(revision: Revision) -> Vec<(String, u64, u64)> {
    let mut at = 0;
    let each = [1, 0].into_iter().flat_map(|clauses| {
        let fields = fields("## 1. Bytes", "| field of a try table |").into_iter();
        fields.map(move |(name, _, size)| (name.clone(), if name == "catch clauses" { 5 * clauses } else { size }))
    });
    let each = each.filter(|(name, _)| revision == Revision::Locals || name.starts_with("catch"));
    let placed = each.map(|(name, size)| {
        at += size;
        (name, at - size, size)
    });
    placed.collect()
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
            "5 · K" => 5,
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

/// Returns the file of each of the worked examples, byte by byte as SPEC.md has them.
fn examples() -> Vec<Vec<u8>> {
    let examples = include_str!("../../SPEC.md").split("let file = [").skip(1);
    let rows = examples.map(|example| example.split("];").next().unwrap().lines());
    let bytes = rows.map(|rows| rows.flat_map(|row| row.split("//").next().unwrap().split(',')));
    let digits = bytes.map(|bytes| bytes.filter_map(|byte| byte.trim().strip_prefix("0x")));
    digits.map(|digits| digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()).collect()
}

fn myjit(arch: Arch, features: &[&str]) -> Identity {
    let features = CpuFeatures::of(arch, features).unwrap();
    let identity = Identity::new("myjit", *b"MYJIT\0", "1").unwrap();
    identity.with_target(Target { arch, os: Os::Linux }).with_cpu(features)
}

#[test]
fn every_machine_writes_the_examples_as_they_stand_there() {
    let mut plain = Builder::new();
    plain.code([&[0xc3][..], &[0xcc; 15], &[0xc3]].concat()).function(0).function(16).source(16, 42);
    let plain = plain.finish(&Identity::wazero("v1.9.0").unwrap(), &KEY).unwrap().to_vec();

    let identity = myjit(Arch::Amd64, &["sse3"]);
    let mut sealed = Builder::new();
    sealed.code(vec![0xc3]).function(0).source(0, 7).metadata(b"hi");
    let sealed = sealed.finish(&identity, &Key::from_bytes([0x11; 32])).unwrap().to_vec();

    let recipe = Recipe::of(&identity).source(b"answer()").flag("opt", "2").finish();
    let mut linked = Builder::new();
    linked.code(vec![0xff, 0x25, 0, 0, 0, 0]).function_named(0, 6, "main").recipe(&recipe);
    let (answer, data) = (linked.import("answer"), linked.data(&[0; 8], 8));
    linked.relocate(Place::Code(2), RelocationKind::X86GOTPCRel4, answer, -4);
    linked.relocate(data, RelocationKind::Abs8, Place::Code(0), 0);
    let linked = linked.finish(&identity, recipe.key()).unwrap().to_vec();

    assert_eq!(examples(), [plain, sealed, linked]);
}

#[test]
fn every_machine_writes_the_same_file_for_another_with_everything_in_it() {
    use RelocationKind as Kind;
    let identity = myjit(Arch::Arm64, &["lse"]).with_sections(&KNOWN).with_build_id(b"abc").unwrap();
    let identity = identity.with_sealing(Sealing::Mac(MacKey::new([3; 32])));
    let recipe = Recipe::of(&identity).source(b"more()").flag("opt", "2").finish();
    let mut builder = Builder::new();
    // adrp x0, table; add x0, x0, table; b more; brk
    let words: [u32; 4] = [0x9000_0000, 0x9100_0000, 0x1400_0000, 0xd420_0000];
    builder.code(words.map(u32::to_le_bytes).concat()).function_named(0, 12, "main").source(0, 7).source(8, 5);
    add_try_table(&mut builder, None, &[CatchClause { kind: 0, tag: 1 }]);
    builder.section(KNOWN[1], true, b"xy").metadata(b"hi").recipe(&recipe);
    let (more, table, count) = (builder.import("more"), builder.data(&[0; 16], 16), builder.writable_data(&[5; 9], 1));
    builder
        .relocate(Place::Code(0), Kind::Aarch64AdrPrelPgHi21, table, 0)
        .relocate(Place::Code(4), Kind::Aarch64AddAbsLo12Nc, table, 0)
        .relocate(Place::Code(8), Kind::Arm64Call, more, 0)
        .relocate(table, Kind::Abs8, Place::Code(8), -4)
        .relocate(table.behind(8), Kind::Abs8, count, 1);
    let file = builder.finish(&identity, recipe.key()).unwrap().to_vec();
    Entry::parse(&file, &identity).unwrap().verify().unwrap();
    let digest: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "1d1a5b5ca0dfff23334ff218985e7e0cda8b1151bbfffeb91bc0e7fe6de1dce9");
}

#[test]
fn a_cut_at_every_byte_names_the_field_that_the_table_has_there() {
    let table = table();
    assert_eq!(table.len(), 13);
    for revision in [Revision::SourceMap, Revision::CatchClauses, Revision::Locals, Revision::Unknown] {
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
    for (revision, size) in [(Revision::CatchClauses, 13), (Revision::Locals, 23)] {
        let (file, identity) = file(revision);
        let (name, start, _) = table().pop().unwrap();
        let fields = try_table_fields(revision);
        assert_eq!((&name[..], start + size), ("try tables", file.len() as u64));
        for length in 0..size {
            let entry = Entry::parse(&file[..(start + length) as usize], &identity).unwrap();
            let (name, at, _) = fields.iter().find(|(_, at, size)| (*at..at + size).contains(&length)).unwrap();
            match entry.verify() {
                Err(Error::Truncated { field, at: found, .. }) => {
                    assert_eq!((field.name(), found), (&name[..], start + at));
                }
                other => panic!("{length}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_field_of_a_try_table_is_where_its_table_puts_it() {
    let (file, _) = file(Revision::Locals);
    let (_, start, _) = table().pop().unwrap();
    let fields = try_table_fields(Revision::Locals);
    for (i, (name, at, size)) in fields.iter().enumerate() {
        let expected = match (&name[..], i / 4) {
            ("local count", _) => vec![1, 2, 3, 4],
            ("reuse flag", table) => vec![table as u8],
            ("catch clause count", table) => vec![1 - table as u8, 0, 0, 0],
            ("catch clauses", 0) => vec![0, 1, 0, 0, 0],
            ("catch clauses", _) => vec![],
            (name, _) => panic!("{name} is not tested"),
        };
        assert_eq!(file[(start + at) as usize..][..*size as usize], expected, "{name}");
    }
    assert_eq!(fields.len(), 8);
}

#[test]
fn every_field_of_the_seal_is_where_its_table_puts_it() {
    let (file, identity) = sealed(Revision::CatchClauses, Sealing::Checksum);
    Entry::parse(&file, &identity).unwrap().verify().unwrap();

    let seal = fields("## 2. Seal", "| field |");
    let section = fields("## 2. Seal", "| field of a section |");
    let length = seal.last().map(|(_, at, size)| at + size).unwrap();
    let start = file.len() as u64 - length;
    let rows = crate::mend::rows(&file, &identity);
    let digest = crate::naive::mac(b"file", &[0; 32], &crate::mend::covered(&file, &rows));
    let source_map_digest = crate::naive::mac(b"source map", &[0; 32], &file[rows]);
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
        "source map digest" => source_map_digest.to_vec(),
        "digest" => digest.to_vec(),
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

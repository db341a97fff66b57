//! What holds for every entry and for every file.

use jitcache::entry::CatchClause;
use jitcache::{Arch, Builder, CpuFeatures, Entry, Error, Identity, Key, Revision, Sealing};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::{KNOWN, MAC_KEY, Parts};
use crate::golden::Golden;
use crate::machine::{self, KEY};
use crate::naive;
use crate::oracle::compare;

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
        let mut builder = parts.builder();
        let built = builder.finish(&parts.identity, &parts.key).unwrap();
        prop_assert_eq!(&entry, &built);
        for entry in [&entry, &built] {
            let mut apart = Builder::from(entry);
            prop_assert_eq!(apart.finish(&parts.identity, &parts.key).unwrap().to_vec(), &file[..]);
        }
        let (padding, alignment) = (entry.padding(), parts.identity.alignment());
        let code = alignment.bytes.max(16);
        let aligned = (entry.code_range().start + padding).is_multiple_of(code);
        prop_assert!((aligned || parts.code.is_empty()) && padding < code || !alignment.in_file && padding == 0);
        prop_assert_eq!(entry.code(), &parts.code[..]);
        prop_assert_eq!(entry.functions().iter().collect::<Vec<_>>(), parts.functions);
        let rows = entry.source_map().map(|map| map.iter().map(|row| (row.source, row.code)).collect::<Vec<_>>());
        prop_assert_eq!(rows, parts.source_map);
        let tables = entry.try_tables().map(Result::unwrap);
        let tables = tables.map(|table| (table.locals(), table.clauses().map(Result::unwrap).collect::<Vec<_>>()));
        prop_assert_eq!(tables.collect::<Vec<_>>(), parts.try_tables);
        prop_assert_eq!(entry.key(), (*parts.identity.sealing() != Sealing::Plain).then_some(parts.key));
        for (tag, _, bytes) in &parts.sections {
            prop_assert_eq!(entry.section(*tag), Some(&bytes[..]));
        }
        prop_assert_eq!(entry.metadata(), parts.metadata.as_deref());
        prop_assert_eq!((entry.to_vec(), entry.length()), (file.clone(), file.len() as u64));
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
    fn the_view_and_the_naive_reader_agree_on_the_sections_of_damaged_entries_though_their_digest_is_right(
        parts in parts().prop_filter("linked", |parts| parts.linked.is_some() || parts.recipe.is_some()),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let mut file = parts.file();
        let entry = Entry::parse(&file, &parts.identity).unwrap();
        let rows_at = entry.code_range().end as usize + 13;
        let rows = parts.source_map.as_ref().map(|rows| rows_at..rows_at + 16 * rows.len());
        let end = file.len() - 89;
        let start = file.len() - u64::from_le_bytes(file[end..end + 8].try_into().unwrap()) as usize;
        for (at, byte) in damage {
            file[start + at.index(end - start)] = byte;
        }
        naive::seal_again(&mut file, rows, (parts.identity.sealing() != &Sealing::Checksum).then_some(MAC_KEY));
        compare(&file, &parts.identity);
        // Whatever it is, a look at it that comes before all checks is a clean outcome.
        if let Ok(entry) = Entry::parse(&file, &parts.identity) {
            let _ = (entry.imports().count(), entry.data(), entry.relocations().count(), entry.eh_frame());
            let _ = (entry.symbols().iter().count(), entry.symbols().named(b"symbol 0"), entry.symbols().at(0));
            let _ = entry.recipe().map(Iterator::count);
            #[cfg(feature = "cache")]
            let _ = jitcache::Module::load_with(&entry, &jitcache::Linker::new(|name| Some(name.as_ptr())));
        }
    }

    #[test]
    fn the_view_and_the_naive_reader_agree_on_any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        let sealed = Identity::new("any", *b"ABCDEF", "1").unwrap().with_sections(&KNOWN);
        compare(&[b"ABCDEF\x011", &bytes[..]].concat(), &sealed);
        let identity = sealed.with_sealing(Sealing::Plain);
        compare(&bytes, &identity);
        compare(&[b"ABCDEF\x011", &bytes[..]].concat(), &identity);
        for revision in [Revision::SourceMap, Revision::Locals, Revision::Unknown] {
            compare(&[b"ABCDEF\x011", &bytes[..]].concat(), &identity.clone().with_revision(revision));
        }
    }
}

#[test]
fn the_view_and_the_naive_reader_agree_on_what_wazero_wrote() {
    for golden in Golden::all() {
        compare(&golden.file, &golden.identity());
    }
}

#[test]
fn an_entry_of_wazero_that_is_taken_apart_and_put_together_is_the_same_bytes() {
    for golden in Golden::all() {
        let identity = golden.identity();
        let entry = Entry::parse(&golden.file, &identity).unwrap();
        let mut builder = Builder::from(&entry);
        assert_eq!(builder.finish(&identity, &KEY).unwrap().to_vec(), golden.file);
    }
}

#[test]
fn an_entry_that_is_taken_apart_needs_the_features_that_it_needed_and_borrows_its_code() {
    let identity = Identity::new("apart", *b"APART\0", "1").unwrap();
    let baseline = CpuFeatures::baseline(Arch::host());
    let file = machine::builder(1).cpu(baseline).finish(&identity, &KEY).unwrap().to_vec();
    let entry = Entry::parse(&file, &identity).unwrap();
    let mut builder = Builder::from(&entry);
    let unpadded = identity.clone().with_cpu(baseline).with_function_alignment(1).unwrap();
    assert_eq!(builder.finish(&unpadded, &KEY).unwrap().code().as_ptr(), entry.code().as_ptr());
    // What is wrong with a table is found out.
    let mut damaged = file.clone();
    damaged[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
    let entry = Entry::parse(&damaged, &identity).unwrap();
    assert!(matches!(Builder::from(&entry).finish(&identity, &KEY), Err(Error::Unwritable { .. })));
}

#[test]
fn a_builder_may_be_finished_again_for_another_identity_with_other_code_and_more_functions() {
    let (codes, mut used) = ([vec![0x90; 700], vec![0xcc; 600]], Builder::new());
    used.code(&codes[0][..]).function(0).source(1, 5);
    for (n, alignment) in [1, 16, 64, 16, 4, 1, 32].into_iter().enumerate() {
        let identity = Identity::new("again", *b"AGAIN!", "1").unwrap().with_alignment_in_file(alignment).unwrap();
        let (code, mut fresh) = (&codes[n % 2][..], Builder::new());
        used.finish(&identity, &KEY).unwrap();
        if n % 3 == 0 {
            used.code(code)
        } else {
            used.code(code.to_vec())
        };
        used.function(64 * (n as u64 + 1));
        fresh.code(code).source(1, 5);
        (0..n as u64 + 2).for_each(|n| _ = fresh.function(64 * n));
        let [used, fresh] = [&mut used, &mut fresh].map(|builder| builder.finish(&identity, &KEY).unwrap().to_vec());
        assert_eq!(used, fresh, "{alignment}");
    }
}

#[test]
fn entries_are_equal_exactly_if_they_are_the_same_bytes() {
    let file = |magic: &[u8; 6], version, sealing, functions: &[u64], tag, key| {
        let identity = Identity::new("equal", *magic, version).unwrap().with_sealing(sealing);
        let mut builder = machine::builder(1);
        for &offset in functions {
            builder.function(offset);
        }
        let file = builder.try_table(&[CatchClause { kind: 0, tag }]).finish(&identity, key).unwrap().to_vec();
        (file, identity)
    };
    let other = &Key::from_bytes([8; 32]);
    let files = [
        file(b"EQUAL\0", "1", Sealing::Plain, &[], 1, &KEY),
        file(b"OTHER\0", "1", Sealing::Plain, &[], 1, &KEY),
        file(b"EQUAL\0", "2", Sealing::Plain, &[], 1, &KEY),
        file(b"EQUAL\0", "1", Sealing::Plain, &[33], 1, &KEY),
        file(b"EQUAL\0", "1", Sealing::Plain, &[34], 1, &KEY),
        file(b"EQUAL\0", "1", Sealing::Plain, &[], 2, &KEY),
        file(b"EQUAL\0", "1", Sealing::Checksum, &[], 1, &KEY),
        file(b"EQUAL\0", "1", Sealing::Checksum, &[], 1, other),
    ];
    let entries: Vec<_> = files.iter().map(|(file, identity)| Entry::parse(file, identity).unwrap()).collect();
    for (i, one) in entries.iter().enumerate() {
        for (j, two) in entries.iter().enumerate() {
            assert_eq!(one == two, i == j, "{i} {j}");
        }
    }
}

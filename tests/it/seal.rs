//! Sealed entries: no byte of one can be changed, cut, exchanged or added unseen, and each is bound to key and machine.

use std::collections::BTreeSet;

use jitcache::error::{Bound, Field};
use jitcache::{Arch, Builder, CpuFeatures, Entry, Error, Identity, Key, Lookup, MacKey, Module, Os, Sealing};
use jitcache::{Store, Target};

use crate::generate::{KNOWN, MAC_KEY, add_try_table};
use crate::golden::Golden;
use crate::machine::{self, AFTER_CALL, KEY};
use crate::mend::{covered, rows};
use crate::scratch::Scratch;

/// Length of a seal without build id and sections, and of the footer behind it.
const SEAL: usize = 53;
const FOOTER: usize = 89;

pub fn sealings() -> [Sealing; 2] {
    [Sealing::Checksum, Sealing::Mac(MacKey::new(MAC_KEY))]
}

fn identity() -> Identity {
    Identity::new("seal", *b"SEAL\0\0", "1").unwrap()
}

/// Takes an entry of wazero apart, and seals what it holds under its own key.
pub fn seal(golden: &Golden, sealing: Sealing) -> (Vec<u8>, Identity) {
    let plain = Entry::parse(&golden.file, &golden.identity()).unwrap();
    let target = golden.identity().target();
    let identity =
        golden.identity().with_sealing(sealing).with_sections(&KNOWN).with_cpu(CpuFeatures::from_bits(target.arch, 0));
    let mut builder = Builder::new();
    builder.code(plain.code());
    for offset in plain.functions().iter() {
        builder.function(offset);
    }
    for row in plain.source_map().iter().flat_map(|map| map.iter()) {
        builder.source(row.code, row.source);
    }
    for table in plain.try_tables().map(Result::unwrap) {
        add_try_table(&mut builder, table.locals(), &table.clauses().collect::<Result<Vec<_>, _>>().unwrap());
    }
    let key = golden.name.parse().unwrap();
    (builder.finish(&identity, &key).unwrap().to_vec(), identity)
}

/// Returns whether there is time for everything.
pub fn is_long() -> bool {
    std::env::var_os("JITCACHE_LONG").is_some()
}

fn check(file: &[u8], identity: &Identity) -> Result<(), Error> {
    Entry::parse(file, identity)?.verify()
}

fn assert_rejected(file: &[u8], identity: &Identity, what: impl FnOnce() -> String) {
    match check(file, identity) {
        Err(error) if error.is_rejection() || error.is_stale() => {}
        other => panic!("{}: {other:?}", what()),
    }
}

#[test]
fn every_cut_flip_and_appended_byte_is_rejected() {
    let mut cuts_under_a_checksum = 0;
    for golden in Golden::all() {
        for sealing in sealings() {
            let (mut file, identity) = seal(&golden, sealing.clone());
            check(&file, &identity).unwrap();
            // All of them under a checksum; of the large ones under a MAC what is around the code, and parts of the
            // rest.
            let step = if sealing == Sealing::Checksum || file.len() < 2000 || is_long() { 1 } else { 101 };
            let near = |at: usize| at < 64 || at + 200 > file.len() || at.is_multiple_of(step);
            for length in (0..file.len()).filter(|&at| near(at)) {
                assert_rejected(&file[..length], &identity, || format!("cut to {length}"));
                cuts_under_a_checksum += usize::from(sealing == Sealing::Checksum);
            }
            let bits: Vec<_> =
                (0..file.len()).filter(|&at| near(at)).flat_map(|at| (0..8).map(move |bit| (at, bit))).collect();
            for (at, bit) in bits {
                file[at] ^= 1 << bit;
                assert_rejected(&file, &identity, || format!("bit {bit} of byte {at}"));
                file[at] ^= 1 << bit;
            }
            for more in [&[0][..], &[0xff], &[0; FOOTER], b"JITSEAL1", &file.clone()] {
                assert_rejected(&[&file, more].concat(), &identity, || format!("{} bytes more", more.len()));
                assert_rejected(&[more, &file[..]].concat(), &identity, || format!("{} bytes before", more.len()));
            }
        }
    }
    assert_eq!(cuts_under_a_checksum, 232_458);
}

#[test]
fn every_pair_of_flips_in_header_and_seal_is_rejected() {
    let largest = if is_long() { 1500 } else { 130 };
    for golden in Golden::all().iter().filter(|golden| golden.file.len() < largest) {
        let (mut file, identity) = seal(golden, Sealing::Checksum);
        let code = Entry::parse(&file, &identity).unwrap().code_range();
        let end = file.len();
        let bytes = (0..code.start as usize).chain(end - SEAL - FOOTER..end);
        let bits: Vec<_> = bytes.flat_map(|at| (0..8).map(move |bit| (at, bit))).collect();
        for (i, &(a, m)) in bits.iter().enumerate() {
            file[a] ^= 1 << m;
            for &(b, n) in &bits[..i] {
                file[b] ^= 1 << n;
                assert_rejected(&file, &identity, || format!("bit {m} of byte {a} and bit {n} of byte {b}"));
                file[b] ^= 1 << n;
            }
            file[a] ^= 1 << m;
        }
    }
}

#[test]
fn two_entries_spliced_at_any_boundary_are_rejected() {
    let golden: Vec<_> = Golden::all().into_iter().filter(|golden| golden.file.len() < 800).collect();
    for sealing in sealings() {
        for (one, two) in golden.iter().zip(&golden[1..]) {
            if one.directory != two.directory {
                continue;
            }
            let (one, identity) = seal(one, sealing.clone());
            let (two, _) = seal(two, sealing.clone());
            for at in 1..one.len().min(two.len()) {
                let ends =
                    [[&one[..at], &two[at..]], [&one[..at], &two[two.len() - (one.len() - at).min(two.len())..]]];
                for file in ends.map(|parts| parts.concat()) {
                    if file != one && file != two {
                        assert_rejected(&file, &identity, || format!("spliced at {at}"));
                    }
                }
            }
        }
    }
}

#[test]
fn with_a_mac_a_change_is_found_whatever_else_is_recomputed() {
    let mac = Sealing::Mac(MacKey::new(MAC_KEY));
    for golden in Golden::all().iter().filter(|golden| golden.file.len() < 500) {
        let (file, identity) = seal(golden, mac.clone());
        let code = Entry::parse(&file, &identity).unwrap().code_range();
        let code = code.start as usize..code.end as usize;
        let digest = file.len() - 40..file.len() - 8;
        let rows = rows(&file, &identity);
        for at in 0..file.len() {
            let mut forged = file.clone();
            forged[at] ^= 0x11;
            if !(code.end..code.end + 4).contains(&at) {
                let checksum = crc32c::crc32c(&forged[code.clone()]);
                forged[code.end..code.end + 4].copy_from_slice(&checksum.to_le_bytes());
            }
            assert_rejected(&forged, &identity, || format!("byte {at}"));
            // As one would who does not know the key: with the one that everybody knows, and with another.
            let covered = covered(&forged, &rows);
            for key in [[0; 32], [8; 32]] {
                let guess = crate::naive::mac(b"file", &key, &covered);
                forged[digest.clone()].copy_from_slice(&guess);
                assert_rejected(&forged, &identity, || format!("byte {at}, under another digest"));
            }
        }
        let mut changed = file.clone();
        changed[code.start] ^= 1;
        let checksum = crc32c::crc32c(&changed[code.clone()]);
        changed[code.end..code.end + 4].copy_from_slice(&checksum.to_le_bytes());
        if !code.is_empty() {
            assert!(matches!(check(&changed, &identity), Err(Error::Forged { at }) if at == digest.start as u64));
        }
    }
}

#[test]
fn damage_of_the_seal_is_told_with_its_field_offset_and_both_values() {
    let mut builder = Builder::new();
    builder.code(vec![1; 64]);
    let sound = builder.section(1, false, b"one").section(2, false, b"two").finish(&identity(), &KEY).unwrap().to_vec();
    let (length, footer) = (sound.len() as u64, sound.len() - FOOTER);
    let (room, seal, two) = (length - 8, footer - 2 * 16 - SEAL, footer - 16);
    let value = |field, at: usize, expected, found| Error::Value { field, at: at as u64, expected, found };
    let lengths = |value: u64| value.to_le_bytes().to_vec();
    for (at, damage, expected) in [
        (footer, lengths(0), value(Field::SealLength, footer, Bound::Above(88), 0)),
        (footer, lengths(88), value(Field::SealLength, footer, Bound::Above(88), 88)),
        (footer, lengths(89), Error::Truncated { field: Field::Key, at: footer as u64, expected: 32, found: 0 }),
        (footer, lengths(room + 1), value(Field::SealLength, footer, Bound::AtMost(room), room + 1)),
        // A seal from the version on, whose architecture would be within the code.
        (footer, lengths(room), value(Field::Arch, 40, Bound::AtMost(9), 0x0101)),
        (footer + 8, lengths(length + 1), value(Field::FileLength, footer + 8, Bound::Exactly(length), length + 1)),
        (footer + 16, vec![1], value(Field::DigestKind, footer + 16, Bound::Exactly(0), 1)),
        (seal + 32, vec![10, 0], value(Field::Arch, seal + 32, Bound::AtMost(9), 10)),
        (seal + 34, vec![13, 0], value(Field::Os, seal + 34, Bound::AtMost(12), 13)),
        (seal + 32, vec![0, 0], value(Field::Arch, seal + 32, Bound::Above(0), 0)),
        (seal + 34, vec![0, 0], value(Field::Os, seal + 34, Bound::Above(0), 0)),
        (two, vec![1], value(Field::SectionTag, two, Bound::Above(1), 1)),
        (two + 4, vec![2], value(Field::SectionFlags, two + 4, Bound::AtMost(1), 2)),
        (two + 4, vec![1], Error::UnknownSection { at: two as u64, tag: 2 }),
    ] {
        let mut file = sound.clone();
        file[at..at + damage.len()].copy_from_slice(&damage);
        let error = check(&file, &identity()).unwrap_err();
        assert_eq!(format!("{error:?}"), format!("{expected:?}"));
    }
}

#[test]
fn a_sealing_is_printed_as_what_it_is() {
    let printed = |sealing: Sealing| sealing.to_string();
    assert_eq!(printed(Sealing::Plain), "plain");
    assert_eq!(sealings().map(printed), ["sealed with a checksum", "sealed with a MAC"]);
}

#[test]
fn damage_that_only_a_digest_covers_is_told_with_both_checksums() {
    let sound = machine::builder(1).metadata(b"meta").finish(&identity(), &KEY).unwrap().to_vec();
    let rows = rows(&sound, &identity());
    let beginning = |digest: [u8; 32]| u64::from_le_bytes(digest[..8].try_into().unwrap());
    let file = |file: &[u8]| beginning(crate::naive::mac(b"file", &[0; 32], &covered(file, &rows)));
    let map = |file: &[u8]| beginning(crate::naive::mac(b"source map", &[0; 32], &file[rows.clone()]));
    type Sum<'a> = &'a dyn Fn(&[u8]) -> u64;
    for (at, field, sum, start) in [
        (sound.len() - FOOTER - 1, Field::File, &file as Sum<'_>, 0),
        (sound.len() - 41, Field::File, &file, 0),
        (rows.end - 1, Field::SourceMap, &map, rows.start as u64),
    ] {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        let error = check(&damaged, &identity()).unwrap_err();
        let expected = Error::Checksum { field, at: start, expected: sum(&sound), found: sum(&damaged) };
        assert_eq!(format!("{error:?}"), format!("{expected:?}"));
    }
}

#[test]
fn an_entry_is_rejected_under_another_key_machine_build_or_seal_each_by_its_name() {
    let needed = CpuFeatures::from_bits(Arch::host(), 1 << 9);
    let none = CpuFeatures::from_bits(Arch::host(), 0);
    let identity = identity().with_build_id(b"build 1").unwrap().with_cpu(needed).with_sections(&[4]);
    let mut builder = machine::builder(1);
    builder.cpu(needed).section(4, true, b"four").section(5, false, b"five").metadata(b"meta");
    let file = builder.finish(&identity, &KEY).unwrap().to_vec();
    let entry = Entry::parse(&file, &identity).unwrap();
    entry.verify().unwrap();
    entry.check_key(&KEY).unwrap();
    let seal_at = (file.len() - FOOTER - SEAL - 7 - 3 * 13 - 12) as u64;

    let rejected = |identity: &Identity| check(&file, identity).unwrap_err();
    let foreign = if Arch::host() == Arch::Riscv64 { Arch::S390x } else { Arch::Riscv64 };
    let foreign = Target { arch: foreign, os: Os::Linux };
    let elsewhere = Target { os: Os::Freebsd, ..Target::host() };
    let plain = identity.clone().with_sealing(Sealing::Plain);
    let mac = identity.clone().with_sealing(Sealing::Mac(MacKey::new([1; 32])));
    let unsealed = builder_without_sections().finish(&plain, &KEY).unwrap().to_vec();
    let other = Key::from_bytes([8; 32]);
    for (error, name, shown) in [
        (entry.check_key(&other).unwrap_err(), "key", format!("key at {seal_at:#x}: expected {other}, found {KEY}")),
        (
            rejected(&identity.clone().with_target(foreign)),
            "target",
            format!("target at {:#x}: expected {foreign}, found {}", seal_at + 32, Target::host()),
        ),
        (
            rejected(&identity.clone().with_target(elsewhere)),
            "target",
            format!("target at {:#x}: expected {elsewhere}, found {}", seal_at + 32, Target::host()),
        ),
        (
            rejected(&identity.clone().with_cpu(none)),
            "cpu-features",
            format!("CPU features at {:#x}: expected among , found {needed}: missing are {needed}", seal_at + 36),
        ),
        (
            rejected(&identity.clone().with_build_id(b"build 2").unwrap()),
            "build-id",
            format!("build id at {:#x}: expected \"build 2\", found \"build 1\"", seal_at + 53),
        ),
        (
            rejected(&identity.clone().with_sections(&[5])),
            "unknown-section",
            format!(
                "section at {:#x}: expected a known tag or an optional section, found tag 0x4, required",
                seal_at + 60
            ),
        ),
        (rejected(&mac), "value", format!("digest kind at {:#x}: expected 1, found 0", file.len() - FOOTER + 16)),
        (
            check(&unsealed, &identity).unwrap_err(),
            "unsealed",
            format!("seal magic at {:#x}: expected \"JITSEAL1\", found ", unsealed.len() - 8),
        ),
        (rejected(&plain), "trailing", format!("end of the entry at {seal_at:#x}")),
    ] {
        assert_eq!(error.name(), name);
        assert!(error.to_string().starts_with(&shown), "{error}\n{shown}");
        assert!(error.is_rejection());
    }
}

fn builder_without_sections() -> Builder<'static> {
    machine::builder(1)
}

#[test]
fn an_older_baseline_runs_on_a_newer_machine() {
    let all = CpuFeatures::from_bits(Arch::host(), u128::MAX);
    let mut builder = machine::builder(1);
    builder.cpu(CpuFeatures::from_bits(Arch::host(), 0b101));
    let writer = identity().with_cpu(CpuFeatures::from_bits(Arch::host(), 0b111));
    let file = builder.finish(&writer, &KEY).unwrap().to_vec();
    check(&file, &identity().with_cpu(all)).unwrap();
    let lacking = CpuFeatures::from_bits(Arch::host(), 0b110);
    match check(&file, &identity().with_cpu(lacking)) {
        Err(Error::CpuFeatures { expected, found, .. }) => {
            assert_eq!((expected, found.missing_from(expected).bits()), (lacking, 1));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sections_are_found_by_their_tags_in_views_and_in_modules() {
    let mut builder = machine::builder(3);
    builder.section(0, false, b"").section(7, true, b"seven").metadata(b"opaque");
    let identity = identity().with_sections(&[7]);
    let file = builder.finish(&identity, &KEY).unwrap().to_vec();
    let entry = Entry::parse(&file, &identity).unwrap();
    let built = Module::load(&entry).unwrap();
    let loaded = Module::load_file(file.clone().into(), &identity, &KEY).unwrap();
    for tag in [0, 7, 1] {
        let expected =
            [(0, &b""[..]), (7, b"seven")].into_iter().find(|(known, _)| *known == tag).map(|(_, bytes)| bytes);
        assert_eq!([entry.section(tag), built.section(tag), loaded.section(tag)], [expected; 3]);
    }
    assert_eq!([entry.metadata(), built.metadata(), loaded.metadata()], [Some(&b"opaque"[..]); 3]);
    assert_eq!(entry.key(), Some(KEY));
    assert_eq!(machine::next(&loaded), 4);
}

#[test]
fn sections_that_do_not_rise_or_cannot_be_kept_are_not_written() {
    let unwritable = |builder: &mut Builder<'_>, identity: &Identity| match builder.finish(identity, &KEY) {
        Err(Error::Unwritable { field, expected, found }) => (field, expected, found),
        other => panic!("{other:?}"),
    };
    let builder = || machine::builder(1);
    assert_eq!(
        unwritable(builder().section(2, true, b"").section(2, false, b""), &identity()),
        (Field::SectionTag, Bound::Above(2), 2)
    );
    assert_eq!(
        unwritable(builder().metadata(b"").section(2, false, b""), &identity()),
        (Field::SectionTag, Bound::Above(1 << 31), 2)
    );
    for reserved in [(1 << 31) + 1, u32::MAX] {
        assert_eq!(
            unwritable(builder().section(1, false, b"").section(reserved, false, b""), &identity()),
            (Field::SectionTag, Bound::AtMost(1 << 31), reserved.into())
        );
    }
    assert_eq!(
        unwritable(builder().metadata(b"abc"), &identity().with_sealing(Sealing::Plain)),
        (Field::Section, Bound::Exactly(0), 16)
    );
    let foreign = if Arch::host() == Arch::Arm64 { Arch::Amd64 } else { Arch::Arm64 };
    // As SPEC.md numbers them.
    let machines = [Arch::Amd64, Arch::Arm64, Arch::Riscv64, Arch::S390x, Arch::X86, Arch::Arm, Arch::Ppc64le];
    let number = |arch| (1..).zip(machines).find(|(_, machine)| *machine == arch).unwrap().0;
    assert_eq!(
        unwritable(builder().cpu(CpuFeatures::from_bits(foreign, 1)), &identity()),
        (Field::Arch, Bound::Exactly(number(Arch::host())), number(foreign))
    );
    assert!(identity().with_build_id(&[0; 256]).is_err());
}

#[test]
fn a_renamed_file_is_found_out_by_the_store() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    let other = Key::from_bytes([8; 32]);
    let mut builder = machine::builder(1);
    let entry = builder.finish(store.identity(), &KEY).unwrap();
    assert!(matches!(store.put(&other, &entry), Err(Error::Key { .. })));
    store.put(&KEY, &entry).unwrap();
    std::fs::rename(store.path(&KEY), store.path(&other)).unwrap();
    assert!(matches!(store.load(&other).unwrap(), Lookup::Rejected(Error::Key { .. })));
    assert!(matches!(store.get(&other).unwrap(), Lookup::Rejected(Error::Key { .. })));
    assert!(matches!(store.load(&KEY).unwrap(), Lookup::Miss));
}

#[test]
fn a_seal_holds_no_time_and_no_chance() {
    for sealing in sealings() {
        let identity = identity().with_sealing(sealing);
        let file = || machine::builder(1).finish(&identity, &KEY).unwrap().to_vec();
        assert_eq!(file(), file());
    }
}

#[test]
fn a_loaded_entry_was_checked_to_its_last_byte_and_its_source_map_before_it_is_used() {
    for sealing in sealings() {
        let identity = identity().with_sealing(sealing);
        let file = machine::builder(1).finish(&identity, &KEY).unwrap().to_vec();
        Module::load_file(file.clone().into(), &identity, &KEY).unwrap().check_source_map().unwrap();
        let rows = rows(&file, &identity);
        for bit in 0..file.len() * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            let from_file = Module::load_file(file.clone().into(), &identity, &KEY);
            // A view does not know which key it was asked for.
            let from_view = Entry::parse(&file, &identity).and_then(|entry| Module::load(&entry));
            for outcome in [from_file, from_view] {
                match outcome {
                    Err(error) if error.is_rejection() || error.is_stale() => {}
                    Ok(module) if rows.contains(&(bit / 8)) => {
                        let pc = module.function(0).unwrap() as usize + AFTER_CALL as usize;
                        let at = module.locate(pc).unwrap();
                        assert_eq!((at.function.is_some(), at.source), (true, None));
                        assert!(module.source_map().is_none());
                        assert!(module.check_source_map().is_err_and(|error| error.is_rejection()));
                    }
                    other => panic!("{bit}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn errors_have_names_numbers_and_advice_of_their_own() {
    let errors = [
        Error::Stale { at: 0, expected: identity().version().clone(), found: identity().version().clone() },
        Error::Magic { at: 0, expected: identity().magic(), found: identity().magic() },
        Error::Truncated { field: Field::Code, at: 0, expected: 0, found: 0 },
        Error::Value { field: Field::Code, at: 0, expected: Bound::Exactly(0), found: 0 },
        Error::Checksum { field: Field::Code, at: 0, expected: 0, found: 0 },
        Error::Trailing { at: 0, expected: 0, found: 0 },
        Error::NotAFile { path: "x".into() },
        Error::Unsealed { at: 0, expected: [0; 8], found: [0; 8] },
        Error::Key { at: 0, expected: KEY, found: KEY },
        Error::Target { at: 0, expected: Target::host(), found: Target::host() },
        Error::CpuFeatures { at: 0, expected: CpuFeatures::host(), found: CpuFeatures::host() },
        Error::BuildId { at: 0, expected: [].into(), found: [].into() },
        Error::UnknownSection { at: 0, tag: 0 },
        Error::Forged { at: 0 },
        Error::Untrusted { path: "x".into(), owner: 0, mode: 0, rule: "y" },
        Error::Io { action: "read", path: "x".into(), source: std::io::ErrorKind::Other.into() },
        Error::Memory { action: "map", length: 0, source: std::io::ErrorKind::Other.into() },
        Error::UnsupportedMachine,
        Error::Invalid { what: "x", rule: "y" },
        Error::Unwritable { field: Field::Code, expected: Bound::Exactly(0), found: 0 },
        Error::UnknownLayout { at: 0, found: 1 },
        Error::Foreign { expected: Target::host(), found: Target::host() },
    ];
    let numbers: Vec<_> = errors.iter().map(Error::number).collect();
    // They are written down by whoever counts errors: none may ever change.
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 100, 101, 102, 103, 104, 105, 106]);
    let distinct = |told: fn(&Error) -> &'static str| errors.iter().map(told).collect::<BTreeSet<_>>().len();
    assert_eq!((distinct(Error::name), distinct(Error::explain)), (errors.len(), errors.len()));
    assert_eq!(errors.iter().filter(|error| error.is_rejection()).count(), 14);
    assert_eq!(errors.iter().filter(|error| error.is_stale()).count(), 1);
    assert!(errors.iter().all(|error| error.explain().ends_with('.')));
    assert!(errors.iter().all(|error| std::error::Error::source(error).is_none()));
}

#[test]
fn parts_that_two_entries_exchange_are_found_out_whichever_they_are() {
    // Entries of one length, part by part, that differ in every part.
    let build = |n: u8, identity: &Identity| {
        let mut builder = Builder::new();
        let code: Vec<u8> = (0..3000_u32).map(|i| (i.wrapping_mul(97) >> 3) as u8 ^ n.wrapping_mul(0x5b)).collect();
        builder.code(code).function(u64::from(n) * 16).function(1024 + u64::from(n) * 16);
        builder.source(u64::from(n), 7).source(900, u64::from(n));
        builder.try_table(&[jitcache::entry::CatchClause { kind: 0, tag: n.into() }]).metadata(&[n; 9]);
        builder.finish(identity, &Key::from_bytes([n; 32])).unwrap().to_vec()
    };
    for sealing in sealings() {
        let identity = identity().with_sealing(sealing);
        let (one, two) = (build(1, &identity), build(2, &identity));
        let entry = Entry::parse(&one, &identity).unwrap();
        let code = entry.code_range();
        let (start, end, length) = (code.start as usize, code.end as usize, one.len());
        let bounds = [15, start - 8, start, end, end + 4, end + 13, end + 45, end + 58, length - FOOTER - SEAL - 22];
        let bounds = [&bounds[..], &[length - FOOTER, length - 72, length - 40, length - 8]].concat();
        let parts: Vec<_> = bounds.windows(2).map(|part| part[0]..part[1]).collect();
        let differing: Vec<_> = parts.into_iter().filter(|part| one[part.clone()] != two[part.clone()]).collect();
        assert!(differing.len() >= 8, "{differing:?}");
        let code_and_checksum = [start..end, end..end + 4];
        assert!(code_and_checksum.iter().all(|part| differing.contains(part)));
        // None and all of them are one entry and the other.
        for set in 1..(1_u32 << differing.len()) - 1 {
            let mut file = one.clone();
            for part in differing.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, part)| part) {
                file[part.clone()].copy_from_slice(&two[part.clone()]);
            }
            assert_rejected(&file, &identity, || format!("{set:b} of {differing:?}"));
            let keys = [1, 2].map(|n| Key::from_bytes([n; 32]));
            for key in &keys {
                // A load leaves the source map for later.
                match Module::load_file(file.clone().into(), &identity, key) {
                    Ok(module) => assert!(module.check_source_map().is_err(), "{set:b} of {differing:?}"),
                    Err(error) => assert!(error.is_rejection(), "{error}"),
                }
            }
        }
    }
}

//! Identities that share a directory, and entries where they do not belong.

use std::fs;

use jitcache::{
    Arch, Builder, Cache, CpuFeatures, Entry, Error, Identity, Key, Lookup, MacKey, Module, Os, Revision, Sealing,
    Store, Target,
};

use crate::machine::{self, KEY};
use crate::scratch::Scratch;

fn identity() -> Identity {
    Identity::new("identity", *b"IDENTI", "1").unwrap()
}

fn features(bits: u128) -> CpuFeatures {
    CpuFeatures::from_bits(Arch::host(), bits)
}

/// An architecture that this machine has not, and a system.
/// Of a machine on which no test runs.
const FOREIGN: Target = Target { arch: Arch::Loong64, os: Os::Linux };

#[test]
fn engines_that_differ_in_what_decides_validity_share_a_directory_and_each_compiles_once() {
    let mac = |byte| identity().with_sealing(Sealing::Mac(MacKey::new([byte; 32])));
    let plain = || identity().with_sealing(Sealing::Plain);
    for (what, engines) in [
        ("build", [identity().with_build_id(b"1").unwrap(), identity().with_build_id(b"2").unwrap()]),
        ("build, of which one has none", [identity(), identity().with_build_id(b"2").unwrap()]),
        ("sealing", [identity(), mac(1)]),
        ("seal", [identity(), plain()]),
        ("MAC key", [mac(1), mac(2)]),
        ("features", [identity(), identity().with_cpu(features(1 << 100))]),
        ("revision", [plain(), plain().with_revision(Revision::SourceMap)]),
        ("sections", [identity(), identity().with_sections(&[1])]),
        ("alignment", [identity(), identity().with_function_alignment(16).unwrap()]),
        ("alignment in the file", [8, 16].map(|bytes| identity().with_alignment_in_file(bytes).unwrap())),
        (
            "what is aligned",
            [identity().with_function_alignment(16).unwrap(), identity().with_alignment_in_file(16).unwrap()],
        ),
    ] {
        let scratch = Scratch::new();
        let mut compilations = 0;
        for start in 0..20 {
            let which = start % 2;
            let cache = Cache::open(scratch.path(), engines[which].clone()).unwrap();
            let key = Key::of(cache.identity()).source(b"the same").finish();
            let module = cache.get_or_compile(&key, |builder| {
                compilations += 1;
                *builder = machine::builder(which as u16);
                Ok::<(), Error>(())
            });
            assert_eq!(machine::constant(&module.unwrap()), which as i32, "{what}");
        }
        assert_eq!(compilations, 2, "{what}");
    }
}

#[test]
fn what_the_store_would_not_read_is_not_put() {
    let ours = identity().with_build_id(b"ours").unwrap().with_cpu(features(0b11)).with_sections(&[1, 2]);
    let plain = ours.clone().with_sealing(Sealing::Plain);
    let mac = ours.clone().with_sealing(Sealing::Mac(MacKey::new([1; 32])));
    let version = |version| Identity::new("identity", *b"IDENTI", version).unwrap().with_cpu(features(0b11));
    let magic = Identity::new("identity", *b"OTHER\0", "1").unwrap();
    let other = |os| ours.clone().with_target(Target { os, ..Target::host() });
    // Whose store, whose entry, and what it is called.
    for (what, store, entry, name) in [
        ("version", &ours, &version("2"), "invalid"),
        ("magic", &ours, &magic, "invalid"),
        ("no seal", &ours, &plain, "invalid"),
        ("a seal", &plain, &ours, "invalid"),
        ("a MAC", &ours, &mac, "invalid"),
        ("no MAC", &mac, &ours, "invalid"),
        ("another MAC key", &mac, &ours.clone().with_sealing(Sealing::Mac(MacKey::new([2; 32]))), "invalid"),
        ("revision", &plain, &plain.clone().with_revision(Revision::SourceMap), "invalid"),
        ("a later revision", &plain.clone().with_revision(Revision::SourceMap), &plain, "invalid"),
        ("architecture", &ours, &ours.clone().with_target(FOREIGN), "target"),
        ("system", &ours, &other(Os::Netbsd), "target"),
        ("unknown system", &other(Os::Other), &other(Os::Other), "value"),
        ("build", &ours, &ours.clone().with_build_id(b"theirs").unwrap(), "build-id"),
        ("no build", &ours, &version("1"), "build-id"),
        ("features", &ours, &ours.clone().with_cpu(features(0b111)), "cpu-features"),
        ("section", &ours.clone().with_sections(&[2]), &ours, "unknown-section"),
        ("alignment", &ours.clone().with_function_alignment(64).unwrap(), &ours, "value"),
        ("alignment in the file", &ours.clone().with_alignment_in_file(64).unwrap(), &ours, "value"),
    ] {
        let scratch = Scratch::new();
        let store = Store::open(scratch.path(), store.clone()).unwrap();
        let mut builder = machine::builder(1);
        if *entry.sealing() != Sealing::Plain {
            builder.section(1, true, b"one").section(2, false, b"two");
        }
        let entry = builder.finish(entry, &KEY).unwrap();
        let error = store.put(&KEY, &entry).unwrap_err();
        assert_eq!(error.name(), name, "{what}: {error}");
        assert_eq!(fs::read_dir(store.directory()).unwrap().count(), 0, "{what}");

        fs::write(store.path(&KEY), entry.to_vec()).unwrap();
        match store.verify(&KEY).unwrap() {
            Lookup::Rejected(rejected) if name != "invalid" => {
                assert_eq!(format!("{rejected:?}"), format!("{error:?}"), "{what}");
            }
            Lookup::Rejected(_) | Lookup::Stale(_) => {}
            found => panic!("{what}: {found:?}"),
        }
    }
}

#[test]
fn a_plain_entry_for_another_machine_is_not_put_though_nothing_in_it_tells() {
    let scratch = Scratch::new();
    let plain = identity().with_sealing(Sealing::Plain);
    let store = Store::open(scratch.path(), plain.clone()).unwrap();
    let foreign = plain.with_target(FOREIGN);
    let outcome = store.put(&KEY, &machine::builder(1).finish(&foreign, &KEY).unwrap());
    assert!(matches!(outcome, Err(Error::Invalid { what: "entry", .. })), "{outcome:?}");
}

#[test]
fn an_entry_that_was_parsed_is_verified_before_it_is_put() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity()).unwrap();
    let mut file = machine::builder(1).finish(&identity(), &KEY).unwrap().to_vec();
    store.put(&KEY, &Entry::parse(&file, &identity()).unwrap()).unwrap();
    assert!(matches!(store.load(&KEY).unwrap(), Lookup::Hit(_)));
    let code = Entry::parse(&file, &identity()).unwrap().code_range().start as usize;
    file[code] ^= 1;
    let outcome = store.put(&KEY, &Entry::parse(&file, &identity()).unwrap());
    assert!(matches!(outcome, Err(Error::Checksum { .. })), "{outcome:?}");
}

#[test]
fn an_entry_needs_what_its_compiler_may_use_unless_it_says_that_it_needs_less() {
    let host = CpuFeatures::host();
    let writer = identity().with_cpu(features(0b111));
    let read = |builder: &mut Builder<'_>, writer: &Identity, there: u128| {
        let file = builder.finish(writer, &KEY).unwrap().to_vec();
        Entry::parse(&file, &identity().with_cpu(features(there))).map(drop)
    };
    let less = || {
        let mut builder = machine::builder(1);
        builder.cpu(features(0b10));
        builder
    };
    assert!(read(&mut machine::builder(1), &identity(), host.bits()).is_ok());
    assert!(read(&mut machine::builder(1), &writer, 0b1111).is_ok());
    assert!(matches!(read(&mut machine::builder(1), &writer, 0b110), Err(Error::CpuFeatures { .. })));
    assert!(read(&mut less(), &writer, 0b110).is_ok());
    assert!(matches!(read(&mut less(), &writer, 0b101), Err(Error::CpuFeatures { .. })));

    // What needs more than the identity has would be rejected by its own engine.
    for sealing in [Sealing::Checksum, Sealing::Plain] {
        let writer = writer.clone().with_sealing(sealing);
        match machine::builder(1).cpu(features(0b1010)).finish(&writer, &KEY) {
            Err(Error::CpuFeatures { expected, found, .. }) => {
                assert_eq!((expected.bits(), found.bits()), (0b111, 0b1010));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn code_for_another_machine_is_not_made_executable() {
    let elsewhere = Target { os: Os::Netbsd, ..Target::host() };
    for target in [FOREIGN, elsewhere] {
        for sealing in [Sealing::Plain, Sealing::Checksum] {
            let identity = identity().with_sealing(sealing).with_target(target);
            let mut builder = machine::builder(1);
            let entry = builder.finish(&identity, &KEY).unwrap();
            let file = entry.to_vec();
            for outcome in [Module::load(&entry), Module::load_file(file.into(), &identity, &KEY)] {
                match outcome {
                    Err(Error::Foreign { expected, found }) => assert_eq!((expected, found), (Target::host(), target)),
                    other => panic!("{other:?}"),
                }
            }

            // A cache over such a store gives no module, and takes nothing away.
            let scratch = Scratch::new();
            let store = Store::open(scratch.path(), identity.clone()).unwrap();
            store.put(&KEY, &entry).unwrap();
            let cache = Cache::over(store);
            assert!(matches!(cache.get(&KEY), Lookup::Miss));
            let outcome = cache.get_or_compile(&KEY, |builder| {
                *builder = machine::builder(1);
                Ok::<(), Error>(())
            });
            assert!(matches!(outcome, Err(Error::Foreign { .. })), "{outcome:?}");
            assert!(matches!(cache.verify(&KEY), Lookup::Hit(())));
        }
    }
}

#[test]
fn two_machines_without_a_name_do_not_take_each_others_entries() {
    for (target, message) in [
        (Target { arch: Arch::Other, os: Os::Linux }, "architecture at "),
        (Target { os: Os::Other, ..Target::host() }, "operating system at "),
    ] {
        let identity = identity().with_target(target);
        let file = machine::builder(1).finish(&identity, &KEY).unwrap().to_vec();
        let error = Entry::parse(&file, &identity).unwrap_err();
        assert!(error.is_rejection() && error.to_string().starts_with(message), "{error}");
    }
}

#[test]
fn padding_is_what_traps_on_the_target_and_not_on_the_host() {
    let aligned = |arch| identity().with_alignment_in_file(256).unwrap().with_target(Target { arch, os: Os::Linux });
    let builder = || {
        let mut builder = Builder::new();
        builder.code(vec![0x55; 300]).function(0);
        builder
    };
    let mut reused = builder();
    for (arch, trap) in [
        (Arch::Amd64, 0xcc),
        (Arch::Arm64, 0x00),
        (Arch::X86, 0xcc),
        (Arch::Riscv64, 0x00),
        (Arch::S390x, 0x00),
        (Arch::Arm, 0xff),
    ] {
        let mut builder = builder();
        let (identity, padding) = (aligned(arch), 256 - 28);
        let entry = builder.finish(&identity, &KEY).unwrap();
        let (file, at) = (entry.to_vec(), entry.code_range().start as usize);
        assert_eq!(file[at..at + padding], vec![trap; padding], "{arch:?}");
        assert_eq!(entry.code(), [0x55; 300]);
        assert_eq!(reused.finish(&identity, &KEY).unwrap(), entry, "{arch:?}");
    }
}

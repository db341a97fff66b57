//! Code that calls out and has data beside it.

#![cfg_attr(
    not(all(unix, target_arch = "x86_64")),
    allow(dead_code, unused_imports, reason = "the code that is run is of x86-64")
)]

#[cfg(all(unix, target_arch = "x86_64"))]
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use jitcache::error::Field;
use jitcache::{
    Access, Arch, Builder, Cache, Entry, Error, FileBytes, Identity, Key, Linker, Lookup, Module, Place,
    RelocationKind, Store, Target,
};

use crate::generate::UNWIND_TABLES;
use crate::scratch::Scratch;

fn identity() -> &'static Identity {
    static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::new("linked", *b"LINKED", "1").unwrap());
    &IDENTITY
}

fn key() -> Key {
    Key::of(identity()).source(b"linked").finish()
}

#[cfg(target_arch = "x86_64")]
extern "sysv64" fn three_times(number: u64) -> u64 {
    number * 3
}

#[cfg(target_arch = "x86_64")]
extern "sysv64" fn four_times(number: u64) -> u64 {
    number * 4
}

#[cfg(target_arch = "x86_64")]
fn linker(times: extern "sysv64" fn(u64) -> u64) -> Linker {
    Linker::new(move |name| (name == "times").then_some(times as *const u8))
}

/// What a table says, times what the host does with it, by way of everything there is: a call through a stub, a slot,
/// an address in data, a counter that is written. Each call counts 1 more.
#[cfg(target_arch = "x86_64")]
fn counting(filling: usize) -> Builder<'static> {
    let mut code = vec![
        0x53, // push rbx
        0x48, 0x8d, 0x1d, 0, 0, 0, 0, // lea rbx, [rip + table]
        0x48, 0x8b, 0x1b, // mov rbx, [rbx]: the address of the number
        0x48, 0x8b, 0x3b, // mov rdi, [rbx]
        0xe8, 0, 0, 0, 0, // call times
        0x48, 0x89, 0xc7, // mov rdi, rax
        0xff, 0x15, 0, 0, 0, 0, // call [rip + slot of times]
        0x48, 0x8b, 0x1d, 0, 0, 0, 0, // mov rbx, [rip + slot of counter]
        0x48, 0xff, 0x03, // inc qword [rbx]
        0x48, 0x03, 0x03, // add rax, [rbx]
        0x5b, // pop rbx
        0xc3, // ret
    ];
    code.resize(code.len() + filling, 0x90);
    let mut builder = Builder::new();
    builder.code(code).function_named(0, 44, "count");
    let times = builder.import("times");
    let number = builder.data(&7_u64.to_le_bytes(), 64);
    let table = builder.data(&[0; 8], 8);
    let counter = builder.writable_data(&100_u64.to_le_bytes(), 8);
    builder
        .relocate(table, RelocationKind::Abs8, number, 0)
        .relocate(Place::Code(4), RelocationKind::X86PCRel4, table, -4)
        .relocate(Place::Code(15), RelocationKind::X86CallPLTRel4, times, -4)
        .relocate(Place::Code(24), RelocationKind::X86GOTPCRel4, times, -4)
        .relocate(Place::Code(31), RelocationKind::X86GOTPCRel4, counter, -4)
        .symbol(counter, 8, "counter")
        // What stands behind long code is long, too, and is not read with the rest then.
        .metadata(&vec![5; filling]);
    builder
}

#[cfg(target_arch = "x86_64")]
fn count(module: &Module) -> u64 {
    // SAFETY: the code takes nothing and returns a number.
    let count: extern "sysv64" fn() -> u64 = unsafe { std::mem::transmute(module.symbol("count").unwrap()) };
    count()
}

#[cfg(target_arch = "x86_64")]
fn check(module: &Module, times: u64, how: &str) {
    assert_eq!(module.function_name(0), Some("count"), "{how}");
    assert!(module.metadata().unwrap().iter().all(|byte| *byte == 5), "{how}");
    assert_eq!(module.symbol("count"), module.function(0), "{how}");
    assert_eq!([count(module), count(module)], [101, 102].map(|count| count + 7 * times * times), "{how}");
    let counter: *const u64 = module.symbol("counter").unwrap().cast();
    // SAFETY: a number lies there as long as the module lives.
    assert_eq!(unsafe { counter.read() }, 102, "{how}");
}

/// All ways into memory.
fn accesses() -> [Access; 4] {
    // SAFETY: the tests replace files.
    let map = unsafe { Access::map() };
    // SAFETY: the same.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: the same, and what is not checked is sound.
    let unchecked = unsafe { Access::in_place_unchecked() };
    [Access::READ, map, in_place, unchecked]
}

#[test]
#[cfg(target_arch = "x86_64")]
fn code_calls_what_the_engine_has_and_finds_its_data_however_it_is_loaded() {
    for filling in [0, 4096 - 150, 4096, 70_000, 300_000] {
        let identity = identity();
        let mut builder = counting(filling);
        let entry = builder.finish(identity, &key()).unwrap();
        entry.verify().unwrap();
        check(&Module::load_with(&entry, &linker(three_times)).unwrap(), 3, "built");
        let scratch = Scratch::new();
        let store = Store::open(scratch.path(), identity.clone()).unwrap();
        store.put(&key(), &entry).unwrap();
        for access in accesses() {
            for (times, by) in [(three_times as extern "sysv64" fn(u64) -> u64, 3), (four_times, 4)] {
                let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(access);
                let store = store.with_linker(linker(times));
                let modules = [(); 2].map(|()| store.load(&key()).unwrap().hit().unwrap());
                for module in modules {
                    check(&module, by, &format!("{filling} {access:?}"));
                    let is_to_run = access != Access::READ && access != accesses()[1];
                    assert_eq!(module.is_in_place(), is_to_run && cfg!(unix), "{filling} {access:?}");
                }
                let file = FileBytes::open(&store.path(&key()), access).unwrap().unwrap();
                let module = Module::load_file_with(file, identity, &key(), &linker(times)).unwrap();
                check(&module, by, &format!("{filling} {access:?}, from the bytes of a file"));
            }
        }
        let cache = Cache::over(store).with_linker(linker(four_times));
        check(&cache.get(&key()).hit().unwrap(), 4, "from a cache");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_name_that_the_engine_does_not_have_is_told_and_the_entry_stays() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity().clone()).unwrap();
    let mut builder = counting(0);
    let entry = builder.finish(identity(), &key()).unwrap();
    store.put(&key(), &entry).unwrap();
    let name_of = |error: Error| match error {
        Error::UnboundImport { name } => String::from(name),
        error => panic!("{error}"),
    };
    assert_eq!(name_of(Module::load(&entry).unwrap_err()), "times");
    for access in accesses() {
        let store = Store::open(scratch.path(), identity().clone()).unwrap().with_access(access);
        assert_eq!(name_of(store.load(&key()).unwrap_err()), "times");
        let file = std::fs::read(store.path(&key())).unwrap();
        assert_eq!(name_of(Module::load_file(FileBytes::from(file), identity(), &key()).unwrap_err()), "times");
    }
    let cache = Cache::over(store);
    assert!(matches!(cache.get(&key()), Lookup::Miss));
    let compiled = cache.get_or_compile(&key(), |builder| {
        *builder = counting(0);
        Ok::<(), Error>(())
    });
    assert_eq!(name_of(compiled.unwrap_err()), "times");
    assert_eq!(cache.store().unwrap().list().unwrap().count(), 1);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn what_is_attached_is_dropped_before_the_code_is_unmapped_and_is_attached_once() {
    struct State(Arc<AtomicBool>, usize);
    impl Drop for State {
        fn drop(&mut self) {
            // SAFETY: the code is still there.
            assert_eq!(unsafe { *std::ptr::with_exposed_provenance::<u8>(self.1) }, 0x53);
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let mut builder = counting(0);
    let module = Module::load_with(&builder.finish(identity(), &key()).unwrap(), &linker(three_times)).unwrap();
    let is_dropped = Arc::new(AtomicBool::new(false));
    let address = module.function(0).unwrap().expose_provenance();
    assert!(module.attached::<State>().is_none());
    assert!(module.attach(State(Arc::clone(&is_dropped), address)).is_ok());
    assert_eq!(module.attach(5_u8), Err(5));
    assert!(module.attached::<u8>().is_none() && module.attached::<State>().is_some());
    drop(module);
    assert!(is_dropped.load(Ordering::Relaxed));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_linked_entry_that_is_taken_apart_is_put_together_as_it_was_or_not_at_all() {
    let mut builder = counting(5000);
    let entry = builder.finish(identity(), &key()).unwrap();
    assert_eq!(Builder::from(&entry).finish(identity(), &key()).unwrap(), entry);
    let longer = Identity::new("linked", *b"LINKED", &"1".repeat(100)).unwrap();
    // The padding is longer, or not in the file, or the code is.
    let aligned = identity().clone().with_alignment_in_file(64).unwrap();
    let beside = identity().clone().with_function_alignment(16).unwrap();
    for (identity, grows) in [(&longer, false), (&aligned, false), (&beside, false), (identity(), true)] {
        let mut builder = Builder::from(&entry);
        if grows {
            builder.code([entry.code(), &[0x90; 16]].concat());
        }
        let moved = builder.finish(identity, &key());
        assert!(matches!(moved, Err(Error::Invalid { .. })), "{identity:?}");
    }
    // What was handed in is linked anew.
    let entry = builder.finish(&longer, &key()).unwrap();
    check(&Module::load_with(&entry, &linker(three_times)).unwrap(), 3, "anew");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn unwind_tables_are_registered_as_they_are_in_memory_or_not_at_all() {
    let mut builder = Builder::new();
    builder.code(vec![0xc3; 16]).function(0);
    let tables = builder.eh_frame(&UNWIND_TABLES);
    let function = tables.behind(24);
    let import = builder.import("times");
    // The address of a function stands in its record; over the record's length, it would lead the unwinder astray.
    for (behind, is_sound) in [(8, true), (0, false)] {
        let mut builder = builder.clone();
        builder.relocate(function.behind(behind), RelocationKind::Abs8, import, 0);
        let entry = builder.finish(identity(), &key()).unwrap();
        entry.verify().unwrap();
        let loaded = Module::load_with(&entry, &linker(three_times).with_unwinding());
        let is_refused = matches!(loaded, Err(Error::Value { field: Field::UnwindTables, .. }));
        assert_eq!((loaded.is_ok(), is_refused), (is_sound, !is_sound), "{behind}");
        assert!(Module::load_with(&entry, &linker(three_times)).is_ok());
    }
}

#[test]
#[cfg(target_os = "linux")]
#[cfg(target_arch = "x86_64")]
fn nothing_of_an_image_can_be_written_and_executed_and_no_more_than_data_written() {
    let scratch = Scratch::new();
    let store = Store::open(scratch.path(), identity().clone()).unwrap();
    store.put(&key(), &counting(9000).finish(identity(), &key()).unwrap()).unwrap();
    for access in accesses() {
        let store = Store::open(scratch.path(), identity().clone())
            .unwrap()
            .with_access(access)
            .with_linker(linker(four_times));
        let module = store.load(&key()).unwrap().hit().unwrap();
        let range = module.address_range();
        let counter = module.symbol("counter").unwrap().addr();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let how = |address: usize| {
            let line = maps.lines().find(|line| {
                let (start, rest) = line.split_once('-').unwrap();
                let end = rest.split(' ').next().unwrap();
                let number = |text| usize::from_str_radix(text, 16).unwrap();
                (number(start)..number(end)).contains(&address)
            });
            line.unwrap().split(' ').nth(1).unwrap()[..3].to_owned()
        };
        assert_eq!([how(range.start), how(range.end - 1)], ["r-x", "r-x"], "{access:?}");
        assert_eq!(how(counter - 4096), "r--", "data and slots: {access:?}");
        assert_eq!(how(counter), "rw-", "{access:?}");
    }
}

#[test]
fn what_cannot_be_linked_is_refused_with_the_rule_that_it_breaks() {
    use RelocationKind as Kind;
    let (own, other) = if cfg!(target_arch = "aarch64") {
        (Kind::Aarch64Prel32, Kind::X86PCRel4)
    } else {
        (Kind::X86PCRel4, Kind::Aarch64Prel32)
    };
    for (at, kind, target) in [
        (Place::Code(0), Kind::Abs8, Place::Code(0)),
        (Place::Code(0), own, Place::Import(0)),
        (Place::Code(0), other, Place::Code(0)),
        (Place::Code(15), own, Place::Code(0)),
        (Place::Code(u64::MAX), own, Place::Code(0)),
        (Place::Import(0), own, Place::Code(0)),
        (Place::ReadOnly(0), own, Place::Code(1 << 40)),
        (Place::ReadOnly(0), Kind::Abs8, Place::Import(1)),
    ] {
        let mut builder = Builder::new();
        builder.code(vec![0; 16]).function(0);
        assert_eq!(builder.import("name"), Place::Import(0));
        assert_eq!(builder.data(&[0; 8], 8), Place::ReadOnly(0));
        let refused = builder.relocate(at, kind, target, 0).finish(identity(), &key()).map(drop);
        assert!(matches!(refused, Err(Error::Relocation { .. })), "{at:?} {kind:?} {target:?}: {refused:?}");
    }
    // Instructions are known of two architectures.
    for arch in [Arch::X86, Arch::Riscv64, Arch::S390x, Arch::Arm, Arch::Ppc64le] {
        let identity = identity().clone().with_target(Target { arch, ..Target::host() });
        for kind in [Kind::X86PCRel4, Kind::X86CallPLTRel4, Kind::X86GOTPCRel4, Kind::Arm64Call] {
            let mut builder = Builder::new();
            builder.code(vec![0; 16]).function(0);
            let target = if kind == Kind::X86PCRel4 { Place::Code(0) } else { builder.import("name") };
            let refused = builder.relocate(Place::Code(4), kind, target, 0).finish(&identity, &key()).map(drop);
            assert!(matches!(refused, Err(Error::Relocation { .. })), "{arch:?} {kind:?}: {refused:?}");
        }
    }
    let refused = |change: fn(&mut Builder<'_>) -> Place, identity: &Identity| {
        let mut builder = Builder::new();
        builder.code(vec![0; 16]);
        change(&mut builder);
        builder.finish(identity, &key()).map(drop).unwrap_err()
    };
    let data = |builder: &mut Builder<'_>| builder.data(&[0; 8], 8);
    for (error, rule) in [
        (refused(data, &identity().clone().with_function_alignment(16).unwrap()), "start of the file"),
        (refused(|builder| builder.data(&[0], 3), identity()), "power of two"),
        (refused(|builder| builder.data(&[0], 8192), identity()), "power of two"),
        (refused(|builder| builder.import(""), identity()), "must not be empty"),
        (refused(|builder| builder.code(&[][..]).import("a"), identity()), "must not be empty"),
    ] {
        assert!(error.to_string().contains(rule), "{error}");
    }
    let plain = identity().clone().with_sealing(jitcache::Sealing::Plain);
    assert!(matches!(refused(data, &plain), Error::Unwritable { .. }));
    // Addresses that overlap, and one of a place that is not there.
    for (at, target) in [(4, Place::Code(0)), (12, Place::Code(0)), (0, Place::Code(1 << 40))] {
        let mut builder = Builder::new();
        builder.code(vec![0; 16]);
        let data = builder.data(&[0; 16], 8);
        builder.relocate(data, Kind::Abs8, target, 0).relocate(data.behind(at), Kind::Abs8, target, 0);
        assert!(matches!(builder.finish(identity(), &key()), Err(Error::Unwritable { .. })), "{at}");
    }
}

#[test]
fn the_parts_of_a_linked_entry_are_told_as_they_were_handed_in() {
    let mut builder = Builder::new();
    builder.code(vec![0; 16]).function_named(0, 9, "first").function_named(9, 7, "second");
    let [a, b, again] = ["a", "b", "a"].map(|name| builder.import(name));
    assert_eq!((a, b, again), (Place::Import(0), Place::Import(1), a));
    let (data, writable) = (builder.data(b"read me!", 1), builder.writable_data(b"write me", 1));
    builder.relocate(writable, RelocationKind::Abs8, b, 5).relocate(data, RelocationKind::Abs8, Place::Code(9), -1);
    builder.symbol(data, 8, "text");
    let file = builder.finish(identity(), &key()).unwrap().to_vec();
    let entry = Entry::parse(&file, identity()).unwrap();
    entry.verify().unwrap();
    assert_eq!(entry.imports().collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(entry.data(), [b"read me!", b"write me"]);
    let relocations: Vec<_> = entry.relocations().collect();
    assert_eq!(relocations.iter().map(|row| (row.import, row.addend)).collect::<Vec<_>>(), [(None, 8), (Some(1), 5)]);
    let symbols = entry.symbols();
    assert_eq!(symbols.iter().map(|symbol| symbol.name).collect::<Vec<_>>(), [&b"first"[..], b"second", b"text"]);
    assert_eq!(symbols.named(b"text").unwrap().offset, relocations[0].place);
    assert_eq!(symbols.at(9).unwrap().length, 7);
    assert_eq!((symbols.at(10), symbols.named(b"third")), (None, None));
    assert_eq!(entry.eh_frame(), None);
}

#[test]
fn every_flip_cut_and_exchange_of_what_code_is_linked_to_is_found() {
    let build = |names: [&str; 2], text: &[u8]| {
        let mut builder = Builder::new();
        builder.code(vec![0; 16]).function_named(0, 16, names[0]);
        let (import, data) = (builder.import(names[1]), builder.data(text, 8));
        builder.eh_frame(&UNWIND_TABLES);
        builder.relocate(data, RelocationKind::Abs8, import, 0);
        builder.finish(identity(), &key()).unwrap().to_vec()
    };
    let sound = build(["function", "import"], b"text and more");
    let is_sound = |file: &[u8]| Entry::parse(file, identity()).is_ok_and(|entry| entry.verify().is_ok());
    assert!(is_sound(&sound));
    for bit in 0..sound.len() * 8 {
        let mut file = sound.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_sound(&file), "bit {bit}");
    }
    for length in 0..sound.len() {
        assert!(!is_sound(&sound[..length]), "{length} bytes");
    }
    let other = build(["FUNCTION", "IMPORT"], b"another text!");
    assert!(sound.len() == other.len() && is_sound(&other));
    let seal = sound.len() - u64::from_le_bytes(*sound[sound.len() - 89..].first_chunk().unwrap()) as usize;
    for start in seal..sound.len() {
        for end in [start + 1, start + 13, sound.len() - 89, sound.len()] {
            let Some(part) = other.get(start..end) else { continue };
            let mut file = sound.clone();
            file[start..end].copy_from_slice(part);
            assert!(file == sound || file == other || !is_sound(&file), "{start}..{end}");
        }
    }
}

#[test]
#[cfg(all(unix, target_arch = "x86_64"))]
fn processes_that_share_an_entry_bind_it_each_in_its_own_way() {
    let scratch = Scratch::new();
    // SAFETY: the tests change no file.
    let access = unsafe { Access::in_place() };
    let store = Store::open(scratch.path(), identity().clone()).unwrap().with_access(access);
    store.put(&key(), &counting(9000).finish(identity(), &key()).unwrap()).unwrap();
    let store = store.with_linker(linker(three_times));
    let load = || store.load(&key()).unwrap().hit().unwrap();
    let (before, touched) = (load(), load());
    count(&touched);
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args(["linked::other_process", "--exact", "--ignored"]).env("JITCACHE_TEST_ROOT", scratch.path());
    assert!(other.status().unwrap().success());
    check(&before, 3, "loaded before, used behind the other");
    assert_eq!(count(&touched), 102 + 7 * 9, "nobody else counts here");
    check(&load(), 3, "loaded behind the other");
}

/// Not a test: what another process does.
#[test]
#[ignore = "run by another test, in a process of its own"]
#[cfg(all(unix, target_arch = "x86_64"))]
fn other_process() {
    let Some(root) = std::env::var_os("JITCACHE_TEST_ROOT") else { return };
    // SAFETY: the tests change no file.
    let access = unsafe { Access::in_place() };
    let store = Store::open(root, identity().clone()).unwrap().with_access(access).with_linker(linker(four_times));
    let module = store.load(&key()).unwrap().hit().unwrap();
    assert!(module.is_in_place());
    check(&module, 4, "the other process");
}

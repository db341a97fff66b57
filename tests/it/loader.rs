//! Loaded code runs, is where the module says, and is what the entry holds.

use std::sync::Arc;
use std::{fs, thread};

use jitcache::entry::{CatchClause, Locals};
use jitcache::error::{Bound, Field};
use jitcache::{
    Access, Builder, Entry, Error, FileBytes, Identity, Location, Lookup, MacKey, Module, Registry, Revision, Sealing,
    Store,
};

use crate::generate::add_try_table;
use crate::machine::{self, AFTER_CALL, FUNCTIONS, KEY};
#[cfg(target_os = "linux")]
use crate::maps;
use crate::scratch::Scratch;
#[cfg(target_os = "linux")]
use crate::skip::skip;

fn identity() -> Identity {
    Identity::new("loader", *b"LOADER", "1").unwrap()
}

fn file(constant: u16) -> Vec<u8> {
    machine::builder(constant).finish(&identity(), &KEY).unwrap().to_vec()
}

/// Every door, and whether code runs in place behind it.
fn accesses() -> [(Access, bool); 4] {
    // SAFETY: the tests here do not change a file while anything loaded from it is alive.
    let map = unsafe { Access::map() };
    // SAFETY: the same.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: the same, and they are whole and sound.
    let unchecked = unsafe { Access::in_place_unchecked() };
    [(Access::READ, false), (map, false), (in_place, true), (unchecked, true)]
}

#[test]
#[cfg(target_arch = "x86_64")]
fn constants_in_code_are_aligned_by_every_door_though_its_identity_asks_for_nothing() {
    // movaps xmm0, [rip + 9]; mov eax, 42; ret; and the constant, at 16.
    let code = [&[0x0f, 0x28, 0x05, 9, 0, 0, 0, 0xb8, 42, 0, 0, 0, 0xc3][..], &[0xcc; 3], &[1; 16]].concat();
    let scratch = Scratch::new();
    for identity in [
        identity(),
        identity().with_function_alignment(1).unwrap(),
        identity().with_alignment_in_file(1).unwrap(),
        identity().with_alignment_in_file(8).unwrap(),
        identity().with_sealing(Sealing::Plain).with_function_alignment(4).unwrap(),
    ] {
        // Each function more moves the code by 8 bytes; and each size that is treated in its own way.
        for (functions, length) in [(1, 0), (2, 0), (3, 0), (1, 70_000), (2, 70_000), (2, 3 << 20)] {
            let mut builder = Builder::new();
            builder.code([&code[..], &vec![0xcc; length]].concat());
            (0..functions).for_each(|function| _ = builder.function(function * 8));
            let store = Store::open(scratch.path(), identity.clone()).unwrap();
            let entry = builder.finish(&identity, &KEY).unwrap();
            fs::write(store.path(&KEY), entry.to_vec()).unwrap();
            let loads = accesses().map(|(access, _)| {
                let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(access);
                store.load(&KEY).unwrap().hit().unwrap()
            });
            for module in loads.into_iter().chain([Module::load(&entry).unwrap()]) {
                let address = module.function(0).unwrap();
                assert!((address as usize).is_multiple_of(16), "{identity:?} {functions} {length} {address:?}");
                // SAFETY: the function takes nothing and returns an int, in the C calling convention.
                let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(address) };
                assert_eq!(function(), 42);
            }
        }
    }
}

/// Returns how many bytes this thread has read.
#[cfg(target_os = "linux")]
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn what_never_runs_in_place_is_read_and_not_mapped() {
    let scratch = Scratch::new();
    let [.., (in_place, _), (unchecked, _)] = accesses();
    for (version, access) in
        ["v1.9.0", "v1.12.0"].into_iter().flat_map(|version| [(version, in_place), (version, unchecked)])
    {
        let identity = Identity::wazero(version).unwrap();
        let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(access);
        for length in [2000, 50_000, 300_000, 3 << 20] {
            let mut code = machine::code(7);
            code.resize(code.len() + length, 0xcc);
            let mut builder = machine::builder(7);
            builder.code(code);
            fs::write(store.path(&KEY), builder.finish(&identity, &KEY).unwrap().to_vec()).unwrap();
            let before = bytes_read();
            let module = store.load(&KEY).unwrap().hit().unwrap();
            let read = bytes_read() - before;
            assert!(!module.is_in_place() && read >= length as u64, "{version} {access:?}: {read} bytes of {length}");
            assert_eq!(machine::next(&module), 8);
        }
    }
}

#[test]
fn code_runs_after_loading_by_every_door() {
    let scratch = Scratch::new();
    let from_view = Module::load(&Entry::parse(&file(41), &identity()).unwrap()).unwrap();
    assert_eq!((machine::add(&from_view, 2, 3), machine::constant(&from_view), machine::next(&from_view)), (5, 41, 42));
    for (identity, aligned) in [
        (identity().with_alignment_in_file(16).unwrap(), true),
        (identity().with_alignment_in_file(8).unwrap(), true),
        (identity().with_function_alignment(16).unwrap(), false),
        (identity().with_function_alignment(16).unwrap().with_sealing(Sealing::Plain), false),
    ] {
        // Of each size that is treated in its own way.
        for length in [0, 1 << 20, 9 << 20] {
            let mut code = machine::code(7);
            code.resize(code.len() + length, 0xcc);
            let mut builder = machine::builder(7);
            builder.code(code.clone()).metadata(b"meta");
            if *identity.sealing() == Sealing::Plain {
                builder = machine::builder(7);
                builder.code(code.clone());
            }
            let store = Store::open(scratch.path(), identity.clone()).unwrap();
            fs::write(store.path(&KEY), builder.finish(&identity, &KEY).unwrap().to_vec()).unwrap();
            for (access, in_place) in accesses() {
                let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(access);
                let file = FileBytes::open(&store.path(&KEY), access).unwrap().unwrap();
                let opened = Module::load_file(file, &identity, &KEY).unwrap();
                for module in [opened, store.load(&KEY).unwrap().hit().unwrap()] {
                    assert_eq!(
                        (machine::add(&module, 2, 3), machine::constant(&module), machine::next(&module)),
                        (5, 7, 8)
                    );
                    assert_eq!(module.is_in_place(), in_place && aligned);
                    let main = module.function(0).unwrap() as usize;
                    assert_eq!(main % if aligned { identity.alignment().bytes as usize } else { 16 }, 0);
                    if cfg!(target_os = "linux") && access == Access::READ && length > 2 << 20 {
                        assert!(main % (2 << 20) < 4096, "large code begins on a huge page");
                    }
                    assert!(module.code().ends_with(&code));
                    assert_eq!(module.functions().len(), FUNCTIONS.len());
                    assert_eq!(module.locate_instruction(main + AFTER_CALL as usize).unwrap().source, Some(310));
                    let metadata = (*identity.sealing() != Sealing::Plain).then_some(&b"meta"[..]);
                    assert_eq!(module.metadata(), metadata);
                }
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn code_that_runs_in_place_is_the_file_and_not_writable() {
    let scratch = Scratch::new();
    let path = scratch.path().join("entry");
    let identity = identity().with_alignment_in_file(16).unwrap();
    fs::write(&path, machine::builder(7).finish(&identity, &KEY).unwrap().to_vec()).unwrap();
    let entry = machine::builder(7).finish(&identity, &KEY).unwrap().to_vec();
    for (access, _) in accesses().into_iter().filter(|(_, is_in_place)| *is_in_place) {
        fs::write(&path, &entry).unwrap();
        let file = FileBytes::open(&path, access).unwrap().unwrap();
        let module = Module::load_file(file, &identity, &KEY).unwrap();
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        assert!(open.into_iter().all(|file| file != path), "a module takes no file descriptor");
        // What was opened stays, whatever happens to the name.
        fs::remove_file(&path).unwrap();
        assert_eq!(machine::next(&module), 8);
        let mut protections = Vec::new();
        maps::each(|mapping| {
            if mapping.file.starts_with(path.to_str().unwrap()) {
                protections.push(mapping.protection.to_owned());
            }
        });
        // The page of the code, and those around it.
        assert!(protections.iter().any(|protection| protection == "r-xs"), "{protections:?}");
        assert!(protections.iter().all(|protection| ["r-xs", "r--s"].contains(&&**protection)), "{protections:?}");
    }
}

/// Returns which parts of a file are mapped to be executed, in bytes, in the order of the file.
#[cfg(target_os = "linux")]
fn executable_parts(path: &std::path::Path) -> Vec<(u64, u64)> {
    let mut parts = Vec::new();
    maps::each(|mapping| {
        if mapping.protection.contains('x') && mapping.file == path.to_str().unwrap() {
            parts.push((mapping.part().start, mapping.part().end));
        }
    });
    parts
}

/// Whether the system tells of each page if it is executable: an emulator may tell of the pages that it has itself.
#[cfg(target_os = "linux")]
fn tells_executable_parts(scratch: &Scratch) -> bool {
    let (path, page) = (scratch.path().join("probe"), region::page::size());
    fs::write(&path, vec![0; 2 * page]).unwrap();
    // SAFETY: nobody changes the file.
    let map = unsafe { memmap2::MmapOptions::new().map_exec(&fs::File::open(&path).unwrap()) }.unwrap();
    // SAFETY: the page belongs to the map, and stays readable.
    unsafe { region::protect(map[page..].as_ptr(), page, region::Protection::READ) }.unwrap();
    executable_parts(&path) == [(0, page as u64)]
}

#[test]
#[cfg(target_os = "linux")]
fn of_a_file_that_runs_in_place_no_page_is_executable_but_those_with_code_and_none_before_it_is_loaded() {
    let scratch = Scratch::new();
    if !tells_executable_parts(&scratch) {
        return skip("executable pages", "the system does not tell which they are");
    }
    let page = region::page::size() as u64;
    let in_file = identity().with_alignment_in_file(16).unwrap();
    let in_memory = identity().with_function_alignment(16).unwrap();
    for (identity, length, functions, metadata) in [
        // One page, and several, all with code.
        (&in_file, 100, 1, 10),
        (&in_file, 3 * page, 400, 10),
        // Pages behind the code, in front of it, and both; the last ones of more than are executable at first.
        (&in_file, 100, 1, 2 * page),
        (&in_file, 3 * page, 1, 2 * page),
        (&in_file, 5 * page, page / 4, 10),
        (&in_file, 5 * page, page / 4, 2 * page),
        (&in_file, 2 << 20, 1, 10),
        (&in_file, 2 << 20, page / 4, 2 * page),
        // What is around the code is read, up to some length.
        (&in_file, 100 * page, page / 4, 10),
        (&in_file, 100 * page, 1, 2 * page),
        (&in_file, 100 * page - 200, page / 4, 100),
        (&in_file, 100 * page, page, 10),
        (&in_file, 100 * page, 1, 10 * page),
        // No code, or none that can run where it is.
        (&in_memory, 100 * page, page / 4, 2 * page),
        (&in_file, 0, 0, 10),
        (&in_file, 0, 0, 2 * page),
        (&in_memory, 100, 1, 10),
        (&in_memory, 3 * page, 1, 10),
    ] {
        let case = format!("{length}, {functions}, {metadata}");
        let metadata = vec![b'm'; metadata as usize];
        let mut builder = Builder::new();
        builder.code(vec![0xcc; length as usize]).metadata(&metadata);
        for function in 0..functions {
            builder.function(function * 16);
        }
        let store = Store::open(scratch.path(), identity.clone()).unwrap();
        let path = store.path(&KEY);
        for (access, _) in accesses() {
            let entry = builder.finish(identity, &KEY).unwrap().to_vec();
            fs::write(&path, &entry).unwrap();
            let code = Entry::parse(&entry, identity).unwrap().code_range();
            let pages = (code.start / page * page, code.end.next_multiple_of(page));
            let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(access);
            let (file, loaded) = (store.get(&KEY).unwrap().hit().unwrap(), store.load(&KEY).unwrap().hit().unwrap());
            assert_eq!(
                executable_parts(&path),
                loaded.is_in_place().then_some(pages).into_iter().collect::<Vec<_>>(),
                "{case}"
            );
            let opened = Module::load_file(file, identity, &KEY).unwrap();
            assert_eq!(opened.is_in_place(), loaded.is_in_place(), "{case}");
            let parts = vec![pages; 2 * usize::from(loaded.is_in_place())];
            assert_eq!(executable_parts(&path), parts, "{case}");
            for module in [opened, loaded] {
                assert!(module.code().ends_with(&vec![0xcc; length as usize]), "{case}");
                assert_eq!(module.functions().len() as u64, functions, "{case}");
                assert_eq!(module.metadata(), Some(&metadata[..]), "{case}");
            }
            assert_eq!(executable_parts(&path), [], "{case}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_load_that_is_vouched_for_looks_at_no_page_of_the_map() {
    /// Returns how much of the maps of a file is in memory, in KiB.
    fn looked_at(path: &std::path::Path) -> u64 {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines();
        let mut sizes = Vec::new();
        while lines.by_ref().any(|line| line.ends_with(path.to_str().unwrap())) {
            let size = lines.by_ref().find_map(|line| line.strip_prefix("Rss:")).unwrap();
            sizes.push(size.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap());
        }
        assert!(!sizes.is_empty(), "{maps}");
        sizes.into_iter().sum()
    }
    let scratch = Scratch::new();
    let [.., (unchecked, _)] = accesses();
    for (sealing, build_id) in [(Sealing::Plain, 0), (Sealing::Checksum, 255), (Sealing::Mac(MacKey::new([1; 32])), 1)]
    {
        let is_sealed = sealing != Sealing::Plain;
        let identity = identity().with_alignment_in_file(16).unwrap().with_sealing(sealing);
        let identity = identity.with_build_id(&vec![7; build_id]).unwrap();
        for (length, rows, metadata) in [
            (1, 0, 0),
            (16, 1, 1),
            (200, 100, 200),
            (1 << 20, 70_000, 600),
            (1 << 20, 0, 100_000),
            (9 << 20, 100_000, 0),
        ] {
            let (code, metadata) = (vec![0xcc; length], vec![b'm'; metadata]);
            let mut builder = Builder::new();
            builder.code(&code[..]);
            for function in 0..length.div_ceil(16) as u64 {
                builder.function(function * 16);
            }
            for row in 0..rows {
                builder.source(row, row);
            }
            if is_sealed {
                builder.metadata(&metadata);
            }
            let store = Store::open(scratch.path(), identity.clone()).unwrap().with_access(unchecked);
            let path = store.path(&KEY);
            fs::write(&path, builder.finish(&identity, &KEY).unwrap().to_vec()).unwrap();
            let module = store.load(&KEY).unwrap().hit().unwrap();
            let case = format!("{}, {length}, {rows}, {}", identity.sealing(), metadata.len());
            assert_eq!(looked_at(&path), 0, "{case}");
            assert!(module.code().ends_with(&code));
            assert!(looked_at(&path) > 0, "{case}");
            assert_eq!(module.functions().len(), length.div_ceil(16));
            assert_eq!(module.source_map().map_or(0, |map| map.len()) as u64, rows);
            assert_eq!(module.metadata(), is_sealed.then_some(&metadata[..]));
        }
    }
}

#[test]
fn code_that_is_not_aligned_in_its_file_is_copied() {
    let scratch = Scratch::new();
    let path = scratch.path().join("entry");
    let [.., (in_place, _), _] = accesses();
    for (identity, is_aligned) in [
        (identity().with_alignment_in_file(16).unwrap(), true),
        (identity().with_function_alignment(16).unwrap(), false),
    ] {
        let mut builder = machine::builder(7);
        let entry = builder.finish(&identity, &KEY).unwrap();
        fs::write(&path, entry.to_vec()).unwrap();
        let file = FileBytes::open(&path, in_place).unwrap().unwrap();
        let module = Module::load_file(file, &identity, &KEY).unwrap();
        assert_eq!(module.is_in_place(), is_aligned);
        assert_eq!(module.function(0).unwrap() as usize % 16, 0);
    }
}

#[test]
fn what_is_wrong_with_a_file_is_the_same_by_every_door() {
    let scratch = Scratch::new();
    let doors = [Access::READ, accesses()[2].0];
    for (sealing, functions) in [
        (Sealing::Plain, 600),
        (Sealing::Checksum, 3),
        (Sealing::Checksum, 600),
        (Sealing::Mac(MacKey::new([1; 32])), 3),
    ] {
        let identity = identity().with_alignment_in_file(16).unwrap().with_sealing(sealing);
        let code = vec![0xcc; 300_000];
        let mut builder = Builder::new();
        builder.code(&code[..]).source(3, 5).source(9, 70);
        if *identity.sealing() != Sealing::Plain {
            builder.metadata(&[b'm'; 5000]);
        }
        for function in 0..functions {
            builder.function(function * 16);
        }
        let stores = doors.map(|access| Store::open(scratch.path(), identity.clone()).unwrap().with_access(access));
        let path = stores[0].path(&KEY);
        let loads = |file: &[u8], case: &str| {
            fs::write(&path, file).unwrap();
            let [read, in_place] = stores.each_ref().map(|store| match store.load(&KEY).unwrap() {
                Lookup::Hit(module) => Ok((module.functions().len(), module.try_tables().count())),
                other => Err(format!("{other:?}")),
            });
            assert_eq!(read, in_place, "{case}");
            read.is_ok()
        };
        let sound = builder.finish(&identity, &KEY).unwrap().to_vec();
        assert!(loads(&sound, "sound"));
        let code = Entry::parse(&sound, &identity).unwrap().code_range();
        let (start, end) = (code.start as usize, code.end as usize);
        let places =
            (0..60).chain(start - 20..start + 2).chain(end - 2..end + 60).chain(sound.len() - 200..sound.len());
        for at in places.filter(|&at| at < sound.len()) {
            for change in [1, 0x80] {
                let mut file = sound.clone();
                file[at] ^= change;
                // The rows of a source map are not looked at.
                let is_seen = *identity.sealing() != Sealing::Plain && !(end + 13..end + 45).contains(&at);
                assert!(!loads(&file, &format!("{at} ^ {change}")) || !is_seen, "{at}");
            }
            loads(&sound[..at], &format!("cut at {at}"));
            loads(&[&sound[..at], &[0; 8][..], &sound[at..]].concat(), &format!("zeros at {at}"));
        }
        for number in [0, 299_999, 300_001, 1 << 31, 1 << 32, u64::MAX - 5, u64::MAX] {
            for at in [start - 8, end + 5] {
                let mut file = sound.clone();
                file[at..at + 8].copy_from_slice(&number.to_le_bytes());
                assert!(!loads(&file, &format!("{number} at {at}")), "{number} at {at}");
            }
        }
    }
}

#[test]
fn damage_is_found_before_code_runs_in_place() {
    let scratch = Scratch::new();
    let path = scratch.path().join("entry");
    let [.., (in_place, _), (unchecked, _)] = accesses();
    for sealing in [Sealing::Plain, Sealing::Checksum, Sealing::Mac(MacKey::new([1; 32]))] {
        let identity = identity().with_alignment_in_file(16).unwrap().with_sealing(sealing);
        let mut builder = machine::builder(7);
        let entry = builder.finish(&identity, &KEY).unwrap();
        let (mut file, code) = (entry.to_vec(), entry.code_range());
        file[code.end as usize - 1] ^= 1;
        fs::write(&path, &file).unwrap();
        let load = |access| Module::load_file(FileBytes::open(&path, access).unwrap().unwrap(), &identity, &KEY);
        let expected = match identity.sealing() {
            Sealing::Plain => "checksum of code",
            Sealing::Checksum => "checksum of file",
            Sealing::Mac(_) => "MAC",
        };
        let error = load(in_place).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(load(unchecked).is_ok(), "nothing is looked at");
        // A function offset behind the code.
        file[code.end as usize - 1] ^= 1;
        file[code.start as usize - 9] = 1;
        fs::write(&path, &file).unwrap();
        assert!(matches!(load(in_place), Err(Error::Value { field: Field::FunctionOffsets, .. })));
        assert_eq!(load(unchecked).unwrap().function(2), None, "an address outside the code is never given out");
    }
}

#[test]
fn small_files_are_read_and_large_ones_are_read_into_pages_or_mapped_as_their_access_has_it() {
    let scratch = Scratch::new();
    let path = scratch.path().join("entry");
    for (length, ways) in [
        (0, ["read", "read", "read", "read"]),
        (1, ["read", "read", "mapped to run in place", "mapped to run in place"]),
        ((64 << 10) - 1, ["read", "read", "mapped to run in place", "mapped to run in place"]),
        (64 << 10, ["read into pages", "mapped", "mapped to run in place", "mapped to run in place"]),
    ] {
        let content = vec![0xcc; length];
        fs::write(&path, &content).unwrap();
        for ((access, _), way) in accesses().into_iter().zip(ways) {
            let file = FileBytes::open(&path, access).unwrap().unwrap();
            assert_eq!(format!("{file:?}"), format!("FileBytes({length} bytes, {way})"));
            assert!(file[..] == content);
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn beside_code_that_was_read_only_traps_are_executable_and_what_was_read_with_it_is_not_writable() {
    use jitcache::Arch;
    let protection = |address| maps::protection(address).expect("the page is mapped");
    let (scratch, page) = (Scratch::new(), region::page::size());
    let tells = tells_executable_parts(&scratch);
    if !tells {
        skip("executable pages", "the system does not tell which they are");
    }
    let trap = match Arch::host() {
        Arch::Amd64 | Arch::X86 => 0xcc,
        Arch::Arm => 0xff,
        _ => 0,
    };
    for sealing in [Sealing::Plain, Sealing::Checksum] {
        let identity = identity().with_sealing(sealing);
        // A file that is read whole, and those of which the code is read into pages, alone and with a rest.
        for (length, rows) in [(100_usize, 3_u64), (80_001, 300), (80_001, 5000), (3 << 20, 300)] {
            let mut builder = Builder::new();
            builder.code(vec![0x90; length]).function(0);
            for row in 0..rows {
                builder.source(row, u64::from_le_bytes(*b"UNCHECKD"));
            }
            let store = Store::open(scratch.path(), identity.clone()).unwrap();
            fs::write(store.path(&KEY), builder.finish(&identity, &KEY).unwrap().to_vec()).unwrap();
            let module = store.load(&KEY).unwrap().hit().unwrap();
            let code = module.address_range();
            let (start, end) = (code.start / page * page, code.end.next_multiple_of(page));
            // Small code lies beside that of other tests, with an instruction between them.
            let is_small = length <= 4 << 10;
            let around = if is_small { [0..0, code.end..code.end + 4] } else { [start..code.start, code.end..end] };
            for traps in around.into_iter().filter(|traps| !traps.is_empty()) {
                // SAFETY: the pages of the code are mapped, and readable.
                let traps = unsafe { std::slice::from_raw_parts(traps.start as *const u8, traps.len()) };
                assert!(traps.iter().all(|&byte| byte == trap), "{length}");
            }
            assert!(!tells || protection(code.start) == if is_small { "r-xs" } else { "r-xp" }, "{length}");
            if length >= 64 << 10 && rows > 2000 && tells {
                assert_eq!(protection(end), "r--p", "what was read behind the code");
            }
            assert_eq!(module.source_map().unwrap().len() as u64, rows);
            let file = store.get(&KEY).unwrap().hit().unwrap();
            if file.len() >= 64 << 10 && tells {
                assert_eq!(protection(file.as_ptr() as usize), "r--p");
            }
        }
    }
}

#[test]
fn a_module_keeps_a_file_that_was_read_unless_more_than_half_of_it_is_code() {
    let identity = identity().with_sealing(Sealing::Plain).with_revision(Revision::SourceMap);
    let identity = identity.with_function_alignment(1).unwrap();
    for (length, is_kept) in [(10, true), (25, true), (26, false)] {
        let file = Builder::new().code(vec![0xcc; length]).finish(&identity, &KEY).unwrap().to_vec();
        assert_eq!(file.len(), 25 + length);
        let kept = if is_kept { file.len() } else { 0 };
        let module = Module::load_file(file.into(), &identity, &KEY).unwrap();
        assert!(format!("{module:?}").contains(&format!("FileBytes({kept} bytes, read)")), "{module:?}");
    }
}

#[test]
fn a_module_has_the_try_tables_of_its_entry() {
    let clauses = [CatchClause { kind: 0, tag: 7 }, CatchClause { kind: 3, tag: 0 }];
    let locals = [Locals { count: 3, reuse: false }, Locals { count: 1, reuse: true }].map(Some);
    for (revision, locals) in [(Revision::CatchClauses, [None; 2]), (Revision::Locals, locals)] {
        let identity = identity().with_revision(revision);
        let mut builder = machine::builder(1);
        add_try_table(&mut builder, locals[0], &clauses);
        add_try_table(&mut builder, locals[1], &[]);
        let file = builder.finish(&identity, &KEY).unwrap().to_vec();
        let view = Module::load(&Entry::parse(&file, &identity).unwrap()).unwrap();
        for module in [view, Module::load_file(file.into(), &identity, &KEY).unwrap()] {
            let tables = module.try_tables().map(Result::unwrap);
            let tables = tables.map(|table| (table.locals(), table.clauses().map(Result::unwrap).collect()));
            assert_eq!(tables.collect::<Vec<_>>(), [(locals[0], clauses.to_vec()), (locals[1], vec![])]);
        }
    }
}

#[test]
fn an_empty_file_is_rejected_by_every_door() {
    let scratch = Scratch::new();
    let path = scratch.path().join("entry");
    fs::write(&path, "").unwrap();
    for (access, _) in accesses() {
        let outcome = Module::load_file(FileBytes::open(&path, access).unwrap().unwrap(), &identity(), &KEY);
        assert!(matches!(outcome, Err(Error::Truncated { field: Field::Magic, .. })), "{outcome:?}");
    }
}

#[test]
fn a_program_counter_is_found_by_the_rules_of_the_specification() {
    let scratch = Scratch::new();
    let path = scratch.path().join("entry");
    fs::write(&path, file(1)).unwrap();
    let read = Module::load_file(FileBytes::open(&path, Access::READ).unwrap().unwrap(), &identity(), &KEY).unwrap();
    let built = Module::load(&machine::builder(1).finish(&identity(), &KEY).unwrap()).unwrap();
    for module in [read, built] {
        let range = module.address_range();
        // Code offset, function, source of a return address, source of an instruction.
        for (offset, function, of_return, of_instruction) in [
            (0, 0, None, Some(100)),
            (1, 0, Some(100), Some(100)),
            (15, 0, Some(100), Some(100)),
            (16, 1, Some(100), Some(200)),
            (17, 1, Some(200), Some(200)),
            (32, 2, Some(200), Some(300)),
            (AFTER_CALL, 2, Some(300), Some(310)),
            (AFTER_CALL + 1, 2, Some(310), Some(310)),
        ] {
            let location =
                |source| Some(Location { module: module.id(), function: Some(function), code: offset, source });
            let pc = range.start + offset as usize;
            assert_eq!(module.locate(pc), location(of_return), "{offset}");
            assert_eq!(module.locate_instruction(pc), location(of_instruction), "{offset}");
        }
        assert!(module.locate(range.end - 1).is_some());
        assert_eq!(module.locate(range.end), None);
        assert_eq!(module.locate(range.start - 1), None);
        for (i, offset) in FUNCTIONS.into_iter().enumerate() {
            assert_eq!(module.function(i).unwrap() as usize, range.start + offset as usize);
        }
        assert_eq!(module.function(FUNCTIONS.len()), None);
    }
}

#[test]
fn bytes_in_front_of_the_first_function_are_in_no_function() {
    let mut builder = Builder::new();
    builder.code(vec![0xcc; 32]).function(16);
    let module = Module::load(&builder.finish(&identity(), &KEY).unwrap()).unwrap();
    let start = module.address_range().start;
    let nowhere = Location { module: module.id(), function: None, code: 15, source: None };
    assert_eq!(module.locate(start + 15), Some(nowhere));
    assert_eq!(module.locate(start + 16).unwrap().function, Some(0));
}

#[test]
fn an_entry_without_code_is_a_module_without_addresses() {
    let module = Module::load(&Builder::new().finish(&identity(), &KEY).unwrap()).unwrap();
    assert!(module.address_range().is_empty());
    assert_eq!(module.function(0), None);
    assert_eq!(module.locate(0), None);
    let registry = Registry::new();
    registry.insert(Arc::new(module)).unwrap();
    assert!(registry.module(0).is_none());
}

#[test]
fn what_is_not_a_regular_file_is_not_opened() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    fs::write(path("entry"), file(1)).unwrap();
    fs::create_dir(path("directory")).unwrap();
    assert!(FileBytes::open(&path("nothing"), Access::READ).unwrap().is_none());
    let refused = |name: &str| match FileBytes::open(&path(name), Access::READ) {
        Err(Error::NotAFile { path: found }) => assert_eq!(found, path(name)),
        other => panic!("{name}: {other:?}"),
    };
    refused("directory");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("entry", path("link")).unwrap();
        std::os::unix::fs::symlink("nothing", path("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        ["link", "dangling", "socket", "pipe"].into_iter().for_each(refused);
    }
}

#[test]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn a_large_file_is_judged_by_its_start_before_more_of_it_is_read() {
    /// Returns how many bytes this thread has read.
    fn read() -> u64 {
        let io = fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }
    let scratch = Scratch::new();
    for (start, is_stale) in [(&b""[..], false), (b"LOADER\x012", true), (b"LOADER\x051.2.3", true)] {
        for (access, _) in accesses() {
            let store = Store::open(scratch.path(), identity()).unwrap().with_access(access);
            // A file that is full of holes costs its writer nothing.
            fs::write(store.path(&KEY), start).unwrap();
            fs::File::options().write(true).open(store.path(&KEY)).unwrap().set_len(3 << 30).unwrap();
            let before = read();
            match store.load(&KEY).unwrap() {
                Lookup::Stale(_) => assert!(is_stale),
                Lookup::Rejected(Error::Magic { at: 0, .. }) => assert!(!is_stale),
                other => panic!("{other:?}"),
            }
            assert!(read() - before < 64 << 10, "{access:?}");
        }
    }
}

#[test]
fn a_file_that_is_too_large_is_rejected_before_anything_is_allocated_for_it() {
    let scratch = Scratch::new();
    let path = scratch.path().join("entry");
    // A terabyte, of which the disk holds nothing but the first bytes.
    fs::write(&path, file(1)).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    for (access, _) in accesses() {
        match FileBytes::open(&path, access) {
            Err(Error::Value { field: Field::File, at: 0, expected: Bound::AtMost(limit), found }) => {
                assert_eq!((limit, found), (1 << 32, 1 << 40));
            }
            other => panic!("{other:?}"),
        }
    }
    let length = file(1).len() as u64;
    fs::write(&path, file(1)).unwrap();
    for (access, _) in accesses() {
        assert!(FileBytes::open(&path, access.with_limit(length)).is_ok());
        let error = FileBytes::open(&path, access.with_limit(length - 1)).unwrap_err();
        assert!(error.is_rejection());
        assert_eq!(error.to_string(), format!("file at 0x0: expected at most {}, found {length}", length - 1));
    }
}

#[test]
fn a_damaged_copy_is_never_made_executable() {
    let at = Entry::parse(&file(1), &identity()).unwrap().code_range().start;
    let code = at;
    for (identity, field, at) in
        [(identity(), Field::File, 0), (identity().with_sealing(Sealing::Plain), Field::Code, at)]
    {
        let mut file = machine::builder(1).finish(&identity, &KEY).unwrap().to_vec();
        file[code as usize + 3] ^= 0x40;
        match Module::load_file(file.into(), &identity, &KEY) {
            Err(Error::Checksum { field: damaged, at: found, .. }) => assert_eq!((damaged, found), (field, at)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_stays_mapped_when_a_module_is_gone_or_never_came_to_be() {
    // A size that no other test maps, so that the map can be told from theirs.
    let length: usize = 78 << 20;
    let mapped = |protection: &str| {
        let mut is_mapped = false;
        maps::each(|mapping| is_mapped |= mapping.protection.contains(protection) && mapping.addresses.len() >= length);
        is_mapped
    };
    let mut builder = Builder::new();
    builder.code(vec![0xcc; length]).function(0);
    let mut file = builder.finish(&identity(), &KEY).unwrap().to_vec();
    let module = Module::load(&Entry::parse(&file, &identity()).unwrap()).unwrap();
    assert!(mapped("r-xp"));
    drop((module, builder));
    assert!(!mapped("r-xp"));

    let at = Entry::parse(&file, &identity()).unwrap().code_range().start as usize;
    file[at] ^= 1;
    assert!(Module::load_file(file.into(), &identity(), &KEY).is_err());
    assert!(!mapped("r-xp") && !mapped("rw-p"));
}

#[test]
fn a_module_that_is_added_twice_is_removed_at_once() {
    let registry = Registry::new();
    let module = Arc::new(Module::load(&machine::builder(1).finish(&identity(), &KEY).unwrap()).unwrap());
    registry.insert(Arc::clone(&module)).unwrap();
    registry.insert(Arc::clone(&module)).unwrap();
    assert!(registry.remove(&module));
    assert!(registry.module(module.address_range().start).is_none());
    assert!(!registry.remove(&module));
}

#[test]
fn a_registry_finds_each_of_many_modules_while_threads_add_and_remove() {
    let registry = Registry::new();
    let modules: Vec<_> = (0..50_u16)
        .map(|constant| Arc::new(Module::load(&machine::builder(constant).finish(&identity(), &KEY).unwrap()).unwrap()))
        .collect();
    for module in &modules {
        registry.insert(Arc::clone(module)).unwrap();
    }
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for constant in 0..200 {
                    let module = Module::load(&machine::builder(constant).finish(&identity(), &KEY).unwrap()).unwrap();
                    let module = Arc::new(module);
                    let pc = module.address_range().start + 16;
                    registry.insert(Arc::clone(&module)).unwrap();
                    assert_eq!(registry.locate(pc).unwrap().function, Some(1));
                    assert!(Arc::ptr_eq(&registry.module(pc).unwrap(), &module));
                    assert!(registry.remove(&module));
                    assert!(!registry.remove(&module));
                    assert!(registry.module(pc).is_none());
                }
            });
        }
        for _ in 0..20 {
            for module in &modules {
                let found = registry.module(module.address_range().end - 1).unwrap();
                assert!(Arc::ptr_eq(&found, module));
            }
        }
    });
    for module in &modules {
        assert_eq!(registry.locate_instruction(module.address_range().start).unwrap().source, Some(100));
        assert_eq!(registry.locate(module.address_range().start).unwrap().source, None);
    }
}

#[test]
fn a_module_that_is_unregistered_stays_mapped_while_somebody_holds_it() {
    let registry = Registry::new();
    let module = Arc::new(Module::load(&machine::builder(5).finish(&identity(), &KEY).unwrap()).unwrap());
    registry.insert(Arc::clone(&module)).unwrap();
    let range = module.address_range();
    let held = registry.module(range.start).unwrap();
    assert!(registry.module(range.start - 1).is_none() && registry.module(range.end).is_none());
    registry.remove(&module);
    assert_eq!(Arc::strong_count(&module), 2, "nobody was looking anything up: the registry has given it up");
    drop(module);
    assert_eq!(machine::next(&held), 6);
}

//! Memory for code where the system gives little of it, or gives it in its own way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use jitcache::{Access, Builder, Cache, Entry, Error, Identity, Key, Lookup, Module, Store};

use crate::child;
use crate::maps;
use crate::random::Random;
use crate::scratch::Scratch;
use crate::skip;

fn identity() -> Identity {
    Identity::new("memory", *b"MEMORY", "1").unwrap()
}

fn key(n: u32) -> Key {
    Key::of(&identity()).source(&n.to_le_bytes()).finish()
}

/// Code of some length that returns `value`: mov eax, value; ret.
fn code(value: u32, length: usize) -> Vec<u8> {
    let mut code = vec![0xcc; length];
    code[0] = 0xb8;
    code[1..5].copy_from_slice(&value.to_le_bytes());
    code[5] = 0xc3;
    code
}

fn builder(value: u32, length: usize) -> Builder<'static> {
    let mut builder = Builder::new();
    builder.code(code(value, length)).function(0);
    builder
}

fn file(value: u32, length: usize) -> Vec<u8> {
    builder(value, length).finish(&identity(), &key(value)).unwrap().to_vec()
}

fn load(value: u32, length: usize) -> Result<Module, Error> {
    Module::load(&Entry::parse(&file(value, length), &identity()).unwrap())
}

fn call(module: &Module) -> u32 {
    // SAFETY: the code takes nothing and returns a number, in the C calling convention.
    let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(module.function(0).unwrap()) };
    function()
}

/// Returns how many bytes are mapped with that protection, of files whose name begins so.
fn mapped(protection: &str, name: &str) -> usize {
    let mut bytes = 0;
    maps::each(|mapping| {
        if mapping.protection == protection && mapping.file.starts_with(name) {
            bytes += mapping.addresses.len();
        }
    });
    bytes
}

/// Runs a child, in which nothing else happens, and returns what it said.
fn run(action: &str) -> String {
    let scratch = Scratch::in_memory();
    let output = child::command(action, scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?} {said} {}", output.status, String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    said
}

pub fn child(action: &str, root: &Path) {
    child::hangs_after(100);
    match action {
        "memory-refused" => refused(root),
        "memory-small" => small(),
        "memory-apart" => apart(),
        "memory-fork" => fork(),
        "memory-again" => again(),
        "memory-file-size" => file_size(),
        "memory-full" => full(),
        "memory-huge" => huge(),
        "memory-share" => share(root),
        other => panic!("no action {other}"),
    }
}

#[test]
fn where_written_memory_may_not_be_executed_modules_are_compiled_stored_and_loaded_by_every_door() {
    if run("memory-refused").contains("not offered") {
        skip("refused", "the system does not offer to refuse it");
    }
}

fn refused(root: &Path) {
    // PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN.
    // SAFETY: the call changes no memory.
    if unsafe { libc::prctl(65, 1, 0, 0, 0) } != 0 {
        return println!("not offered");
    }
    let page = region::alloc(1, region::Protection::READ_WRITE).unwrap();
    // SAFETY: the page is this function's.
    let executable = unsafe { region::protect(page.as_ptr::<u8>(), 1, region::Protection::READ_EXECUTE) };
    assert!(executable.is_err(), "it is refused");
    // SAFETY: nobody changes these files in place.
    let map = unsafe { Access::map() };
    // SAFETY: the same.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: the same, and they are sound.
    let unchecked = unsafe { Access::in_place_unchecked() };
    let accesses = [(Access::READ, false), (map, false), (in_place, true), (unchecked, true)];
    let identity = identity().with_alignment_in_file(16).unwrap();
    let mut modules = Vec::new();
    for (n, length) in (0..).zip([6, 5000, 100_000, 300_000, 3 << 20]) {
        for rows in [0, 5, 4999, 70_000].into_iter().filter(|rows| (*rows as usize) < length) {
            let value = n * 100_000 + rows;
            let compile = |entry: &mut Builder<'_>| {
                *entry = builder(value, length);
                for row in 0..rows {
                    entry.source(row.into(), 5);
                }
                Ok::<(), Error>(())
            };
            let cache = Cache::open(root, identity.clone()).unwrap();
            let module = cache.get_or_compile(&key(value), compile).unwrap();
            assert_eq!(call(&module), value);
            assert_eq!(cache.statistics().failures, 0);
            modules.push((module, value));
            for (access, is_in_place) in accesses {
                let store = Store::open(root, identity.clone()).unwrap().with_access(access);
                let Lookup::Hit(module) = store.load(&key(value)).unwrap() else { panic!("stored") };
                assert_eq!((call(&module), module.is_in_place()), (value, is_in_place), "{length} {rows} {access:?}");
                module.check_source_map().unwrap();
                assert_eq!(module.source_map().map_or(0, |map| map.len()), rows as usize);
                assert!(module.code().ends_with(&code(value, length)));
                modules.push((Arc::new(module), value));
            }
        }
    }
    let cache = Cache::open(root, identity.clone()).unwrap();
    let nothing = cache.get_or_compile(&key(9), |entry: &mut Builder<'_>| {
        entry.metadata(&vec![1; 100_000]);
        Ok::<(), Error>(())
    });
    assert!(nothing.is_ok_and(|module| module.code().is_empty()), "tables without code");
    for access in accesses.map(|(access, _)| access) {
        let store = Store::open(root, identity.clone()).unwrap().with_access(access);
        assert!(matches!(store.load(&key(9)), Ok(Lookup::Hit(_))), "{access:?}");
    }
    maps::each(|maps::Mapping { protection, file, .. }| {
        assert!(!(protection.contains('w') && protection.contains('x')), "{file}");
    });
    assert!(modules.iter().all(|(module, value)| call(module) == *value));
    println!("{} modules", modules.len());
    drop(modules);
    // Of what small code lies in, some is kept.
    assert_eq!(mapped("r-xp", "/memfd:jitcache"), 0);
}

#[test]
fn small_modules_share_few_mappings_and_are_what_they_were_while_others_come_and_go() {
    run("memory-small");
}

fn small() {
    let (before, files) = (maps::count(), fs::read_dir("/proc/self/fd").unwrap().count());
    let mut random = Random(1);
    let mut modules = BTreeMap::new();
    for n in 0..30_000 {
        let length = 100 + random.below(1900) as usize;
        modules.insert(n, load(n, length).unwrap());
        // Some go, so that others take their places.
        if n % 3 == 0 {
            let gone = random.below(u64::from(n) + 1) as u32;
            modules.remove(&gone);
        }
    }
    let all = modules.values().map(|module| module.address_range().len()).sum::<usize>();
    let (taken, now) = (mapped("r-xs", "/memfd:jitcache"), maps::count());
    let open = fs::read_dir("/proc/self/fd").unwrap().count() - files;
    println!("{} modules, {all} bytes in {taken}, {} mappings more, {open} files", modules.len(), now - before);
    assert!(now - before < 40 && open < 10);
    assert!(taken < all + all / 4 + (1 << 20));
    for (n, module) in &modules {
        assert_eq!(call(module), *n);
    }
    // Every range of addresses is one module's.
    let mut ranges: Vec<_> = modules.values().map(Module::address_range).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end + 4 <= pair[1].start));
    drop(modules);
    assert!(mapped("r-xs", "/memfd:jitcache") <= 1 << 20, "but for some, it is given back");
    // What is free holds traps.
    let addresses = load(7, 900).unwrap().address_range();
    // SAFETY: the memory is kept, and readable.
    let freed = unsafe { std::slice::from_raw_parts(addresses.start as *const u8, addresses.len()) };
    assert!(freed.iter().all(|&byte| byte == 0xcc));
}

#[test]
fn small_code_that_is_kept_apart_lies_in_pages_that_no_file_has() {
    run("memory-apart");
}

fn apart() {
    let beside = load(1, 100).unwrap();
    Module::keep_apart();
    let modules: Vec<_> = (2..10).map(|n| load(n, 100).unwrap()).collect();
    let in_file = |module: &Module| {
        let mut found = None;
        maps::each(|mapping| {
            if mapping.addresses.contains(&module.address_range().start) {
                found = Some((mapping.protection.to_owned(), mapping.file.starts_with("/memfd:jitcache")));
            }
        });
        found.unwrap()
    };
    assert_eq!(in_file(&beside), ("r-xs".to_owned(), true));
    for (n, module) in (2..).zip(&modules) {
        assert_eq!((in_file(module), call(module)), (("r-xp".to_owned(), false), n));
    }
    assert_eq!(call(&beside), 1);
}

/// It translates code when it first runs, as emulators do.
#[test]
fn code_that_takes_the_place_of_other_code_is_what_runs_under_valgrind() {
    let scratch = Scratch::in_memory();
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("-q");
    child::arguments(&mut valgrind, "memory-again", scratch.path());
    let Ok(output) = valgrind.output() else { return skip("again", "there is no valgrind") };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?} {said} {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("in 1 place"), "the test shows nothing: {said}");
}

fn again() {
    let mut places = BTreeSet::new();
    for n in 0..20 {
        let module = load(n, 100).unwrap();
        assert_eq!(call(&module), n);
        places.insert(module.address_range().start);
    }
    println!("in {} place", places.len());
}

#[test]
fn after_a_fork_both_processes_have_the_code_they_had_whatever_the_other_one_does() {
    run("memory-fork");
}

fn fork() {
    child::hangs_after(30);
    // Each process goes on in memory of its own, of which a fork does not make more be taken than the last one did.
    let addresses = || {
        let mut length = 0;
        maps::each(|mapping| length += mapping.addresses.len());
        length
    };
    let before = addresses();
    let mut small = Vec::new();
    for n in 0..40 {
        small.push(load(n, 700).unwrap());
        // SAFETY: no other thread of this process holds a lock.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: the process ends here.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: nobody asks how it ended.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    }
    let taken = addresses() - before;
    assert!(taken < 50 * (1 << 20), "{taken} bytes of addresses");
    drop(small);
    let mut kept: Vec<_> = (0..200).map(|n| Some((n, load(n, 700).unwrap()))).collect();
    let change = |kept: &mut Vec<Option<(u32, Module)>>, from: usize, to: u32| {
        kept.iter_mut().skip(from).step_by(3).for_each(|module| *module = None);
        for n in 0..300 {
            kept.push(Some((to + n, load(to + n, 700).unwrap())));
        }
    };
    let is_sound =
        |kept: &[Option<(u32, Module)>]| kept.iter().flatten().all(|(n, module)| call(module) == *n && *n < 1 << 20);
    let mut ends = [[0; 2]; 2];
    for pipe in &mut ends {
        // SAFETY: there is room for both ends.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    }
    let wait = |pipe: [i32; 2]| {
        let mut byte = 0_u8;
        // SAFETY: there is room for one byte.
        assert_eq!(unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) }, 1);
    };
    let tell = |pipe: [i32; 2]| {
        // SAFETY: there is one byte.
        assert_eq!(unsafe { libc::write(pipe[1], c"x".as_ptr().cast(), 1) }, 1);
    };
    // SAFETY: no other thread of this process holds a lock.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // No alarm is inherited.
        child::hangs_after(30);
        wait(ends[0]);
        let first = is_sound(&kept);
        change(&mut kept, 1, 1000);
        tell(ends[1]);
        wait(ends[0]);
        let outcome = first && is_sound(&kept);
        drop(kept);
        // SAFETY: the process ends here.
        unsafe { libc::_exit(if outcome { 0 } else { 1 }) };
    }
    change(&mut kept, 0, 5000);
    tell(ends[0]);
    wait(ends[1]);
    assert!(is_sound(&kept), "after the other one's changes");
    change(&mut kept, 2, 9000);
    tell(ends[0]);
    let mut status = 0;
    // SAFETY: there is room for the status.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the other one found its code changed");
    assert!(is_sound(&kept));
    drop(kept);
    assert!(mapped("r-xs", "/memfd:jitcache") <= 1 << 20, "nothing stays of what both had");
}

#[test]
fn where_no_file_may_be_written_small_code_has_pages_of_its_own_and_no_signal_comes() {
    run("memory-file-size");
}

fn file_size() {
    // SAFETY: the default action is no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
    for limit in [0, 4096, 1 << 20] {
        let before: Vec<_> = (0..300).map(|n| load(n, 1000).unwrap()).collect();
        let limits = libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the structure is there to be read.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limits) }, 0);
        let modules: Vec<_> = (0..2000).map(|n| load(n, 1000).unwrap()).collect();
        assert!((0..).zip(&modules).all(|(n, module)| call(module) == n));
        assert!((0..).zip(&before).all(|(n, module)| call(module) == n));
        drop((before, modules));
        let limits = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the structure is there to be read.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limits) }, 0);
    }
}

/// Mappings that take up all that the process may have.
struct Filler(#[expect(dead_code, reason = "it is held")] region::Allocation);

impl Filler {
    /// Leaves about `room` of them.
    fn new(room: usize) -> Self {
        let most: usize = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
        let page = region::page::size();
        let pages = region::alloc(2 * most * page, region::Protection::NONE).unwrap();
        let more = most - maps::count() - room;
        for n in 0..more / 2 {
            let at = pages.as_ptr::<u8>().wrapping_add((2 * n + 1) * page);
            // SAFETY: the page is the filler's, and nobody uses it.
            let split = unsafe { region::protect(at, page, region::Protection::READ) };
            if split.is_err() {
                break;
            }
        }
        Self(pages)
    }
}

#[test]
fn of_the_last_huge_page_of_code_no_more_than_a_third_is_unused() {
    run("memory-huge");
}

fn huge() {
    const COUNT: usize = 32;
    let resident = || {
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * region::page::size()
    };
    if !is_huge_pages_on() {
        return println!("huge pages: skipped, the kernel gives none");
    }
    // Lengths, and how much of their memory may be resident, in per cent: all but the ones of which two thirds of a huge page are
    // the end take what they have.
    for (length, most) in [
        (1_040_000, 110),
        (1_060_000, 110),
        (1_101_005, 110),
        (1_390_000, 110),
        (1_500_000, 150),
        (3_200_000, 110),
        (3_600_000, 125),
    ] {
        let (file, identity) = (file(1, length), identity());
        let entry = Entry::parse(&file, &identity).unwrap();
        let before = resident();
        let modules: Vec<_> = (0..COUNT).map(|_| Module::load(&entry).unwrap()).collect();
        let taken = (resident() - before) * 100 / (COUNT * length);
        assert!(taken <= most, "{length}: {taken} %");
        assert!(modules.iter().all(|module| call(module) == 1));
    }
}

fn is_huge_pages_on() -> bool {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    ["[madvise]", "[always]"].iter().any(|on| setting.contains(on))
}

#[test]
fn without_mappings_an_error_says_so_and_what_cannot_be_unmapped_is_emptied_and_unmapped_later() {
    run("memory-full");
}

fn full() {
    const LENGTH: usize = 70_000;
    // Where there are no mappings the heap cannot grow: what it needs is free before, below what keeps it from being
    // given back.
    let heap: Vec<_> = (0..128).map(|_| vec![1_u8; 64 << 10]).collect();
    let _top = vec![1_u8; 1000];
    drop(heap);
    let small = load(1, 500).unwrap();
    let all = 60;
    let mut modules: Vec<_> = (0..all).map(|n| Some(load(n, LENGTH).unwrap())).collect();
    let pages = LENGTH.next_multiple_of(region::page::size());
    let executable = |modules: u32| mapped("r-xp", "") - modules as usize * pages;
    let others = executable(all);
    let (large, large_identity) = (file(1000, 3 << 20), identity());
    let large = Entry::parse(&large, &large_identity).unwrap();
    let filler = Filler::new(0);
    // There are none, or one or two by chance.
    let extra: Vec<_> = (0..8).map(|_| Module::load(&large)).collect();
    let error = extra.iter().find_map(|module| module.as_ref().err()).expect("there are no mappings left");
    assert!(error.to_string().contains("vm.max_map_count"), "{error}");
    assert!(error.explain().contains("vm.max_map_count"), "{}", error.explain());
    println!("{error}");
    assert_eq!((call(&load(2, 500).unwrap()), call(&small)), (2, 1), "small code needs none");
    drop(extra);
    let _none_left = Filler::new(0);
    // Pages between others like them: unmapping one splits a mapping.
    let mut gone = Vec::new();
    for module in modules.iter_mut().skip(1).step_by(2) {
        gone.extend(module.take().map(|module| module.address_range()));
    }
    let left = executable(all / 2) - others;
    let mut is_empty = true;
    maps::each(|maps::Mapping { addresses, .. }| {
        for code in gone.iter().filter(|code| addresses.contains(&code.start)) {
            // SAFETY: the page is mapped.
            is_empty &= unsafe { std::slice::from_raw_parts(code.start as *const u8, 6) == [0; 6] };
        }
    });
    // Before, a failure could not be told.
    drop((filler, _none_left));
    assert!(left > 0, "nothing was left mapped, and the test shows nothing");
    assert!(is_empty, "code that is no more is mapped");
    drop(modules.pop());
    drop(modules.pop());
    let kept = modules.iter().flatten().count() as u32;
    assert_eq!(executable(kept), others, "of {left} bytes that could not be unmapped some stay");
    assert!((0..).zip(&modules).all(|(n, module)| module.as_ref().is_none_or(|module| call(module) == n)));
}

#[test]
fn code_in_place_takes_no_more_than_half_of_the_mappings_and_the_rest_is_read() {
    run("memory-share");
}

fn share(root: &Path) {
    let most: usize = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    if most > 200_000 {
        return println!("skipped: there are {most}");
    }
    let identity = identity().with_alignment_in_file(16).unwrap();
    // SAFETY: nobody changes these files in place.
    let store = Store::open(root, identity.clone()).unwrap().with_access(unsafe { Access::in_place() });
    let entry = |n, length| builder(n, length).finish(&identity, &key(n)).unwrap().to_vec();
    fs::write(store.path(&key(3)), entry(3, 300)).unwrap();
    fs::write(store.path(&key(4)), entry(4, 80_000)).unwrap();
    let load = |n| store.load(&key(n)).unwrap().hit().unwrap();
    let mut modules: Vec<_> = (0..most / 2 + 500).map(|_| load(3)).collect();
    let in_place = modules.iter().filter(|module| module.is_in_place()).count();
    assert!(in_place <= most / 2 && in_place > most / 4 && !modules.last().unwrap().is_in_place(), "{in_place}");
    let before = maps::count();
    let others: Vec<_> = (0..100).map(|_| load(4)).collect();
    assert!(others.iter().all(|module| call(module) == 4 && !module.is_in_place()));
    assert!(maps::count() < before + 10, "large code shares them, too");
    assert!(modules.iter().all(|module| call(module) == 3));
    println!("{in_place} of {} in place, {} mappings of {most}", modules.len(), maps::count());
    modules.truncate(1000);
    assert!(load(3).is_in_place(), "there are mappings again");
}

//! Whatever there is too little of - file size, descriptors, address space, disk, inodes - an operation works or says
//! so, leaves nothing half done, and works again when there is enough.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use jitcache::{Access, Builder, Cache, Error, Lookup, Store};

use crate::child;
use crate::content::{LARGE, builder, code, compiled, file, files, identity, is_code, key, put};
use crate::mount::Mount;
use crate::scratch::Scratch;
use crate::skip;

#[test]
fn limits_of_the_process_are_errors_and_not_the_end() {
    let scratch = Scratch::in_memory();
    let output = child::command("limits", scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?} {said} {}", output.status, String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}

/// Sets a soft limit, which can be raised again.
fn limit(resource: libc::__rlimit_resource_t, soft: u64) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is there to be written to.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limits) }, 0);
    limits.rlim_cur = soft.min(limits.rlim_max);
    // SAFETY: the structure is there to be read.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limits) }, 0);
}

pub fn child(root: &Path, _: u64) {
    child::hangs_after(60);
    // Whoever writes too much dies of it, as everywhere, whatever the parent has set aside.
    // SAFETY: the default action is no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
    file_size(root);
    descriptors(root);
    left_open(root);
    address_space(root);
    executable_memory(root);
}

/// The last, because nothing takes it back: memory that was ever written may not become executable.
fn executable_memory(root: &Path) {
    const SET_MDWE: libc::c_int = 65;
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    let store = Store::open(root, identity()).unwrap();
    let cache = Cache::open(root, identity()).unwrap();
    // SAFETY: this changes no memory.
    if unsafe { libc::prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0_u64, 0_u64, 0_u64) } != 0 {
        return println!("MDWE: skipped, the kernel does not know it");
    }
    for n in [77, LARGE] {
        let _ = store.remove(&key(n));
        let module = compiled(&cache, n, 0);
        assert!(matches!(module, Ok(_) | Err(Error::Memory { .. })), "{module:?}");
        assert!(matches!(store.verify(&key(n)), Ok(Lookup::Hit(()))), "{n}: not stored");
        println!("MDWE: a cold start stores, and has {}", if module.is_ok() { "its module" } else { "no module" });
    }
}

fn file_size(root: &Path) {
    // Not even the tag of a new root is written.
    limit(libc::RLIMIT_FSIZE, 0);
    let opened = Store::open(root.join("new"), identity());
    limit(libc::RLIMIT_FSIZE, u64::MAX);
    assert!(matches!(opened.unwrap().load(&key(1)), Ok(Lookup::Miss)));
    let names = |store: &Store| files(store.directory()).len();
    let (mut done, mut failed) = (0, 0);
    for n in [1, LARGE] {
        let store = Store::open(root, identity()).unwrap();
        let length = file(n, 0).len() as u64;
        put(&store, n, 0).unwrap();
        let before = names(&store);
        let step = if n == LARGE { 997 } else { 1 };
        for size in (0..=length + 2).step_by(step).chain([length - 1, length]) {
            limit(libc::RLIMIT_FSIZE, size);
            let result = put(&store, n, 1);
            limit(libc::RLIMIT_FSIZE, u64::MAX);
            match &result {
                Ok(()) => done += 1,
                Err(Error::Io { action: "write", source, .. }) if source.kind() == ErrorKind::FileTooLarge => {
                    failed += 1
                }
                other => panic!("{size}: {other:?}"),
            }
            assert_eq!((result.is_ok(), names(&store)), (size >= length, before), "{size}");
            let module = store.load(&key(n)).unwrap().hit().unwrap();
            assert_eq!(module.code(), code(n, result.is_ok().into()), "{size}");
            if result.is_ok() {
                put(&store, n, 0).unwrap();
            }
        }
    }
    println!("RLIMIT_FSIZE: {done} puts done, {failed} refused");
}

/// Modules whose source maps are left in their files keep few of these open, so that everybody else can open some.
fn left_open(root: &Path) {
    let (store, mut built) = (Store::open(root, identity()).unwrap(), builder(LARGE, 0));
    for code in 9..65_700 {
        built.source(code, code);
    }
    store.put(&key(LARGE), &built.finish(&identity(), &key(LARGE)).unwrap()).unwrap();
    limit(libc::RLIMIT_NOFILE, 64);
    let modules: Vec<_> = (0..200).map(|_| store.load(&key(LARGE)).map(Lookup::hit)).collect();
    let (host, maps) = (
        fs::File::open("/proc/self/status"),
        modules.iter().flatten().flatten().map(|module| module.source_map().map(|map| map.len())),
    );
    let maps: Vec<_> = maps.collect();
    limit(libc::RLIMIT_NOFILE, 1024);
    assert!(host.is_ok(), "{host:?}");
    assert!(
        modules.iter().all(|module| matches!(module, Ok(Some(_)))),
        "{:?}",
        modules.iter().find(|module| module.is_err())
    );
    assert_eq!(maps, vec![Some(65_692); 200]);
}

fn descriptors(root: &Path) {
    let (mut hits, mut failed) = (0, 0);
    for descriptors in 0..=16 {
        let store = Store::open(root, identity()).unwrap();
        put(&store, LARGE, 0).unwrap();
        let cache = Cache::open(root, identity()).unwrap();
        limit(libc::RLIMIT_NOFILE, descriptors);
        let (found, stored, swept) = (store.load(&key(LARGE)), put(&store, LARGE, 1), store.sweep());
        let module = compiled(&cache, LARGE, 1);
        limit(libc::RLIMIT_NOFILE, 1024);
        match found {
            Ok(Lookup::Hit(found)) if is_code(LARGE, found.code()) => hits += 1,
            Err(Error::Io { action: "open", .. }) => failed += 1,
            other => panic!("{descriptors}: {other:?}"),
        }
        assert!(matches!(stored, Ok(()) | Err(Error::Io { .. })), "{descriptors}: {stored:?}");
        assert!(matches!(swept, Ok(_) | Err(Error::Io { .. })), "{descriptors}: {swept:?}");
        assert!(is_code(LARGE, module.unwrap().code()), "{descriptors}");
    }
    println!("RLIMIT_NOFILE: {hits} hits, {failed} failed, 17 modules");
    assert!(hits > 0 && failed > 0);
}

fn address_space(root: &Path) {
    const LENGTH: usize = 4 << 20;
    let (identity, key) = (identity(), key(99));
    let built = vec![0xcc; LENGTH];
    let compile = |cache: &Cache| {
        cache.get_or_compile(&key, |entry: &mut Builder<'_>| {
            entry.code(Cow::Borrowed(&built[..])).function(0);
            Ok::<(), Error>(())
        })
    };
    let store = Store::open(root, identity.clone()).unwrap();
    drop(compile(&Cache::open(root, identity.clone()).unwrap()).unwrap());
    drop(store.load(&key).unwrap());
    let (mut hits, mut refused, mut modules) = (0, 0, 0);
    for more in (0..=3 * LENGTH as u64).step_by(LENGTH / 16) {
        let cache = Cache::open(root, identity.clone()).unwrap();
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
        limit(libc::RLIMIT_AS, pages * 4096 + more);
        let found = store.load(&key).map(|found| found.hit().map(|module| module.code() == built));
        let module = compile(&cache).map(|module| module.code() == built);
        limit(libc::RLIMIT_AS, u64::MAX);
        match found {
            Ok(Some(true)) => hits += 1,
            Err(Error::Memory { .. }) => refused += 1,
            other => panic!("{more}: {other:?}"),
        }
        match module {
            Ok(true) => modules += 1,
            Err(Error::Memory { .. }) => {}
            other => panic!("{more}: {other:?}"),
        }
    }
    println!("RLIMIT_AS: {hits} hits, {refused} refused; {modules} of {} modules", hits + refused);
    assert!(hits > 0 && refused > 0 && modules >= hits);
}

#[test]
fn a_full_file_system_keeps_what_it_has_and_takes_more_when_there_is_room() {
    for option in ["size=64k", "nr_inodes=6"] {
        let scratch = Scratch::in_memory();
        let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", option, "tmpfs"], scratch.path()) else {
            return skip("full", "tmpfs cannot be mounted, or JITCACHE_MOUNT is not set");
        };
        let cache = Cache::open(scratch.path(), identity()).unwrap();
        let store = cache.store().unwrap();
        let (mut kept, mut failed) = (Vec::new(), 0);
        for n in 1..200 {
            match put(store, n, 0) {
                Ok(()) => kept.push(n),
                Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOSPC) => failed += 1,
                other => panic!("{option}: {other:?}"),
            }
        }
        println!("tmpfs {option}: {} puts done, {failed} failed with ENOSPC", kept.len());
        assert!(!kept.is_empty() && failed > 0);
        assert_eq!(compiled(&cache, LARGE, 1).unwrap().code(), code(LARGE, 1), "the engine gets its module");
        assert_eq!(files(store.directory()).len(), kept.len(), "{option}: nothing is left over");
        for &n in &kept {
            assert_eq!(fs::read(store.path(&key(n))).unwrap(), file(n, 0), "{option}");
        }
        while let Some(n) = kept.pop() {
            assert!(store.remove(&key(n)).unwrap());
        }
        store.put(&key(7), &builder(7, 1).finish(&identity(), &key(7)).unwrap()).unwrap();
    }
}

#[test]
fn code_is_copied_from_a_file_system_that_lets_nothing_run() {
    let scratch = Scratch::in_memory();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "noexec", "tmpfs"], scratch.path()) else {
        return skip("noexec", "tmpfs cannot be mounted, or JITCACHE_MOUNT is not set");
    };
    // SAFETY: nobody changes the files of this store in place.
    let in_place = unsafe { Access::in_place() };
    // SAFETY: the same, and they are sound.
    let unchecked = unsafe { Access::in_place_unchecked() };
    for access in [in_place, unchecked] {
        let store = Store::open(scratch.path(), identity()).unwrap().with_access(access);
        put(&store, LARGE, 0).unwrap();
        let module = store.load(&key(LARGE)).unwrap().hit().unwrap();
        assert!(!module.is_in_place());
        assert_eq!(module.code(), code(LARGE, 0));
    }
}

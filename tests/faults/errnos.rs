//! Whatever a system call fails with, once or for ever, the outcome is a hit, a miss or an error that says so; the disk
//! keeps whole entries, the module of an engine is never lost, and no file stays open and nothing mapped.

use std::collections::BTreeMap;

use crate::child::Outcome::{self, Done, Io, Memory, Miss, Rejected};
use crate::content::{Before, Directory, LARGE, file};
use crate::{long, skip, strace};

/// What each system call fails with, by its manual page, on network file systems and under seccomp.
const ERRNOS: &[(&str, &str)] = &[
    (
        "openat",
        "EIO ENOSPC EDQUOT EACCES EPERM EROFS EMFILE ENFILE ENOMEM EINTR EAGAIN ESTALE ELOOP ENAMETOOLONG ENOSYS ENXIO \
         EEXIST ENOENT ENOTDIR",
    ),
    ("newfstatat", "EIO EACCES ENOMEM ESTALE ELOOP ENOSYS"),
    ("fstat", "EIO EACCES ENOMEM ESTALE ENOSYS"),
    ("statx", "EIO EACCES ENOMEM EINTR ESTALE ENOSYS"),
    ("readlink", "EIO EACCES ENOMEM ELOOP ENAMETOOLONG ENOENT ENOTDIR ESTALE"),
    ("read", "EIO EINTR EAGAIN ESTALE EISDIR"),
    ("pread64", "EIO EINTR EAGAIN ESTALE EISDIR ESPIPE"),
    ("pwrite64", "EIO ENOSPC ENOMEM EPERM EINTR EFBIG"),
    ("fstatfs", "EIO ENOMEM EINTR ENOSYS"),
    ("getdents64", "EIO EINTR ENOMEM ESTALE"),
    ("write", "EIO ENOSPC EDQUOT EPERM EINTR EAGAIN EFBIG ESTALE"),
    ("fsync", "EIO ENOSPC EDQUOT EINTR EROFS ESTALE EINVAL EOPNOTSUPP ENOSYS"),
    ("rename", "EIO ENOSPC EDQUOT EACCES EPERM EROFS ENOMEM EXDEV ELOOP ENAMETOOLONG ESTALE EINTR ENOENT"),
    ("getrandom", "EIO EINTR"),
    ("unlink", "EIO EACCES EPERM EROFS ENOMEM EBUSY ESTALE EINTR"),
    ("mkdir", "EIO ENOSPC EDQUOT EACCES EPERM EROFS ENOMEM ELOOP ENAMETOOLONG ESTALE"),
    ("close", "EIO EINTR ENOSPC EDQUOT"),
    ("mmap", "ENOMEM EACCES EAGAIN EPERM ENODEV"),
    ("mprotect", "ENOMEM EACCES EPERM"),
    ("munmap", "ENOMEM EINVAL"),
    ("madvise", "ENOMEM EINVAL EAGAIN EFAULT EPERM ENOSYS"),
    ("lseek", "EINVAL ESPIPE"),
    ("fcntl", "EAGAIN EINVAL"),
];

/// Those, or all of them at every call if there is time.
fn errnos_of(name: &str) -> Vec<&'static str> {
    let Some((_, errnos)) = ERRNOS.iter().find(|(call, _)| *call == name) else { return Vec::new() };
    if !long() {
        return errnos.split(' ').collect();
    }
    let mut all: Vec<_> = ERRNOS.iter().flat_map(|(_, errnos)| errnos.split(' ')).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Makes those system calls of an action fail, one after the other, of whose names `which` is true.
fn withstands(action: &str, before: Before, which: impl Fn(&str) -> bool, allowed: &[Outcome]) {
    if !strace::works() {
        return skip(&format!("errnos, {action}"), "strace does not work here");
    }
    let directory = || {
        let directory = Directory::new(before, true);
        if action == "open" {
            std::fs::remove_dir_all(directory.scratch.path()).unwrap();
            std::fs::create_dir(directory.scratch.path()).unwrap();
        }
        directory
    };
    let (outcome, calls) = strace::run(action, &directory(), None);
    assert_eq!(outcome, Done);
    let (mut tally, mut wrong, mut left_out) = (BTreeMap::<_, usize>::new(), Vec::new(), BTreeMap::<_, usize>::new());
    for call in calls.iter().filter(|call| which(&call.name)) {
        let errnos = errnos_of(&call.name);
        if errnos.is_empty() {
            *left_out.entry(&call.name).or_default() += 1;
        }
        for (errno, for_ever) in errnos.iter().flat_map(|errno| [(errno, false), (errno, true)]) {
            let when = match (for_ever, *errno) {
                (false, _) => call.nth.to_string(),
                // A call that is interrupted for ever is tried for ever: fifty times must do.
                (true, "EINTR") => format!("{}..{}", call.nth, call.nth + 49),
                (true, _) => format!("{}+", call.nth),
            };
            let case = format!("{action} with {before:?}: {} {when} {errno}", call.name);
            let directory = directory();
            let (outcome, calls) =
                strace::run(action, &directory, Some((&call.name, &format!("error={errno}:when={when}"))));
            assert!(calls.iter().any(|call| call.line.contains("(INJECTED)")), "{case}: not injected, {calls:#?}");
            *tally.entry(outcome).or_default() += 1;
            let code = matches!(&*call.name, "mmap" | "mprotect");
            let lost = outcome == Memory && action == "cache" && !(code && (for_ever || before != Before::Valid));
            let named =
                outcome == Rejected && !matches!(*errno, "ELOOP" | "ENXIO") || outcome == Miss && *errno != "ENOENT";
            if !allowed.contains(&outcome) || lost || named {
                wrong.push(format!("{outcome:?}: {case}: {}", call.line));
                continue;
            }
            if action == "open" {
                continue;
            }
            if directory.temporaries() > 0 && call.name != "unlink" {
                wrong.push(format!("temporary file left: {case}: {}", call.line));
            }
            match (action, outcome, directory.entry()) {
                ("put", Done, entry) => assert_eq!(entry, Some(file(LARGE, 1)), "{case}"),
                ("remove", Done, entry) => assert_eq!(entry, None, "{case}"),
                ("judge", Done, entry) => assert!(entry.is_none() || entry == directory.before, "{case}"),
                ("put" | "remove" | "cache", ..) => {}
                (_, _, entry) => assert_eq!(entry, directory.before, "{case}"),
            }
            directory.check(&case);
        }
    }
    println!("{action} with {before:?}: {} calls, {tally:?}; not made to fail: {left_out:?}", calls.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), tally.values().sum::<usize>(), wrong.join("\n"));
}

/// What panics today: see the test that is ignored.
fn fares_well(name: &str) -> bool {
    name != "close"
}

#[test]
fn looking_up_is_a_hit_a_miss_or_an_error_whatever_fails() {
    for action in ["get", "load", "load-mapped", "load-rows"] {
        withstands(
            action,
            Before::Valid,
            |name| fares_well(name) || name == "close",
            &[Done, Miss, Rejected, Io, Memory],
        );
    }
}

/// The loads whose code runs in place, and how many calls change what the pages of the map may be used for.
const IN_PLACE: [(&str, usize); 7] = [
    ("load-in-place", 0),
    ("load-unchecked", 0),
    ("load-few-rows-in-place", 1),
    // What is around the code is read, mapped apart, or left in the file.
    ("load-rows-in-place", 0),
    ("load-few-rows-and-much-code-in-place", 0),
    ("load-few-rows-unchecked", 0),
    ("load-rows-unchecked", 0),
];

#[test]
fn code_of_every_size_and_placement_is_there_or_an_error_whatever_call_fails_that_brings_it_into_memory() {
    for action in ["load-small", "load-huge"].into_iter().chain(IN_PLACE.map(|(action, _)| action)) {
        let which = |name: &str| {
            matches!(name, "mmap" | "mprotect" | "madvise" | "read" | "pread64" | "pwrite64" | "fstatfs")
                || long() && fares_well(name)
        };
        withstands(action, Before::Valid, which, &[Done, Miss, Rejected, Io, Memory]);
    }
}

#[test]
fn pages_are_executable_as_soon_as_they_are_mapped_if_all_of_them_hold_code() {
    if !strace::works() {
        return skip("errnos, mprotect", "strace does not work here");
    }
    for (action, expected) in IN_PLACE {
        let (outcome, calls) = strace::run(action, &Directory::new(Before::Valid, true), None);
        assert_eq!(outcome, Done);
        assert_eq!(calls.iter().filter(|call| call.name == "mprotect").count(), expected, "{action}: {calls:#?}");
    }
}

#[test]
fn a_put_is_done_or_an_error_whatever_fails() {
    withstands("put", Before::Nothing, fares_well, &[Done, Io]);
    withstands("put", Before::Valid, fares_well, &[Done, Io]);
}

#[test]
fn opening_removing_and_sweeping_are_done_or_an_error_whatever_fails() {
    withstands("open", Before::Nothing, fares_well, &[Done, Io]);
    withstands("remove", Before::Valid, fares_well, &[Done, Io]);
    withstands("sweep", Before::Valid, fares_well, &[Done, Io]);
    withstands("judge", Before::Corrupt, fares_well, &[Done]);
}

#[test]
fn an_engine_gets_its_module_whatever_fails() {
    for before in [Before::Nothing, Before::Valid, Before::Corrupt] {
        withstands("cache", before, fares_well, &[Done, Memory]);
    }
}

/// The first to run code of which there is none yet is as well off as the second, which has it.
#[test]
fn what_was_compiled_is_stored_even_if_it_may_not_be_made_executable() {
    if !strace::works() {
        return skip("refused memory", "strace does not work here");
    }
    for before in [Before::Nothing, Before::Corrupt] {
        let (outcome, calls) = strace::run("cache", &Directory::new(before, false), None);
        assert_eq!(outcome, Done);
        let executable: Vec<_> = calls.iter().filter(|call| call.line.contains("PROT_EXEC")).collect();
        assert!(!executable.is_empty(), "{calls:#?}");
        for call in executable {
            for errno in ["EACCES", "EPERM", "ENOMEM"] {
                let directory = Directory::new(before, false);
                let how = format!("error={errno}:when={}+", call.nth);
                let (outcome, calls) = strace::run("cache", &directory, Some((&call.name, &how)));
                let case = format!("{before:?} {errno}: {}", call.line);
                assert!(calls.iter().any(|call| call.line.contains("(INJECTED)")), "{case}: not injected");
                assert!(matches!(outcome, Done | Memory), "{case}: {outcome:?}");
                assert_eq!(directory.entry(), Some(file(LARGE, 1)), "{case}");
                directory.check(&case);
            }
        }
    }
}

#[test]
fn a_root_that_cannot_be_made_leaves_a_cache_in_memory() {
    if !strace::works() {
        return skip("no root", "strace does not work here");
    }
    let (outcome, calls) = strace::run("fall-back", &Directory::new(Before::Nothing, false), None);
    assert_eq!(outcome, Done);
    let calls: Vec<_> = calls.iter().filter(|call| call.name == "mkdir" && call.line.ends_with("= 0")).collect();
    assert!(calls.len() >= 2, "the root, and the directory of the entries");
    for (call, errno) in calls.iter().flat_map(|call| {
        let errnos =
            "EACCES EPERM EROFS ENOSPC EDQUOT ENOTDIR ENOENT ENOMEM EIO ELOOP ENAMETOOLONG EMLINK ESTALE ENOSYS";
        errnos.split(' ').map(move |errno| (call, errno))
    }) {
        let how = format!("error={errno}:when={}+", call.nth);
        let (outcome, calls) =
            strace::run("fall-back", &Directory::new(Before::Nothing, false), Some((&call.name, &how)));
        assert!(calls.iter().any(|call| call.line.contains("(INJECTED)")), "{errno}: not injected");
        // Without a directory for temporary files there is a store, into which nothing can be put.
        let expected = if call.line.contains("/tmp\"") { Done } else { Io };
        assert_eq!(outcome, expected, "{errno}: {}", call.line);
    }
}

#[test]
#[ignore = "std panics when a directory that was listed cannot be closed"]
fn a_directory_that_cannot_be_closed_is_no_panic() {
    withstands("sweep", Before::Valid, |name| name == "close", &[Done, Io]);
    withstands("put", Before::Nothing, |name| name == "close", &[Done, Io]);
    withstands("cache", Before::Nothing, |name| name == "close", &[Done]);
}

#[test]
fn a_put_waits_for_nobody_and_lists_no_entries() {
    if !strace::works() {
        return skip("calls of a put", "strace does not work here");
    }
    for action in ["put", "sweep", "judge", "cache"] {
        let before = if action == "judge" { Before::Corrupt } else { Before::Nothing };
        let (outcome, calls) = strace::run(action, &Directory::new(before, true), None);
        assert_eq!(outcome, Done);
        for call in calls {
            assert!(!call.name.contains("lock") && !call.line.contains("LKW"), "{}", call.line);
            // To compile, which a cache does, and to count, once it is dropped.
            let is_to_count = call.line.contains("l_start=2147483647,") && matches!(action, "judge" | "cache");
            let is_tried = call.line.contains("/tmp/lock>, F_SETLK, {") && (action == "cache" || is_to_count);
            assert!(!(call.name == "fcntl" && call.line.contains("LK")) || is_tried, "{}", call.line);
            assert!(!call.name.starts_with("getdents") || call.line.contains("/tmp>"), "{}", call.line);
        }
    }
}

/// What is renamed is in place, whether or not it can be made to survive a power cut; but a disk that fails is told.
#[test]
fn a_sync_that_a_file_system_does_not_offer_is_no_failure() {
    if !strace::works() {
        return skip("sync", "strace does not work here");
    }
    let (_, calls) = strace::run("put", &Directory::new(Before::Valid, false), None);
    let syncs: Vec<_> = calls.iter().filter(|call| call.name == "fsync").collect();
    let [sync, directory] = syncs[..] else { panic!("{syncs:?}") };
    let opened = calls.iter().rfind(|call| call.name == "openat").unwrap();
    for (call, errnos, expected) in [
        (sync, "EINVAL EOPNOTSUPP ENOSYS", Done),
        (directory, "EINVAL EOPNOTSUPP ENOSYS EACCES EPERM", Done),
        (opened, "EACCES EPERM", Done),
        (sync, "EIO ENOSPC EDQUOT EACCES", Io),
        (directory, "EIO ENOSPC EDQUOT", Io),
        (opened, "EIO EMFILE", Io),
    ] {
        for errno in errnos.split(' ') {
            let fails = Directory::new(Before::Valid, false);
            let how = format!("error={errno}:when={}", call.nth);
            let (outcome, calls) = strace::run("put", &fails, Some((&call.name, &how)));
            let case = format!("{errno}: {}", call.line);
            assert!(calls.iter().any(|call| call.line.contains("(INJECTED)")), "{case}: not injected");
            assert_eq!(outcome, expected, "{case}");
            let is_renamed = expected == Done || call.line != sync.line;
            assert_eq!(fails.entry(), Some(file(LARGE, is_renamed.into())), "{case}");
            fails.check(&case);
        }
    }
}

//! Lines of a perf map.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;
use std::process;
use std::thread;

use jitcache::Module;
use jitcache_profile::PerfMap;

use crate::kit::{self, Scratch, module};

fn path(process: u32) -> PathBuf {
    format!("/tmp/perf-{process}.map").into()
}

/// Start, length and name of each line: the end of the line is the only thing that ends a name.
fn lines(text: &str) -> Vec<(usize, usize, String)> {
    let number = |digits: &str| usize::from_str_radix(digits, 16).unwrap();
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("{line:?}"));
        (number(word()), number(word()), word().to_owned())
    };
    assert!(text.is_empty() || text.ends_with('\n'));
    // A line may be empty behind one that was not written to its end.
    text.split_terminator('\n').filter(|text| !text.is_empty()).map(line).collect()
}

/// What the map has of a module: offset, length and name.
fn told(module: &Module, process: u32) -> Vec<(usize, usize, String)> {
    let range = module.address_range();
    let lines = lines(&fs::read_to_string(path(process)).unwrap()).into_iter();
    lines.filter(|line| range.contains(&line.0)).map(|(at, length, name)| (at - range.start, length, name)).collect()
}

/// Removes the map of a process that only tests.
struct Removed(u32);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(path(self.0));
    }
}

#[test]
fn every_function_that_has_code_has_a_line() {
    if !kit::is_role("lines") {
        return kit::alone("perf_map::every_function_that_has_code_has_a_line", "lines");
    }
    let _removed = Removed(process::id());
    let map = PerfMap::open().unwrap();
    // An address that was given back may be another module's next, and the map tells of both.
    let mut modules = Vec::new();
    for (what, functions, expected) in [
        ("none", &[][..], &[][..]),
        ("a prefix and the index", &[(0, None), (16, None)], &[(0, 16, "myjit[0]"), (16, 48, "myjit[1]")]),
        ("what is in front of the first is nobody's", &[(8, None)], &[(8, 56, "myjit[0]")]),
        ("symbols", &[(0, Some((5, "add"))), (16, Some((7, "main")))], &[(0, 5, "add"), (16, 7, "main")]),
        ("of unknown length", &[(0, Some((0, "add"))), (16, Some((0, "main")))], &[(0, 16, "add"), (16, 48, "main")]),
        ("longer than there is room", &[(0, Some((40, "add"))), (16, None)], &[(0, 16, "add"), (16, 48, "myjit[1]")]),
        ("more than a line", &[(0, Some((4, "a\nb 1 2 c\r\u{1b}[31m\u{85}d")))], &[(0, 4, "a?b 1 2 c??[31m?d")]),
        ("other alphabets", &[(0, Some((4, "größe<λ, 名>")))], &[(0, 4, "größe<λ, 名>")]),
    ] {
        let module = module(64, functions);
        map.add(&module, "myjit").unwrap();
        let expected: Vec<_> = expected.iter().map(|(at, length, name)| (*at, *length, (*name).to_owned())).collect();
        assert_eq!(told(&module, process::id()), expected, "{what}");
        modules.push(module);
    }
    for (named, expected) in [("", "?"), ("\n", "?"), ("a b", "a b")] {
        let module = module(64, &[(0, None)]);
        map.add(&module, |_| named.to_owned()).unwrap();
        assert_eq!(told(&module, process::id()), [(0, 64, expected.to_owned())]);
        modules.push(module);
    }
}

#[test]
fn lines_of_threads_do_not_mix() {
    if !kit::is_role("threads") {
        return kit::alone("perf_map::lines_of_threads_do_not_mix", "threads");
    }
    let _removed = Removed(process::id());
    let maps = [PerfMap::open().unwrap(), PerfMap::open().unwrap()];
    let modules: Vec<_> =
        (0..8).map(|_| module(6400, &(0..64).map(|at| (at * 100, None)).collect::<Vec<_>>())).collect();
    thread::scope(|scope| {
        for (nth, module) in modules.iter().enumerate() {
            let map = &maps[nth % 2];
            scope.spawn(move || (0..20).for_each(|_| map.add(module, &*"x".repeat(100 * nth)).unwrap()));
        }
    });
    let all = lines(&fs::read_to_string(path(process::id())).unwrap());
    assert_eq!(all.len(), 8 * 20 * 64);
    for together in all.chunks(64) {
        let nth = modules.iter().position(|module| module.address_range().start == together[0].0).unwrap();
        let start = modules[nth].address_range().start;
        let expected = (0..64).map(|at| (start + at * 100, 100, format!("{}[{at}]", "x".repeat(100 * nth))));
        assert!(together.iter().cloned().eq(expected), "{nth}");
    }
}

#[test]
fn what_is_no_file_of_this_user_alone_is_refused() {
    if !kit::is_role("planted") {
        return kit::alone("perf_map::what_is_no_file_of_this_user_alone_is_refused", "planted");
    }
    let _removed = Removed(process::id());
    let (scratch, path) = (Scratch::new("planted"), path(process::id()));
    let other = scratch.path().join("other");
    type Plant<'p> = (&'p str, &'p dyn Fn());
    let plants: [Plant<'_>; 6] = [
        ("a link to a file", &|| symlink(&other, &path).unwrap()),
        ("a link to nothing", &|| symlink(scratch.path().join("nothing"), &path).unwrap()),
        ("a second name of a file", &|| fs::hard_link(&other, &path).unwrap()),
        ("a directory", &|| fs::create_dir(&path).unwrap()),
        ("a pipe", &|| {
            let status = process::Command::new("mkfifo").arg(&path).status().unwrap();
            assert!(status.success());
        }),
        ("another user's", &|| {
            fs::write(&path, "").unwrap();
            // Only root may give a file away.
            if chown(&path, Some(12345), None).is_err() {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
        }),
    ];
    for (what, plant) in plants {
        fs::write(&other, "nobody's business").unwrap();
        plant();
        let error = PerfMap::open().expect_err(what);
        assert_ne!(error.kind(), ErrorKind::NotFound, "{what}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "nobody's business", "{what}");
        assert!(!scratch.path().join("nothing").exists(), "{what}");
        fs::remove_dir(&path).or_else(|_| fs::remove_file(&path)).unwrap();
    }
}

#[test]
fn a_child_of_a_fork_has_a_map_of_its_own() {
    if !kit::is_role("fork") {
        return kit::alone("perf_map::a_child_of_a_fork_has_a_map_of_its_own", "fork");
    }
    let _removed = Removed(process::id());
    let map = PerfMap::open().unwrap();
    let (before, later) = (module(64, &[(0, None)]), module(64, &[(0, None)]));
    map.add(&before, "before").unwrap();
    let child = kit::fork(|| map.add(&later, "child").is_ok());
    let _childs = Removed(child);
    map.add(&later, "parent").unwrap();
    let of = |name: &str| vec![(0, 64, format!("{name}[0]"))];
    assert_eq!((told(&before, process::id()), told(&later, process::id())), (of("before"), of("parent")));
    assert_eq!((told(&before, child), told(&later, child)), (vec![], of("child")));
}

#[test]
fn a_limit_of_files_is_an_error_and_no_signal() {
    if !kit::is_role("limit") {
        return kit::alone("perf_map::a_limit_of_files_is_an_error_and_no_signal", "limit");
    }
    let _removed = Removed(process::id());
    let map = PerfMap::open().unwrap();
    let module = module(64, &[(0, None)]);
    let limit = |rlim_cur| {
        let limit = libc::rlimit { rlim_cur, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit may be read.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    };
    limit(4);
    let error = map.add(&module, "long").unwrap_err();
    limit(libc::RLIM_INFINITY);
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    map.add(&module, "long").unwrap();
    assert_eq!(told(&module, process::id()), [(0, 64, "long[0]".to_owned())]);
}

//! Records of a jitdump file, as `linux-perf-data` reads them.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use jitcache::Module;
use jitcache_profile::{Jitdump, Line, gdb};
use linux_perf_data::jitdump::{JitDumpReader, JitDumpRecord};

use crate::kit::{self, Scratch, module, module_with};

/// What a file tells, without times and numbers, which are looked at here.
#[derive(Debug, PartialEq)]
enum Told {
    Lines(u64, Vec<(u64, String, u32, u32)>),
    Code(u64, String, Vec<u8>),
    End,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn read(directory: &Path, process: u32) -> Vec<Told> {
    let file = File::open(directory.join(format!("jit-{process}.dump"))).unwrap();
    let length = file.metadata().unwrap().len();
    let mut reader = JitDumpReader::new(file).unwrap();
    let header = reader.header().clone();
    assert_eq!((header.version, header.pid, header.flags), (1, process, 0));
    assert_eq!(header.elf_machine_arch, u32::from(machine()));
    let (mut told, mut time, mut number, mut end) = (Vec::new(), header.timestamp, 0, 0);
    while let Some(record) = reader.next_record().unwrap() {
        assert!(time > 0 && record.timestamp >= time, "the clock goes on");
        time = record.timestamp;
        end = record.start_offset + u64::from(record.record_size);
        told.push(match record.parse().unwrap() {
            JitDumpRecord::CodeDebugInfo(info) => {
                let entry = |entry: &linux_perf_data::jitdump::JitCodeDebugInfoEntry<'_>| {
                    (entry.code_addr - info.code_addr, text(&entry.file_path.as_slice()), entry.line, entry.column)
                };
                Told::Lines(info.code_addr, info.entries.iter().map(entry).collect())
            }
            JitDumpRecord::CodeLoad(load) => {
                assert_eq!((load.pid, load.vma, load.code_index), (process, load.code_addr, number));
                assert!(load.tid >= process);
                number += 1;
                Told::Code(load.code_addr, text(&load.function_name.as_slice()), load.code_bytes.as_slice().to_vec())
            }
            JitDumpRecord::CodeClose => Told::End,
            other => panic!("{other:?}"),
        });
    }
    assert!(end == length || told.is_empty(), "{end} of {length} bytes were read");
    told
}

/// Returns the machine that this very program says it is of.
fn machine() -> u16 {
    let program = fs::read("/proc/self/exe").unwrap();
    u16::from_ne_bytes([program[18], program[19]])
}

fn code(module: &Module, at: usize, length: usize, name: &str) -> Told {
    let start = u64::try_from(module.address_range().start + at).unwrap();
    Told::Code(start, name.to_owned(), module.code()[at..at + length].to_vec())
}

#[test]
fn functions_are_read_back_with_code_and_lines() {
    let scratch = Scratch::new("dump");
    let dump = Jitdump::create(scratch.path()).unwrap();
    let functions = [(0, None), (16, Some((20, "main\nof all"))), (48, None)];
    let module = module_with(64, &functions, &[(4, 70), (8, 71), (16, 90), (20, 91), (40, 100)]);
    dump.add(&module, "myjit").unwrap();
    // A tenth of the offset is the line; there is none of that at 90.
    let line = |source| (source != 90).then_some(Line { file: "almanac.mill", line: source as u32 / 10, column: 7 });
    dump.add_with_lines(&module, |index| format!("other {index}"), line).unwrap();
    drop(dump);

    let start = u64::try_from(module.address_range().start).unwrap();
    let lined = |at: u64, lines: &[(u64, u32)]| {
        let lines = lines.iter().map(|(at, line)| (*at, "almanac.mill".to_owned(), *line, 7)).collect();
        Told::Lines(start + at, lines)
    };
    let expected = [
        code(&module, 0, 16, "myjit[0]"),
        code(&module, 16, 20, "main?of all"),
        code(&module, 48, 16, "myjit[2]"),
        lined(0, &[(4, 7), (8, 7)]),
        code(&module, 0, 16, "other 0"),
        lined(16, &[(4, 9)]),
        code(&module, 16, 20, "main?of all"),
        // What the row in front of a function says holds until the next row.
        lined(48, &[(0, 10)]),
        code(&module, 48, 16, "other 2"),
        Told::End,
    ];
    assert_eq!(read(scratch.path(), process::id()), expected);
}

/// Returns how the files of a directory are mapped.
fn mapped(directory: &Path) -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter(|line| line.contains(directory.to_str().unwrap()));
    lines.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn the_file_is_mapped_to_be_executed_as_long_as_it_is_written_to() {
    let scratch = Scratch::new("marker");
    let dump = Jitdump::create(scratch.path()).unwrap();
    assert_eq!(mapped(scratch.path()), ["r-xp"]);
    drop(dump);
    assert!(mapped(scratch.path()).is_empty());
    assert_eq!(read(scratch.path(), process::id()), [Told::End]);
}

#[test]
fn a_file_has_one_writer_and_replaces_what_was_left() {
    let scratch = Scratch::new("left");
    let path = scratch.path().join(format!("jit-{}.dump", process::id()));
    fs::write(&path, [7; 5000]).unwrap();
    let dump = Jitdump::create(scratch.path()).unwrap();
    assert_eq!(Jitdump::create(scratch.path()).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(read(scratch.path(), process::id()), []);
    drop(dump);
    drop(Jitdump::create(scratch.path()).unwrap());

    fs::rename(&path, scratch.path().join("other")).unwrap();
    symlink(scratch.path().join("other"), &path).unwrap();
    let before = fs::read(scratch.path().join("other")).unwrap();
    assert!(Jitdump::create(scratch.path()).is_err());
    assert_eq!(fs::read(scratch.path().join("other")).unwrap(), before);
    assert_eq!(Jitdump::create(scratch.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn records_of_threads_do_not_mix() {
    let scratch = Scratch::new("threads");
    let dump = Jitdump::create(scratch.path()).unwrap();
    let modules: Vec<_> = (0..8).map(|nth| module(6400 + nth, &[(0, None), (100, None), (3000, None)])).collect();
    thread::scope(|scope| {
        for (nth, module) in modules.iter().enumerate() {
            let dump = &dump;
            scope.spawn(move || (0..20).for_each(|_| dump.add(module, &*format!("of {nth}")).unwrap()));
        }
    });
    drop(dump);
    let mut told = read(scratch.path(), process::id());
    assert_eq!(told.pop(), Some(Told::End));
    assert_eq!(told.len(), 8 * 20 * 3);
    for together in told.chunks(3) {
        let expected = modules.iter().enumerate().map(|(nth, module)| {
            let code = |at, length, index| code(module, at, length, &format!("of {nth}[{index}]"));
            [code(0, 100, 0), code(100, 2900, 1), code(3000, 3400 + nth, 2)]
        });
        assert!(expected.into_iter().any(|expected| expected == together), "{together:?}");
    }
}

#[test]
fn a_child_of_a_fork_has_a_dump_of_its_own() {
    let scratch = Scratch::new("fork");
    let dump = Jitdump::create(scratch.path()).unwrap();
    let module = module(64, &[(0, None)]);
    dump.add(&module, "before").unwrap();
    let dump = std::cell::Cell::new(Some(dump));
    let child = kit::fork(|| {
        let dump = dump.take().unwrap();
        let added = dump.add(&module, "child").is_ok() && mapped(scratch.path()).len() == 1;
        drop(dump);
        added && mapped(scratch.path()).is_empty()
    });
    let dump = dump.take().unwrap();
    dump.add(&module, "parent").unwrap();
    drop(dump);
    let named = |name: &str| code(&module, 0, 64, &format!("{name}[0]"));
    assert_eq!(read(scratch.path(), process::id()), [named("before"), named("parent"), Told::End]);
    assert_eq!(read(scratch.path(), child), [named("child"), Told::End]);
}

#[test]
fn what_does_not_fit_leaves_no_half_of_a_record() {
    if !kit::is_role("limit") {
        return kit::alone("jitdump::what_does_not_fit_leaves_no_half_of_a_record", "limit");
    }
    let scratch = Scratch::new("limit");
    let dump = Jitdump::create(scratch.path()).unwrap();
    let module = module(64, &[(0, None)]);
    let limit = |rlim_cur| {
        let limit = libc::rlimit { rlim_cur, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit may be read.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    };
    limit(60);
    assert_eq!(dump.add(&module, "too long").unwrap_err().kind(), ErrorKind::FileTooLarge);
    limit(libc::RLIM_INFINITY);
    dump.add(&module, "fits").unwrap();
    drop(dump);
    assert_eq!(read(scratch.path(), process::id()), [code(&module, 0, 64, "fits[0]"), Told::End]);
}

#[test]
fn a_fork_while_threads_add_hangs_no_child() {
    if !kit::is_role("busy") {
        return kit::alone("jitdump::a_fork_while_threads_add_hangs_no_child", "busy");
    }
    let scratch = Scratch::new("busy");
    let dump = Jitdump::create(scratch.path()).unwrap();
    let (module, is_over) = (module(64, &[(0, None)]), AtomicBool::new(false));
    // Nobody gives back what another thread had when the process forked.
    let is_right = |added: io::Result<()>| added.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |()| true);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    dump.add(&module, "parent").unwrap();
                    drop(gdb::register(&module, "parent").unwrap());
                }
            });
        }
        for _ in 0..50 {
            kit::fork(|| {
                // SAFETY: the alarm ends a process that waits for ever.
                unsafe { libc::alarm(100) };
                is_right(dump.add(&module, "child")) && is_right(gdb::register(&module, "child").map(drop))
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    drop(dump);
    assert_eq!(read(scratch.path(), process::id()).pop(), Some(Told::End));
}

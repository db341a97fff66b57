//! What `perf` makes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output};

use jitcache::{Access, Identity, Key, Module};
use jitcache_profile::{Jitdump, PerfMap};

use crate::kit::{self, Scratch};

/// Returns a module that runs from its file.
fn in_place(path: &Path) -> Module {
    let identity = Identity::new("profiled", *b"PROFIL", "1").unwrap().with_alignment_in_file(16).unwrap();
    let key = Key::of(&identity).source(b"in place").finish();
    fs::write(path, kit::runnable(200_000).finish(&identity, &key).unwrap().to_vec()).unwrap();
    // SAFETY: nobody writes to the file, which is on a file system of this machine.
    let access = unsafe { Access::in_place() };
    let module = Module::open(path, access, &identity, &key).unwrap().unwrap();
    assert!(module.is_in_place());
    module
}

/// Runs code that was loaded in each way, under names that say which.
fn spin(tell: impl Fn(&Module, &str)) {
    let modules = [
        ("small", kit::load(&mut kit::runnable(0))),
        ("large", kit::load(&mut kit::runnable(20_000))),
        ("in_place", in_place(&directory().join("entry"))),
    ];
    for (name, module) in &modules {
        tell(module, name);
        kit::call(module, 2, 200_000_000);
    }
}

const DIRECTORY: &str = "JITCACHE_PROFILE_DIRECTORY";

fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY).unwrap().into()
}

/// Runs `perf` in a directory, whose cache of files lies there, too.
fn perf(directory: &Path, arguments: &[&str], program: &[String]) -> Option<Output> {
    let mut command = Command::new("perf");
    command.args(arguments).args(program).current_dir(directory).env("HOME", directory).env(DIRECTORY, directory);
    kit::in_role(&mut command, arguments[0]).output().ok()
}

/// Records the test of that name in the role `record`, and returns a report of it; `None` if there is no `perf` here.
fn report(test: &str, has_dump: bool) -> Option<String> {
    let scratch = Scratch::new(test.rsplit("::").next().unwrap());
    let run = |arguments: &[&str], program: &[String]| {
        let output = perf(scratch.path(), arguments, program).unwrap();
        let text = [&*output.stdout, &output.stderr].map(String::from_utf8_lossy).concat();
        assert!(output.status.success(), "{arguments:?}: {}\n{text}", output.status);
        text
    };
    let record = ["record", "-k", "mono", "-e", "cpu-clock", "-o", "perf.data", "--"];
    let Some(tried) = perf(scratch.path(), &record, &["true".into()]) else {
        kit::skip("perf", "it is not installed");
        return None;
    };
    if !tried.status.success() {
        kit::skip("perf", "it may measure nothing");
        return None;
    }
    let text = run(&record, &kit::program(test));
    assert!(text.contains("1 passed"), "{text}");
    if has_dump {
        run(&["inject", "--jit", "-i", "perf.data", "-o", "perf.jit.data"], &[]);
    }
    let data = if has_dump { "perf.jit.data" } else { "perf.data" };
    let text = run(&["report", "--stdio", "--sort", "symbol", "-i", data], &[]);
    if let Ok(process) = fs::read_to_string(scratch.path().join("process")) {
        fs::remove_file(format!("/tmp/perf-{process}.map")).unwrap();
    }
    Some(text)
}

#[test]
fn a_perf_map_names_what_lies_in_pages_of_its_own() {
    if kit::is_role("record") {
        Module::keep_apart();
        let map = PerfMap::open().unwrap();
        fs::write(directory().join("process"), process::id().to_string()).unwrap();
        return spin(|module, name| map.add(module, name).unwrap());
    }
    let Some(text) = report("perf::a_perf_map_names_what_lies_in_pages_of_its_own", false) else { return };
    for name in ["small[2]", "large[2]"] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
fn a_jitdump_names_whatever_ran() {
    if kit::is_role("record") {
        let dump = Jitdump::create(directory()).unwrap();
        spin(|module, name| dump.add(module, name).unwrap());
        // What comes later at an address has its own name, and leaves what was there before its.
        let run = |module: &Module, name: &str| {
            dump.add(module, name).unwrap();
            kit::call(module, 2, 200_000_000);
            module.address_range()
        };
        let range = run(&kit::load(&mut kit::runnable(20_000)), "earlier");
        let mut modules = vec![kit::load(&mut kit::runnable(20_000))];
        while modules[modules.len() - 1].address_range() != range {
            assert!(modules.len() < 100, "the addresses are not used again");
            modules.push(kit::load(&mut kit::runnable(20_000)));
        }
        run(&modules[modules.len() - 1], "later");
        return;
    }
    let Some(text) = report("perf::a_jitdump_names_whatever_ran", true) else { return };
    for name in ["small[2]", "large[2]", "in_place[2]", "earlier[2]", "later[2]"] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

//! What GDB itself makes of it.

use std::process::Command;

use jitcache::Module;
use jitcache_profile::gdb;

use crate::kit;

/// Stops inside loaded code, and once more when it is unloaded.
fn stop() {
    let module = kit::load(&mut kit::runnable(0));
    let names = ["myjit_outer", "myjit_inner", "myjit_spin"];
    module.attach(gdb::register(&module, |index: usize| names[index].to_owned()).unwrap()).unwrap();
    kit::call(&module, 0, 0);
    drop(module);
    // SAFETY: the signal ends a process that nobody debugs.
    unsafe { libc::raise(libc::SIGUSR1) };
}

#[test]
fn gdb_shows_the_functions_of_modules_while_they_are_loaded() {
    match () {
        () if kit::is_role("beside others") => return stop(),
        () if kit::is_role("apart") => {
            Module::keep_apart();
            return stop();
        }
        () => {}
    }
    let program = kit::program("debugger::gdb_shows_the_functions_of_modules_while_they_are_loaded");
    let inside = ["backtrace 3", "info symbol $pc", "info address myjit_spin"];
    let is_shown = ["in myjit_inner ()", "in myjit_outer ()", "myjit_inner + ", "Symbol \"myjit_spin\" is at 0x"];
    let is_gone = ["SIGUSR1", "No symbol \"myjit_spin\" in current context"];
    for (role, start, has_breakpoint) in [
        ("beside others", &["run"][..], false),
        ("apart", &["set breakpoint pending on", "break myjit_inner", "run"], true),
    ] {
        let on = if has_breakpoint { &["delete", "continue", "signal 0"][..] } else { &["continue"] };
        let commands = [start, &inside, on, &["info address myjit_spin"]].concat();
        let mut command = Command::new("gdb");
        command.args(["-nx", "-batch", "-ex", "set debuginfod enabled off"]);
        command.args(commands.iter().flat_map(|text| ["-ex", text])).arg("--args").args(&program);
        let Ok(output) = kit::in_role(&mut command, role).output() else {
            return kit::skip("gdb", "it is not installed");
        };
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        if text.contains("Could not trace the inferior process") || text.contains("ptrace: Operation not permitted") {
            return kit::skip("gdb", "the system lets it trace nothing");
        }
        let stopped = if has_breakpoint { "hit Breakpoint 1" } else { "SIGTRAP" };
        for expected in [stopped].iter().chain(&is_shown).chain(&is_gone) {
            assert!(text.contains(expected), "{role}: {expected}\n{text}");
        }
    }
}

//! Modules to tell of, and processes to do it in.

#![cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code, reason = "of tests that run code, on Linux")
)]

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use jitcache::{Builder, Identity, Key, Module};

/// A function of a module: where it starts, and the length and the name of its symbol, if it has one.
pub(crate) type Function<'f> = (u64, Option<(u64, &'f str)>);

/// Returns a module of so many bytes, none like the other of its neighbours, which nobody calls.
pub(crate) fn module(length: usize, functions: &[Function<'_>]) -> Module {
    module_with(length, functions, &[])
}

/// Returns such a module with a source map of offsets in the code and in the source.
pub(crate) fn module_with(length: usize, functions: &[Function<'_>], sources: &[(u64, u64)]) -> Module {
    let mut builder = Builder::new();
    builder.code((0..length).map(|at| at as u8).collect::<Vec<_>>());
    for (start, symbol) in functions {
        match symbol {
            Some((length, name)) => builder.function_named(*start, *length, name),
            None => builder.function(*start),
        };
    }
    for (code, source) in sources {
        builder.source(*code, *source);
    }
    load(&mut builder)
}

pub(crate) fn load(builder: &mut Builder<'_>) -> Module {
    let identity = Identity::new("profiled", *b"PROFIL", "1").unwrap();
    let key = Key::of(&identity).source(b"profiled").finish();
    Module::load(&builder.finish(&identity, &key).unwrap()).unwrap()
}

/// Machine code of two functions, of which `outer` calls `inner`, a debugger's breakpoint, and of `spin`, which counts
/// its argument down to 0; each begins at a multiple of 32 bytes.
#[cfg(target_arch = "x86_64")]
const RUNS: [&[u8]; 3] = [
    // push rbp; mov rbp, rsp; call +23; pop rbp; ret
    &[0x55, 0x48, 0x89, 0xe5, 0xe8, 23, 0, 0, 0, 0x5d, 0xc3],
    // push rbp; mov rbp, rsp; int3; pop rbp; ret
    &[0x55, 0x48, 0x89, 0xe5, 0xcc, 0x5d, 0xc3],
    // dec rdi; jnz -5; ret
    &[0x48, 0xff, 0xcf, 0x75, 0xfb, 0xc3],
];
#[cfg(target_arch = "aarch64")]
const RUNS: [&[u8]; 3] = [
    // stp x29, x30, [sp, -16]!; mov x29, sp; bl +24; ldp x29, x30, [sp], 16; ret
    &[0xfd, 0x7b, 0xbf, 0xa9, 0xfd, 0x03, 0, 0x91, 6, 0, 0, 0x94, 0xfd, 0x7b, 0xc1, 0xa8, 0xc0, 0x03, 0x5f, 0xd6],
    // The same with brk 0 in place of bl.
    &[0xfd, 0x7b, 0xbf, 0xa9, 0xfd, 0x03, 0, 0x91, 0, 0, 0x20, 0xd4, 0xfd, 0x7b, 0xc1, 0xa8, 0xc0, 0x03, 0x5f, 0xd6],
    // subs x0, x0, 1; b.ne -4; ret
    &[0, 0x04, 0, 0xf1, 0xe1, 0xff, 0xff, 0x54, 0xc0, 0x03, 0x5f, 0xd6],
];

/// Returns an entry of at least so many bytes with these functions, and no names.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) fn runnable<'b>(length: usize) -> Builder<'b> {
    let (mut builder, mut code) = (Builder::new(), Vec::new());
    for function in RUNS {
        builder.function(code.len() as u64);
        code.extend_from_slice(function);
        code.resize(code.len().next_multiple_of(32), 0);
    }
    code.resize(code.len().max(length), 0);
    builder.code(code);
    builder
}

/// Calls a function of such a module.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) fn call(module: &Module, function: usize, argument: u64) {
    let function = module.function(function).unwrap();
    // SAFETY: the functions above take one number or none, and return nothing, in the C calling convention.
    let function: extern "C" fn(u64) = unsafe { std::mem::transmute(function) };
    function(argument);
}

/// Says why something is not tested, past the harness, which swallows what passing tests say.
pub(crate) fn skip(what: &str, reason: &str) {
    let _ = std::io::stderr().write_all(format!("{what}: skipped, {reason}\n").as_bytes());
}

const ROLE: &str = "JITCACHE_PROFILE_ROLE";

/// Returns whether this process was started by [`alone`] or [`program`] for the role.
pub(crate) fn is_role(role: &str) -> bool {
    env::var_os(ROLE).is_some_and(|found| found == role)
}

/// Returns the words of a command that runs one test of this program in a process of its own, which `env` has to tell
/// its role.
pub(crate) fn program(test: &str) -> [String; 5] {
    let path = env::current_exe().unwrap().into_os_string().into_string().unwrap();
    [path, "--exact".into(), test.into(), "--nocapture".into(), "--test-threads=1".into()]
}

/// Has a command run tests in a role.
pub(crate) fn in_role<'c>(command: &'c mut Command, role: &str) -> &'c mut Command {
    command.env(ROLE, role)
}

/// Runs `test` in a process of its own, where it is in the role, and has to pass.
pub(crate) fn alone(test: &str, role: &str) {
    let [path, arguments @ ..] = program(test);
    let output = in_role(&mut Command::new(path), role).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{role}: {}\n{text}", output.status);
}

/// Runs `child` in a fork of this process, where it has to return true.
pub(crate) fn fork(child: impl FnOnce() -> bool) -> u32 {
    // SAFETY: the child goes on in this thread alone, takes no lock that another thread may hold but the allocator's,
    // which the C library has in order, and leaves by `_exit`.
    let process = unsafe { libc::fork() };
    if process == 0 {
        let is_right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
        // SAFETY: nothing of this process is used afterwards.
        unsafe { libc::_exit(i32::from(!is_right)) };
    }
    let mut status = -1;
    // SAFETY: the status may be written to.
    assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
    assert_eq!(status, 0, "the child has failed");
    process.cast_unsigned()
}

/// A directory that is removed with what is in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("jitcache-profile-{name}-{}", process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

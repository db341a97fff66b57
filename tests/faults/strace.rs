//! Children under `strace`, which tells their system calls and makes them fail.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use crate::child::{self, Outcome, PADDING};
use crate::content::Directory;

/// A system call of the operation: the `nth` of that name in its process.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    pub nth: usize,
    /// As strace prints it, with the path of every descriptor.
    pub line: String,
}

/// Whether there is a strace here that may trace and make calls fail.
pub fn works() -> bool {
    static WORKS: LazyLock<bool> = LazyLock::new(|| {
        let inject = ["-f", "-qq", "-o", "/dev/null", "-e", "inject=unlink:error=EIO", "true"];
        Command::new("strace").args(inject).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    *WORKS
}

/// Runs an action in a directory; `inject` is what strace takes, of one system call, or nothing.
pub fn run(action: &str, directory: &Directory, inject: Option<(&str, &str)>) -> (Outcome, Vec<Call>) {
    let trace = directory.scratch.path().join("trace");
    let output = command(action, directory, &trace, inject).output().unwrap();
    let text = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    let calls = calls(&text);
    (Outcome::of(output.status), calls)
}

fn command(action: &str, directory: &Directory, trace: &Path, inject: Option<(&str, &str)>) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-o"]).arg(trace);
    if let Some((name, how)) = inject {
        strace.args(["-e", &format!("trace={name},access"), "-e", &format!("inject={name}:{how}")]);
        if matches!(name, "close" | "munmap") {
            strace.env("JITCACHE_FAULTS_KEEPS", "1");
        }
        // Only stops at the calls that are traced; but no signal can be sent from there.
        strace.args((!how.starts_with("signal")).then_some("--seccomp-bpf"));
    }
    child::arguments(&mut strace, action, directory.scratch.path());
    strace
}

/// A child that was stopped behind a system call.
pub struct Stopped {
    strace: Child,
    pid: libc::pid_t,
}

impl Stopped {
    pub fn at(action: &str, directory: &Directory, call: &Call) -> Self {
        let trace = directory.scratch.path().join(format!("trace of {action}"));
        let how = format!("signal=STOP:when={}", call.nth);
        let mut strace = command(action, directory, &trace, Some((&call.name, &how)));
        let mut strace = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..2000 {
            let text = fs::read_to_string(&trace).unwrap_or_default();
            if let Some(line) = text.lines().find(|line| line.contains("--- stopped by SIGSTOP ---")) {
                return Self { strace, pid: line.split(' ').next().unwrap().parse().unwrap() };
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = (strace.kill(), strace.wait());
        panic!("{action} was not stopped at {}", call.line);
    }

    /// Lets it go on, and returns how it ended.
    pub fn goes_on(mut self) -> Outcome {
        // SAFETY: a signal changes no memory of this process.
        assert_eq!(unsafe { libc::kill(self.pid, libc::SIGCONT) }, 0);
        Outcome::of(self.strace.wait().unwrap())
    }
}

/// The system calls between the markers, of the thread that set them.
fn calls(trace: &str) -> Vec<Call> {
    let marker = trace.lines().find(|line| line.contains("\"/jitcache-begin\"")).expect("the child reached the marker");
    let thread = marker.split(' ').next().unwrap();
    let (mut counts, mut begun, mut calls) = (HashMap::<_, usize>::new(), false, Vec::new());
    for line in trace.lines().filter_map(|line| line.strip_prefix(thread)).map(str::trim_start) {
        let Some((name, _)) = line.split_once('(') else { continue };
        if line.contains("\"/jitcache-end\"") {
            break;
        }
        let nth = counts.entry(name).and_modify(|count| *count += 1).or_insert(1);
        if begun && name != "exit_group" && !name.starts_with(['+', '-', '<']) {
            assert!(*nth > PADDING, "{name} needs padding");
            calls.push(Call { name: name.into(), nth: *nth, line: line.into() });
        }
        begun |= line.contains("\"/jitcache-begin\"");
    }
    calls
}

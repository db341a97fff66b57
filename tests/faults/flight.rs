//! Single flight among processes: one compiles, the others wait for it, and neither its death nor its sleep holds them
//! up.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jitcache::{Cache, Error};

use crate::child::{self, Outcome};
use crate::content::{builder, identity, is_code, key};
use crate::scratch::Scratch;

const COMPILING: Duration = Duration::from_millis(200);

/// Longer than any test may take.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// How long others wait for a process that is stopped.
const PATIENCE: Duration = Duration::from_millis(500);

fn note(path: &Path) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(b".").unwrap();
}

/// How many processes have noted something.
fn noted(path: &Path) -> usize {
    fs::read(path).map_or(0, |notes| notes.len())
}

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn child(action: &str, root: &Path) -> Outcome {
    child::hangs_after(20);
    let patience = if action == "flight-impatient" { PATIENCE } else { FOR_EVER };
    let cache = Cache::open(root, identity()).unwrap().with_patience(patience);
    match action {
        "flight-crossed-1" => return crossed(&cache, root, [1, 2]),
        "flight-crossed-2" => return crossed(&cache, root, [2, 1]),
        _ => {}
    }
    note(&root.join("ready"));
    wait_until(|| root.join("go").exists());
    let module = cache.get_or_compile(&key(1), |entry| {
        let is_first = noted(&root.join("compiled")) == 0;
        note(&root.join("compiled"));
        match action {
            "flight-hangs" => thread::sleep(FOR_EVER),
            // SAFETY: the fork sleeps, and nothing else.
            "flight-forks" if unsafe { libc::fork() } == 0 => {
                note(&root.join("forked"));
                thread::sleep(Duration::from_secs(15));
                // SAFETY: nothing of the fork is needed any more.
                unsafe { libc::_exit(0) };
            }
            "flight-forks" => thread::sleep(FOR_EVER),
            _ => thread::sleep(COMPILING),
        }
        assert!(!(is_first && action == "flight-panics"), "the compiler's own");
        *entry = builder(1, 0);
        if is_first && action == "flight-fails" { Err(Error::UnsupportedMachine) } else { Ok(()) }
    });
    match module {
        Ok(module) if is_code(1, module.code()) => Outcome::Done,
        Err(Error::UnsupportedMachine) => Outcome::Miss,
        _ => Outcome::Wrong,
    }
}

/// Compiles one module, and wants the other one meanwhile, which the other process compiles: so does a thread beside
/// it.
fn crossed(cache: &Cache, root: &Path, [ours, other]: [u64; 2]) -> Outcome {
    let get = |n, compiling: &dyn Fn()| {
        cache.get_or_compile(&key(n), |entry| {
            compiling();
            *entry = builder(n, 0);
            Ok::<(), Error>(())
        })
    };
    thread::scope(|scope| {
        let module = get(ours, &|| {
            note(&root.join(format!("compiles-{ours}")));
            wait_until(|| root.join(format!("compiles-{other}")).exists());
            scope.spawn(|| get(other, &|| {}).unwrap());
            thread::sleep(Duration::from_millis(50));
            get(other, &|| {}).unwrap();
        });
        if is_code(ours, module.unwrap().code()) { Outcome::Done } else { Outcome::Wrong }
    })
}

/// Processes over one directory.
struct Processes {
    scratch: Scratch,
    children: Vec<Child>,
}

impl Processes {
    fn new() -> Self {
        Self { scratch: Scratch::new(), children: Vec::new() }
    }

    fn start(&mut self, count: usize, action: &str) {
        for _ in 0..count {
            let mut child = child::command(action, self.scratch.path());
            self.children.push(child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
    }

    fn noted(&self, what: &str) -> usize {
        noted(&self.scratch.path().join(what))
    }

    /// Lets all compile as soon as all are there.
    fn go(&self) -> Instant {
        wait_until(|| self.noted("ready") >= self.children.len());
        fs::write(self.scratch.path().join("go"), "").unwrap();
        Instant::now()
    }

    /// Starts a process that never ends to compile.
    fn start_first(&mut self, action: &str, what: &str) {
        self.start(1, action);
        self.go();
        wait_until(|| self.noted(what) == 1);
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: the process is a child that nobody has waited for.
        assert_eq!(unsafe { libc::kill(self.children[0].id() as libc::pid_t, signal) }, 0);
    }

    fn outcomes(&mut self) -> Vec<Outcome> {
        let mut outcomes: Vec<_> =
            self.children.drain(..).map(|mut child| Outcome::of(child.wait().unwrap())).collect();
        outcomes.sort();
        outcomes
    }
}

#[test]
fn of_16_processes_that_want_a_module_one_compiles_it() {
    let mut processes = Processes::new();
    processes.start(16, "flight-waits");
    let since = processes.go();
    assert_eq!(processes.outcomes(), [Outcome::Done; 16]);
    println!("16 processes, {COMPILING:?} to compile: all done within {:?}", since.elapsed());
    assert_eq!(processes.noted("compiled"), 1);
}

#[test]
fn if_a_process_that_compiles_fails_or_panics_the_next_one_tries() {
    for (action, outcome) in [("flight-fails", Outcome::Miss), ("flight-panics", Outcome::Panicked)] {
        let mut processes = Processes::new();
        processes.start(5, action);
        processes.go();
        let mut expected = [Outcome::Done; 5];
        expected[4] = outcome;
        assert_eq!(processes.outcomes(), expected, "{action}");
        assert_eq!(processes.noted("compiled"), 2, "{action}");
    }
}

#[test]
fn if_a_process_that_compiles_is_killed_the_next_one_tries_even_if_a_fork_lives_on() {
    for (action, what) in [("flight-hangs", "compiled"), ("flight-forks", "forked")] {
        let mut processes = Processes::new();
        processes.start_first(action, what);
        processes.start(4, "flight-waits");
        wait_until(|| processes.noted("ready") == 5);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(processes.noted("compiled"), 1, "{action}");
        processes.signal(libc::SIGKILL);
        let since = Instant::now();
        assert_eq!(processes.children.remove(0).wait().map(Outcome::of).unwrap(), Outcome::Killed);
        assert_eq!(processes.outcomes(), [Outcome::Done; 4], "{action}");
        println!("{action}, killed: the others done within {:?}", since.elapsed());
        assert_eq!(processes.noted("compiled"), 2, "{action}");
    }
}

#[test]
fn a_process_that_is_stopped_while_it_compiles_is_waited_for_as_long_as_there_is_patience() {
    let mut processes = Processes::new();
    processes.start_first("flight-hangs", "compiled");
    processes.signal(libc::SIGSTOP);
    let since = Instant::now();
    processes.start(4, "flight-impatient");
    let mut stopped = processes.children.remove(0);
    assert_eq!(processes.outcomes(), [Outcome::Done; 4]);
    println!("stopped, patience of {PATIENCE:?}: started and done within {:?}", since.elapsed());
    assert!(since.elapsed() >= PATIENCE && processes.noted("compiled") > 1);
    stopped.kill().unwrap();
    stopped.wait().unwrap();
}

#[test]
fn processes_whose_compilers_want_each_others_modules_do_not_wait_for_each_other() {
    let mut processes = Processes::new();
    processes.start(1, "flight-crossed-1");
    processes.start(1, "flight-crossed-2");
    assert_eq!(processes.outcomes(), [Outcome::Done; 2]);
}

//! What the children do, and the codes with which they exit.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::{env, hint};

use jitcache::{Access, Builder, Cache, Durability, Entry, Error, FileBytes, Lookup, Module, Sealing, Store};

use crate::content::{self, LARGE, builder, code, compiled, identity, is_code, key};
use crate::{adversary, flight, fork, hammer, limits, memory, powercut, soak};

/// How a child ended, told by its exit code: no disk is needed for that, and no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The operation did what it is for.
    Done,
    Miss,
    Rejected,
    /// [`Error::Io`].
    Io,
    /// [`Error::Memory`].
    Memory,
    /// What must not be: another error, or the wrong code.
    Wrong,
    /// What the children exit with that check for themselves: something grew that should not have.
    Leak,
    /// By SIGKILL.
    Killed,
    /// By SIGALRM.
    Hung,
    Panicked,
    /// By any other signal, or with any other code.
    Died,
}

use Outcome::{Died, Done, Hung, Io, Killed, Leak, Memory, Miss, Panicked, Rejected, Wrong};

impl Outcome {
    const EXITS: [Self; 7] = [Done, Miss, Rejected, Io, Memory, Wrong, Leak];

    pub fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(101), _) => Panicked,
            (Some(code), _) => {
                usize::try_from(code - 40).ok().and_then(|at| Self::EXITS.get(at).copied()).unwrap_or(Died)
            }
            (None, Some(libc::SIGKILL)) => Killed,
            (None, Some(libc::SIGALRM)) => Hung,
            _ => Died,
        }
    }

    fn exit(self) -> ! {
        let code = 40 + Self::EXITS.iter().position(|&outcome| outcome == self).unwrap();
        // SAFETY: the process ends here; nothing of it is needed any more.
        unsafe { libc::_exit(code as i32) }
    }

    fn failed(error: &Error) -> Self {
        match error {
            Error::Io { .. } => Io,
            Error::Memory { .. } => Memory,
            Error::NotAFile { .. } => Rejected,
            _ => Wrong,
        }
    }

    fn of_result<T>(result: Result<T, Error>) -> Self {
        result.map_or_else(|error| Self::failed(&error), |_| Done)
    }

    fn of_lookup<T>(result: Result<Lookup<T>, Error>, sound: impl FnOnce(&T) -> bool) -> Self {
        match result {
            Ok(Lookup::Hit(found)) if sound(&found) => Done,
            Ok(Lookup::Miss) => Miss,
            Ok(Lookup::Rejected(_)) => Rejected,
            Ok(_) => Wrong,
            Err(error) => Self::failed(&error),
        }
    }
}

/// Prepares a child that does `action`, which has an argument behind a space, in `root`.
pub fn arguments(command: &mut Command, action: &str, root: &Path) {
    command.arg(env::current_exe().unwrap());
    command.args(["child::main", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("JITCACHE_FAULTS", action).env("JITCACHE_FAULTS_ROOT", root);
    // One heap, grown by brk: the memory mapped in an operation is then that of files and code.
    command.env("MALLOC_ARENA_MAX", "1");
    // Cargo's, in which the loader would look for libraries, over and over.
    command.env_remove("LD_LIBRARY_PATH");
}

/// Prepares a child that is not traced.
pub fn command(action: &str, root: &Path) -> Command {
    let mut command = Command::new("env");
    arguments(&mut command, action, root);
    command
}

/// Ends the process as [`Hung`] unless it ends, or calls this again, within some seconds.
pub fn hangs_after(seconds: u32) {
    // SAFETY: alarm changes no memory.
    unsafe { libc::alarm(seconds) };
}

/// How many system calls of each kind [`begin`] makes: more than the thread of the harness, for which strace counts
/// too.
pub const PADDING: usize = 40;

/// What a process holds: which of the first files are open, and what is mapped, except for heap and stack, which may
/// grow.
#[derive(PartialEq)]
struct Held {
    files: u64,
    mappings: Vec<u8>,
}

impl Held {
    /// Finds out by system calls that no test makes fail; `maps` is the list of mappings of the process.
    fn now(maps: &File) -> Self {
        let mut files = [0; 64].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
        (0..).zip(&mut files).for_each(|(fd, file)| file.fd = fd);
        // SAFETY: the structures are there to be read and written to.
        assert!(unsafe { libc::poll(files.as_mut_ptr(), 64, 0) } >= 0);
        let open = files.iter().filter(|file| file.revents & libc::POLLNVAL == 0);
        let files = open.map(|file| 1 << file.fd).sum();
        let (mut text, mut page) = (Vec::with_capacity(1 << 16), [0; 4096]);
        loop {
            let to = libc::iovec { iov_base: page.as_mut_ptr().cast(), iov_len: page.len() };
            // SAFETY: the system writes to the page, which has the length that it is told.
            let read = unsafe { libc::preadv(maps.as_raw_fd(), &to, 1, text.len() as libc::off_t) };
            let Some(read @ [_, ..]) = page.get(..usize::try_from(read).unwrap()) else { break };
            text.extend_from_slice(read);
        }
        let lines = text.split_inclusive(|&byte| byte == b'\n');
        let ours = |line: &&[u8]| !line.ends_with(b"[heap]\n") && !line.ends_with(b"[stack]\n");
        Self { files, mappings: lines.filter(ours).flatten().copied().collect() }
    }
}

/// Makes calls that do nothing, so that those of the operation have numbers of their own, and the one that marks where
/// it begins.
fn begin() {
    let files = [
        libc::SYS_openat,
        libc::SYS_newfstatat,
        libc::SYS_fstat,
        libc::SYS_statx,
        libc::SYS_readlink,
        libc::SYS_mkdir,
        libc::SYS_rename,
    ];
    let data = [
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_lseek,
        libc::SYS_getdents64,
        libc::SYS_fsync,
        libc::SYS_geteuid,
        libc::SYS_flock,
        libc::SYS_fstatfs,
        libc::SYS_pwrite64,
    ];
    let memory =
        [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_madvise, libc::SYS_brk, libc::SYS_getrandom];
    let others =
        [libc::SYS_unlink, libc::SYS_linkat, libc::SYS_close, libc::SYS_fcntl, libc::SYS_prlimit64, libc::SYS_getpid];
    for number in [&files[..], &data, &memory, &others].concat() {
        for _ in 0..PADDING {
            // SAFETY: no descriptor, address or length is -1, so the call fails, but for `brk`, which tells where the
            // heap ends, and `getpid`.
            hint::black_box(unsafe { libc::syscall(number, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64) });
        }
    }
    mark(c"/jitcache-begin");
}

/// Makes a call that shows in a trace.
fn mark(name: &CStr) {
    // SAFETY: the path is a string that ends with a zero.
    hint::black_box(unsafe { libc::access(name.as_ptr(), libc::F_OK) });
}

/// Returns the access that an action asks for by the end of its name.
fn access(action: &str) -> Access {
    if action.ends_with("mapped") {
        // SAFETY: no test that asks for this changes a file in place.
        unsafe { Access::map() }
    } else if action.ends_with("in-place") {
        // SAFETY: the same.
        unsafe { Access::in_place() }
    } else if action.ends_with("unchecked") {
        // SAFETY: the same, and it is whole and sound.
        unsafe { Access::in_place_unchecked() }
    } else {
        Access::READ
    }
}

/// Not a test: what the children run.
#[test]
#[ignore = "run by the other tests, in processes of its own"]
fn main() {
    let (Ok(action), Some(root)) = (env::var("JITCACHE_FAULTS"), env::var_os("JITCACHE_FAULTS_ROOT")) else { return };
    let root = Path::new(&root);
    let (action, argument) = action.split_once(' ').unwrap_or((&action, ""));
    let argument = argument.parse().unwrap_or(0);
    match action {
        "hammer" => hammer::child(root, argument).exit(),
        "load-forever" => adversary::child(root, argument).exit(),
        "publish" => powercut::child(root, argument).exit(),
        "soak" => soak::child(root, argument).exit(),
        "fork" => fork::child(root, argument).exit(),
        "fork-counts" => fork::child_that_counts(root).exit(),
        "fork-behind" => fork::child_that_writes_behind(root).exit(),
        "fork-in-flight" => fork::child_in_flight().exit(),
        action if action.starts_with("flight-") => flight::child(action, root).exit(),
        "limits" => return limits::child(root, argument),
        action if action.starts_with("memory-") => return memory::child(action, root),
        _ => {}
    }
    hangs_after(20);
    let (identity, key, mut built) = (identity(), key(LARGE), builder(LARGE, 1));
    let entry = built.finish(&identity, &key).unwrap();
    // With an argument, nothing is synced that need not be.
    let durability = if argument == 1 { Durability::Lazy } else { Durability::Synced };
    let open = || Store::options(identity.clone()).durability(durability).open(root);
    // The expected codes exist before the operation, so that checking needs no memory after it.
    let codes = [code(LARGE, 0), code(LARGE, 1)];
    let sound = |found: &[u8]| codes.iter().any(|code| code == found);
    // What the library keeps for small code is there before.
    drop(Module::load(&builder(7, 0).finish(&identity, &content::key(7)).unwrap()).unwrap());
    let maps = File::open("/proc/self/maps").unwrap();
    let before = Held::now(&maps);
    let outcome = match action {
        "open" => {
            begin();
            Outcome::of_result(open())
        }
        // `Io` if the store could not be opened: the module is there all the same.
        "fall-back" => {
            begin();
            let cache = Cache::open_or_in_memory(root.join("new"), identity.clone());
            let module = compiled(&cache, LARGE, 1);
            match (module, cache.unopened()) {
                (Ok(module), None) if is_code(LARGE, module.code()) && cache.store().is_some() => Done,
                (Ok(module), Some(error)) if is_code(LARGE, module.code()) && cache.store().is_none() => {
                    Outcome::failed(error)
                }
                _ => Wrong,
            }
        }
        "load-small" => {
            let store = open().unwrap();
            begin();
            Outcome::of_lookup(store.load(&content::key(7)), |module| is_code(7, module.code()))
        }
        "load-huge" => {
            // The sizes from which on huge pages are asked for.
            let path = root.join("huge");
            let mut builder = Builder::new();
            builder.code(vec![0xcc; 1 << 20]).function(0);
            fs::write(&path, builder.finish(&identity, &key).unwrap().to_vec()).unwrap();
            let file = fs::read(&path).unwrap();
            let entry = Entry::parse(&file, &identity).unwrap();
            begin();
            let read = FileBytes::open(&path, Access::READ).map(Option::unwrap);
            let read = read.and_then(|file| Module::load_file(file, &identity, &key));
            Outcome::of_result(read.map(drop).and_then(|()| Module::load(&entry)))
        }
        "load-rows"
        | "load-rows-in-place"
        | "load-rows-unchecked"
        | "load-few-rows-in-place"
        | "load-few-rows-unchecked"
        | "load-few-rows-and-much-code-in-place" => {
            // As many rows as stay in the file until they are needed, or fewer; of a map they take pages that hold no
            // code.
            let rows = if action.contains("few") { 1000 } else { 65_550 };
            let store = Store::open(root.join("rows"), identity.clone()).unwrap().with_access(access(action));
            let mut builder = builder(LARGE, 1);
            if action.contains("much-code") {
                builder.code(vec![0xcc; 300_000]);
            }
            for code in 9..rows {
                builder.source(code, code);
            }
            store.put(&key, &builder.finish(&identity, &key).unwrap()).unwrap();
            begin();
            match store.load(&key) {
                Ok(Lookup::Hit(module)) => Outcome::of_result(module.check_source_map()),
                outcome => Outcome::of_lookup(outcome, |_| true),
            }
        }
        "get" | "load" | "load-mapped" | "load-in-place" | "load-unchecked" => {
            let store = open().unwrap().with_access(access(action));
            begin();
            if action == "get" {
                let parsed =
                    |file: &jitcache::FileBytes| jitcache::Entry::parse(file, &identity).unwrap().verify().is_ok();
                Outcome::of_lookup(store.get(&key), parsed)
            } else {
                Outcome::of_lookup(store.load(&key), |module| sound(module.code()))
            }
        }
        "put" | "remove" | "sweep" => {
            let store = open().unwrap();
            begin();
            match action {
                "put" => Outcome::of_result(store.put(&key, &entry)),
                "remove" => Outcome::of_result(store.remove(&key)),
                _ => Outcome::of_result(store.sweep()),
            }
        }
        "put-small" => {
            let (store, mut small) = (open().unwrap(), builder(1, 1));
            let entry = small.finish(&identity, &content::key(1)).unwrap();
            // The first one also sweeps, and makes the directory of temporary files.
            store.put(&content::key(1), &entry).unwrap();
            begin();
            Outcome::of_result(store.put(&content::key(1), &entry))
        }
        "put-unchecked" | "put-plain" => {
            let sealing = if action == "put-plain" { Sealing::Plain } else { Sealing::Checksum };
            let identity = identity.with_sealing(sealing);
            let store = Store::options(identity.clone()).durability(durability).open(root).unwrap();
            let store = store.with_access(access(action));
            // A plain entry has no section for what the others have.
            let mut built = Builder::new();
            built.code(code(LARGE, 1)).function(0);
            let entry = built.finish(&identity, &key).unwrap();
            begin();
            Outcome::of_result(store.put(&key, &entry))
        }
        "judge" => {
            let cache = Cache::over(open().unwrap());
            begin();
            // What is there is bad, unless somebody has mended it meanwhile.
            match cache.get(&key) {
                Lookup::Hit(module) if !sound(module.code()) => Wrong,
                _ => Done,
            }
        }
        "cache" => {
            let cache = Cache::over(open().unwrap());
            begin();
            let module = compiled(&cache, LARGE, 1);
            // It falls here, so that giving it back is part of the operation.
            drop(cache);
            match module {
                Ok(module) if sound(module.code()) && is_code(LARGE, module.code()) => Done,
                Ok(_) => Wrong,
                Err(error) => Outcome::failed(&error),
            }
        }
        other => panic!("no action {other}"),
    };
    mark(c"/jitcache-end");
    // What the system refuses to take back stays.
    let leaks = env::var_os("JITCACHE_FAULTS_KEEPS").is_none() && Held::now(&maps) != before;
    if leaks { Leak.exit() } else { outcome.exit() }
}

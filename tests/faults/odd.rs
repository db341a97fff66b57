//! File systems with odd habits, network file systems above all: an entry is put, found, swept and removed there as
//! anywhere, and nobody hangs. `odd.c` is one, with a habit of choice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use jitcache::{Access, Cache, Lookup, Store};

use crate::child::{self, Outcome};
use crate::content::{LARGE, LEFT_OVER, age, code, file, files, identity, key, put};
use crate::maps;
use crate::mount::{self, tool};
use crate::scratch::Scratch;
use crate::skip;

/// Where the program is, if it could be built.
static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "fuse3"]).output().ok()?;
    let flags = String::from_utf8(flags.stdout).ok().filter(|_| flags.status.success())?;
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("odd");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/odd.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-Wall", "-Wextra", "-Werror", source, "-o"]).arg(&program).args(flags.split_whitespace());
    let built = gcc.output().ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
});

/// A file system with a habit, mounted until this is dropped.
struct Odd {
    server: Child,
    scratch: Scratch,
}

impl Odd {
    /// Mounts one, if that is asked for and can be done.
    fn new(habit: &str) -> Option<Self> {
        let program = PROGRAM.as_ref().filter(|_| mount::wanted() && Path::new("/dev/fuse").exists())?;
        let scratch = Scratch::in_memory();
        let [behind, at] = ["behind", "at"].map(|name| {
            let path = scratch.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        let mut server = Command::new(program);
        server.arg(behind).arg(habit).arg(&at).stdout(Stdio::null()).stderr(Stdio::null());
        let odd = Self { server: server.spawn().unwrap(), scratch };
        for _ in 0..1000 {
            if tool("mountpoint", &["-q", at.to_str().unwrap()]) {
                return Some(odd);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("at")
    }

    /// Runs an action of the children; `None` if it does not end.
    fn run(&mut self, action: &str) -> Option<Outcome> {
        let mut child = child::command(action, &self.root());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..1500 {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(Outcome::of(status));
            }
            thread::sleep(Duration::from_millis(10));
        }
        // No signal ends who waits for it, but its own end does.
        self.server.kill().unwrap();
        let _ = (child.kill(), child.wait());
        None
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        tool("umount", &["-l", self.root().to_str().unwrap()]);
        let _ = (self.server.kill(), self.server.wait());
    }
}

const HABITS: [&str; 8] = [
    "plain",
    "hanging-locks",
    "strict-locks",
    "no-sync",
    "no-directory-sync",
    "closed-directories",
    "fast-clock",
    "no-links",
];

#[test]
fn entries_are_put_found_and_removed_on_odd_file_systems() {
    for habit in HABITS {
        let Some(mut odd) = Odd::new(habit) else {
            return skip("odd file systems", "none can be built and mounted, or JITCACHE_MOUNT is not set");
        };
        for action in ["put", "put", "load", "cache"] {
            assert_eq!(odd.run(action), Some(Outcome::Done), "{habit}: {action}");
        }
        let store = Store::open(odd.root(), identity()).unwrap();
        let path = store.path(&key(LARGE));
        assert_eq!(fs::read(&path).unwrap(), file(LARGE, 1), "{habit}");
        // SAFETY: nobody changes the file in place while it is mapped.
        let map = unsafe { Access::map() };
        // SAFETY: the same.
        let in_place = unsafe { Access::in_place() };
        // SAFETY: the same, and it is sound.
        let unchecked = unsafe { Access::in_place_unchecked() };
        for (access, expected) in [(map, 0), (in_place, 1), (unchecked, 1)] {
            let told = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&told);
            let store = Store::open(odd.root(), identity()).unwrap().with_access(access);
            let cache = Cache::over(store).on_event(move |_, event| {
                if event.is_trouble() {
                    noted.lock().unwrap().push(event.to_string());
                }
            });
            let bytes = cache.store().unwrap().get(&key(LARGE)).unwrap().hit().unwrap();
            let module = cache.get(&key(LARGE)).hit().unwrap();
            assert!(!module.is_in_place() && module.code() == code(LARGE, 1), "{habit}: what may vanish is not mapped");
            maps::each(|mapping| {
                assert!(!mapping.file.starts_with(odd.root().to_str().unwrap()), "{habit}: {}", mapping.file)
            });
            assert_eq!(*told.lock().unwrap(), vec!["code copied: it cannot run in place"; expected], "{habit}");
            drop((bytes, module));
        }
        fs::write(&path, "bad").unwrap();
        assert_eq!(odd.run("judge"), Some(Outcome::Done), "{habit}");
        assert!(!path.exists(), "{habit}: a bad entry stays");
        assert_eq!(odd.run("cache"), Some(Outcome::Done), "{habit}");
        assert!(matches!(store.load(&key(LARGE)).unwrap(), Lookup::Hit(module) if module.code() == code(LARGE, 1)));
        assert_eq!(files(&odd.scratch.path().join("behind/faults-1-amd64-linux")).len(), 1, "{habit}");
    }
    println!("{} file systems", HABITS.len());
}

/// By the file system's clock, not by that of the machine, which may be another one's.
#[test]
fn temporary_files_are_swept_by_the_clock_of_their_file_system() {
    for habit in ["plain", "strict-locks", "fast-clock"] {
        let Some(mut odd) = Odd::new(habit) else {
            return skip("odd clocks", "no file system can be built and mounted, or JITCACHE_MOUNT is not set");
        };
        let store = Store::open(odd.root(), identity()).unwrap();
        put(&store, 1, 0).unwrap();
        let left_over = store.directory().join(LEFT_OVER);
        fs::write(&left_over, "part").unwrap();
        assert_eq!(odd.run("sweep"), Some(Outcome::Done), "{habit}");
        assert!(left_over.exists(), "{habit}: its writer may live");
        // Behind its back, where the clocks agree.
        age(&odd.scratch.path().join("behind/faults-1-amd64-linux"));
        assert_eq!(odd.run("sweep"), Some(Outcome::Done), "{habit}");
        assert!(!left_over.exists(), "{habit}: it is left over");
    }
}

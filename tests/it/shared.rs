//! Directories that several users share: filled by one and read by all, or of a group.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use std::{env, io};

use jitcache::{Access, Cache, Error, Identity, Key, Lookup, Modes, Store, Trust};

use crate::scratch::Scratch;
use crate::{machine, trust};

/// Users and a group that need not exist.
pub const USERS: [u32; 2] = [54_321, 54_322];
pub const GROUP: u32 = 54_323;

fn identity() -> Identity {
    Identity::new("shared", *b"SHARED", "1").unwrap()
}

fn key(n: u16) -> Key {
    Key::of(&identity()).source(&n.to_le_bytes()).finish()
}

fn put(store: &Store, n: u16, constant: u16) {
    store.put(&key(n), &machine::builder(constant).finish(&identity(), &key(n)).unwrap()).unwrap();
}

fn constant(store: &Store, n: u16) -> i32 {
    machine::constant(&store.load(&key(n)).unwrap().hit().unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Everything below a directory: mode, length, and the times of the last change of content and of anything else.
fn tree(root: &Path) -> BTreeMap<String, (u32, u64, i64, i64)> {
    let (mut tree, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let times = (found.mtime_nsec(), found.ctime_nsec());
        tree.insert(path.to_str().unwrap().into(), (found.mode(), found.len(), times.0, times.1));
    }
    tree
}

/// Runs an action in a process of its own, as one of the users if one is given.
pub fn run(action: &str, root: &Path, user: Option<u32>) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["shared::main", "--exact", "--ignored"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("JITCACHE_TEST_ACTION", action).env("JITCACHE_TEST_ROOT", root);
    user.map(|user| command.env("JITCACHE_TEST_USER", user.to_string()));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{action} {user:?}: {said}");
}

/// Not a test: what the others run.
#[test]
#[ignore = "run by the other tests, in processes of its own"]
fn main() {
    let (Ok(action), Some(root)) = (env::var("JITCACHE_TEST_ACTION"), env::var_os("JITCACHE_TEST_ROOT")) else {
        return;
    };
    if let Some(user) = env::var("JITCACHE_TEST_USER").ok().map(|user| user.parse().unwrap()) {
        // SAFETY: no group is read from the list of none.
        assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
        // SAFETY: this changes no memory.
        assert_eq!(unsafe { libc::setgid(GROUP) }, 0);
        // SAFETY: the same.
        assert_eq!(unsafe { libc::setuid(user) }, 0);
    }
    let root = Path::new(&root);
    match &*action {
        "read-only" => reads_only(root),
        look if look.starts_with("trust ") => trust::looks(look, root),
        "first" => {
            let store = Store::options(identity()).trust(Trust::Group).open(root.join("group")).unwrap();
            put(&store, 1, 7);
            put(&store, 2, 8);
        }
        "second" => {
            let store = Store::options(identity()).trust(Trust::Group).open(root.join("group")).unwrap();
            assert_eq!((constant(&store, 1), constant(&store, 2)), (7, 8));
            put(&store, 1, 9);
            put(&store, 3, 10);
            assert!(store.remove(&key(2)).unwrap());
            fs::write(store.path(&key(3)), "damaged").unwrap();
            let cache = Cache::over(store)
                .on_event(|_, event| assert!(!event.is_trouble() || event.to_string().contains("rejected")));
            assert!(matches!(cache.get(&key(3)), Lookup::Rejected(_)));
            assert!(matches!(cache.get(&key(3)), Lookup::Miss));
        }
        "fourth" => {
            let store = Store::options(identity()).trust(Trust::Group).open(root.join("group")).unwrap();
            let used = || fs::metadata(store.path(&key(1))).unwrap().modified().unwrap();
            let before = used();
            assert_eq!(constant(&store, 1), 11);
            assert!(used() > before, "another member's hit leaves no mark");
        }
        "third" => {
            let store = Store::options(identity()).trust(Trust::Group).open(root.join("group")).unwrap();
            assert_eq!(constant(&store, 1), 9);
            put(&store, 1, 11);
        }
        "refused" => {
            // A home that is another's, one that is nowhere, and one that nobody may look into.
            for root in [root.join("cache"), "/nonexistent/.cache".into(), root.join("closed/cache")] {
                let cache = Cache::open_or_in_memory(&root, identity());
                let why = format!("{:?}", cache.unopened());
                assert!(why.contains("PermissionDenied"), "{}: {why}", root.display());
            }
        }
        mask => {
            let mask = u32::from_str_radix(mask, 8).unwrap();
            // SAFETY: this changes no memory.
            unsafe { libc::umask(mask as libc::mode_t) };
            for modes in [Modes::GROUP, Modes { directories: 0o755, files: 0o644 }] {
                let root = root.join(format!("{mask:o}-{:o}", modes.files));
                let store = Store::options(identity()).modes(modes).open(root.join("deeper")).unwrap();
                put(&store, 1, 7);
                put(&store, 1, 8);
                let temporaries = store.directory().join("tmp");
                for directory in [&root, &root.join("deeper"), store.directory(), &temporaries] {
                    assert_eq!(mode(directory), modes.directories, "{mask:o} {}", directory.display());
                }
                assert_eq!(mode(&store.path(&key(1))), modes.files, "{mask:o}");
            }
        }
    }
}

/// Whether this process may become other users; if not, it is said.
pub fn is_root(test: &str) -> bool {
    // SAFETY: this changes no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        // Past the harness, which swallows what tests say that pass.
        io::stderr().write_all(format!("skipped {test}, it needs root\n").as_bytes()).unwrap();
    }
    is_root
}

/// Makes a base as an image has it: an entry, a damaged one, a stale one and a temporary file that is left over.
fn base(root: &Path) {
    let store = Store::options(identity()).modes(Modes { directories: 0o755, files: 0o644 }).open(root).unwrap();
    put(&store, 1, 7);
    put(&store, 2, 8);
    let sound = fs::read(store.path(&key(2))).unwrap();
    for (n, file) in [(2, &b"damaged"[..]), (3, &[&sound[..7], b"0", &sound[8..]].concat())] {
        fs::write(store.path(&key(n)), file).unwrap();
        fs::set_permissions(store.path(&key(n)), Permissions::from_mode(0o644)).unwrap();
    }
    let left_over = fs::File::create(store.directory().join("tmp/0123456789abcdef")).unwrap();
    left_over.set_modified(SystemTime::now() - Duration::from_secs(24 * 3600)).unwrap();
}

fn reads_only(root: &Path) {
    let before = tree(root);
    // SAFETY: nobody changes the files of this test in place.
    for access in [Access::READ, unsafe { Access::in_place() }] {
        let store = Store::options(identity()).read_only().open(root).unwrap().with_access(access);
        assert!(store.is_read_only());
        assert_eq!((constant(&store, 1), store.list().unwrap().count()), (7, 3));
        let is_read_only = |outcome: Result<(), Error>| matches!(outcome, Err(Error::ReadOnly { .. }));
        for n in [1, 9] {
            let mut builder = machine::builder(7);
            assert!(is_read_only(store.put(&key(n), &builder.finish(&identity(), &key(n)).unwrap())));
            assert!(is_read_only(store.remove(&key(n)).map(drop)));
        }
        assert!(is_read_only(store.sweep().map(drop)));

        let (said, told) = std::sync::mpsc::channel();
        let cache = Cache::over(store).on_event(move |_, event| {
            if event.is_trouble() {
                said.send(event.to_string()).unwrap();
            }
        });
        for (n, constant) in [(1, 7), (2, 2), (3, 3), (4, 4)] {
            let module = cache.get_or_compile(&key(n), |entry| {
                *entry = machine::builder(n);
                Ok::<(), Error>(())
            });
            assert_eq!(machine::constant(&module.unwrap()), constant);
        }
        drop(cache.forget(&key(2)));
        assert!(matches!(cache.get(&key(2)), Lookup::Rejected(_)));
        assert!(matches!(cache.verify(&key(3)), Lookup::Stale(_)));
        assert!(is_read_only(cache.remove(&key(1)).map(drop)) && matches!(cache.get(&key(1)), Lookup::Hit(_)));
        assert_eq!(cache.statistics().failures, 0);
        let told: Vec<_> = told.try_iter().collect();
        assert!(told.len() == 4 && told.iter().all(|event| event.contains("rejected") || event.contains("stale")));
    }
    assert_eq!(tree(root), before);
}

#[test]
fn a_store_that_is_opened_for_reading_finds_what_is_there_and_changes_nothing() {
    let scratch = Scratch::new();
    base(scratch.path());
    run("read-only", scratch.path(), None);
    // Nothing need be there.
    let root = scratch.path().join("nowhere");
    let store = Store::options(identity()).read_only().open(&root).unwrap();
    assert!(matches!(store.load(&key(1)).unwrap(), Lookup::Miss));
    assert!(!root.exists());
}

#[test]
fn a_base_that_root_has_filled_is_read_by_any_user() {
    if is_root("a base of root's") {
        let scratch = Scratch::new();
        base(scratch.path());
        run("read-only", scratch.path(), Some(USERS[0]));
    }
}

#[test]
fn directories_and_files_have_the_modes_that_were_asked_for_whatever_the_umask() {
    let scratch = Scratch::new();
    for mask in ["0", "22", "77", "777"] {
        run(mask, scratch.path(), None);
    }
}

#[test]
fn two_users_of_a_group_share_a_directory() {
    if !is_root("two users of a group") {
        return;
    }
    let scratch = Scratch::new();
    let group = scratch.path().join("group");
    fs::create_dir(&group).unwrap();
    chown(&group, None, Some(GROUP)).unwrap();
    fs::set_permissions(&group, Permissions::from_mode(0o2770)).unwrap();
    for (action, user) in [("first", USERS[0]), ("second", USERS[1]), ("third", USERS[0])] {
        run(action, scratch.path(), Some(user));
    }
    let store = Store::options(identity()).trust(Trust::Anyone).read_only().open(&group).unwrap();
    let entry = fs::File::options().write(true).open(store.path(&key(1))).unwrap();
    entry.set_modified(SystemTime::now() - Duration::from_secs(2 * 3600)).unwrap();
    run("fourth", scratch.path(), Some(USERS[1]));
    assert_eq!((constant(&store, 1), store.list().unwrap().count()), (11, 1));
    assert_eq!((mode(store.directory()), fs::metadata(store.directory()).unwrap().gid()), (0o2770, GROUP));
    assert_eq!((mode(&store.path(&key(1))), fs::metadata(store.path(&key(1))).unwrap().gid()), (0o660, GROUP));
}

#[test]
fn a_user_who_may_write_nowhere_has_a_cache_in_memory() {
    if !is_root("a user who may write nowhere") {
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.path().join("closed")).unwrap();
    fs::set_permissions(scratch.path().join("closed"), Permissions::from_mode(0o700)).unwrap();
    run("refused", scratch.path(), Some(USERS[0]));
}

//! Whose directories and entries are taken: owners, modes, groups, sticky bits and links, as root and as another user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use jitcache::{Cache, Error, Identity, Key, Lookup, Modes, Store, Trust};

use crate::machine;
use crate::scratch::Scratch;
use crate::shared::{GROUP, USERS, is_root, run};

fn identity() -> Identity {
    Identity::new("trust", *b"TRUST\0", "1").unwrap()
}

fn key() -> Key {
    Key::of(&identity()).source(b"entry").finish()
}

/// Who looks, and what it trusts: root, a user, and that user who trusts a group that it belongs to.
const LOOKS: [(&str, u32, Trust); 3] =
    [("trust root", 0, Trust::User), ("trust user", USERS[0], Trust::User), ("trust group", USERS[0], Trust::Group)];

/// What comes of looking an entry up.
const HIT: &str = "";
const OWNER: &str = "belongs to neither this user nor root";
const WORLD: &str = "can be written to by anyone";
const MEMBERS: &str = "can be written to by its group";
const LINK: &str = "is a link";
const FILE: &str = "expected a regular file";

/// The part that is not root's with a mode of 755, its owner, group and mode, and what comes of it for each that looks.
type Row = (Part, u32, u32, u32, [&'static str; 3]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Above,
    Root,
    Entries,
    Entry,
    /// The given root is a link to the root, which lies in a directory of that owner, group and mode.
    LinkedRoot,
    /// A link of that owner.
    LinkedEntries,
    LinkedEntry,
}

const TABLE: [Row; 35] = {
    use Part::{Above, Entries, Entry, LinkedEntries, LinkedEntry, LinkedRoot, Root};
    let [user, other] = USERS;
    [
        (Entries, 0, 0, 0o755, [HIT; 3]),
        (Entries, 0, 0, 0o555, [HIT; 3]),
        (Entries, user, GROUP, 0o755, [OWNER, HIT, HIT]),
        (Entries, other, 0, 0o755, [OWNER; 3]),
        (Entries, other, GROUP, 0o755, [OWNER, OWNER, HIT]),
        (Entries, user, GROUP, 0o2775, [OWNER, MEMBERS, HIT]),
        (Entries, 0, GROUP, 0o775, [MEMBERS, MEMBERS, HIT]),
        (Entries, 0, GROUP, 0o3775, [MEMBERS, MEMBERS, HIT]),
        (Entries, 0, other, 0o775, [MEMBERS; 3]),
        // A group of the same number as the owner.
        (Entries, 0, 0, 0o775, [HIT; 3]),
        (Entries, user, user, 0o775, [OWNER, HIT, HIT]),
        (Entries, 0, 0, 0o777, [WORLD; 3]),
        (Entries, 0, 0, 0o1777, [WORLD; 3]),
        (Root, user, user, 0o755, [OWNER, HIT, HIT]),
        (Root, other, other, 0o755, [OWNER; 3]),
        (Root, 0, 0, 0o777, [WORLD; 3]),
        (Root, 0, 0, 0o1777, [HIT; 3]),
        (Root, 0, GROUP, 0o775, [MEMBERS, MEMBERS, HIT]),
        (Above, user, user, 0o755, [OWNER, HIT, HIT]),
        (Above, other, other, 0o1777, [OWNER; 3]),
        (Above, 0, 0, 0o777, [WORLD; 3]),
        (Above, 0, 0, 0o1777, [HIT; 3]),
        (Above, 0, GROUP, 0o775, [MEMBERS, MEMBERS, HIT]),
        (Above, 0, GROUP, 0o1775, [HIT; 3]),
        (Entry, 0, 0, 0o644, [HIT; 3]),
        (Entry, user, user, 0o644, [OWNER, HIT, HIT]),
        (Entry, other, other, 0o644, [OWNER; 3]),
        (Entry, other, GROUP, 0o664, [OWNER, OWNER, HIT]),
        (Entry, 0, GROUP, 0o664, [MEMBERS, MEMBERS, HIT]),
        (Entry, 0, 0, 0o666, [WORLD; 3]),
        (LinkedRoot, 0, 0, 0o755, [HIT; 3]),
        (LinkedRoot, other, other, 0o755, [OWNER; 3]),
        (LinkedRoot, 0, 0, 0o777, [WORLD; 3]),
        (LinkedEntries, 0, 0, 0o755, [LINK; 3]),
        (LinkedEntry, 0, 0, 0o755, [FILE; 3]),
    ]
};

fn set(path: &Path, owner: u32, group: u32, mode: u32) {
    chown(path, Some(owner), Some(group)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Where the parts of a row lie: the directory above, the root that is given, that of the entries, the entry.
fn parts(scratch: &Path, row: usize) -> [PathBuf; 4] {
    let above = scratch.join(row.to_string());
    let root = above.join("root");
    let entries = root.join(identity().directory_name());
    let entry = entries.join(key().to_string());
    [above, root, entries, entry]
}

fn make(scratch: &Path, row: usize, (part, owner, group, mode, _): Row) {
    let [above, root, entries, entry] = parts(scratch, row);
    fs::create_dir_all(&above).unwrap();
    set(&above, 0, 0, 0o755);
    let modes = Modes { directories: 0o755, files: 0o644 };
    let store = Store::options(identity()).modes(modes).open(&root).unwrap();
    store.put(&key(), &machine::builder(7).finish(&identity(), &key()).unwrap()).unwrap();
    let link = |from: &Path, directory: &str| {
        let to = above.join(directory);
        fs::create_dir(&to).unwrap();
        set(&to, 0, 0, 0o755);
        fs::rename(from, to.join("moved")).unwrap();
        symlink(to.join("moved"), from).unwrap();
        to
    };
    match part {
        Part::Above => set(&above, owner, group, mode),
        Part::Root => set(&root, owner, group, mode),
        Part::Entries => set(&entries, owner, group, mode),
        Part::Entry => set(&entry, owner, group, mode),
        Part::LinkedRoot => set(&link(&root, "elsewhere"), owner, group, mode),
        Part::LinkedEntries => drop((link(&entries, "elsewhere"), lchown(&entries, Some(owner), Some(group)))),
        Part::LinkedEntry => drop(link(&entry, "elsewhere")),
    }
}

/// Looks at all rows, in the process of whoever looks.
pub fn looks(action: &str, scratch: &Path) {
    let column = LOOKS.iter().position(|look| look.0 == action).unwrap();
    for (row, expected) in TABLE.iter().enumerate() {
        let [above, root, entries, entry] = parts(scratch, row);
        let place = match expected.0 {
            Part::Above => above,
            Part::Root => root.clone(),
            Part::LinkedRoot => above.join("elsewhere"),
            Part::Entries | Part::LinkedEntries => entries,
            Part::Entry | Part::LinkedEntry => entry,
        };
        let is_told = |error: &Error| {
            let told = error.to_string();
            let is_whole = match error {
                Error::Untrusted { path, owner, mode, rule } => {
                    *path == place
                        && *rule == expected.4[column]
                        && (expected.4[column] == LINK || (*owner, *mode) == (expected.1, expected.3))
                }
                Error::NotAFile { path } => *path == place,
                _ => false,
            };
            assert!(is_whole && told.contains(expected.4[column]), "{action} {row} {expected:?}: {told}");
        };
        let open = |trust| Store::options(identity()).read_only().trust(trust).open(&root);
        match open(LOOKS[column].2).and_then(|store| store.load(&key())) {
            Ok(Lookup::Hit(module)) => {
                assert_eq!((machine::constant(&module), expected.4[column]), (7, HIT), "{expected:?}")
            }
            Ok(Lookup::Rejected(error)) | Err(error) => is_told(&error),
            other => panic!("{action} {row} {expected:?}: {other:?}"),
        }
        if expected.0 != Part::LinkedEntry {
            assert!(matches!(open(Trust::Anyone).unwrap().load(&key()).unwrap(), Lookup::Hit(_)), "{expected:?}");
        }
    }
}

#[test]
fn what_is_taken_depends_on_who_owns_it_and_who_may_write_to_it() {
    if !is_root("trust in owners and modes") {
        return;
    }
    let scratch = Scratch::new();
    set(scratch.path(), 0, 0, 0o755);
    for (n, row) in TABLE.into_iter().enumerate() {
        make(scratch.path(), n, row);
    }
    for (action, user, _) in LOOKS {
        run(action, scratch.path(), (user != 0).then_some(user));
    }
}

#[test]
fn nothing_is_created_where_others_can_exchange_it_and_the_engine_goes_on_in_memory() {
    let scratch = Scratch::new();
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
    let root = scratch.path().join("deeper/root");
    let (said, told) = mpsc::channel();
    let cache =
        Cache::open_or_in_memory(&root, identity()).on_event(move |_, event| said.send(event.to_string()).unwrap());
    assert!(matches!(cache.unopened(), Some(Error::Untrusted { .. })));
    for _ in 0..2 {
        let module = cache.get_or_compile(&key(), |entry| {
            *entry = machine::builder(7);
            Ok::<(), Error>(())
        });
        assert_eq!(machine::constant(&module.unwrap()), 7);
    }
    let told: Vec<_> = told.try_iter().collect();
    assert!(told.len() == 1 && told[0].contains("store not opened") && told[0].contains("mode 0777"), "{told:?}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);

    let store = Store::options(identity()).trust(Trust::Anyone).open(&root).unwrap();
    assert!(matches!(store.load(&key()).unwrap(), Lookup::Miss));
}

#[test]
fn an_entry_that_others_can_change_is_compiled_again_and_replaced() {
    let scratch = Scratch::new();
    let put = |store: &Store| store.put(&key(), &machine::builder(7).finish(&identity(), &key()).unwrap()).unwrap();
    let store = Store::open(scratch.path(), identity()).unwrap();
    put(&store);
    fs::set_permissions(store.path(&key()), Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(store.load(&key()).unwrap(), Lookup::Rejected(Error::Untrusted { .. })));
    assert!(matches!(store.get(&key()).unwrap(), Lookup::Rejected(Error::Untrusted { .. })));
    let cache = Cache::over(store);
    let module = cache.get_or_compile(&key(), |entry| {
        *entry = machine::builder(8);
        Ok::<(), Error>(())
    });
    assert_eq!(machine::constant(&module.unwrap()), 8);
    let store = Store::open(scratch.path(), identity()).unwrap();
    assert_eq!(machine::constant(&store.load(&key()).unwrap().hit().unwrap()), 8);
}

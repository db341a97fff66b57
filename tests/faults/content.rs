//! Entries whose content follows from their number, so that any mix-up shows, and directories that hold them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use jitcache::{Builder, Cache, Error, Identity, Key, Module, Statistics, Store};

use crate::random::Random;
use crate::scratch::Scratch;

/// Entry 0 is written in several steps and may be mapped; the others are small.
pub const LARGE: u64 = 0;

pub fn identity() -> Identity {
    Identity::new("faults", *b"FAULTS", "1").unwrap()
}

pub fn key(n: u64) -> Key {
    Key::of(&identity()).source(&n.to_le_bytes()).finish()
}

/// The code of entry `n` in one of its generations, which is its first byte. It is never run.
pub fn code(n: u64, generation: u8) -> Vec<u8> {
    let length = if n == LARGE { 70_000 } else { 64 + n * 37 % 4000 };
    let (mut random, mut code) = (Random(n << 8 | u64::from(generation)), vec![generation]);
    while code.len() < length as usize {
        code.extend(random.next().to_le_bytes());
    }
    code.truncate(length as usize);
    code
}

/// Whether `found` is the code of entry `n` in any generation.
pub fn is_code(n: u64, found: &[u8]) -> bool {
    found.first().is_some_and(|&generation| found == code(n, generation))
}

pub fn builder(n: u64, generation: u8) -> Builder<'static> {
    let mut builder = Builder::new();
    builder.code(code(n, generation)).function(0).source(8, n).metadata(&n.to_le_bytes());
    builder
}

/// The bytes of the file of entry `n`.
pub fn file(n: u64, generation: u8) -> Vec<u8> {
    static LARGE_ONES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [0, 1].map(|generation| build(LARGE, generation)));
    if n == LARGE { LARGE_ONES[usize::from(generation)].clone() } else { build(n, generation) }
}

fn build(n: u64, generation: u8) -> Vec<u8> {
    builder(n, generation).finish(&identity(), &key(n)).unwrap().to_vec()
}

pub fn put(store: &Store, n: u64, generation: u8) -> Result<(), Error> {
    store.put(&key(n), &builder(n, generation).finish(&identity(), &key(n)).unwrap())
}

/// What a writer that died may have left.
pub const LEFT_OVER: &str = "tmp/0123456789abcdef";

/// What is in a directory of entries: names and contents, of temporary files too, but not the file that holds the
/// locks, and not the tally.
pub fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for within in ["", "tmp/"] {
        for file in fs::read_dir(directory.join(within)).into_iter().flatten() {
            let file = file.unwrap();
            let stays = ["lock", "tally"].iter().any(|name| file.file_name() == *name);
            if !file.file_type().unwrap().is_dir() && !stays {
                let name = file.file_name().into_string().unwrap();
                files.insert(format!("{within}{name}"), fs::read(file.path()).unwrap());
            }
        }
    }
    files
}

/// Lets two hours pass for the temporary files in a directory of entries.
pub fn age(directory: &Path) {
    let then = SystemTime::now() - Duration::from_secs(7200);
    for file in fs::read_dir(directory.join("tmp")).into_iter().flatten() {
        File::options().write(true).open(file.unwrap().path()).unwrap().set_modified(then).unwrap();
    }
}

/// What stands under the name of the large entry before something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Nothing,
    Valid,
    Corrupt,
}

/// A directory with the large entry in some state, and perhaps in company.
pub struct Directory {
    pub scratch: Scratch,
    pub store: Store,
    pub before: Option<Vec<u8>>,
    /// What must stay as it is.
    foreign: BTreeMap<String, Vec<u8>>,
}

impl Directory {
    pub fn new(before: Before, company: bool) -> Self {
        let scratch = Scratch::in_memory();
        let store = Store::open(scratch.path(), identity()).unwrap();
        let mut foreign = BTreeMap::new();
        if company {
            fs::create_dir(store.directory().join("tmp")).unwrap();
            let wazeros = format!("{}.1234567890.tmp", key(LARGE));
            let names = ["notes.txt".into(), wazeros, key(LARGE).to_string() + ".bak", "tmp/notes.txt".into()];
            foreign.extend(names.map(|name: String| (name, b"not the store's".to_vec())));
            foreign.insert(key(7).to_string(), file(7, 0));
            fs::write(store.directory().join(LEFT_OVER), "part").unwrap();
        }
        for (name, bytes) in &foreign {
            fs::write(store.directory().join(name), bytes).unwrap();
        }
        age(store.directory());
        let mut directory = Self { scratch, store, before: None, foreign };
        directory.set(before);
        directory
    }

    fn set(&mut self, before: Before) {
        self.before = (before != Before::Nothing).then(|| file(LARGE, 0));
        if let (Before::Corrupt, Some(bytes)) = (before, &mut self.before) {
            bytes[30_000] ^= 1;
        }
        if let Some(bytes) = &self.before {
            fs::write(self.store.path(&key(LARGE)), bytes).unwrap();
        }
    }

    /// The large entry, if there is one.
    pub fn entry(&self) -> Option<Vec<u8>> {
        fs::read(self.store.path(&key(LARGE))).ok()
    }

    /// How many temporary files there are beside the one from the start.
    pub fn temporaries(&self) -> usize {
        let ours = |name: &&String| name.len() == LEFT_OVER.len() && name.starts_with("tmp/") && *name != LEFT_OVER;
        files(self.store.directory()).keys().filter(ours).count()
    }

    /// Checks that the fault did no harm: the entry is whole or was so before, the next writer cleans up, nothing else
    /// was touched, and an engine gets its module.
    pub fn check(&self, case: &str) {
        let (entry, new) = (self.entry(), file(LARGE, 1));
        assert!(entry.is_none() || entry == self.before || entry.as_ref() == Some(&new), "{case}: a damaged entry");
        let is_counted = self.store.tally().unwrap() != Statistics::default();
        assert_eq!(is_counted, self.store.directory().join("tmp/tally").exists(), "{case}: a damaged tally");
        age(self.store.directory());
        put(&Store::open(self.scratch.path(), identity()).unwrap(), 9, 0).unwrap();
        let mut files = files(self.store.directory());
        assert_eq!(files.remove(&key(9).to_string()), Some(file(9, 0)), "{case}");
        assert_eq!(files.remove(&key(LARGE).to_string()), entry, "{case}");
        assert!(files == self.foreign, "{case}: {:?} is left, or changed", files.keys());
        let cache = Cache::open(self.scratch.path(), identity()).unwrap();
        assert!(is_code(LARGE, compiled(&cache, LARGE, 1).unwrap().code()), "{case}: wrong code");
    }
}

/// What an engine does: gets a module, compiled if need be.
pub fn compiled(cache: &Cache, n: u64, generation: u8) -> Result<Arc<Module>, Error> {
    cache.get_or_compile(&key(n), |entry| {
        *entry = builder(n, generation);
        Ok::<(), Error>(())
    })
}

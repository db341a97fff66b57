//! A directory of a test's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// A new directory, removed with all that is in it when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        Self::below([env::temp_dir()])
    }

    /// Makes it in memory, if there is such a file system.
    pub fn in_memory() -> Self {
        Self::below([PathBuf::from("/dev/shm"), env::temp_dir()])
    }

    fn below<const N: usize>(parents: [PathBuf; N]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("jitcache-test-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = parents.map(|parent| parent.join(&name)).into_iter().find(|path| {
            // What a test that was killed left under the same number.
            let _ = fs::remove_dir_all(path);
            fs::create_dir(path).is_ok()
        });
        Self(path.expect("there is room for a directory"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

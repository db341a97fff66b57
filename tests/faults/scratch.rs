//! A directory of a test's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

/// A new directory, in memory if there is such a file system, removed with all that is in it when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("jitcache-faults-{}-{count}", process::id());
        let path = [PathBuf::from("/dev/shm"), env::temp_dir()].map(|parent| parent.join(&name));
        let path = path.into_iter().find(|path| fs::create_dir(path).is_ok());
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

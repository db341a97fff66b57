//! The map that `perf` looks for functions in that no file has.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use jitcache::Module;

use crate::file;
use crate::names::{Names, functions};

/// The file `/tmp/perf-PID.map`, to which modules are appended: a line `START LENGTH NAME` for each function that has
/// code, both numbers in hexadecimal digits and in bytes.
///
/// Lines of a module are written by one call, so those of threads, and of other engines in the process, do not mix.
/// A child of `fork` writes to a file of its own, which lacks what its parent had loaded; it opens it for each module.
///
/// `perf` looks into it for code of pages that no file has: for what was copied after [`Module::keep_apart`], unless the
/// system makes nothing executable that was written to. Without that it does for code of more than 4 KiB, and never for
/// code that runs in place, which it takes for its file's. [`Jitdump`](crate::Jitdump) tells of all.
///
/// # What it cannot tell
///
/// That a module was unloaded, or when one was loaded: if another one comes to lie at the address, both have lines, and
/// which of the names is shown is the profiler's choice. [`Jitdump`](crate::Jitdump) tells times. The file stays when
/// the process ends, since profilers read it then: it is for whoever asked for it to remove.
#[derive(Debug)]
pub struct PerfMap {
    file: File,
    process: u32,
    /// Whether the last line may lack its end.
    is_torn: AtomicBool,
}

impl PerfMap {
    /// Opens the map of this process, and makes it, for this user alone, if there is none.
    ///
    /// # Errors
    ///
    /// Those of the system: that it is a link among them. [`PermissionDenied`](io::ErrorKind::PermissionDenied) if
    /// it is no regular file, another user's, or has a second name.
    pub fn open() -> io::Result<Self> {
        let process = process::id();
        Ok(Self { file: file::open(&path(process))?, process, is_torn: AtomicBool::new(false) })
    }

    /// Appends the functions of a module, under the names of its symbols, or `names` where it has none.
    ///
    /// # Errors
    ///
    /// Those of the system, and in a child of a fork also those of [`PerfMap::open`];
    /// [`FileTooLarge`](io::ErrorKind::FileTooLarge) if the file would get longer than the process may make one. The
    /// module is not harmed; a part of its lines may have been written.
    pub fn add(&self, module: &Module, names: impl Names) -> io::Result<()> {
        let mut lines = String::new();
        for function in functions(module, names) {
            let _ = writeln!(lines, "{:x} {:x} {}", function.address, function.code.len(), function.name);
        }
        if lines.is_empty() {
            return Ok(());
        }
        let process = process::id();
        if process != self.process {
            return file::append(&file::open(&path(process))?, lines.as_bytes());
        }
        if self.is_torn.swap(false, Ordering::Relaxed) {
            lines.insert(0, '\n');
        }
        file::append(&self.file, lines.as_bytes()).inspect_err(|_| self.is_torn.store(true, Ordering::Relaxed))
    }
}

/// Where `perf` looks, whatever the directory for temporary files.
fn path(process: u32) -> PathBuf {
    format!("/tmp/perf-{process}.map").into()
}

//! The jitdump file, as `perf inject --jit` reads it: numbers of the machine's own order of bytes.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;

use jitcache::Module;
use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};

use crate::bytes::Bytes;
use crate::file;
use crate::machine;
use crate::marker::Marker;
use crate::names::{Function, Names, functions};
use crate::process::OfProcess;

/// The file `jit-PID.dump`, to which modules are appended, each with the code, the names and the source lines of its
/// functions, and the time of its loading.
///
/// ```text
/// perf record -k mono ENGINE
/// perf inject --jit -i perf.data -o perf.jit.data
/// perf report -i perf.jit.data
/// ```
///
/// `perf record` learns of the file by a page of it that is mapped executable as long as the value lives; `-k mono` has
/// it take times from the same clock, without which nothing is found. `perf inject` writes an object file for each
/// function, which takes long for many: [`PerfMap`](crate::PerfMap) does for those who need no more than names. That a
/// module is unloaded needs no record: what comes to lie at the address later takes the place of it.
///
/// A child of `fork` begins a file of its own, without what its parent had loaded. If another thread was adding a module
/// at the moment of the fork, the child can add none.
#[derive(Debug)]
pub struct Jitdump {
    directory: PathBuf,
    dump: OfProcess<Dump>,
}

/// A position in a source, which a debugger or profiler shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'l> {
    /// Path of the file.
    pub file: &'l str,
    /// Number of the line, from 1 on.
    pub line: u32,
    /// Number of the column, from 1 on; 0 if it is not known.
    pub column: u32,
}

/// The file of a process.
#[derive(Debug)]
struct Dump {
    process: u32,
    file: File,
    /// Number of the next function.
    next: u64,
    _marker: Marker,
}

impl Jitdump {
    /// Makes the file of this process in a directory, for this user alone; one that a process of the same number has
    /// left is replaced.
    ///
    /// # Errors
    ///
    /// Those of the system: that the name is a link, or that the file system has nothing executed, among them.
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if it is no regular file, another user's, or has a second name;
    /// [`WouldBlock`](ErrorKind::WouldBlock) if another [`Jitdump`] has it;
    /// [`Unsupported`](ErrorKind::Unsupported) if the machine has no number in ELF that is known here.
    pub fn create(directory: impl AsRef<Path>) -> io::Result<Self> {
        let directory = std::path::absolute(directory)?;
        let dump = OfProcess::new(Dump::create(&directory)?);
        // From here on the file is this process's, and no child's.
        drop(dump.lock(|_| Ok(())));
        Ok(Self { directory, dump })
    }

    /// Appends the functions of a module, under the names of its symbols, or `names` where it has none.
    ///
    /// # Errors
    ///
    /// Those of the system, and in a child of a fork also those of [`Jitdump::create`];
    /// [`FileTooLarge`](ErrorKind::FileTooLarge) if the file would get longer than the process may make one;
    /// [`WouldBlock`](ErrorKind::WouldBlock) in a child of a fork, if another thread was adding at its moment, or begins
    /// the child's file just now. The module is not harmed, and nothing of it is in the file.
    pub fn add(&self, module: &Module, names: impl Names) -> io::Result<()> {
        self.add_with_lines(module, names, |_| None)
    }

    /// Appends the functions of a module with the lines that they come from: `line` tells that of an offset in the
    /// source, as the module's source map has it.
    ///
    /// # Errors
    ///
    /// Those of [`Jitdump::add`]. A module without a source map, or with a damaged one, has no lines.
    pub fn add_with_lines<'l>(
        &self,
        module: &Module,
        names: impl Names,
        mut line: impl FnMut(u64) -> Option<Line<'l>>,
    ) -> io::Result<()> {
        let mut rows = module.source_map().into_iter().flat_map(|map| map.iter()).peekable();
        let mut source = None;
        // The engine's closures are called without the lock: they may add another module, or panic.
        let lined = functions(module, names).map(|function| {
            let mut lines = Vec::new();
            while let Some(row) = rows.next_if(|row| row.code <= function.offset) {
                source = Some(row.source);
            }
            lines.extend(source.and_then(&mut line).map(|line| (function.address, line)));
            while let Some(row) = rows.next_if(|row| function.holds(row.code)) {
                source = Some(row.source);
                lines.extend(line(row.source).map(|line| (function.address_of(row.code), line)));
            }
            (function, lines)
        });
        let lined: Vec<_> = lined.collect();
        if lined.is_empty() {
            return Ok(());
        }
        let in_child = |dump: &mut Dump| {
            *dump = Dump::create(&self.directory)?;
            Ok(())
        };
        self.dump.lock(in_child)?.add(&lined)
    }
}

impl Dump {
    fn create(directory: &Path) -> io::Result<Self> {
        let process = process::id();
        let machine = machine::number().ok_or(ErrorKind::Unsupported)?.into();
        let file = file::open(&directory.join(format!("jit-{process}.dump")))?;
        // A lock that the file system does not grant would have told nothing.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(ErrorKind::WouldBlock.into());
        }
        file.set_len(0)?;
        let mut header = Bytes::default();
        header.words([MAGIC, VERSION, HEADER, machine, 0, process]).numbers([now()?, 0]);
        file::append(&file, &header.0)?;
        let marker = Marker::of(&file)?;
        Ok(Self { process, file, next: 0, _marker: marker })
    }

    /// Appends the records of functions, of all or of none.
    fn add(&mut self, functions: &[(Function<'_>, Vec<(usize, Line<'_>)>)]) -> io::Result<()> {
        let (mut bytes, now, mut next) = (Bytes::default(), now()?, self.next);
        let thread = u32::try_from(gettid().as_raw_nonzero().get()).unwrap_or_default();
        for (function, lines) in functions {
            let address = u64::try_from(function.address).map_err(|_| ErrorKind::Unsupported)?;
            // What belongs to a function stands in front of it.
            if !lines.is_empty() {
                record(&mut bytes, DEBUG_INFO, now, |bytes| {
                    bytes.numbers([address, lines.len().try_into().unwrap_or(u64::MAX)]);
                    for (address, line) in lines {
                        bytes
                            .numbers([u64::try_from(*address).unwrap_or(u64::MAX)])
                            .words([line.line, line.column])
                            .text(line.file);
                    }
                })?;
            }
            record(&mut bytes, CODE_LOAD, now, |bytes| {
                let length = function.code.len().try_into().unwrap_or(u64::MAX);
                bytes.words([self.process, thread]).numbers([address, address, length, next]);
                bytes.text(&function.name).0.extend_from_slice(function.code);
            })?;
            next = next.saturating_add(1);
        }
        let length = self.file.metadata()?.len();
        // Whoever reads half a record reads none of those behind it.
        file::append(&self.file, &bytes.0).inspect_err(|_| drop(self.file.set_len(length)))?;
        self.next = next;
        Ok(())
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        // In a child of a fork the file is the parent's, who goes on.
        if self.process == process::id()
            && let Ok(now) = now()
        {
            let mut bytes = Bytes::default();
            // Who reads the file comes to its end without this record, too.
            let _ = record(&mut bytes, CODE_CLOSE, now, |_| {}).and_then(|()| file::append(&self.file, &bytes.0));
            // A child that lives on would keep it.
            let _ = self.file.unlock();
        }
    }
}

/// "JiTD", by the first byte of a big-endian machine.
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
/// Length of the header, in bytes.
const HEADER: u32 = 40;

/// Kinds of records.
const CODE_LOAD: u32 = 0;
const DEBUG_INFO: u32 = 2;
const CODE_CLOSE: u32 = 3;

/// Adds a record, whose length stands in front of what it holds.
fn record(bytes: &mut Bytes, kind: u32, now: u64, fill: impl FnOnce(&mut Bytes)) -> io::Result<()> {
    let mut body = Bytes::default();
    fill(&mut body);
    let length = body.0.len().checked_add(16).and_then(|length| u32::try_from(length).ok());
    bytes.words([kind, length.ok_or(ErrorKind::FileTooLarge)?]).numbers([now]).0.append(&mut body.0);
    Ok(())
}

/// Returns the time of the clock that `perf record -k mono` has, in nanoseconds.
fn now() -> io::Result<u64> {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec).ok(), u64::try_from(now.tv_nsec).ok());
    let now = seconds.and_then(|seconds| seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds?));
    now.ok_or_else(|| ErrorKind::Unsupported.into())
}

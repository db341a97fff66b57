//! The arena: small code of many modules side by side, in a few mappings.
//!
//! It is made of slabs. A slab is a memory file that is mapped to be executed and never to be written to: code gets
//! into it by being written to the file. What is mapped of a file is code that was handed in, and traps everywhere
//! else.
//!
//! Before addresses are used again their pages are mapped anew: whatever translates code when it first runs - valgrind,
//! emulators of x86-64 on other processors - learns from mappings that it is another's, and not from writes to a file.

use std::cell::UnsafeCell;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{ptr, slice};

use super::coherence;
use super::free::{Free, GAP, extent};
use super::mappings::{self, Mappings};
use super::memory_file::MemoryFile;
use super::start::Start;
use super::unmap;
use crate::words::Arch;

/// Length of the longest code that is put here, in bytes: pages of its own cost longer code less time.
const SMALL: usize = 4 * 1024;

/// The same where mappings are scarce.
const SMALL_IF_SCARCE: usize = 8 << 20;

/// How much more of a slab is mapped at a time, in bytes; it takes memory from then on.
const CHUNK: usize = 64 * 1024;

/// Length of the first slab, in bytes. Another one is as long as all others, up to the length of the longest.
const FIRST: usize = 1 << 20;
const LONGEST: usize = 16 << 20;

/// The slabs, oldest first. The lock is held while code is written to memory, and by a thread that forks.
static SLABS: Mutex<Vec<Slab>> = Mutex::new(Vec::new());

/// Whether the system has refused memory files, or to execute what is in them.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Memory of a slab that holds the code of one module.
pub(super) struct Room {
    code: *const u8,
    length: usize,
}

// SAFETY: the room belongs to the value, and any thread may give it back.
unsafe impl Send for Room {}
// SAFETY: nothing is written to it while the value lives.
unsafe impl Sync for Room {}

impl Room {
    /// Returns whether code of that length is to be put into the arena.
    pub(super) fn is_for(length: usize) -> bool {
        let is_small = length <= SMALL || length <= SMALL_IF_SCARCE && mappings::are_scarce();
        is_small && !IS_REFUSED.load(Ordering::Relaxed)
    }

    /// Puts code into the arena, or returns `None` if the system has no memory for it there.
    pub(super) fn of(code: &[u8], start: Start) -> Option<Self> {
        let room = Self::in_slab(&mut slabs(), code, start);
        match room {
            Ok(room) => {
                coherence::synchronize();
                room
            }
            Err(error) => {
                if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) {
                    IS_REFUSED.store(true, Ordering::Relaxed);
                }
                None
            }
        }
    }

    fn in_slab(slabs: &mut Vec<Slab>, code: &[u8], start: Start) -> io::Result<Option<Self>> {
        for slab in slabs.iter_mut() {
            if let Some(room) = slab.put(code, start)? {
                return Ok(Some(room));
            }
        }
        // What a fork has left empty is not used again.
        slabs.retain(|slab| slab.live > 0 || slab.file.is_some());
        slabs.try_reserve(1).map_err(|_| ErrorKind::OutOfMemory)?;
        let all = slabs.iter().filter(|slab| slab.file.is_some()).fold(0, |all, slab| slab.length.saturating_add(all));
        let least = code.len().saturating_add(CHUNK).checked_next_power_of_two().unwrap_or(LONGEST);
        let mut slab = Slab::new(all.next_power_of_two().clamp(FIRST, LONGEST).max(least))?;
        let room = slab.put(code, start)?;
        slabs.push(slab);
        Ok(room)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped and readable, and hold this code until the room is given back.
        unsafe { slice::from_raw_parts(self.code, self.length) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut slabs = slabs();
        let address = self.code.addr();
        let Some(at) = slabs.iter().position(|slab| slab.holds(address)) else { return };
        let Some(slab) = slabs.get_mut(at) else { return };
        slab.take_back(address.saturating_sub(slab.start.addr()), self.length);
        if slab.live > 0 {
            return;
        }
        // One that is empty is kept, the shortest, lest a single module make one come and go.
        let (length, is_shared) = (slab.length, slab.file.is_none());
        let is_empty = |other: &Slab| other.live == 0 && other.file.is_some();
        let other = slabs.iter().position(|other| is_empty(other) && !other.holds(address));
        let other_length = other.and_then(|other| slabs.get(other)).map(|other| other.length);
        let given_up = match (other, other_length) {
            _ if is_shared => slabs.remove(at),
            (Some(_), Some(other)) if other <= length => slabs.remove(at),
            (Some(other), _) => slabs.remove(other),
            (None, _) => return,
        };
        drop(slabs);
        drop(given_up);
    }
}

struct Slab {
    start: *mut u8,
    /// Length of the addresses that are reserved, and of the file, in bytes.
    length: usize,
    /// How much of it is mapped.
    mapped: usize,
    /// `None` once a fork has made it the memory of two processes, of which neither may write to it: the other runs it.
    file: Option<MemoryFile>,
    /// What of the mapped part holds traps.
    free: Free,
    /// From here on there was never any code.
    unused: usize,
    /// How many rooms there are.
    live: usize,
    _counted: Mappings,
}

// SAFETY: the addresses are owned by the value and may be unmapped by any thread.
unsafe impl Send for Slab {}

impl Slab {
    fn new(length: usize) -> io::Result<Self> {
        notice_forks()?;
        let file = MemoryFile::create(length)?;
        file.seal_length()?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping takes nothing away from anybody.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let (free, _counted) = (Free::default(), Mappings::new(2));
        Ok(Self { start: start.cast(), length, mapped: 0, file: Some(file), free, unused: 0, live: 0, _counted })
    }

    fn holds(&self, address: usize) -> bool {
        address.checked_sub(self.start.addr()).is_some_and(|at| at < self.length)
    }

    /// Puts code into the slab, or returns `None` if there is no room.
    fn put(&mut self, code: &[u8], start: Start) -> io::Result<Option<Room>> {
        if self.file.is_none() {
            return Ok(None);
        }
        self.free.reserve().map_err(|_| ErrorKind::OutOfMemory)?;
        let mut at = self.free.take(code.len(), start);
        if at.is_none() {
            let more = code.len().saturating_add(start.alignment.saturating_mul(2)).saturating_add(GAP);
            if !self.grow(more.saturating_sub(self.free.at_end(self.mapped)))? {
                return Ok(None);
            }
            at = self.free.take(code.len(), start);
        }
        let Some(at) = at else { return Ok(None) };
        self.live = self.live.saturating_add(1);
        if let Err(error) = self.write(code, at).and_then(|()| self.renew(at, code.len())) {
            self.take_back(at, code.len());
            return Err(error);
        }
        Ok(Some(Room { code: self.start.wrapping_add(at).cast_const(), length: code.len() }))
    }

    /// Maps `more` bytes at least, full of traps, unless the slab has no more.
    fn grow(&mut self, more: usize) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let end = self.mapped.saturating_add(more).checked_next_multiple_of(CHUNK).unwrap_or(usize::MAX);
        if end > self.length {
            return Ok(false);
        }
        let part = self.mapped..end;
        fill(file, &part)?;
        // SAFETY: the addresses were reserved for this, and nobody knows them yet. Writes to the file are to be seen.
        unsafe { file.map(part.clone(), self.start.wrapping_add(part.start).cast(), SHARED_THERE) }?;
        self.mapped = end;
        self.free.add(part);
        Ok(true)
    }

    fn write(&self, code: &[u8], at: usize) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.write(code, at)?;
        self.clean(&(at..at.saturating_add(code.len())));
        Ok(())
    }

    /// Maps the pages of code anew that lies where other code was. Threads that run what is beside it wait for the new
    /// mapping of the same memory, in the system, if they come to need it meanwhile.
    fn renew(&mut self, at: usize, length: usize) -> io::Result<()> {
        let (Some(file), Some(taken)) = (&self.file, extent(at, length)) else { return Ok(()) };
        if taken.start < self.unused {
            let page = region::page::size();
            let part = taken.start & page.wrapping_neg()..taken.end.next_multiple_of(page);
            // SAFETY: what is mapped there is the same part of the same file: its bytes stay, for whoever runs or reads
            // them.
            unsafe { file.map(part.clone(), self.start.wrapping_add(part.start).cast(), SHARED_THERE) }?;
        }
        self.unused = self.unused.max(taken.end);
        Ok(())
    }

    fn clean(&self, part: &Range<usize>) {
        let address = |at| self.start.wrapping_add(at).addr();
        coherence::clean(address(part.start)..address(part.end));
    }

    /// Takes the room of code at `at` back, and fills it with traps. If that fails it is not used again.
    fn take_back(&mut self, at: usize, length: usize) {
        self.live = self.live.saturating_sub(1);
        if let (Some(file), Some(taken)) = (&self.file, extent(at, length))
            && fill(file, &taken).is_ok()
        {
            self.clean(&taken);
            self.free.give(taken);
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: the addresses belong to the value, and no room is left in them.
        unsafe { unmap::give_back(self.start, self.length) };
    }
}

/// In place of what is reserved, and such that what is written to the file is seen.
const SHARED_THERE: libc::c_int = libc::MAP_SHARED | libc::MAP_FIXED;

fn fill(file: &MemoryFile, part: &Range<usize>) -> io::Result<()> {
    const TRAPS: [u8; 4096] = [Arch::host().trap(); 4096];
    let mut at = part.start;
    while at < part.end {
        let traps = TRAPS.get(..part.end.saturating_sub(at)).unwrap_or(&TRAPS);
        file.write(traps, at)?;
        at = at.saturating_add(traps.len());
    }
    Ok(())
}

fn slabs() -> MutexGuard<'static, Vec<Slab>> {
    SLABS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a thread that forks keeps the lock.
struct Forking(UnsafeCell<Option<MutexGuard<'static, Vec<Slab>>>>);

// SAFETY: only the thread that holds the lock looks inside.
unsafe impl Sync for Forking {}

static FORKING: Forking = Forking(UnsafeCell::new(None));

/// Has every slab set aside when the process forks: its memory is shared then, and code that one process lets go of may
/// still run in the other. No room is taken or given back meanwhile.
///
/// A fork that is made by a system call, past the C library, is not noticed. One that is made in a signal handler which
/// has interrupted this file waits for itself: no C library allows it there.
fn notice_forks() -> io::Result<()> {
    extern "C" fn before() {
        let guard = slabs();
        // SAFETY: this thread holds the lock.
        unsafe { *FORKING.0.get() = Some(guard) };
    }
    extern "C" fn after() {
        // SAFETY: this thread, or the one that it is a copy of, has taken the lock in `before`.
        let guard = unsafe { (*FORKING.0.get()).take() };
        if let Some(mut slabs) = guard {
            slabs.iter_mut().for_each(|slab| slab.file = None);
        }
    }
    static NOTICED: OnceLock<libc::c_int> = OnceLock::new();
    let failed = NOTICED.get_or_init(|| {
        // SAFETY: both functions may be called at any time by a thread that forks.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) }
    });
    if *failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(*failed)) }
}

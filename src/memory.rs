//! The only room with `unsafe`: mapping files, and making code executable.
//!
//! Code goes through two types: [`WritableCode`] can be written and not executed, [`CodeMemory`] can be executed and not
//! written. No page is ever both. Between the two stand the caller's checks, which read the very bytes that will run.

#![expect(unsafe_code, reason = "this is the room for it; every block carries its proof")]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::slice;

use region::Protection;

use crate::error::Error;

/// How much is copied before it is checked, in bytes: small enough to be in the cache still.
const STEP: usize = 64 * 1024;

/// What running off the end of the code runs into: `int3` on x86-64, `udf` on arm64.
const TRAP: u8 = if cfg!(target_arch = "aarch64") { 0x00 } else { 0xcc };

/// Code in pages of its own that cannot be executed yet.
pub(crate) struct WritableCode {
    /// `None` if there is no code: there are no pages of length zero.
    pages: Option<region::Allocation>,
    /// Length of the code in bytes, at most the length of the pages.
    length: usize,
}

impl WritableCode {
    /// Copies `code` into fresh pages, and shows `check` what was copied while it is at hand.
    pub(crate) fn copy(code: &[u8], mut check: impl FnMut(&[u8])) -> Result<Self, Error> {
        if !cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")) {
            return Err(Error::UnsupportedMachine);
        }
        let mut copy = Self { pages: None, length: code.len() };
        if !code.is_empty() {
            let pages = region::alloc(code.len(), Protection::READ_WRITE);
            copy.pages = Some(pages.map_err(|error| refused("allocate", code.len(), error))?);
        }
        let (to, padding) = copy.bytes_mut().split_at_mut(code.len());
        for (to, from) in to.chunks_mut(STEP).zip(code.chunks(STEP)) {
            to.copy_from_slice(from);
            check(to);
        }
        padding.fill(TRAP);
        Ok(copy)
    }

    /// Makes the code executable, and writable no longer.
    pub(crate) fn publish(self) -> Result<CodeMemory, Error> {
        if let Some(pages) = &self.pages {
            coherence::before_protection(pages.as_range());
            // SAFETY: the pages belong to this value alone and no reference into them is alive, since `bytes_mut` lends
            // them out with a borrow of `self`. Nothing writes to them from here on: `self` is consumed.
            let protected = unsafe { region::protect(pages.as_ptr::<u8>(), pages.len(), Protection::READ_EXECUTE) };
            protected.map_err(|error| refused("make executable", self.length, error))?;
            coherence::after_protection();
        }
        Ok(CodeMemory { pages: self.pages, length: self.length })
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(pages) = &mut self.pages else { return &mut [] };
        // SAFETY: the pages were allocated readable and writable, are initialized (the system zeroes them) and belong to
        // this value; `len` is their length, and the borrow of `self` keeps them mapped and everybody else away.
        unsafe { slice::from_raw_parts_mut(pages.as_mut_ptr::<u8>(), pages.len()) }
    }
}

/// Code that can be executed, in pages of its own that are never written again.
pub(crate) struct CodeMemory {
    pages: Option<region::Allocation>,
    length: usize,
}

// SAFETY: the pages are owned, never written after `publish`, and may be unmapped by any thread.
unsafe impl Send for CodeMemory {}
// SAFETY: there is no way to write to the pages, and nothing else in the value changes.
unsafe impl Sync for CodeMemory {}

impl CodeMemory {
    /// Returns the addresses of the code; an empty range at 0 if there is none.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.pages.as_ref().map_or(0, |pages| pages.as_range().start);
        start..start.saturating_add(self.length)
    }

    /// Returns the code as it stands in memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        let Some(pages) = &self.pages else { return &[] };
        // SAFETY: the pages are readable, initialized and never written while this value lives; `length` is at most
        // their length.
        unsafe { slice::from_raw_parts(pages.as_ptr::<u8>(), self.length) }
    }
}

impl fmt::Debug for CodeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeMemory({:#x?})", self.range())
    }
}

/// How the bytes of entries get from their files into memory.
///
/// This is the door at which a caller makes the promise that mapping needs; everything behind it is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub(crate) Option<Unchanging>);

/// The promise of [`Access::map`]: only that function makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unchanging(());

impl Access {
    /// Files are read. Whatever happens to a file meanwhile, an entry is sound or rejected.
    pub const READ: Self = Self(None);

    /// Files are mapped, except small ones, which are read faster than mapped.
    ///
    /// # Safety
    ///
    /// While anything that was opened with this access is alive - [`FileBytes`](crate::FileBytes),
    /// [`Store`](crate::Store), [`Cache`](crate::Cache), [`Module`](crate::Module) - nobody may change a file that it
    /// opened in place or shorten it, in this process or another. Replacing the file by renaming another one over it is
    /// allowed, and so is removing it: that is how a [`Store`](crate::Store) and wazero write.
    #[must_use]
    pub const unsafe fn map() -> Self {
        Self(Some(Unchanging(())))
    }
}

/// Maps a file for reading.
pub(crate) fn map(file: &File, length: usize, Unchanging(()): Unchanging) -> io::Result<memmap2::Mmap> {
    // SAFETY: `map` asks that the file is not changed in place or shortened while it is mapped. Whoever made the
    // `Unchanging` promised that, at `Access::map`.
    unsafe { memmap2::MmapOptions::new().len(length).map(file) }
}

fn refused(action: &'static str, length: usize, error: region::Error) -> Error {
    Error::Memory { action, length: u64::try_from(length).unwrap_or(u64::MAX), source: error.into_io_error() }
}

/// Instruction caches: x86 keeps its own coherent with what was written.
#[cfg(not(target_arch = "aarch64"))]
mod coherence {
    pub(super) fn before_protection(_: std::ops::Range<usize>) {}

    pub(super) fn after_protection() {}
}

/// Instruction caches: what was written must reach the point where instructions are fetched, and no core may run what
/// it fetched before.
#[cfg(target_arch = "aarch64")]
mod coherence {
    use std::arch::asm;
    use std::ops::Range;

    /// Cleans the data cache and invalidates the instruction cache over `code`, as the Arm Architecture Reference
    /// Manual has it in B2.4.4. It is done while the pages are still writable: some cores have errata otherwise.
    pub(super) fn before_protection(code: Range<usize>) {
        let sizes: u64;
        // SAFETY: reading CTR_EL0 has no effect but its result; every system allows it or emulates it.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) sizes, options(nomem, nostack, preserves_flags)) };
        let line = |field: u64| 4_usize << (field & 0xf);
        for address in lines(&code, line(sizes >> 16)) {
            // SAFETY: the address lies in pages that are mapped; cleaning changes no data.
            unsafe { asm!("dc cvau, {}", in(reg) address, options(nostack, preserves_flags)) };
        }
        // SAFETY: a barrier has no effect on data.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
        for address in lines(&code, line(sizes)) {
            // SAFETY: the address lies in pages that are mapped; invalidating instructions changes no data.
            unsafe { asm!("ic ivau, {}", in(reg) address, options(nostack, preserves_flags)) };
        }
        // SAFETY: barriers have no effect on data.
        unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    }

    /// Makes every other thread of the process refetch before it can run the new code.
    pub(super) fn after_protection() {
        #[cfg(target_os = "linux")]
        {
            use std::sync::Once;
            static REGISTERED: Once = Once::new();
            let membarrier = |command: libc::c_int| {
                // SAFETY: membarrier reads and writes no memory of the process. If the kernel lacks it, a thread that
                // learns of the code does so by synchronization, which such kernels' cores take as the barrier.
                unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
            };
            REGISTERED.call_once(|| drop(membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)));
            let _ = membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE);
        }
    }

    fn lines(code: &Range<usize>, line: usize) -> impl Iterator<Item = usize> + use<> {
        // Line sizes are powers of two, and pages begin on a line.
        code.clone().step_by(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_checked_is_what_was_copied() {
        let code: Vec<u8> = (0_u32..200_000).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let mut seen = Vec::new();
        let memory = WritableCode::copy(&code, |step| seen.extend_from_slice(step)).unwrap().publish().unwrap();
        assert_eq!(seen, code);
        assert_eq!(memory.bytes(), code);
        assert_eq!(memory.range().len(), code.len());
    }

    #[test]
    fn empty_code_takes_no_pages() {
        let memory = WritableCode::copy(&[], |_| panic!("there is nothing to check")).unwrap().publish().unwrap();
        assert!(memory.range().is_empty());
        assert!(memory.bytes().is_empty());
    }

    #[test]
    fn running_off_the_end_of_the_code_traps() {
        let mut code = WritableCode::copy(&[1, 2, 3], |_| {}).unwrap();
        assert!(code.bytes_mut()[3..].iter().all(|&byte| byte == TRAP));
        assert_eq!(code.bytes_mut().len() % region::page::size(), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn code_is_executable_and_not_writable() {
        let memory = WritableCode::copy(&[TRAP; 5000], |_| {}).unwrap().publish().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = format!("{:x}-", memory.range().start);
        let line = maps.lines().find(|line| line.starts_with(&start)).expect("the code has a mapping of its own");
        assert_eq!(line.split(' ').nth(1), Some("r-xp"), "{line}");
        assert!(maps.lines().all(|line| !line.contains("rwx")), "{maps}");
    }
}

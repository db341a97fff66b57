//! Programs under the hardened runtime of macOS, which may execute nothing that was written but what they were given as
//! memory for compilers at run time, by the entitlement `com.apple.security.cs.allow-jit`.
//!
//! It is asked for only there: elsewhere pages can be written and then executed. They can be made executable there, too,
//! without an error, and then the system ends the program that executes them, so that nothing can be found out by trying.

use std::sync::OnceLock;
use std::{io, ptr};

use super::coherence;
pub(super) use super::sealed::Sealed;

unsafe extern "C" {
    /// Returns what the system holds a process's signature for, in `status` if that is what is asked.
    fn csops(process: libc::pid_t, what: libc::c_uint, status: *mut libc::c_void, length: usize) -> libc::c_int;
}

/// Returns whether this program is under the hardened runtime.
pub(crate) fn is_hardened() -> bool {
    /// As the kernel's headers number them.
    const STATUS: libc::c_uint = 0;
    const RUNTIME: u32 = 0x1_0000;
    static IS_HARDENED: OnceLock<bool> = OnceLock::new();
    *IS_HARDENED.get_or_init(|| {
        let mut status = 0_u32;
        // SAFETY: the call writes so many bytes to `status` at most. 0 stands for this process.
        let failed = unsafe { csops(0, STATUS, ptr::from_mut(&mut status).cast(), size_of_val(&status)) };
        failed == 0 && status & RUNTIME != 0
    })
}

impl Sealed {
    /// Copies whole pages to where they can be executed.
    pub(super) fn copy(pages: &[u8]) -> io::Result<Self> {
        let (length, how) = (pages.len(), libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_JIT);
        // SAFETY: a new mapping takes nothing away from anybody.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, imp::PROTECTION, how, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        imp::write(|| {
            // SAFETY: so many bytes were mapped, for this function alone, and this thread may write to them.
            unsafe { ptr::copy_nonoverlapping(pages.as_ptr(), start.cast(), length) };
        });
        // SAFETY: so many bytes were mapped, and nobody has seen where.
        let sealed = unsafe { Self::of(start.cast(), length) };
        let addresses = sealed.bytes().as_ptr_range();
        coherence::clean(addresses.start.addr()..addresses.end.addr());
        imp::protect(&sealed)?;
        coherence::synchronize();
        Ok(sealed)
    }
}

/// A thread may either write to all such pages, or execute them: no page is both.
#[cfg(target_arch = "aarch64")]
mod imp {
    use std::io;

    pub(super) const PROTECTION: libc::c_int = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;

    /// Calls `write`, which executes nothing that lies in such pages and does not panic.
    pub(super) fn write(write: impl FnOnce()) {
        // SAFETY: until it may again, this thread executes nothing that it may not.
        unsafe { libc::pthread_jit_write_protect_np(0) };
        write();
        // SAFETY: this thread writes to no such page from here on.
        unsafe { libc::pthread_jit_write_protect_np(1) };
    }

    /// The system does not let the protection be changed, and need not.
    pub(super) fn protect(_: &super::Sealed) -> io::Result<()> {
        Ok(())
    }
}

/// Such pages are protected as others are.
#[cfg(not(target_arch = "aarch64"))]
mod imp {
    use std::io;

    pub(super) const PROTECTION: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

    pub(super) fn write(write: impl FnOnce()) {
        write();
    }

    pub(super) fn protect(pages: &super::Sealed) -> io::Result<()> {
        let bytes = pages.bytes();
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: the pages belong to the value. They stay readable, and nobody writes to them any more.
        let protected = unsafe { libc::mprotect(bytes.as_ptr().cast_mut().cast(), bytes.len(), protection) };
        if protected == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_from_pages_that_are_given_for_it() {
        let code: &[u8] = if cfg!(target_arch = "aarch64") {
            &[0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6] // mov w0, 42; ret
        } else {
            &[0xb8, 42, 0, 0, 0, 0xc3] // mov eax, 42; ret
        };
        let mut pages = code.to_vec();
        pages.resize(region::page::size(), 0);
        let sealed = Sealed::copy(&pages).unwrap();
        assert_eq!(sealed.bytes(), pages);
        // SAFETY: the code takes nothing and returns an int, in the C calling convention.
        let main: extern "C" fn() -> i32 = unsafe { std::mem::transmute(sealed.bytes().as_ptr()) };
        assert_eq!(main(), 42);
    }
}

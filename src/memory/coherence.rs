//! Instruction caches.

use std::ops::Range;

/// Whether the crate knows how to keep this machine's instruction caches coherent.
pub(super) const IS_SUPPORTED: bool = cfg!(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    target_arch = "s390x",
    all(target_arch = "riscv64", target_os = "linux"),
    all(target_arch = "arm", target_endian = "little", target_os = "linux"),
));

/// Lets instructions be fetched from addresses at which code was written, which are mapped and readable.
pub(super) fn clean(code: Range<usize>) {
    imp::clean(code);
}

/// Makes every other thread of the process refetch before it can run code that was written, and [`clean`]ed.
pub(super) fn synchronize() {
    #[cfg(all(target_os = "linux", any(target_arch = "aarch64", target_arch = "arm")))]
    {
        use std::sync::Once;
        static REGISTERED: Once = Once::new();
        let membarrier = |command: libc::c_int| {
            // SAFETY: membarrier reads and writes no memory of the process. If the kernel lacks it, a thread that
            // learns of the code does so by synchronization, which such kernels' cores take as the barrier.
            unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
        };
        REGISTERED.call_once(|| {
            membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE);
        });
        membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE);
    }
}

/// x86 and z/Architecture keep their instruction caches coherent with what was written.
#[cfg(not(any(target_arch = "aarch64", all(any(target_arch = "arm", target_arch = "riscv64"), target_os = "linux"))))]
mod imp {
    pub(super) fn clean(_: std::ops::Range<usize>) {}
}

/// Only the system may clean caches here, and it does so on every processor.
#[cfg(all(target_arch = "arm", target_os = "linux"))]
mod imp {
    /// `cacheflush`, as the kernel's headers number it.
    const FLUSH: libc::c_long = 0x000f_0002;

    pub(super) fn clean(code: std::ops::Range<usize>) {
        // SAFETY: the call changes no data. The last argument has to be 0.
        unsafe { libc::syscall(FLUSH, code.start, code.end, 0) };
    }
}

/// A fence reaches the hart that it runs on; the system has it run on all that threads of the process are on, and on
/// others before they are.
#[cfg(all(target_arch = "riscv64", target_os = "linux"))]
mod imp {
    /// `riscv_flush_icache`, as the kernel's headers number it.
    const FLUSH: libc::c_long = 259;

    pub(super) fn clean(code: std::ops::Range<usize>) {
        // SAFETY: the call changes no data. 0 asks for every thread.
        unsafe { libc::syscall(FLUSH, code.start, code.end, 0) };
    }
}

/// Only the system may know the lines of the caches here: reading them is an illegal instruction.
#[cfg(all(target_arch = "aarch64", target_vendor = "apple"))]
mod imp {
    use std::ffi::c_void;
    use std::ops::Range;

    unsafe extern "C" {
        fn sys_icache_invalidate(start: *mut c_void, length: usize);
    }

    pub(super) fn clean(code: Range<usize>) {
        // SAFETY: the addresses are mapped; the call changes no data.
        unsafe { sys_icache_invalidate(std::ptr::with_exposed_provenance_mut(code.start), code.len()) };
    }
}

/// As on Apple's systems.
#[cfg(all(target_arch = "aarch64", windows))]
mod imp {
    use std::ffi::c_void;
    use std::ops::Range;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetCurrentProcess() -> *mut c_void;
        fn FlushInstructionCache(process: *mut c_void, start: *const c_void, length: usize) -> i32;
    }

    pub(super) fn clean(code: Range<usize>) {
        // SAFETY: the call takes nothing and returns a constant.
        let process = unsafe { GetCurrentProcess() };
        // SAFETY: the addresses are mapped; the call changes no data.
        unsafe { FlushInstructionCache(process, std::ptr::with_exposed_provenance(code.start), code.len()) };
    }
}

/// What was written must reach the point where instructions are fetched, and no core may run what it fetched before.
#[cfg(all(target_arch = "aarch64", not(target_vendor = "apple"), not(windows)))]
mod imp {
    use std::arch::asm;
    use std::ops::Range;

    /// Cleans the data cache and invalidates the instruction cache over `code`, as the Arm Architecture Reference
    /// Manual has it in B2.4.4. Pages that are written to and then protected are still writable: some cores have errata
    /// otherwise.
    pub(super) fn clean(code: Range<usize>) {
        let sizes: u64;
        // SAFETY: reading CTR_EL0 has no effect but its result; every other system allows it or emulates it.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) sizes, options(nomem, nostack, preserves_flags)) };
        let line = |field: u64| 4_usize << (field & 0xf);
        for address in super::lines(code.clone(), line(sizes >> 16)) {
            // SAFETY: the line holds an address that is mapped; cleaning changes no data.
            unsafe { asm!("dc cvau, {}", in(reg) address, options(nostack, preserves_flags)) };
        }
        // SAFETY: a barrier has no effect on data.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
        for address in super::lines(code, line(sizes)) {
            // SAFETY: the line holds an address that is mapped; invalidating instructions changes no data.
            unsafe { asm!("ic ivau, {}", in(reg) address, options(nostack, preserves_flags)) };
        }
        // SAFETY: barriers have no effect on data.
        unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    }
}

/// Returns the addresses of the cache lines, of a size that is a power of two, that hold some of `code`.
#[cfg(any(test, all(target_arch = "aarch64", not(target_vendor = "apple"), not(windows))))]
fn lines(code: Range<usize>, line: usize) -> impl Iterator<Item = usize> {
    let first = if code.is_empty() { code.end } else { code.start & line.wrapping_neg() };
    (first..code.end).step_by(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_holds_some_of_the_code_is_told_once_and_no_other() {
        for line in [4, 64, 128, 2048] {
            for start in [0x1_0000, 0x1_0001, 0x1_0020, 0x1_003f, 0x1_07ff] {
                for length in [0, 1, 2, 31, 32, 33, 63, 64, 65, 300, 2048, 4096] {
                    let expected: Vec<_> = (0..0x2_0000_usize)
                        .step_by(line)
                        .filter(|at| at + line > start && *at < start + length && length > 0)
                        .collect();
                    let told: Vec<_> = lines(start..start + length, line).collect();
                    assert_eq!(told, expected, "{line} {start:#x} {length}");
                }
            }
        }
    }
}

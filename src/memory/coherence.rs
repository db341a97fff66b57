//! Instruction caches.

pub(super) use imp::{after_protection, before_protection};

/// x86 keeps its instruction caches coherent with what was written.
#[cfg(not(target_arch = "aarch64"))]
mod imp {
    pub(in crate::memory) fn before_protection(_: std::ops::Range<usize>) {}

    pub(in crate::memory) fn after_protection() {}
}

/// What was written must reach the point where instructions are fetched, and no core may run what
/// it fetched before.
#[cfg(target_arch = "aarch64")]
mod imp {
    use std::arch::asm;
    use std::ops::Range;

    /// Cleans the data cache and invalidates the instruction cache over `code`, as the Arm Architecture Reference
    /// Manual has it in B2.4.4. It is done while the pages are still writable: some cores have errata otherwise.
    pub(in crate::memory) fn before_protection(code: Range<usize>) {
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
    pub(in crate::memory) fn after_protection() {
        #[cfg(target_os = "linux")]
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

    fn lines(code: &Range<usize>, line: usize) -> impl Iterator<Item = usize> + use<> {
        // Line sizes are powers of two, and pages begin on a line.
        code.clone().step_by(line)
    }
}

//! Making unwind tables known to the unwinder of the program.

/// Tables that the unwinder of the program knows as long as the value lives.
///
/// Those that were made known last are best dropped first: the unwinder looks for them one by one.
#[derive(Debug)]
pub(super) struct Unwinding {
    #[cfg(all(unix, target_env = "gnu", not(target_arch = "arm")))]
    tables: usize,
}

#[cfg(all(unix, target_env = "gnu", not(target_arch = "arm")))]
mod gcc {
    use std::ffi::c_void;

    unsafe extern "C" {
        pub(super) fn __register_frame(tables: *const c_void);
        pub(super) fn __deregister_frame(tables: *const c_void);
    }
}

#[cfg(all(unix, target_env = "gnu", not(target_arch = "arm")))]
impl Unwinding {
    /// Makes tables known to GCC's unwinder, which takes all of them with one call.
    ///
    /// # Safety
    ///
    /// They are records of `.eh_frame` up to one of length 0, and stay where and as they are until the value is
    /// dropped.
    pub(super) unsafe fn register(tables: &[u8]) -> Option<Self> {
        // The unwinder takes no tables without a record, and then knows of none to forget.
        if tables.first_chunk().is_none_or(|length| *length == [0; 4]) {
            return None;
        }
        let tables = tables.as_ptr();
        // SAFETY: what the unwinder reads is there, as the caller has promised.
        unsafe { gcc::__register_frame(tables.cast()) };
        Some(Self { tables: tables.expose_provenance() })
    }
}

#[cfg(all(unix, target_env = "gnu", not(target_arch = "arm")))]
impl Drop for Unwinding {
    fn drop(&mut self) {
        // SAFETY: the tables were made known by `register`, once, and are still there.
        unsafe { gcc::__deregister_frame(std::ptr::with_exposed_provenance(self.tables)) };
    }
}

#[cfg(not(all(unix, target_env = "gnu", not(target_arch = "arm"))))]
impl Unwinding {
    /// Does nothing: other unwinders take functions one by one, which takes longer than loading them.
    ///
    /// # Safety
    ///
    /// There is nothing to promise.
    pub(super) const unsafe fn register(_: &[u8]) -> Option<Self> {
        None
    }
}

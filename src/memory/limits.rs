//! What the process may take of the system.

/// Returns how many files the process may have open, if the system tells.
pub(crate) fn open_files_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is valid, and written to and nothing else.
        let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        #[allow(clippy::useless_conversion, reason = "the type differs between systems")]
        if result == 0 { u64::try_from(limit.rlim_cur).ok() } else { None }
    }
    #[cfg(not(unix))]
    None
}

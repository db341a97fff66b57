//! What the system allows the process.

/// Returns how many bytes a file may have that the process writes: a signal ends it if it writes more.
pub(crate) fn most_bytes_of_a_file() -> u64 {
    #[cfg(unix)]
    {
        let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the structure is there to be written to.
        unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
        if limit.rlim_cur != libc::RLIM_INFINITY {
            #[allow(clippy::useless_conversion, reason = "the width of a limit, and its sign, are the system's")]
            return u64::try_from(limit.rlim_cur).unwrap_or(u64::MAX);
        }
    }
    u64::MAX
}

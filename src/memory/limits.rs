//! What the system allows the process.

/// Returns how many files the process may have open.
pub(crate) fn most_open_files() -> u64 {
    #[cfg(unix)]
    return limit(libc::RLIMIT_NOFILE);
    #[cfg(not(unix))]
    u64::MAX
}

/// Returns how many bytes a file may have that the process writes: a signal ends it if it writes more.
pub(crate) fn most_bytes_of_a_file() -> u64 {
    #[cfg(unix)]
    return limit(libc::RLIMIT_FSIZE);
    #[cfg(not(unix))]
    u64::MAX
}

#[cfg(unix)]
#[cfg(all(target_os = "linux", any(target_env = "gnu", target_env = "uclibc")))]
type Resource = libc::__rlimit_resource_t;
#[cfg(unix)]
#[cfg(not(all(target_os = "linux", any(target_env = "gnu", target_env = "uclibc"))))]
type Resource = libc::c_int;

#[cfg(unix)]
fn limit(resource: Resource) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure is there to be written to.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    if limit.rlim_cur == libc::RLIM_INFINITY {
        return u64::MAX;
    }
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_fallible_conversions,
        reason = "the width of a limit, and its sign, are the system's"
    )]
    u64::try_from(limit.rlim_cur).unwrap_or(u64::MAX)
}

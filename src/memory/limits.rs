//! What the system allows the process.

use std::fs::File;
use std::io::Read;

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

/// Returns how many mappings the process may have, if there is a limit that is known.
pub(super) fn most_mappings() -> Option<usize> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let read = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    // What the kernel has if nobody sets another.
    Some(read.and_then(|limit| limit.trim().parse().ok()).unwrap_or(65_530))
}

/// Returns how many mappings the process has, and how many it may have, if the system tells. The time it takes grows
/// with them.
pub(super) fn mappings() -> Option<(usize, usize)> {
    let most = most_mappings()?;
    let (mut file, mut page, mut count) = (File::open("/proc/self/maps").ok()?, [0; 4096], 0_usize);
    loop {
        match file.read(&mut page).ok()? {
            0 => return Some((count, most)),
            read => {
                let lines = page.iter().take(read).filter(|byte| **byte == b'\n').count();
                count = count.saturating_add(lines);
            }
        }
    }
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

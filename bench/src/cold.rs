//! Getting a file out of the page cache, so that the next load has to fetch it from the disk.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::thread;
use std::time::Duration;

use crate::way::Outcome;

/// Drops the pages of a file, and fails if the system keeps them.
pub fn evict(path: &Path) -> Outcome<()> {
    let file = File::open(path)?;
    // Only pages that are clean are dropped.
    file.sync_all()?;
    let length = usize::try_from(file.metadata()?.len())?;
    // Pages that another core has in hand just then stay, and go a moment later.
    for pause in [0, 1, 10, 100] {
        thread::sleep(Duration::from_millis(pause));
        // SAFETY: the descriptor is open; the advice changes no data.
        match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error).into()),
        }
        if resident_pages(&file, length)? == 0 {
            return Ok(());
        }
    }
    Err("the system keeps files in its cache".into())
}

/// Has a file in the cache as if it had been read from the disk, however it was written: that decides how large the
/// pieces are that it lies there in, and so how fast it is mapped.
pub fn warm(path: &Path) -> Outcome<()> {
    // If it stays in the cache as it is, that is warm too.
    let _ = evict(path);
    io::copy(&mut File::open(path)?, &mut io::sink())?;
    Ok(())
}

fn resident_pages(file: &File, length: usize) -> io::Result<usize> {
    let mut pages = vec![0_u8; length.div_ceil(4096)];
    // SAFETY: the system chooses addresses that nothing else has; nothing is read through them.
    let map = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range is that of the mapping, and there is a byte for every page of it.
    let counted = unsafe { libc::mincore(map, length, pages.as_mut_ptr()) };
    // SAFETY: the mapping was made above and is not used again.
    unsafe { libc::munmap(map, length) };
    if counted == 0 { Ok(pages.iter().filter(|&page| page & 1 == 1).count()) } else { Err(io::Error::last_os_error()) }
}

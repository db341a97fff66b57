//! Memory files: written as files are, and mapped to be executed, never to be written to.
//!
//! So code gets into executable memory that was never writable, which is the only way where the system refuses to make
//! written memory executable.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::ptr;

use super::limits::most_bytes_of_a_file;
pub(super) use super::sealed::Sealed;
use crate::words::size;

/// A file without a name, whose bytes are memory.
#[derive(Debug)]
pub(super) struct MemoryFile(File);

impl MemoryFile {
    /// Creates a file of `length` zeros, which take no memory until they are written to.
    pub(super) fn create(length: usize) -> io::Result<Self> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        is_allowed(length)?;
        // That no program may be started from it changes nothing about mapping it, and systems may insist on it.
        let open = |flags| {
            // SAFETY: the name ends with a zero, and is copied.
            unsafe { libc::memfd_create(c"jitcache".as_ptr(), libc::MFD_CLOEXEC | flags) }
        };
        let mut fd = open(libc::MFD_NOEXEC_SEAL);
        if fd < 0 && io::Error::last_os_error().kind() == ErrorKind::InvalidInput {
            // Linux before 6.3 does not know it.
            fd = open(libc::MFD_ALLOW_SEALING);
        }
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the system has just opened it, for nobody else.
        let file = Self(unsafe { File::from_raw_fd(fd) });
        file.0.set_len(length)?;
        Ok(file)
    }

    /// Writes bytes that the file is long enough for.
    pub(super) fn write(&self, bytes: &[u8], at: usize) -> io::Result<()> {
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        is_allowed(at.saturating_add(size(bytes)))?;
        self.0.write_all_at(bytes, at)
    }

    /// Makes it impossible to change the length, by anybody and for ever.
    pub(super) fn seal_length(&self) -> io::Result<()> {
        self.seal(libc::F_SEAL_SHRINK | libc::F_SEAL_GROW)
    }

    fn seal(&self, seals: libc::c_int) -> io::Result<()> {
        // SAFETY: the call changes no memory.
        let sealed = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_ADD_SEALS, seals) };
        if sealed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Maps a part of the file, in whole pages, to be read and executed; `to` is an address that the caller owns the
    /// memory at, which is replaced, or null for any, and `how` is whether others' writes may be seen.
    ///
    /// # Safety
    ///
    /// Unless `to` is null: nobody may use what is mapped from there on, or it must be the same part of this file.
    pub(super) unsafe fn map(
        &self,
        part: Range<usize>,
        to: *mut libc::c_void,
        how: libc::c_int,
    ) -> io::Result<*mut libc::c_void> {
        let (length, fd) = (part.end.saturating_sub(part.start), self.0.as_raw_fd());
        let at = libc::off_t::try_from(part.start).map_err(|_| ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping takes nothing away from anybody but at `to`, of which the caller has promised it.
        let mapped = unsafe { libc::mmap(to, length, libc::PROT_READ | libc::PROT_EXEC, how, fd, at) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(mapped) }
    }
}

/// Asks whether a file may have that length: a signal ends a process that writes more, of memory too.
fn is_allowed(length: u64) -> io::Result<()> {
    if length <= most_bytes_of_a_file() { Ok(()) } else { Err(ErrorKind::FileTooLarge.into()) }
}

/// Returns whether this program may execute nothing but what the system has given it for that.
pub(crate) const fn is_hardened() -> bool {
    false
}

impl Sealed {
    /// Copies whole pages into a memory file.
    pub(super) fn copy(pages: &[u8]) -> io::Result<Self> {
        let file = MemoryFile::create(pages.len())?;
        file.write(pages, 0)?;
        file.seal_length()?;
        file.seal(libc::F_SEAL_WRITE)?;
        // Private, because older systems map nothing that is sealed where writes of others could be seen.
        // SAFETY: any address will do.
        let start = unsafe { file.map(0..pages.len(), ptr::null_mut(), libc::MAP_PRIVATE) }?;
        // SAFETY: so many bytes were mapped for this value alone, of a file that nobody can write to.
        Ok(unsafe { Self::of(start.cast(), pages.len()) })
    }
}

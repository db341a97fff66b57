//! The mapping by which `perf record` learns of a jitdump file.

#![expect(unsafe_code, reason = "this is the room for it; every block carries its proof")]

use std::fs::File;
use std::{io, ptr};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

/// The first page of a file, mapped to be executed, which `perf` takes note of. Nobody reads it, and nothing runs it.
#[derive(Debug)]
pub(crate) struct Marker {
    start: usize,
    length: usize,
}

impl Marker {
    /// Maps the first page of a file that may be read.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let length = page_size();
        // SAFETY: a mapping at an address of the system's choice takes nothing away from anybody.
        let start =
            unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE, file, 0) }?;
        Ok(Self { start: start.expose_provenance(), length })
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `of`, belongs to this value alone, and no borrow of it was ever made.
        let unmapped = unsafe { munmap(ptr::with_exposed_provenance_mut(self.start), self.length) };
        // It fails only where the process has no mapping left to give, and then the page stays.
        let _ = unmapped;
    }
}

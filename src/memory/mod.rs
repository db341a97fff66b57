//! The only room with `unsafe`: mapping files, and making code executable.
//!
//! Code that is copied goes through two types: [`WritableCode`] can be written and not executed, [`CodeMemory`] can be
//! executed and not written. No page is ever both. Between the two stand the caller's checks, which read the very bytes that
//! will run.

#![expect(unsafe_code, reason = "this is the room for it; every block carries its proof")]

mod code;
mod coherence;
mod counted;
mod image;
#[cfg(test)]
#[cfg(loom)]
mod orders;
mod pages;
mod readers;
mod shared;
mod sync;

use std::num::NonZero;

pub(crate) use code::{CodeMemory, TRAP, WritableCode};
pub(crate) use counted::Counted;
pub(crate) use image::{FileMap, FilePages};
pub(crate) use shared::{Shared, Writing};

/// How the bytes of entries get from their files into memory, and where their code runs.
///
/// This is the door at which a caller makes the promise that mapping needs; everything behind it is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub(crate) mode: Mode,
    /// Size of the largest file that is opened, in bytes.
    pub(crate) limit: u64,
}

/// The kinds of [`Access`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Map(Unchanging),
    InPlace(Unchanging, Check),
}

/// Whether code that runs from its file is checked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// By that many threads.
    Checked(NonZero<usize>),
    VouchedFor,
}

/// The promise of [`Access::map`]: only the doors make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unchanging(());

impl Access {
    /// Files are read, and code is copied. Whatever happens to a file meanwhile, an entry is sound or rejected.
    ///
    /// On Unix, [`Store::load`](crate::Store::load) leaves a source map of more than 65536 rows in its file, which the module
    /// keeps open until it is dropped, and reads it when it is first used: see
    /// [`Module::check_source_map`](crate::Module::check_source_map). That of a sealed entry has a digest to be checked against;
    /// a plain entry's is what stands in the file then.
    pub const READ: Self = Self::of(Mode::Read);

    /// Files are mapped, except small ones, which are read faster than mapped, and code is copied.
    ///
    /// # Safety
    ///
    /// While anything that was opened with this access is alive - [`FileBytes`](crate::FileBytes),
    /// [`Store`](crate::Store), [`Cache`](crate::Cache), [`Module`](crate::Module) - nobody may change a file that it
    /// opened in place or shorten it, in this process or another. Replacing the file by renaming another one over it is
    /// allowed, and so is removing it: that is how a [`Store`](crate::Store) and wazero write.
    #[must_use]
    pub const unsafe fn map() -> Self {
        Self::of(Mode::Map(Unchanging(())))
    }

    /// Files are mapped, and code runs from the map, checked first: nothing is copied, and processes share the memory.
    ///
    /// Code is copied all the same if its functions are not aligned in the file as the identity wants them, see
    /// [`Identity::with_alignment_in_file`](crate::Identity::with_alignment_in_file), and if the system lets nothing run
    /// from the file: [`Module::is_in_place`](crate::Module::is_in_place) tells.
    ///
    /// Pages are made executable before their code is checked, when nobody knows where it is. All of a file of up to 256 KiB is
    /// executable until a load has found its code; of a module, only pages that hold code are.
    ///
    /// # Safety
    ///
    /// The promise of [`Access::map`], on which here also depends that the code that was checked is the code that runs.
    #[must_use]
    pub const unsafe fn in_place() -> Self {
        Self::of(Mode::InPlace(Unchanging(()), Check::Checked(NonZero::<usize>::MIN)))
    }

    /// Sets how many threads check large code that [`Access::in_place`] maps, which is one otherwise.
    ///
    /// Each takes 2 MiB at least, so smaller code starts none; they are started by the load and end before it does. A MAC
    /// is made by one thread all the same.
    #[must_use]
    pub const fn with_threads(mut self, threads: NonZero<usize>) -> Self {
        if let Mode::InPlace(_, Check::Checked(one)) = &mut self.mode {
            *one = threads;
        }
        self
    }

    /// Files are mapped, and code runs from the map as it is: neither the code nor the function offsets are looked at.
    ///
    /// Loading takes the same time for every size, because a page of the map is first looked at when it is used. What a load
    /// looks at itself, lengths, key and machine, it reads from the file. On Unix,
    /// [`Store::load`](crate::Store::load) leaves a source map of more than 65536 rows in its file as [`Access::READ`] does, and
    /// maps it when it is first used.
    ///
    /// # Safety
    ///
    /// The promise of [`Access::map`]; and every file that is opened must be whole and sound, as if it had been verified.
    #[must_use]
    pub const unsafe fn in_place_unchecked() -> Self {
        Self::of(Mode::InPlace(Unchanging(()), Check::VouchedFor))
    }

    /// Sets the size of the largest file that is taken for an entry, in bytes; larger ones are rejected. It is 4 GiB
    /// otherwise.
    ///
    /// A file costs its writer nothing that is full of holes, and its reader as much memory as it is long.
    #[must_use]
    pub const fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    const fn of(mode: Mode) -> Self {
        Self { mode, limit: 1 << 32 }
    }
}

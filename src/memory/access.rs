//! The doors at which a caller promises what mapping needs.

/// How the bytes of entries get from their files into memory, and where their code runs.
///
/// This is the door at which a caller makes the promise that mapping needs; everything behind it is safe.
///
/// | | checked | code | a load of 1 MiB takes | the caller promises |
/// |---|---|---|---|---|
/// | [`Access::READ`] | every byte but the source map's, which is checked when it is used | in memory of its own | reading | nothing |
/// | [`Access::map`] | the same | in memory of its own | copying | that files are replaced, never changed |
/// | [`Access::in_place`] | the same | in the file's pages, which processes share | summing | the same |
/// | [`Access::in_place_unchecked`] | lengths, key and machine | in the file's pages | a few system calls | the same, and that files are sound |
///
/// Nothing is mapped, but read as by [`Access::READ`], from network file systems and those that a program offers
/// (FUSE), as far as Linux, macOS and FreeBSD tell; and once this crate holds half of the mappings that Linux lets the
/// process have (`vm.max_map_count`). Nothing runs in the file's pages in a program under the hardened runtime of macOS.
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
    Checked,
    Unchecked,
}

/// The promise of [`Access::map`]: only the doors make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unchanging(pub(super) ());

impl Access {
    /// Files are read, and code runs in pages of its own. Whatever happens to a file meanwhile, an entry is sound or
    /// rejected.
    ///
    /// [`Store::load`](crate::Store::load) leaves a source map of more than 65536 rows in its file, which the module keeps
    /// open until the map was read: see [`Module::check_source_map`](crate::Module::check_source_map). At
    /// most 64 files, and no more than an eighth of those that the process may open, are kept so; of others the map is
    /// read at once. A plain entry's source map, which has no digest, is what stands in the file when it is read.
    pub const READ: Self = Self::of(Mode::Read);

    /// Files are mapped, except small ones, which are read faster than mapped, and code is copied.
    ///
    /// # Safety
    ///
    /// While anything that was opened with this access is alive - [`FileBytes`](crate::FileBytes),
    /// [`Store`](crate::Store), [`Cache`](crate::Cache), [`Module`](crate::Module):
    ///
    /// - Nobody may change a file that it opened in place or shorten it, in this process or another. Replacing the file
    ///   by renaming another one over it is allowed, and so is removing it: that is how a [`Store`](crate::Store) and
    ///   wazero write.
    /// - On systems that do not tell of a file system that it is another machine's, the files must not lie on one:
    ///   there, replacing or removing one takes pages away, and the next look at one is a SIGBUS.
    /// - The device must go on giving the bytes that it gave: the system may drop pages of a file and read them again,
    ///   which nobody checks a second time; a device that fails then is a SIGBUS, too.
    #[must_use]
    pub const unsafe fn map() -> Self {
        Self::of(Mode::Map(Unchanging(())))
    }

    /// Files are mapped, and code runs from the map, checked first: nothing is copied, and processes share the memory.
    ///
    /// What cannot run in place is read as by [`Access::READ`]: code that is not aligned in its file as the identity
    /// wants it, see [`Identity::with_alignment_in_file`](crate::Identity::with_alignment_in_file) - wazero's own
    /// entries never are - and everything on a file system from which nothing may run.
    /// [`Module::is_in_place`](crate::Module::is_in_place) tells.
    ///
    /// The first and the last page of the code are executable as a whole, with what the file has there beside the code.
    /// All of a file of up to 256 KiB is executable until a load has found its code.
    ///
    /// # Safety
    ///
    /// The promise of [`Access::map`], on which here also depends that the code that was checked is the code that runs.
    #[must_use]
    pub const unsafe fn in_place() -> Self {
        Self::of(Mode::InPlace(Unchanging(()), Check::Checked))
    }

    /// Files are mapped, and code runs from the map as it is: neither the code nor the function offsets are looked at.
    ///
    /// Loading takes the same time for every size, because a page of the map is first looked at when it is used. What a
    /// load looks at itself, lengths, key and machine, it reads from the file.
    /// [`Store::load`](crate::Store::load) leaves a source map of more than 65536 rows in its file as [`Access::READ`]
    /// does, and maps it when it is first used.
    ///
    /// # Safety
    ///
    /// The promise of [`Access::map`]; and every file that is opened must be whole and sound, as if it had been
    /// verified. What a store with another access has put is so only if it was synced, or the machine was not cut off
    /// from power since: see [`Durability`](crate::Durability). A store with this access syncs what it puts.
    #[must_use]
    pub const unsafe fn in_place_unchecked() -> Self {
        Self::of(Mode::InPlace(Unchanging(()), Check::Unchecked))
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

    /// Returns whether code is to run from the files.
    pub(crate) const fn runs_in_place(self) -> bool {
        matches!(self.mode, Mode::InPlace(..))
    }

    const fn of(mode: Mode) -> Self {
        Self { mode, limit: 1 << 32 }
    }
}

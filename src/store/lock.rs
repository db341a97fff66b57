//! Who compiles what of a store, among processes.

use super::Store;
use crate::error::Error;
use crate::file::{self, FileId, LOCK, Lock};
use crate::words::Key;

impl Store {
    /// Returns whether the locks of the directory are to be relied upon, as they are the kernel's of this machine;
    /// `None` if the directory cannot be opened.
    pub(crate) fn has_local_locks(&self) -> Option<bool> {
        file::are_locks_local(&self.directory)
    }

    /// Takes the lock of a key, or returns `None` if another process has it, or a thread by another cache. Nobody is
    /// waited for.
    ///
    /// All keys of the directory have their locks in one file, at a byte that follows from all of the key. Two keys may
    /// have the same.
    pub(crate) fn try_lock(&self, key: &Key) -> Result<Option<Lock>, Error> {
        self.check_writable()?;
        let (words, _) = key.as_bytes().as_chunks();
        // Of the sign in the offset of a file of old 32-bit systems there is no bit left.
        let byte = words.iter().fold(0, |byte, word| byte ^ u32::from_le_bytes(*word)) >> 1;
        file::try_lock(&self.temporaries().join(LOCK), self.modes, byte)
    }

    /// Returns which file has the name of a key, if any that is seen has it.
    pub(crate) fn file_of(&self, key: &Key) -> Option<FileId> {
        file::look(&self.path(key)).ok().flatten()
    }
}

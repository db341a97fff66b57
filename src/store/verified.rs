//! An entry that owns the bytes of its file.

use crate::entry::{Entry, Identity};
use crate::error::Error;
use crate::format::Run;
use crate::load::FileBytes;
use crate::words::Key;

/// An entry every byte of which was checked, with the bytes of its file. Returned by
/// [`Store::get_verified`](crate::Store::get_verified).
#[derive(Debug)]
pub struct Verified {
    file: FileBytes,
    /// The entry without its bytes.
    entry: Entry<'static>,
}

impl Verified {
    /// Checks the entry that a file is.
    pub(super) fn of(file: FileBytes, identity: &Identity, key: &Key) -> Result<Self, Error> {
        let entry = Entry::parse(&file, identity)?;
        entry.check_key(key)?;
        entry.verify()?;
        let entry = entry.within(Run::ABSENT);
        Ok(Self { file, entry })
    }

    /// Returns the entry. That takes no memory, and nothing is checked again.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        self.entry.within(Run::new(&self.file))
    }

    /// Returns the bytes of the file, as [`Module::load_file`](crate::Module::load_file) takes them.
    #[must_use]
    pub fn into_file(self) -> FileBytes {
        self.file
    }
}

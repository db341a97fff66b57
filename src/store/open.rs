//! Opening a store.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::Store;
use super::options::StoreOptions;
use super::room::Budget;
use crate::entry::Identity;
use crate::error::Error;
use crate::file::{self, Trusted};
#[cfg(unix)]
use crate::file::{Modes, Trust};
use crate::load::Linker;
use crate::memory::Access;

impl StoreOptions {
    /// Opens the directory of the identity under `root`, and creates it if need be, unless it is opened for reading
    /// alone.
    ///
    /// A root that is relative is that of now, whatever directory the process changes to, and so is one that links lead
    /// to, whatever becomes of them. If the directory vanishes,
    /// the next put makes it again. A root that is made gets a `CACHEDIR.TAG`, by which programs know that it need not
    /// be kept or copied. A directory that is there may be one that this user cannot write to: then its entries are
    /// found, and a put is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Untrusted`] for a directory that the [`Trust`] forbids, and then nothing is created; [`Error::Io`] if
    /// the directory cannot be found or created, or one that was made does not take its mode.
    pub fn open(self, root: impl AsRef<Path>) -> Result<Store, Error> {
        let directory = root.as_ref().join(self.identity.directory_name());
        let directory = std::path::absolute(&directory).map_err(file::failed("find", &directory))?;
        #[cfg(unix)]
        let (trusted, modes) =
            (Trusted::new(self.trust), self.modes.or((self.trust == Trust::Group).then_some(Modes::GROUP)));
        #[cfg(not(unix))]
        let (trusted, modes) = (Trusted::ANYONE, self.modes);
        // Before anything is made: a directory of root's in another's place would be in that one's way.
        trusted.check_directory(&directory)?;
        if !self.is_read_only {
            let new_root = directory.parent().filter(|root| !root.exists());
            file::create_directory(&directory, modes)?;
            if let Some(root) = new_root {
                file::tag(root, modes);
            }
        }
        // Whoever can exchange a link in the path that was given leads nobody elsewhere from here on.
        let directory = file::resolved(directory);
        trusted.check_directory(&directory)?;
        Ok(Store {
            directory,
            identity: self.identity,
            access: Access::READ,
            linker: Linker::default(),
            modes,
            trusted,
            durability: self.durability,
            budget: self.budget.map(Budget::new),
            is_read_only: self.is_read_only,
            swept: AtomicBool::new(false),
            bases: Vec::new(),
        })
    }
}

impl Store {
    /// Opens the directory of `identity` under `root`, and creates it if need be, for this user alone: as
    /// [`StoreOptions::open`] does with nothing set.
    ///
    /// # Errors
    ///
    /// Those of [`StoreOptions::open`].
    pub fn open(root: impl AsRef<Path>, identity: Identity) -> Result<Self, Error> {
        Self::options(identity).open(root)
    }

    /// Returns how a store of `identity` is opened, to be set otherwise.
    pub const fn options(identity: Identity) -> StoreOptions {
        StoreOptions::new(identity)
    }
}

//! How a store is opened.

use crate::entry::Identity;
use crate::file::Modes;
#[cfg(unix)]
use crate::file::Trust;

/// Whether [`Store::put`](crate::Store::put) waits until the entry survives a power cut.
///
/// Entries that nobody checks when they are read are synced always: plain ones, and those of a store whose access is
/// [`Access::in_place_unchecked`](crate::Access::in_place_unchecked).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing is waited for. What was put in the last seconds before a power cut may be lost or torn; a torn entry is
    /// rejected when it is read, and compiled again.
    #[default]
    Lazy,
    /// The entry and its name are synced: what was put is there after a power cut.
    Synced,
}

/// How a [`Store`](crate::Store) is opened. Made by [`Store::options`](crate::Store::options).
///
/// ```
/// use jitcache::{Cache, Identity, Store};
///
/// # let root = std::env::temp_dir().join(format!("jitcache-options-{}", std::process::id()));
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let base = Store::options(identity.clone()).read_only().open("/usr/lib/myjit/cache")?;
/// let own = Store::options(identity).open(&root)?;
/// # std::fs::remove_dir_all(&root).unwrap();
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened yet"]
pub struct StoreOptions {
    pub(super) identity: Identity,
    pub(super) is_read_only: bool,
    pub(super) modes: Option<Modes>,
    pub(super) durability: Durability,
    pub(super) budget: Option<u64>,
    #[cfg(unix)]
    pub(super) trust: Trust,
}

impl StoreOptions {
    pub(super) const fn new(identity: Identity) -> Self {
        Self {
            identity,
            is_read_only: false,
            modes: None,
            durability: Durability::Lazy,
            budget: None,
            #[cfg(unix)]
            trust: Trust::User,
        }
    }

    /// Opens what somebody else has put there, such as in an image.
    ///
    /// Nothing is created, written or removed, not by a [`Cache`](crate::Cache) either. The directory need not exist:
    /// then every entry is missed. This user must be able to read the files. A call that would change something returns
    /// [`Error::ReadOnly`](crate::Error::ReadOnly).
    pub const fn read_only(mut self) -> Self {
        self.is_read_only = true;
        self
    }

    /// Sets the modes of what the store makes, now and later, for several users. Otherwise it is for this user alone,
    /// or with [`Trust::Group`] for a group, [`Modes::GROUP`]. Modes do not change who is trusted: where a group may
    /// write, nothing is taken without [`Trust::Group`].
    ///
    /// ```no_run
    /// use jitcache::{Identity, Modes, Store};
    ///
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// // Everybody may read what this user writes.
    /// let modes = Modes { directories: 0o755, files: 0o644 };
    /// let store = Store::options(identity).modes(modes).open("/var/cache/myjit")?;
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    #[cfg(unix)]
    pub const fn modes(mut self, modes: Modes) -> Self {
        self.modes = Some(modes);
        self
    }

    /// Sets whether a put waits until the entry survives a power cut; otherwise it does not.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets how many bytes the entries of this engine may take under the root, those of all versions and targets
    /// together.
    ///
    /// A process counts what is there each time it has put a sixteenth of the budget, and first after what is left to
    /// chance, a sixty-fourth at most: counting looks at every entry, and of many processes that put little few have
    /// to. If there is more than the budget, it removes entries until three quarters of it are left: those of other
    /// versions first, then the least recently used. A hit marks its entry as used by the modification time, once an
    /// hour at most. An entry that is longer than three quarters of the budget is not put, and goes first if it is
    /// there.
    ///
    /// A put removes for a second at most; if more than the budget is left then, the next one goes on. Nobody who waits
    /// for the module waits for that. One process at a time removes; another whose turn it is waits for it, for 50 ms at
    /// most. Where no lock can be had, several remove at a time, the same entries.
    ///
    /// The entries take at most the budget, and for each process that puts a sixteenth of it and one entry more. They
    /// take more than that only while a removal runs longer than its second. Processes that end before they count add
    /// about a sixty-fourth of the budget before one of them does. Temporary files, and what a file takes on the disk
    /// beyond its length, are not counted; nor is what this user cannot look at.
    ///
    /// Nothing else is removed than regular files that have the name of an entry, in directories that have a name of
    /// this engine's and belong to those who are trusted, and such directories, with their locks and their tally, when
    /// nothing else is in them. An entry that is removed while it is loaded, or mapped, stays there for whoever has it.
    /// A file of the engine's name with `.lock` behind it stands in the root.
    pub const fn budget(mut self, bytes: u64) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Sets whose directories and entries are taken; otherwise those are of this user and root.
    #[cfg(unix)]
    pub const fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }
}

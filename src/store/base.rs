//! What a store asks for what it has not got itself.

use std::fmt::Debug;
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::lookup::Lookup;
use super::verified::Verified;
use crate::entry::Identity;
use crate::error::Error;
use crate::load::{FileBytes, Linker, Module};
use crate::words::Key;

/// What lies below a [`Store`](crate::Store) and is only read: another store, or a [`Pack`](crate::Pack). Taken by
/// [`Store::with_base`](crate::Store::with_base).
#[derive(Debug)]
pub struct Base(pub(super) Box<dyn Layer>);

/// What entries can be looked up in.
pub(super) trait Layer: Debug + Send + Sync + UnwindSafe + RefUnwindSafe {
    fn identity(&self) -> &Identity;

    fn get(&self, key: &Key) -> Result<Lookup<FileBytes>, Error>;

    fn get_verified(&self, key: &Key) -> Result<Lookup<Verified>, Error>;

    fn load_with(&self, key: &Key, linker: &Linker) -> Result<Lookup<Module>, Error>;
}

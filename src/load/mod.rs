//! From a file to code that can be called: file, image, entry, code, module.

mod bytes;
mod image;
mod left;
mod linker;
mod loading;
mod module;
mod outline;
mod pack;
mod parts;
mod places;
mod source;

pub use bytes::FileBytes;
pub use linker::Linker;
pub use module::{Location, Module, ModuleId};
pub use outline::Outline;
pub(crate) use outline::read_recipe;
pub(crate) use pack::PackFile;
pub(crate) use source::Source;

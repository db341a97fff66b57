//! From a file to code that can be called: file, image, entry, code, module.

mod bytes;
mod image;
mod left;
mod module;
mod read;

pub use bytes::FileBytes;
pub use module::{Location, Module};

//! From a file to code that can be called: file, image, entry, code, module.

mod around;
mod bytes;
mod module;

pub use bytes::FileBytes;
pub use module::{Location, Module};

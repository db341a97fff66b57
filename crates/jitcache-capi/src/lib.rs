//! The cache for engines in C, and in what calls C: C++, Zig, Go by cgo.
//!
//! `include/jitcache.h` declares it all. Handles are opaque, and belong to whoever got them until they are freed; that
//! of a builder belongs to the cache that calls for it. What may fail returns 0, or a number that never changes: that of
//! the library's error, see `Error::number`, or one of [`NOT_COMPILED`], [`PANICKED`] and [`NOT_TEXT`]. The error's text
//! is [`jitcache_error_text`] in the same thread.
//!
//! # Safety
//!
//! What holds of every function here: a pointer to a handle is one that a function of this library gave out and that was
//! not freed; text ends with a zero; pointers beside a length lead to so many bytes, and may be null if it is 0; a pointer
//! to a result may be written to. A handle may be used by several threads at once if it is of a cache or a module.

mod builder;
mod cache;
mod error;
mod identity;
mod module;

pub use builder::*;
pub use cache::*;
pub use error::*;
pub use identity::*;
pub use module::*;

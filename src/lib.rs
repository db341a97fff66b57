//! x
mod builder;
mod cpu;
mod entry;
mod error;
mod format;
mod identity;
mod key;
mod tables;
mod target;
pub use builder::*;
pub use cpu::*;
pub use entry::*;
pub use error::*;
pub use format::CatchClause;
pub use identity::*;
pub use key::*;
pub use tables::*;
pub use target::*;

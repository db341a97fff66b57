//! Entries: views of them, what they are bound to and named by, and how one is made. No I/O, no `unsafe`.

mod alignment;
mod builder;
mod digest;
mod identity;
mod parse;
mod recipe;
mod seal;
mod sealing;
mod tables;
mod view;
mod within;

pub use crate::format::CatchClause;
pub use alignment::Alignment;
pub use builder::Builder;
pub use digest::MacKey;
pub(crate) use digest::Sum;
pub use identity::{Identity, Sealing};
pub use recipe::KeyBuilder;
pub(crate) use seal::{METADATA, Sections, SourceMapDigest};
pub use tables::{Clauses, FunctionOffsets, Locals, SourceMap, SourceRow, TryTable, TryTables};
pub use view::Entry;
pub(crate) use view::read_header;

//! Entries: views of them, what they are bound to and named by, and how one is made. No I/O, no `unsafe`.

mod alignment;
mod append;
mod builder;
mod digest;
mod found;
mod identity;
mod layout;
mod link;
mod linkage;
mod pack;
mod parse;
mod patch;
mod recipe;
mod seal;
mod sealing;
mod symbols;
mod tables;
mod unwind;
mod view;
mod within;

pub use crate::format::CatchClause;
pub use alignment::Alignment;
pub use builder::Builder;
pub use digest::MacKey;
pub(crate) use digest::Sum;
pub use identity::{Identity, Sealing};
pub(crate) use linkage::Linkage;
pub use linkage::{Imports, Relocation};
pub(crate) use pack::{PackBuilder, PackIndex};
pub use recipe::KeyBuilder;
pub(crate) use seal::{METADATA, SYMBOLS, Sections, SourceMapDigest};
pub use symbols::{Symbol, Symbols};
pub use tables::{Clauses, FunctionOffsets, Locals, SourceMap, SourceRow, TryTable, TryTables};
pub use view::Entry;
pub(crate) use view::read_header;

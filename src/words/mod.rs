//! The words that everything else is told in: machines, versions, keys, sizes. No I/O, no format, no errors.

mod cpu;
mod key;
mod magic;
mod relocation;
mod revision;
mod size;
mod target;

pub use cpu::CpuFeatures;
pub use key::Key;
pub use magic::{Magic, Version};
pub use relocation::{Place, RelocationKind};
pub use revision::Revision;
pub(crate) use size::{STEP, size};
pub use target::{Arch, Os, Target};

//! A cache format for compiled machine code: write it once, find it again, know that it is whole, have it executable in
//! microseconds.
//!
//! Engines that compile at run time - WebAssembly runtimes, query compilers, regex, eBPF and language JITs - compile
//! again at every start. With this crate they keep the code. The format is that of wazero's compilation cache, and
//! wazero's own directories open as they are; other engines use it under a magic and version of their own.
//!
//! ```
//! # #[cfg(all(target_arch = "x86_64", feature = "cache"))] {
//! use jitcache::{Cache, Error, Identity, Key};
//!
//! # let root = std::env::temp_dir().join(format!("jitcache-lib-{}", std::process::id()));
//! let identity = Identity::new("myjit", *b"MYJIT\0", env!("CARGO_PKG_VERSION"))?;
//! let cache = Cache::open_or_in_memory(&root, identity);
//!
//! let program = b"fn main() { 42 }";
//! let key = Key::of(cache.identity()).source(program).flag("opt", "2").finish();
//! let module = cache.get_or_compile(&key, |entry| {
//!     entry.code(vec![0xb8, 0x2a, 0, 0, 0, 0xc3]); // what the compiler made: mov eax, 42; ret
//!     entry.function(0).source(0, 12);
//!     Ok::<(), Error>(())
//! })?;
//!
//! let main = module.function(0).unwrap();
//! // SAFETY: the code of `main` takes nothing and returns an int, in the C calling convention.
//! let main: extern "C" fn() -> i32 = unsafe { std::mem::transmute(main) };
//! assert_eq!(main(), 42);
//! assert_eq!(cache.locate(module.address_range().start + 5).unwrap().source, Some(12));
//! # std::fs::remove_dir_all(&root).unwrap();
//! # }
//! # Ok::<(), jitcache::Error>(())
//! ```
//!
//! An entry is bound to the machine it was compiled on, and [`Key::of`] names it after all that makes a reader reject
//! it: the features of the processor - [`Identity::with_cpu`] sets fewer -, the build -
//! [`Identity::with_build_of_program`] -, the sealing, the alignment. So machines, builds and settings may share a
//! directory.
//!
//! Each floor can be used without those above it:
//!
//! | floor | types |
//! |---|---|
//! | the format: bytes in, a borrowed view out | [`Entry`], [`Builder`], [`Identity`], [`Key`], [`Recipe`] |
//! | the loader: code in executable pages | [`Module`], [`FileBytes`], [`Outline`], [`Access`], [`Registry`] |
//! | the store: a directory that processes share | [`Store`], [`StoreOptions`], [`Batch`], [`Lookup`], [`Verified`], [`Pack`], [`Base`] |
//! | the cache: memory over store over compiler | [`Cache`] |
//!
//! The tables of an entry are in [`entry`], what an error tells in [`error`], and how wazero names things in
//! [`wazero`].
//!
//! The feature `cache`, which is on by default, has all but the first. Without it no operating system is needed:
//! entries are parsed, verified and built, and keys made, on any machine, WebAssembly among them.
//! `Identity::with_build_of_program` is left out with it, and no variant of [`Error`] is. It changes no byte of an
//! entry.
//!
//! # What is promised
//!
//! Any bytes whatever can be parsed, verified and loaded: the outcome is a sound entry or an error that says what is
//! wrong and where, never a panic, and never an allocation for a length that the file does not have. Where there is no
//! memory for what a file holds or an engine hands in, the outcome is [`Error::Memory`]; small allocations of fixed
//! length abort, as everywhere in Rust. *Running* code is the engine's own `unsafe`. Checksums find damage and not
//! malice: whoever can write to the directory can have their code run.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "cache"), allow(dead_code, unused_imports, reason = "what only the loader asks for"))]

#[cfg(feature = "cache")]
mod cache;
pub mod entry;
pub mod error;
#[cfg(feature = "cache")]
mod file;
mod format;
#[cfg(feature = "cache")]
mod load;
#[cfg(feature = "cache")]
mod memory;
#[cfg(feature = "object")]
mod object;
#[cfg(feature = "cache")]
mod program;
#[cfg(feature = "cache")]
mod registry;
#[cfg(feature = "cache")]
mod store;
pub mod wazero;
mod words;

#[cfg(feature = "cache")]
pub use cache::{Cache, Event};
#[doc(inline)]
pub use entry::{Alignment, Builder, Entry, Identity, MacKey, Recipe, Sealing};
#[doc(inline)]
pub use error::{Error, Result};
#[cfg(all(feature = "cache", unix))]
pub use file::{Modes, Trust};
#[cfg(feature = "cache")]
pub use load::{FileBytes, Linker, Location, Module, ModuleId, Outline};
#[cfg(feature = "cache")]
pub use memory::Access;
#[cfg(feature = "cache")]
pub use registry::Registry;
#[cfg(feature = "cache")]
pub use store::batch::Batch;
#[cfg(feature = "cache")]
pub use store::{
    Base, Durability, Explanation, Lookup, Near, OtherVersion, Pack, Statistics, Store, StoreOptions, Trimmed,
    Verified, default_root,
};
pub use words::{Arch, CpuFeatures, Key, Magic, Os, Place, RelocationKind, Revision, Target, Version};

#[doc = include_str!("../SPEC.md")]
pub mod spec {}

#[cfg(all(doctest, feature = "cache"))]
#[doc = include_str!("../README.md")]
mod readme {}

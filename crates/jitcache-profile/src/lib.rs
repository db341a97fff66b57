//! Names of loaded code for profilers and debuggers, out of the modules of [`jitcache`].
//!
//! | | what it tells | who reads it | unloading |
//! |---|---|---|---|
//! | [`PerfMap`] | address, length and name of each function | `perf`, and most profilers of Linux | cannot be told |
//! | [`Jitdump`] | the same with code bytes, source lines and times | `perf inject --jit` | told by what comes later at the address |
//! | `gdb`, with the feature `gdb` | a symbol for each function | GDB, and LLDB after `settings set plugin.jit-loader.gdb.enable on` | told |
//!
//! The first two are of Linux, the third of every Unix whose programs are ELF: elsewhere they do not exist. What an
//! engine does not make costs nothing, and what fails is returned: the module is loaded and runs all the same. All of it
//! may be called from many threads at once.
//!
//! ```
//! # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
//! use jitcache::{Builder, Identity, Key, Module};
//! use jitcache_profile::PerfMap;
//!
//! // Once, if the engine's user asks for it: small code is to lie where `perf` and breakpoints reach it.
//! Module::keep_apart();
//! let map = PerfMap::open();
//! # let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
//! # let mut builder = Builder::new();
//! # builder.code(&[0xc3][..]).function_named(0, 1, "main");
//! # let module = Module::load(&builder.finish(&identity, &Key::of(&identity).source(b"").finish())?)?;
//! // For each module, where it is loaded, be it compiled now or before:
//! if let Ok(map) = &map
//!     && let Err(error) = map.add(&module, "myjit")
//! {
//!     eprintln!("perf will not know the functions: {error}");
//! }
//! # std::fs::remove_file(format!("/tmp/perf-{}.map", std::process::id())).unwrap();
//! # }
//! # Ok::<(), jitcache::Error>(())
//! ```
//!
//! # Entries are stored before a debugger sees the code
//!
//! A debugger writes its breakpoints into code. None gets into an entry: [`Cache::get_or_compile`] and [`Cache::add`]
//! write what the compiler handed over to the store, or for write-behind to memory of its own, before they make it
//! executable. Code in place is mapped such that a debugger cannot change the file. An engine that takes the lower floors
//! keeps to the same order: first [`Store::put`], then [`Module::load`]; and builds no entry out of [`Module::code`].
//!
//! [`Cache::get_or_compile`]: jitcache::Cache::get_or_compile
//! [`Cache::add`]: jitcache::Cache::add
//! [`Module::code`]: jitcache::Module::code
//! [`Store::put`]: jitcache::Store::put
//! [`Module::load`]: jitcache::Module::load

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(target_os = "linux", all(feature = "gdb", unix, not(target_vendor = "apple"))))]
mod bytes;
#[cfg(all(feature = "gdb", unix, not(target_vendor = "apple")))]
mod elf;
#[cfg(target_os = "linux")]
mod file;
#[cfg(all(feature = "gdb", unix, not(target_vendor = "apple")))]
pub mod gdb;
#[cfg(target_os = "linux")]
mod jitdump;
#[cfg(all(feature = "gdb", unix, not(target_vendor = "apple")))]
mod list;
#[cfg(any(target_os = "linux", all(feature = "gdb", unix, not(target_vendor = "apple"))))]
mod machine;
#[cfg(target_os = "linux")]
mod marker;
mod names;
#[cfg(target_os = "linux")]
mod perf_map;
#[cfg(any(target_os = "linux", all(feature = "gdb", unix, not(target_vendor = "apple"))))]
mod process;

#[cfg(target_os = "linux")]
pub use jitdump::{Jitdump, Line};
pub use names::Names;
#[cfg(target_os = "linux")]
pub use perf_map::PerfMap;

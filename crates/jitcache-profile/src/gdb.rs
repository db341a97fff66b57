//! GDB's interface for code that is made at run time: symbols of modules, for as long as they are loaded.
//!
//! GDB finds the two symbols of the interface, `__jit_debug_descriptor` and `__jit_debug_register_code`, in the symbol
//! table of the program or library, which must not be stripped of them. A program has them once: an engine that defines
//! them itself, or has another in its program that does, leaves the feature `gdb` off.
//!
//! # Costs
//!
//! Without GDB a module costs its object file, of some 24 bytes and the name for each function. With GDB each module
//! stops the program, and GDB goes over all that it was told before: n modules take it a time that grows with n². An
//! engine with many small modules registers those that somebody wants to look at.
//!
//! # What GDB gets
//!
//! Names and addresses of functions. Not lines of a source, which a breakpoint could be set at, and no unwind tables:
//! GDB finds callers by frame pointers and by what functions begin with.
//!
//! It writes breakpoints into code that was copied to pages of its own: on Linux, small code after
//! [`Module::keep_apart`]. Small code that lies beside that of others and code that runs in place are mapped as shared,
//! where Linux lets no debugger write, and GDB does not stop.

use std::fmt;
use std::io::{self, ErrorKind};

use jitcache::Module;

use crate::list::{self, Linked};
use crate::names::{Names, functions};
use crate::{elf, machine};

/// Symbols of a module that GDB knows until this is dropped.
///
/// It is dropped in time as a value that is attached to the module, or as a part of one: see [`Module::attach`]. If it
/// outlives the module, GDB shows names where there is no code any more.
#[must_use = "GDB forgets the module when this is dropped"]
pub struct Registered {
    _linked: Linked,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").finish_non_exhaustive()
    }
}

/// Tells GDB of the functions of a module, under the names of its symbols, or `names` where it has none.
///
/// ```
/// # #[cfg(all(target_arch = "x86_64", unix))] {
/// use jitcache::{Builder, Identity, Key, Module};
/// use jitcache_profile::gdb::{self, Registered};
///
/// # let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// # let mut builder = Builder::new();
/// # builder.code(&[0xc3][..]).function_named(0, 1, "main");
/// # let module = Module::load(&builder.finish(&identity, &Key::of(&identity).source(b"").finish())?)?;
/// // A module of a cache is handed out more than once.
/// if module.attached::<Registered>().is_none()
///     && let Ok(registered) = gdb::register(&module, "myjit")
/// {
///     let _ = module.attach(registered); // another thread was faster
/// }
/// # assert!(module.attached::<Registered>().is_some());
/// # }
/// # Ok::<(), jitcache::Error>(())
/// ```
///
/// # Errors
///
/// [`Unsupported`](ErrorKind::Unsupported) if the machine has no number in ELF that is known here;
/// [`WouldBlock`](ErrorKind::WouldBlock) in a child of `fork`, if another thread was registering at its moment. The
/// module is not harmed.
pub fn register(module: &Module, names: impl Names) -> io::Result<Registered> {
    let machine = machine::number().ok_or(ErrorKind::Unsupported)?;
    let object = elf::object(machine, &module.address_range(), functions(module, names));
    Ok(Registered { _linked: list::link(object)? })
}

//! What loaded code is bound to.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use crate::entry::{Linkage, check_records};
use crate::error::Error;
use crate::format::Run;
use crate::memory::{CodeMemory, ImageParts, WritableImage};
use crate::words::size;

/// What an engine gives the code that it loads: an address for every name that entries import.
///
/// Clones share it. The address of a name may be another in each process, and for each module: it is written to the
/// module alone.
///
/// ```
/// use jitcache::{Builder, Identity, Key, Linker, Module, Place, RelocationKind};
///
/// extern "C" fn answer() -> i32 {
///     42
/// }
///
/// # #[cfg(target_arch = "x86_64")] {
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let mut builder = Builder::new();
/// builder.code(&[0xe9, 0, 0, 0, 0][..]).function(0); // jmp answer
/// let answer_import = builder.import("answer");
/// builder.relocate(Place::Code(1), RelocationKind::X86CallPLTRel4, answer_import, -4);
///
/// let linker = Linker::new(|name| (name == "answer").then_some(answer as *const u8));
/// let key = Key::of(&identity).source(b"answer()").finish();
/// let module = Module::load_with(&builder.finish(&identity, &key)?, &linker)?;
/// // SAFETY: the code takes nothing and returns what `answer` does.
/// let main: extern "C" fn() -> i32 = unsafe { std::mem::transmute(module.function(0).unwrap()) };
/// assert_eq!(main(), 42);
/// # }
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Linker {
    resolve: Option<Arc<Resolve>>,
    unwinds: bool,
}

type Resolve = dyn Fn(&str) -> Option<*const u8> + Send + Sync;

impl Linker {
    /// Returns a linker that binds names to the addresses that `resolve` gives for them.
    ///
    /// It is called for every import of every module that is loaded, in the thread that loads it. A name for which
    /// there is `None` is an [`Error::UnboundImport`], and nothing runs.
    #[must_use]
    pub fn new(resolve: impl Fn(&str) -> Option<*const u8> + Send + Sync + 'static) -> Self {
        Self { resolve: Some(Arc::new(resolve)), unwinds: false }
    }

    /// Makes the unwind tables of modules known to the unwinder of the program, as long as each is loaded: panics and
    /// C++ exceptions pass through their code, and backtraces go on behind it.
    ///
    /// Only where the program unwinds with GCC's library, as it does on Linux with glibc; elsewhere nothing is made
    /// known. The unwinder looks through all modules whenever anything in the program unwinds, which takes longer the
    /// more there are. What is in the tables it trusts as the processor trusts the code.
    #[must_use]
    pub fn with_unwinding(mut self) -> Self {
        self.unwinds = true;
        self
    }

    fn address(&self, name: &[u8]) -> Result<u64, Error> {
        let bound = std::str::from_utf8(name).ok().zip(self.resolve.as_ref());
        let address = bound.and_then(|(name, resolve)| resolve(name));
        let address = address.and_then(|address| u64::try_from(address.addr()).ok());
        address.ok_or_else(|| Error::UnboundImport { name: name.escape_ascii().to_string().into() })
    }

    /// Fills data and slots of an image, and makes its code executable.
    #[expect(clippy::host_endian_bytes, reason = "the code of this machine reads the addresses")]
    pub(super) fn link(&self, linkage: &Linkage<'_>, mut image: WritableImage) -> Result<CodeMemory, Error> {
        let layout = &linkage.layout;
        let start = u64::try_from(image.address()).unwrap_or(0);
        let engine = start.wrapping_add(layout.engine);
        for (at, bytes) in [(layout.read_only.start, linkage.read_only), (layout.writable.start, linkage.writable)] {
            write(&mut image, at, bytes.bytes())?;
        }
        let slot = |import: u64| layout.slots.start.saturating_add(import.saturating_mul(8));
        for (import, name) in (0..).zip(linkage.imports.clone()) {
            write(&mut image, slot(import), &self.address(name)?.to_ne_bytes())?;
        }
        linkage.check_relocations()?;
        for relocation in linkage.relocations() {
            let target = match relocation.import {
                None => engine,
                Some(import) => {
                    let slot = image.data_mut(part(slot(import), 8));
                    slot.first_chunk().map_or(0, |address| u64::from_ne_bytes(*address))
                }
            };
            let at = layout.engine.saturating_add(relocation.place);
            write(&mut image, at, &target.wrapping_add(relocation.addend).to_ne_bytes())?;
        }
        let tables = if self.unwinds { linkage.unwind_tables()? } else { None };
        let tables = tables.map(|(tables, at)| (tables.at(), part(at, tables.length())));
        if let Some((at, place)) = &tables {
            // As they are now: addresses were written to them.
            check_records(Run::new_at(*at, image.data_mut(place.clone())))?;
        }
        let mut image = image.publish()?;
        if let Some((_, place)) = tables {
            image.register_unwinding(place);
        }
        Ok(CodeMemory::of_image(image))
    }
}

/// Returns where in memory the parts of an image lie.
pub(super) fn parts(linkage: &Linkage<'_>) -> ImageParts {
    let layout = &linkage.layout;
    let place = |at: u64, end: u64| part(at, end.saturating_sub(at));
    ImageParts {
        code: place(layout.code.start, layout.code.end),
        read_only: place(layout.read_only.start, layout.slots.end),
        writable: place(layout.writable.start, layout.writable.end),
    }
}

fn part(at: u64, length: u64) -> std::ops::Range<usize> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    place(at)..place(at.saturating_add(length))
}

fn write(image: &mut WritableImage, at: u64, bytes: &[u8]) -> Result<(), Error> {
    let to = image.data_mut(part(at, size(bytes)));
    if to.len() != bytes.len() {
        // Every place was checked, and the image was made for them.
        return Err(Error::Invalid { what: "image", rule: "must hold what is written to it" });
    }
    to.copy_from_slice(bytes);
    Ok(())
}

/// A resolver that panics has written nothing but a module that is dropped then.
impl UnwindSafe for Linker {}
impl RefUnwindSafe for Linker {}

impl fmt::Debug for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resolve, unwinds } = self;
        f.debug_struct("Linker").field("binds", &resolve.is_some()).field("unwinds", unwinds).finish()
    }
}

//! What an engine hands in when it has compiled.

use std::ffi::c_char;

use jitcache::RelocationKind;

use crate::error::{bytes, call, text};

/// The parts of an entry, which belong to the cache that calls for them.
#[derive(Debug)]
pub struct Builder(pub(crate) jitcache::Builder<'static>);

/// Parts of what lies together in memory once it is loaded.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// The code.
    Code,
    /// Data that nobody writes to.
    ReadOnly,
    /// Data that the code may write to.
    Writable,
    /// What the engine calls by a name.
    Import,
}

/// A place in a part: so many bytes behind its first one, or the number of an import.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// A `jitcache_part`. With any other number there is no such place, which finishing tells.
    pub part: u32,
    /// Offset in bytes, or number of the import.
    pub at: u64,
}

impl From<jitcache::Place> for Place {
    fn from(place: jitcache::Place) -> Self {
        // The numbers of the parts, as below.
        let (part, at) = match place {
            jitcache::Place::Code(at) => (0, at),
            jitcache::Place::ReadOnly(at) => (1, at),
            jitcache::Place::Writable(at) => (2, at),
            jitcache::Place::Import(import) => (3, import.into()),
        };
        Self { part, at }
    }
}

/// There is no import of that number, which finishing tells.
const NOWHERE: jitcache::Place = jitcache::Place::Import(u32::MAX);

impl From<Place> for jitcache::Place {
    fn from(Place { part, at }: Place) -> Self {
        match part {
            0 => Self::Code(at),
            1 => Self::ReadOnly(at),
            2 => Self::Writable(at),
            3 => u32::try_from(at).map_or(NOWHERE, Self::Import),
            _ => NOWHERE,
        }
    }
}

/// How an address is written, as the library's `RelocationKind` has it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub enum Relocation {
    /// 8 bytes, in data alone.
    Abs8,
    /// 4 bytes, relative to the place. Not of an import.
    X86PcRel4,
    /// The same of a call, which reaches an import through a stub.
    X86CallPcRel4,
    /// 4 bytes, relative to the place, of a slot that holds the address.
    X86GotPcRel4,
    /// `bl` and `b`, which reach an import through a stub.
    Arm64Call,
    /// `adrp`, of the slot that holds the address.
    Arm64AdrGotPage21,
    /// `ldr` of 8 bytes, of the slot that holds the address.
    Arm64Ld64GotLo12Nc,
    /// `adrp`. Not of an import.
    Arm64AdrPrelPgHi21,
    /// `add`. Not of an import.
    Arm64AddAbsLo12Nc,
}

/// The kinds by their numbers.
const KINDS: [RelocationKind; 9] = [
    RelocationKind::Abs8,
    RelocationKind::X86PCRel4,
    RelocationKind::X86CallPCRel4,
    RelocationKind::X86GOTPCRel4,
    RelocationKind::Arm64Call,
    RelocationKind::Aarch64AdrGotPage21,
    RelocationKind::Aarch64Ld64GotLo12Nc,
    RelocationKind::Aarch64AdrPrelPgHi21,
    RelocationKind::Aarch64AddAbsLo12Nc,
];

/// Sets the machine code, which is copied.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_builder_code(builder: *mut Builder, code: *const u8, length: usize) {
    // SAFETY: as the caller promises.
    let (builder, code) = unsafe { (&mut (*builder).0, bytes(code, length)) };
    builder.code(code.to_vec());
}

/// Adds a function that starts `offset` bytes into the code. Offsets must rise.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_builder_function(builder: *mut Builder, offset: u64) {
    // SAFETY: as the caller promises.
    unsafe { &mut (*builder).0 }.function(offset);
}

/// Adds a function of that length, and names it.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_builder_function_named(
    builder: *mut Builder,
    offset: u64,
    length: u64,
    name: *const c_char,
) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (builder, name) = unsafe { (&mut (*builder).0, text(name)?) };
        builder.function_named(offset, length, name);
        Ok(())
    })
}

/// Adds a row to the source map: the code from offset `code` on comes from `source`. Code offsets must rise.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_builder_source(builder: *mut Builder, code: u64, source: u64) {
    // SAFETY: as the caller promises.
    unsafe { &mut (*builder).0 }.source(code, source);
}

/// Finds the place of what the engine calls by `name`: `jitcache_options.resolve` has its address when the entry is
/// loaded.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_builder_import(builder: *mut Builder, name: *const c_char, place: *mut Place) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (builder, name) = unsafe { (&mut (*builder).0, text(name)?) };
        let import = builder.import(name).into();
        // SAFETY: as the caller promises.
        unsafe { place.write(import) };
        Ok(())
    })
}

/// Adds data, and returns the place of the first byte, a multiple of `alignment`: a power of two, at most 4096.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_builder_data(
    builder: *mut Builder,
    data: *const u8,
    length: usize,
    alignment: u64,
    is_writable: bool,
) -> Place {
    // SAFETY: as the caller promises.
    let (builder, data) = unsafe { (&mut (*builder).0, bytes(data, length)) };
    let place = if is_writable { builder.writable_data(data, alignment) } else { builder.data(data, alignment) };
    place.into()
}

/// Has the address of `target` written at `at`, `addend` added, by a `jitcache_relocation`; finishing tells of any other
/// number.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_builder_relocate(
    builder: *mut Builder,
    at: Place,
    kind: u32,
    target: Place,
    addend: i64,
) {
    let kind = usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind));
    let (kind, target) = kind.map_or((RelocationKind::Abs8, NOWHERE), |kind| (*kind, target.into()));
    // SAFETY: as the caller promises.
    unsafe { &mut (*builder).0 }.relocate(at.into(), kind, target, addend);
}

//! Code that can be called.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;

use crate::error::text;

/// A module in memory, which stays until it is freed.
#[derive(Debug)]
pub struct Module(pub(crate) Arc<jitcache::Module>);

/// Where a program counter is.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Location {
    /// Index of the function, or `SIZE_MAX` for bytes in front of the first one.
    pub function: usize,
    /// Offset in the code, in bytes.
    pub code: u64,
    /// Offset in the source, if there `has_source`.
    pub source: u64,
    /// Whether the source map has a row for it.
    pub has_source: bool,
}

impl Location {
    pub(crate) fn of(found: &jitcache::Location) -> Self {
        Self {
            function: found.function.unwrap_or(usize::MAX),
            code: found.code,
            source: found.source.unwrap_or(0),
            has_source: found.source.is_some(),
        }
    }
}

/// Returns the address of the function of that index, or null if there is none.
///
/// # Safety
///
/// As told at the top. Calling it is the engine's own: it has compiled what runs there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_module_function(module: *const Module, index: usize) -> *const c_void {
    // SAFETY: as the caller promises.
    unsafe { &(*module).0 }.function(index).map_or(ptr::null(), <*const u8>::cast)
}

/// Returns the address of the function or of the data of that name, or null if there is no symbol of it.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_module_symbol(module: *const Module, name: *const c_char) -> *const c_void {
    // SAFETY: as the caller promises.
    let (module, name) = unsafe { (&(*module).0, text(name)) };
    name.ok().and_then(|name| module.symbol(name)).map_or(ptr::null(), <*const u8>::cast)
}

/// Returns the number of functions.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_module_functions(module: *const Module) -> usize {
    // SAFETY: as the caller promises.
    unsafe { &(*module).0 }.functions().len()
}

/// Returns the code and its length in bytes; null if there is none.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_module_code(module: *const Module, length: *mut usize) -> *const u8 {
    // SAFETY: as the caller promises.
    let code = unsafe { &(*module).0 }.code();
    // SAFETY: as the caller promises.
    unsafe { length.write(code.len()) };
    if code.is_empty() { ptr::null() } else { code.as_ptr() }
}

/// Gives a module back; null is nothing. Its code is unmapped once nobody has it any more, the cache included.
///
/// # Safety
///
/// As told at the top, and none of its code runs, unless another handle of it is kept, or the cache, which has no memory
/// budget, still has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_module_free(module: *mut Module) {
    if !module.is_null() {
        // SAFETY: it came out of a box, and nobody uses it any more.
        drop(unsafe { Box::from_raw(module) });
    }
}

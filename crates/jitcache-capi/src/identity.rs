//! Who compiles, and what a key is made of.

use std::ffi::c_char;

use jitcache::{Arch, CpuFeatures, MacKey, Sealing};

use crate::error::{bytes, call, text};

/// The engine that entries belong to.
#[derive(Debug)]
pub struct Identity(pub(crate) jitcache::Identity);

/// A key in the making.
#[derive(Debug)]
pub struct KeyBuilder(jitcache::entry::KeyBuilder);

/// What an entry is named by.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its SHA-256.
    pub bytes: [u8; 32],
}

impl Key {
    pub(crate) const fn key(&self) -> jitcache::Key {
        jitcache::Key::from_bytes(self.bytes)
    }
}

/// Makes the identity of an engine that compiles for this machine: its name, six bytes that its entries begin with, and
/// its version. It is to be freed by `jitcache_identity_free`.
///
/// # Safety
///
/// As told at the top; `magic` leads to six bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_identity_new(
    name: *const c_char,
    magic: *const u8,
    version: *const c_char,
    identity: *mut *mut Identity,
) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (name, magic, version) = unsafe { (text(name)?, bytes(magic, 6), text(version)?) };
        let magic = magic.first_chunk().copied().unwrap_or_default();
        let made = Box::new(Identity(jitcache::Identity::new(name, magic, version)?));
        // SAFETY: as the caller promises.
        unsafe { identity.write(Box::into_raw(made)) };
        Ok(())
    })
}

/// Has the compiler use no other features of the processor than those of a level, `x86-64-v1` to `x86-64-v4`, or
/// `baseline`; otherwise it may use those of this machine.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_identity_set_cpu(identity: *mut Identity, level: *const c_char) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let level = unsafe { text(level)? };
        let features = match level {
            "baseline" => CpuFeatures::baseline(Arch::host()),
            level => CpuFeatures::level(level)?,
        };
        // SAFETY: as the caller promises.
        change(unsafe { &mut *identity }, |identity| Ok(identity.with_cpu(features)))
    })
}

/// Ties entries to a build of the engine: a commit, say, or the id that the linker made.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_identity_set_build_id(identity: *mut Identity, id: *const u8, length: usize) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (identity, id) = unsafe { (&mut *identity, bytes(id, length)) };
        change(identity, |identity| Ok(identity.with_build_id(id)?))
    })
}

/// Ties entries to the program that runs.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_identity_set_build_of_program(identity: *mut Identity) -> u32 {
    // SAFETY: as the caller promises.
    call(|| change(unsafe { &mut *identity }, |identity| Ok(identity.with_build_of_program()?)))
}

/// Seals entries with a MAC under a key of 32 bytes, that whoever may write to the directory must not know.
///
/// # Safety
///
/// As told at the top; `key` leads to 32 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_identity_set_mac_key(identity: *mut Identity, key: *const u8) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (identity, key) = unsafe { (&mut *identity, bytes(key, 32)) };
        let key = MacKey::new(key.first_chunk().copied().unwrap_or_default());
        change(identity, |identity| Ok(identity.with_sealing(Sealing::Mac(key))))
    })
}

fn change(
    identity: &mut Identity,
    change: impl FnOnce(jitcache::Identity) -> Result<jitcache::Identity, crate::Failure>,
) -> Result<(), crate::Failure> {
    identity.0 = change(identity.0.clone())?;
    Ok(())
}

/// Frees an identity; null is nothing.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_identity_free(identity: *mut Identity) {
    if !identity.is_null() {
        // SAFETY: it came out of a box, and nobody uses it any more.
        drop(unsafe { Box::from_raw(identity) });
    }
}

/// Begins the key of something that an engine compiles. It is freed by `jitcache_key_finish`.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_key_of(identity: *const Identity) -> *mut KeyBuilder {
    // SAFETY: as the caller promises.
    let identity = unsafe { &(*identity).0 };
    Box::into_raw(Box::new(KeyBuilder(jitcache::Key::of(identity))))
}

/// Adds what is compiled to a key.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_key_source(key: *mut KeyBuilder, source: *const u8, length: usize) {
    // SAFETY: as the caller promises.
    let (key, source) = unsafe { (&mut (*key).0, bytes(source, length)) };
    *key = key.clone().source(source);
}

/// Adds a setting that changes the code to a key.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_key_flag(key: *mut KeyBuilder, name: *const c_char, value: *const c_char) -> u32 {
    call(|| {
        // SAFETY: as the caller promises.
        let (key, name, value) = unsafe { (&mut (*key).0, text(name)?, text(value)?) };
        *key = key.clone().flag(name, value);
        Ok(())
    })
}

/// Returns the key, and frees what it was made with.
///
/// # Safety
///
/// As told at the top.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jitcache_key_finish(key: *mut KeyBuilder) -> Key {
    // SAFETY: it came out of a box, and nobody uses it any more.
    let key = unsafe { Box::from_raw(key) };
    Key { bytes: *key.0.finish().as_bytes() }
}

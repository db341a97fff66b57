//! Where caches customarily lie.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use etcetera::BaseStrategy;

use crate::error::Error;

/// Returns the customary root for the cache of a program: its name, in the directory of this user's caches.
///
/// That is `$XDG_CACHE_HOME`, if that is absolute, or else `~/.cache`; `~/Library/Caches` on macOS; `%LOCALAPPDATA%` on
/// Windows. The home is `$HOME`, or else that of the system's list of users. Nothing is created, or looked for.
///
/// ```
/// use jitcache::{Cache, Identity, Store, default_root};
///
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// let store = default_root("myjit").and_then(|root| Store::options(identity.clone()).budget(1 << 30).open(root));
/// // A user without a home has a cache in memory.
/// let cache = Cache::over_or_in_memory(store, identity);
/// # Ok::<(), jitcache::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Invalid`] for a name that is no name of a file; [`Error::Io`] for a user without a home.
pub fn default_root(name: &str) -> Result<PathBuf, Error> {
    let mut parts = Path::new(name).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name) {
        return Err(Error::Invalid { what: "name", rule: "must be a name of a file" });
    }
    let given = if cfg!(all(unix, not(target_vendor = "apple"))) { std::env::var_os("XDG_CACHE_HOME") } else { None };
    // The library wants a home even where it does not use it.
    let caches = given.map(PathBuf::from).filter(|given| given.is_absolute()).or_else(|| {
        let strategy = etcetera::base_strategy::choose_native_strategy().ok()?;
        Some(strategy.cache_dir()).filter(|caches| caches.is_absolute())
    });
    let homeless = || Error::Io { action: "find", path: "a home".into(), source: ErrorKind::NotFound.into() };
    Ok(caches.ok_or_else(homeless)?.join(name))
}

//! What entries are named by: what was compiled, by whom and for which machine, as a SHA-256.

use sha2::{Digest, Sha256};

use super::identity::Identity;
use crate::words::{CpuFeatures, Key, size};

impl Key {
    /// Begins the key of something that the engine `identity` compiles.
    ///
    /// Magic, version and target of the identity go in first, so that no two engines, versions or targets share a key.
    /// Everything else that changes the code has to be handed in:
    ///
    /// ```
    /// use jitcache::{CpuFeatures, Identity, Key};
    ///
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let key = Key::of(&identity).source(b"fn main() {}").flag("opt", "2").cpu(CpuFeatures::host()).finish();
    /// let other = Key::of(&identity).source(b"fn main() {}").flag("opt", "3").cpu(CpuFeatures::host()).finish();
    /// assert_ne!(key, other);
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    pub fn of(identity: &Identity) -> KeyBuilder {
        KeyBuilder(Sha256::new())
            .part(b"jitcache key 1")
            .part(&identity.magic().0)
            .part(identity.version().as_bytes())
            .part(identity.target().to_string().as_bytes())
    }
}

/// A key in the making. Returned by [`Key::of`].
///
/// Every part goes in behind a word that says what it is, and behind its length, so that no two different lists of parts
/// are the same bytes. The order counts: the same parts in another order give another key.
#[derive(Clone, Debug)]
#[must_use = "a key is made by `finish`"]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Adds what is compiled: source text, bytecode, a query, or a digest of it.
    pub fn source(self, source: &[u8]) -> Self {
        self.part(b"source").part(source)
    }

    /// Adds a setting that changes the code, such as an optimization level.
    pub fn flag(self, name: &str, value: &str) -> Self {
        self.part(b"flag").part(name.as_bytes()).part(value.as_bytes())
    }

    /// Adds the processor features that the compiler may use.
    pub fn cpu(self, features: CpuFeatures) -> Self {
        self.part(b"cpu").part(features.arch().name().as_bytes()).part(&features.bits().to_le_bytes())
    }

    /// Returns the key.
    #[must_use]
    pub fn finish(self) -> Key {
        Key::from_bytes(self.0.finalize().into())
    }

    fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update(size(bytes).to_le_bytes());
        self.0.update(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Arch, Os, Target};

    fn identity() -> Identity {
        Identity::new("test", *b"TEST\0\0", "1").unwrap()
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let keys = [
            Key::of(&identity()).finish(),
            Key::of(&identity()).source(b"ab").finish(),
            Key::of(&identity()).source(b"a").source(b"b").finish(),
            Key::of(&identity()).flag("ab", "c").finish(),
            Key::of(&identity()).flag("a", "bc").finish(),
            Key::of(&identity()).flag("a", "b").flag("c", "").finish(),
            Key::of(&identity()).flag("c", "").flag("a", "b").finish(),
            Key::of(&identity()).source(b"flag").finish(),
            Key::of(&identity()).cpu(CpuFeatures::from_bits(Arch::Amd64, 1)).finish(),
            Key::of(&identity()).cpu(CpuFeatures::from_bits(Arch::Arm64, 1)).finish(),
            Key::of(&Identity::new("test", *b"TEST\0\0", "11").unwrap()).finish(),
            Key::of(&Identity::new("test", *b"TEST\0B", "1").unwrap()).finish(),
        ];
        let mut sorted = keys;
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    }

    #[test]
    fn the_same_parts_are_the_same_key_for_ever() {
        let target = Target { arch: Arch::Amd64, os: Os::Linux };
        let key = Key::of(&identity().with_target(target)).source(b"x").flag("opt", "2").finish();
        assert_eq!(key.to_string(), "86e028c3cde6b3524ef469957ee02a5c4c02b294135baef1ec11527df7c2fad4");
    }
}

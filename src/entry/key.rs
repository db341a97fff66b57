//! What entries are named by: what was compiled, by whom and for which machine, as a SHA-256.

use sha2::{Digest, Sha256};

use super::alignment::Alignment;
use super::identity::{Identity, Sealing};
use crate::words::{Key, Revision, size};

impl Key {
    /// Begins the key of something that the engine `identity` compiles.
    ///
    /// What of the identity an entry must agree with goes in first - magic, version, target, CPU features, build id,
    /// sealing with the MAC key, revision, alignment and sections - so that entries which some of its readers would
    /// reject have keys of their own, and lie beside each other. Of the MAC key it is a hash, from which nobody finds a
    /// key that is as random as [`MacKey`](crate::MacKey) wants it. Everything else that changes the code has to be
    /// handed in:
    ///
    /// ```
    /// use jitcache::{Identity, Key};
    ///
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let key = Key::of(&identity).source(b"fn main() {}").flag("opt", "2").finish();
    /// let other = Key::of(&identity).source(b"fn main() {}").flag("opt", "3").finish();
    /// assert_ne!(key, other);
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    pub fn of(identity: &Identity) -> KeyBuilder {
        let Alignment { bytes, in_file } = identity.alignment();
        let revision = number(identity.revision());
        let (sealing, fingerprint) = named(identity.sealing());
        KeyBuilder(Sha256::new())
            .part(b"jitcache key 2")
            .part(&identity.magic().0)
            .part(identity.version().as_bytes())
            .part(identity.target().to_string().as_bytes())
            .part(&identity.cpu().bits().to_le_bytes())
            .part(identity.build_id())
            .part(sealing.as_bytes())
            .part(fingerprint.as_ref().map_or(&[], <[u8; 32]>::as_slice))
            .part(&[revision])
            .part(&bytes.to_le_bytes())
            .part(&[in_file.into()])
            .part(identity.sections().map(u32::to_le_bytes).collect::<Vec<_>>().as_flattened())
    }
}

/// Returns the number that a key has for a revision.
pub(super) const fn number(revision: Revision) -> u8 {
    match revision {
        Revision::SourceMap => 0,
        Revision::CatchClauses => 1,
        Revision::Locals => 2,
        Revision::Unknown => 255,
    }
}

/// Returns what a key has for a sealing, and the fingerprint of its MAC key.
pub(super) fn named(sealing: &Sealing) -> (&'static str, Option<[u8; 32]>) {
    match sealing {
        Sealing::Plain => ("plain", None),
        Sealing::Checksum => ("checksum", None),
        Sealing::Mac(key) => ("mac", Some(key.fingerprint())),
    }
}

/// A key in the making. Returned by [`Key::of`].
///
/// Every part goes in behind a word that says what it is, and behind its length, so that no two different lists of
/// parts are the same bytes. The order counts: the same parts in another order give another key.
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
    use crate::entry::{MacKey, Recipe};
    use crate::words::{Arch, CpuFeatures, Os, Target};

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
        ];
        let mut sorted = keys;
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    }

    #[test]
    fn whatever_a_reader_compares_is_part_of_the_key() {
        let mac = |byte| Sealing::Mac(MacKey::new([byte; 32]));
        let identities = [
            identity(),
            Identity::new("test", *b"TEST\0\0", "11").unwrap(),
            Identity::new("test", *b"TEST\0B", "1").unwrap(),
            identity().with_target(Target { arch: Arch::Loong64, os: Os::Linux }),
            identity().with_target(Target { arch: Arch::Loong64, os: Os::Other }),
            identity().with_cpu(CpuFeatures::from_bits(Arch::host(), 1 << 100)),
            identity().with_cpu(CpuFeatures::from_bits(Arch::host(), 1 << 101)),
            identity().with_build_id(b"1").unwrap(),
            identity().with_build_id(b"2").unwrap(),
            identity().with_sealing(Sealing::Plain),
            identity().with_sealing(mac(1)),
            identity().with_sealing(mac(2)),
            identity().with_revision(Revision::SourceMap),
            identity().with_function_alignment(64).unwrap(),
            identity().with_alignment_in_file(64).unwrap(),
            identity().with_sections(&[1]),
            identity().with_sections(&[1, 2]),
        ];
        let mut keys: Vec<_> = identities.iter().map(|identity| Key::of(identity).finish()).collect();
        let recipes = identities.map(|identity| Recipe::of(&identity).finish());
        assert!(recipes.iter().map(Recipe::key).eq(&keys));
        for (i, one) in recipes.iter().enumerate() {
            for (j, two) in recipes.iter().enumerate() {
                assert_eq!(one.parts().differences(&two.parts()).is_empty(), i == j, "{one:?} {two:?}");
            }
        }
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    }

    #[test]
    fn the_same_parts_are_the_same_key_for_ever() {
        let target = Target { arch: Arch::Amd64, os: Os::Linux };
        let features = CpuFeatures::of(Arch::Amd64, &["sse3", "tsc"]).unwrap();
        let identity = identity().with_cpu(features).with_target(target).with_build_id(b"abc").unwrap();
        let identity = identity.with_sealing(Sealing::Mac(MacKey::new([7; 32]))).with_alignment_in_file(16).unwrap();
        let identity = identity.with_sections(&[9, 3, 9]);
        let key = Key::of(&identity).source(b"x").flag("opt", "2").finish();
        assert_eq!(key.to_string(), "153cbc51524953a652a09bd8280d5786d357e2abbf9dba2bff904feabefdef15");
    }
}

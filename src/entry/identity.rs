//! Who writes and reads entries: an engine, one of its versions, and the machine it compiles for.

use std::fmt;

use super::alignment::Alignment;
use super::digest::{Digest, MacKey, Sum};
use crate::error::Error;
use crate::words::{Arch, CpuFeatures, Magic, Os, Revision, Target, Version, size};

/// Whether and how the entries of an identity are sealed. Reader and writer have to agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// Not at all: nothing but the code has a checksum, and an entry does not tell what it is for.
    Plain,
    /// With a checksum of every byte, which finds damage.
    Checksum,
    /// With a MAC of every byte, which also finds what somebody without the key has changed.
    Mac(MacKey),
}

impl Sealing {
    pub(crate) const fn mac_key(&self) -> Option<&MacKey> {
        match self {
            Self::Plain | Self::Checksum => None,
            Self::Mac(key) => Some(key),
        }
    }

    /// Returns the number of the digest's kind, or `None` if there is no seal.
    pub(crate) const fn digest_kind(&self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Checksum => Some(0),
            Self::Mac(_) => Some(1),
        }
    }
}

/// The engine that entries belong to: what they must begin with, how they are laid out and which directory holds them.
///
/// Two builds of an engine that generate different code need different versions or build ids: an engine under
/// development takes that of the running program, [`Identity::with_build_of_program`].
///
/// ```
/// use jitcache::Identity;
///
/// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
/// assert!(identity.directory_name().starts_with("myjit-1.4.2-"));
/// # Ok::<(), jitcache::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: Box<str>,
    magic: Magic,
    version: Version,
    revision: Revision,
    alignment: Alignment,
    target: Target,
    cpu: CpuFeatures,
    sealing: Sealing,
    build_id: Box<[u8]>,
    /// Rising.
    sections: Box<[u32]>,
}

impl Identity {
    /// Returns the identity of an engine of the caller's, compiling for this machine and every feature of its
    /// processor, whose entries are sealed with a checksum and hold catch clauses.
    ///
    /// `name` and `version` become parts of a directory name. `magic` must be the engine's own.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `name` is empty or holds anything but ASCII letters, digits, `_` and `.`; if `version` is
    /// empty or holds anything but those, `-` and `+`; if either begins with a `.` or is longer than 128 bytes, or both
    /// together are longer than 224.
    pub fn new(name: &str, magic: [u8; 6], version: &str) -> Result<Self, Error> {
        let name = directory_part(name, "name of the engine", "")?;
        let version = directory_part(version, "version of the engine", "-+")?;
        // With the longest target there is room for, a file name of 255 bytes, which is what file systems take.
        if name.len().saturating_add(version.len()) > 224 {
            return Err(Error::Invalid {
                what: "name of the engine",
                rule: "must have at most 224 bytes with its version",
            });
        }
        Ok(Self {
            name: name.into(),
            magic: Magic(magic),
            version: Version::of(version.as_bytes()),
            revision: Revision::default(),
            alignment: Alignment { bytes: 1, in_file: true },
            target: Target::host(),
            cpu: CpuFeatures::host(),
            sealing: Sealing::Checksum,
            build_id: Box::default(),
            sections: Box::default(),
        })
    }

    /// Returns the identity of wazero's optimizing compiler in one of its releases, such as `v1.9.0`, whose entries are
    /// plain, and whose code may use those of the host's features that wazero tells apart.
    ///
    /// The revision follows from the version. It is [`Revision::Unknown`] for a version that nobody has seen, and for
    /// `dev`, which names Debian's 1.12.0 as well as any build that carries no version: who knows better calls
    /// [`Identity::with_revision`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a version that cannot be part of a directory name, as in [`Identity::new`].
    pub fn wazero(version: &str) -> Result<Self, Error> {
        let identity = Self::new("wazero", Magic::WAZERO.0, version)?;
        let alignment = Alignment { bytes: 16, in_file: false };
        // What its compiler asks the processor for, as its keys have it.
        let used = ["sse3", "sse4.1", "sse4.2", "lzcnt", "bmi1", "bmi2", "popcnt", "lse"];
        let used: Vec<_> = used.into_iter().filter(|name| identity.cpu.has(&[name])).collect();
        let cpu = CpuFeatures::of(identity.target.arch, &used)?;
        Ok(Self { alignment, sealing: Sealing::Plain, cpu, ..identity.with_revision(Revision::of_wazero(version)) })
    }

    /// Returns the identity whose directory has that name, as [`Identity::directory_name`] gives it; `None` if it is
    /// no directory of wazero's.
    #[must_use]
    pub fn wazero_from_directory_name(name: &str) -> Option<Self> {
        let (rest, os) = name.strip_prefix("wazero-")?.rsplit_once('-')?;
        let (version, arch) = rest.rsplit_once('-')?;
        let target = Target { arch: Arch::from_name(arch)?, os: Os::from_name(os)? };
        Some(Self::wazero(version).ok()?.with_target(target))
    }

    /// Sets how far the layout of the entries goes.
    #[must_use]
    pub fn with_revision(mut self, revision: Revision) -> Self {
        self.revision = revision;
        self
    }

    /// Sets the machine that the code is for; it is the host otherwise.
    ///
    /// If the features that were set are of another architecture, they become its baseline.
    #[must_use]
    pub fn with_target(mut self, target: Target) -> Self {
        if self.cpu.arch() != target.arch {
            self.cpu = CpuFeatures::baseline(target.arch);
        }
        self.target = target;
        self
    }

    /// Sets the features of the processor that the compiler may use, those of the host otherwise. They are part of
    /// every key, a sealed entry says that it needs them unless [`Builder::cpu`](crate::Builder::cpu) names fewer, and
    /// one that needs others is rejected.
    ///
    /// An engine whose compiler uses less than the host has says so, and its entries run on every machine that has as
    /// much:
    ///
    /// ```
    /// use jitcache::{Arch, CpuFeatures, Identity};
    ///
    /// # let engine = || Identity::new("myjit", *b"MYJIT\0", "1.4.2");
    /// let everywhere = engine()?.with_cpu(CpuFeatures::baseline(Arch::host()));
    /// # #[cfg(target_arch = "x86_64")]
    /// let since_2013 = engine()?.with_cpu(CpuFeatures::level("x86-64-v3")?);
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    #[must_use]
    pub const fn with_cpu(mut self, features: CpuFeatures) -> Self {
        self.cpu = features;
        self
    }

    /// Sets whether and how entries are sealed. wazero runs sealed entries too; it does not look at the seal.
    #[must_use]
    pub fn with_sealing(mut self, sealing: Sealing) -> Self {
        self.sealing = sealing;
        self
    }

    /// Sets the build id of the engine, such as a commit or the id that the linker made: it is part of every key,
    /// sealed entries carry it, and those of another build are rejected. See [`Identity::with_build_of_program`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is longer than 255 bytes.
    pub fn with_build_id(mut self, build_id: &[u8]) -> Result<Self, Error> {
        if u8::try_from(build_id.len()).is_err() {
            return Err(Error::Invalid { what: "build id", rule: "must have at most 255 bytes" });
        }
        self.build_id = build_id.into();
        Ok(self)
    }

    /// Sets the tags of the sections that the engine understands: an entry that requires another one is rejected.
    #[must_use]
    pub fn with_sections(mut self, tags: &[u32]) -> Self {
        let mut tags = tags.to_vec();
        tags.sort_unstable();
        tags.dedup();
        self.sections = tags.into();
        self
    }

    /// Sets the alignment of functions in bytes: every function offset must be a multiple of it, and an entry in which
    /// one is not is rejected. It is 1 otherwise, and 16 for wazero.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `alignment` is no power of two, or above 4096.
    pub fn with_function_alignment(self, alignment: u64) -> Result<Self, Error> {
        self.aligned(alignment, false)
    }

    /// Sets the alignment of functions in bytes, counted from the start of the file, so that code can run from there:
    /// see [`Access::in_place`](crate::Access::in_place).
    ///
    /// [`Builder::finish`](crate::Builder::finish) puts padding in front of the code for it, bytes that trap on the
    /// target, and moves every offset.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `alignment` is no power of two, or above 4096.
    pub fn with_alignment_in_file(self, alignment: u64) -> Result<Self, Error> {
        self.aligned(alignment, true)
    }

    fn aligned(mut self, bytes: u64, in_file: bool) -> Result<Self, Error> {
        // Code is placed, and files are mapped, at pages: nothing more is known of where they come to lie.
        if !bytes.is_power_of_two() || bytes > 4096 {
            return Err(Error::Invalid {
                what: "alignment of functions",
                rule: "must be a power of two, at most 4096",
            });
        }
        self.alignment = Alignment { bytes, in_file };
        Ok(self)
    }

    /// Returns the six bytes that entries begin with.
    #[must_use]
    pub const fn magic(&self) -> Magic {
        self.magic
    }

    /// Returns the version that entries carry.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Returns how far the layout of the entries goes.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the machine that the code is for.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// Returns the features of the processor that the code may use.
    #[must_use]
    pub const fn cpu(&self) -> CpuFeatures {
        self.cpu
    }

    /// Returns whether and how entries are sealed.
    #[must_use]
    pub const fn sealing(&self) -> &Sealing {
        &self.sealing
    }

    /// Returns the build id of the engine, empty if it has none.
    #[must_use]
    pub const fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// Begins the sum that an entry must have.
    pub(crate) fn begin_sum(&self) -> Sum {
        match self.sealing {
            Sealing::Plain => Sum::Plain(0),
            Sealing::Checksum | Sealing::Mac(_) => Sum::Sealed(Digest::new(self.sealing.mac_key())),
        }
    }

    /// Returns whether there can be an entry whose code is aligned as it has to be if its file is mapped.
    pub(crate) fn may_run_in_place(&self) -> bool {
        // In front of the code stand 19 bytes, the version, and 8 for each function.
        let header = size(self.version.as_bytes()).saturating_add(19);
        self.alignment.in_file || header.checked_rem(8) == Some(0)
    }

    /// Returns the tags of the sections that the engine knows, which rise.
    pub fn sections(&self) -> impl Iterator<Item = u32> {
        self.sections.iter().copied()
    }

    pub(crate) fn knows_section(&self, tag: u32) -> bool {
        self.sections.contains(&tag)
    }

    /// Returns the alignment of functions.
    #[must_use]
    pub const fn alignment(&self) -> Alignment {
        self.alignment
    }

    /// Returns the name of the directory that holds the entries: `<name>-<version>-<arch>-<os>`.
    #[must_use]
    pub fn directory_name(&self) -> String {
        format!("{}-{}-{}", self.name, self.version.as_bytes().escape_ascii(), self.target)
    }

    /// Returns the name of the engine.
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether a directory of that name is one of this engine's, of whichever version and target.
    pub(crate) fn owns_directory(&self, name: &str) -> bool {
        let parts = name.strip_prefix(&*self.name).and_then(|rest| rest.strip_prefix('-')?.rsplit_once('-'));
        let parts = parts.and_then(|(rest, os)| Some((rest.rsplit_once('-')?, os)));
        parts.is_some_and(|((version, arch), os)| {
            let is_target = Arch::from_name(arch).is_some() && Os::from_name(os).is_some();
            is_target && directory_part(version, "version", "-+").is_ok()
        })
    }
}

/// Lets only such text through that is a safe part of a file name everywhere, and escapes to itself.
fn directory_part<'a>(text: &'a str, what: &'static str, also: &str) -> Result<&'a str, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || also.contains(c);
    if text.is_empty() || text.len() > 128 {
        return Err(Error::Invalid { what, rule: "must have 1 to 128 bytes" });
    }
    if text.starts_with('.') || !text.chars().all(plain) {
        return Err(Error::Invalid { what, rule: "must be letters, digits and what SPEC.md allows beside them" });
    }
    Ok(text)
}

impl fmt::Display for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Checksum => "sealed with a checksum",
            Self::Mac(_) => "sealed with a MAC",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_of_wazero_has_the_revision_of_its_version_and_an_alignment_of_16() {
        for (version, revision) in [("v1.9.0", Revision::SourceMap), ("dev", Revision::Unknown)] {
            let identity = Identity::wazero(version).unwrap();
            assert_eq!(identity.revision(), revision, "{version}");
            assert_eq!(identity.alignment(), Alignment { bytes: 16, in_file: false });
        }
        let known = Identity::wazero("dev").unwrap().with_revision(Revision::CatchClauses);
        assert_eq!(known.revision(), Revision::CatchClauses);
    }

    #[test]
    fn a_directory_name_leads_back_to_the_identity() {
        for name in [
            "wazero-v1.9.0-amd64-linux",
            "wazero-v1.12.0-arm64-darwin",
            "wazero-v1.9.1-0.2025-4f-amd64-linux",
            "wazero-v1.12.1-0.20260714071631-236c2458ed22+dirty-amd64-linux",
        ] {
            assert_eq!(Identity::wazero_from_directory_name(name).unwrap().directory_name(), name);
        }
        for name in ["", "wazero", "wazero-v1.9.0", "wazero-v1.9.0-mips-linux", "other-v1.9.0-amd64-linux"] {
            assert_eq!(Identity::wazero_from_directory_name(name), None, "{name}");
        }
    }

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for version in ["", ".", "..", "../x", "a/b", "a\\b", "a\0b", "ü", &"v".repeat(129)] {
            assert!(Identity::wazero(version).is_err(), "{version:?}");
        }
        for version in ["a_b.c", "1-2+3", &"v".repeat(128)] {
            assert_eq!(Identity::wazero(version).unwrap().version().as_bytes(), version.as_bytes());
        }
        assert!(
            Identity::new("a-b", *b"ABCDEF", "1").is_err(),
            "a dash in the name would make the directory ambiguous"
        );
    }

    #[test]
    fn the_name_of_a_directory_fits_a_file_system_for_every_target() {
        let longest = |name: usize, version: usize| {
            Identity::new(&"n".repeat(name), *b"ABCDEF", &"v".repeat(version))
                .map(|identity| identity.with_target(Target { arch: Arch::Loong64, os: Os::Dragonfly }))
        };
        for (name, version) in [(128, 96), (96, 128), (1, 128), (128, 1)] {
            assert!(longest(name, version).unwrap().directory_name().len() <= 255);
        }
        for (name, version) in [(128, 128), (128, 97), (97, 128), (129, 1), (1, 129)] {
            assert!(longest(name, version).is_err(), "{name} {version}");
        }
    }

    #[test]
    fn features_of_another_architecture_do_not_outlive_a_change_of_target() {
        let identity = Identity::new("a", *b"ABCDEF", "1").unwrap();
        let features = CpuFeatures::of(Arch::Arm64, &["lse"]).unwrap();
        let target = |arch| Target { arch, os: Os::Linux };
        let foreign = if Arch::host() == Arch::Riscv64 { Arch::S390x } else { Arch::Riscv64 };
        assert_eq!(identity.clone().with_target(target(Arch::host())).cpu(), CpuFeatures::host());
        assert_eq!(identity.clone().with_target(target(foreign)).cpu(), CpuFeatures::baseline(foreign));
        assert_eq!(identity.with_cpu(features).with_target(target(Arch::Arm64)).cpu(), features);
    }

    #[test]
    fn code_of_wazero_needs_no_more_than_its_keys_tell_apart() {
        let needed = Identity::wazero("v1.12.0").unwrap().cpu();
        let all: &[&str] = match Arch::host() {
            Arch::Amd64 | Arch::X86 => &["sse3", "sse4.1", "sse4.2", "lzcnt", "bmi1", "bmi2", "popcnt"],
            Arch::Arm64 => &["lse"],
            _ => &[],
        };
        assert!(needed.missing_from(CpuFeatures::host()).is_empty());
        assert!(needed.missing_from(CpuFeatures::of(Arch::host(), all).unwrap()).is_empty());
    }

    #[test]
    fn an_alignment_is_a_power_of_two() {
        let identity = Identity::wazero("dev").unwrap();
        assert!(identity.clone().with_function_alignment(0).is_err());
        assert!(identity.clone().with_function_alignment(24).is_err());
        assert!(identity.clone().with_function_alignment(8192).is_err(), "memory is aligned to pages");
        assert!(identity.clone().with_alignment_in_file(8192).is_err());
        for bytes in [1, 64, 4096] {
            assert_eq!(identity.clone().with_function_alignment(bytes).unwrap().alignment().bytes, bytes);
        }
    }
}

//! Entries that were found somewhere: whose they are, what they are of, and where in them each field lies.

use std::ops::Range;

use super::digest::MacKey;
use super::identity::{Identity, Sealing};
use super::recipe::Recipe;
use super::seal::{self, RECIPE, Sections};
use super::view::Entry;
use crate::error::Field;
use crate::format::Run;
use crate::words::{Arch, CpuFeatures, Key, Magic, Os, Target, size};

impl Identity {
    /// Returns the identity that an entry has by its directory's name, as [`Identity::directory_name`] gives it, and by
    /// the bytes of its file; `None` if no engine's directory has that name.
    ///
    /// It is for programs that look into any engine's directory. Name, version and target are the directory's; the
    /// magic, unless the engine is wazero, the sealing, and of a sealed entry the processor features, the build id and
    /// the sections it requires are the file's. So what is rejected under this identity is rejected by its engine too;
    /// whether this machine can run it is another question. No file tells the alignment: where it is larger than usual,
    /// offsets of functions count the padding in front of the code. `mac_key` is the one for an entry that is sealed
    /// with a MAC.
    ///
    /// ```
    /// use jitcache::{Builder, Entry, Identity, Key, MacKey};
    ///
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let key = Key::of(&identity).source(b"fn main() {}").finish();
    /// let file = Builder::new().code(&[0xc3][..]).function(0).finish(&identity, &key)?.to_vec();
    ///
    /// let found = Identity::of_entry(&identity.directory_name(), &file, &MacKey::new([0; 32])).unwrap();
    /// assert_eq!(found.magic(), identity.magic());
    /// Entry::parse(&file, &found)?.verify()?;
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    #[must_use]
    pub fn of_entry(directory: &str, file: &[u8], mac_key: &MacKey) -> Option<Self> {
        Self::of_run(directory, Run::new(file), mac_key)
    }

    /// Does the same for a file that may lie in pieces: looked at are its first six bytes, and its seal.
    pub(crate) fn of_run(directory: &str, file: Run<'_>, mac_key: &MacKey) -> Option<Self> {
        let (rest, os) = directory.rsplit_once('-')?;
        let (rest, arch) = rest.rsplit_once('-')?;
        let (name, version) = rest.split_once('-')?;
        let target = Target { arch: Arch::from_name(arch)?, os: Os::from_name(os)? };
        let start = file.part(&(0..size(&Magic::WAZERO.0)));
        let magic = start.bytes().first_chunk().copied().unwrap_or_default();
        let identity = if name == "wazero" { Self::wazero(version) } else { Self::new(name, magic, version) };
        Some(identity.ok()?.with_target(target).sealed_as(file, mac_key))
    }

    /// Takes over what the seal of a file tells, as far as there is one.
    fn sealed_as(self, file: Run<'_>, mac_key: &MacKey) -> Self {
        let Some((footer, seal)) = seal::at_end(file) else { return self.with_sealing(Sealing::Plain) };
        let sealing = if footer.digest_kind == 1 { Sealing::Mac(mac_key.clone()) } else { Sealing::Checksum };
        let identity = self.with_sealing(sealing);
        // What is no seal is rejected when the entry is parsed.
        let Some(seal) = seal else { return identity };
        let cpu = CpuFeatures::from_bits(identity.target().arch, seal.cpu_features);
        let required = Sections::of(seal.sections).map_while(Result::ok);
        let tags: Vec<_> = required.filter(|section| section.flags == 1).map(|section| section.tag).collect();
        let identity = identity.with_cpu(cpu).with_sections(&tags);
        identity.clone().with_build_id(seal.build_id.bytes()).unwrap_or(identity)
    }
}

/// Returns the recipe that a file keeps; `None` for what is no sealed entry of that magic, and for one that keeps none.
///
/// It may be of any version and machine, and lie in pieces: looked at are its first six bytes, and its seal.
pub(crate) fn kept_recipe(file: Run<'_>, magic: Magic) -> Option<Recipe> {
    let is_of_engine = file.part(&(0..size(&magic.0))).bytes() == magic.0;
    let seal = seal::at_end(file).filter(|_| is_of_engine)?.1?;
    let parts = Sections::of(seal.sections).find(RECIPE)?;
    Recipe::of_entry(Key::from_bytes(seal.key.0), parts.bytes()).ok()
}

impl Entry<'_> {
    /// Returns every field of the entry with the bytes it takes in the file, in their order, without a gap and up to
    /// its end.
    ///
    /// Try tables are one field, [`Field::CatchClauses`]; of sections each has its own. A field that takes no bytes is
    /// left out.
    #[must_use]
    pub fn fields(&self) -> Vec<(Field, Range<u64>)> {
        let mut fields = Fields { fields: Vec::new(), at: 0 };
        let body = &self.body;
        fields.next(Field::Magic, size(&self.header.magic.0));
        fields.next(Field::VersionLength, 1);
        fields.next(Field::Version, self.header.version.length());
        fields.next(Field::FunctionCount, 4);
        fields.next(Field::FunctionOffsets, body.function_offsets.run().length());
        fields.next(Field::CodeLength, 8);
        fields.next(Field::Code, body.code.length());
        fields.next(Field::CodeChecksum, 4);
        fields.next(Field::SourceMapFlag, 1);
        if let Some(map) = &body.source_map {
            fields.next(Field::SourceMapLength, 8);
            fields.next(Field::SourceMap, map.rows.run().length());
        }
        if let Some(tables) = &body.catch_clauses {
            fields.next(Field::TryTableCount, 4);
            fields.next(Field::CatchClauses, tables.try_tables.length());
        }
        if let Some(sealed) = &self.sealed {
            fields.next(Field::Key, 32);
            fields.next(Field::Arch, 2);
            fields.next(Field::Os, 2);
            fields.next(Field::CpuFeatures, 16);
            fields.next(Field::BuildIdLength, 1);
            fields.next(Field::BuildId, sealed.seal.build_id.length());
            for section in sealed.sections().map_while(Result::ok) {
                fields.next(Field::SectionTag, 4);
                fields.next(Field::SectionFlags, 1);
                fields.next(Field::SectionLength, 8);
                fields.next(Field::Section, section.bytes.length());
            }
            fields.next(Field::SealLength, 8);
            fields.next(Field::FileLength, 8);
            fields.next(Field::DigestKind, 1);
            fields.next(Field::SourceMapDigest, 32);
            fields.next(Field::Digest, 32);
            fields.next(Field::SealMagic, 8);
        }
        fields.fields
    }
}

/// Fields one behind the other.
struct Fields {
    fields: Vec<(Field, Range<u64>)>,
    at: u64,
}

impl Fields {
    fn next(&mut self, field: Field, length: u64) {
        let end = self.at.saturating_add(length);
        if length > 0 {
            self.fields.push((field, self.at..end));
        }
        self.at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Builder;

    const NO_KEY: MacKey = MacKey::new([0; 32]);

    #[test]
    fn an_entry_verifies_under_the_identity_it_was_found_with_and_its_fields_leave_no_gap() {
        let target = Target { arch: Arch::Riscv64, os: Os::Linux };
        let mac_key = MacKey::new([7; 32]);
        let engine = Identity::new("engine", *b"ENGINE", "2.0-rc.1").unwrap().with_build_id(b"build").unwrap();
        for sealing in [Sealing::Plain, Sealing::Checksum, Sealing::Mac(mac_key.clone())] {
            for alignment in [1, 64] {
                let identity = engine.clone().with_alignment_in_file(alignment).unwrap().with_target(target);
                let identity = identity.with_sealing(sealing.clone()).with_sections(&[9]);
                let key = Key::from_bytes([3; 32]);
                let mut builder = Builder::new();
                builder.code(vec![0; 40]).source(0, 4);
                if sealing == Sealing::Plain {
                    builder.function(0);
                } else {
                    builder.function_named(0, 40, "main");
                    builder.import("memcpy");
                    builder.section(9, true, &b"required"[..]).section(10, false, &b""[..]);
                }
                let file = builder.finish(&identity, &key).unwrap().to_vec();
                let found = Identity::of_entry("engine-2.0-rc.1-riscv64-linux", &file, &mac_key).unwrap();
                assert_eq!(found.sealing(), &sealing);
                assert_eq!(found.magic(), identity.magic());
                let entry = Entry::parse(&file, &found).unwrap();
                entry.verify().unwrap();
                let mut end = 0;
                for (field, range) in entry.fields() {
                    assert_eq!(range.start, end, "{field:?}");
                    end = range.end;
                }
                assert_eq!(end, size(&file));
            }
        }
    }

    #[test]
    fn a_name_that_is_no_engines_has_no_identity_and_any_bytes_have_one() {
        for name in [
            "",
            "tmp",
            "engine",
            "engine-1",
            "engine-1-linux",
            "engine-1-mips-linux",
            "..-1-amd64-linux",
            "a-/-amd64-linux",
        ] {
            assert_eq!(Identity::of_entry(name, b"", &NO_KEY), None, "{name}");
        }
        for bytes in
            [&b""[..], b"12345", &[0xff; 88], &[0xff; 200], b"JITSEAL1", &[&[0xff; 81][..], b"JITSEAL1"].concat()]
        {
            let found = Identity::of_entry("engine-1-amd64-linux", bytes, &NO_KEY).unwrap();
            assert!(Entry::parse(bytes, &found).is_err());
        }
    }
}

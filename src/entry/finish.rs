//! How an entry comes of what an engine handed in: padded, linked, sealed and checked.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::iter;

use super::append::append;
use super::builder::{Builder, moved};
use super::digest::crc32c;
use super::identity::Identity;
use super::link::Site;
use super::recipe::Recipe;
use super::seal::{METADATA, RECIPE, Sealed, Sections};
use super::sealing::sealed;
use super::view::Entry;
use crate::error::{Bound, Error, Field, heap};
use crate::format::{Body, Bytes, CatchClauses, Header, ROWS_BEHIND_CODE, Run, Seal, Section, SourceMap, Table};
use crate::words::{Key, Revision, size};

impl Builder<'_> {
    /// Returns the entry, every part of it checked as [`Entry::verify`] would check it.
    ///
    /// A sealed entry is bound to `key`; a plain one does not hold it. If functions are aligned in the file, padding
    /// goes in front of the code, and every offset is moved by it: see [`Identity::with_alignment_in_file`].
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`], naming a part that no reader would accept; [`Error::CpuFeatures`] if the code needs
    /// features that the identity does not have; [`Error::Memory`] if there was none for a part, or is none for the
    /// padding.
    pub fn finish<'e>(&'e mut self, identity: &'e Identity, key: &Key) -> Result<Entry<'e>, Error> {
        self.finish_in(identity.revision(), identity, key)
    }

    /// Returns the entry to load: where the identity does not know how try tables are laid out, they are as they were
    /// handed in. A store of the identity refuses that entry.
    pub(crate) fn finish_to_load<'e>(&'e mut self, identity: &'e Identity, key: &Key) -> Result<Entry<'e>, Error> {
        let revision = match identity.revision() {
            Revision::Unknown if self.with_locals > 0 => Revision::Locals,
            Revision::Unknown => Revision::CatchClauses,
            known => known,
        };
        self.finish_in(revision, identity, key)
    }

    fn finish_in<'e>(&'e mut self, revision: Revision, identity: &'e Identity, key: &Key) -> Result<Entry<'e>, Error> {
        if let Some(length) = self.missing {
            return Err(Error::Memory { action: "allocate", length, source: ErrorKind::OutOfMemory.into() });
        }
        let code_at = self.align(identity)?;
        let kind = identity.sealing().digest_kind();
        self.check_try_tables_fit(revision)?;
        let padding = u64::try_from(self.padding).unwrap_or(u64::MAX);
        let is_in_file = identity.alignment().in_file;
        let site = Site { at: code_at, padding, arch: identity.target().arch, is_in_file };
        let linked = self.links.link(&self.code, site)?;
        self.linked = linked;
        self.add_sections(kind.is_some(), key)?;
        let sections = if self.linked.sections.is_empty() { &self.sections } else { &self.linked.sections };
        let code = self.linked.code.as_deref().unwrap_or(&self.code);
        if kind.is_none() && !sections.is_empty() {
            return Err(unwritable(Field::Section, Bound::Exactly(0), size(sections)));
        }
        let (arch, cpu) = (identity.target().arch, self.cpu.unwrap_or(identity.cpu()));
        if cpu.arch() != arch {
            return Err(unwritable(Field::Arch, Bound::Exactly(arch.number().into()), cpu.arch().number().into()));
        }
        let functions = u64::try_from(self.functions.len()).unwrap_or(u64::MAX);
        if u32::try_from(functions).is_err() {
            return Err(unwritable(Field::FunctionCount, Bound::AtMost(u32::MAX.into()), functions));
        }
        let revision = revision.of_body(kind.is_some());
        // The length of the code is in between.
        let offsets_at = code_at.saturating_sub(functions.saturating_add(1).saturating_mul(8));
        let rows_at = code_at.saturating_add(size(code)).saturating_add(ROWS_BEHIND_CODE);
        let mut entry = Entry {
            header: Header { magic: Bytes(identity.magic().0), version: Run::new(identity.version().as_bytes()) },
            revision,
            body: Body {
                function_offsets: Table::new_at(offsets_at, &self.functions),
                code: Run::new_at(code_at, code),
                code_checksum: crc32c(0, code),
                source_map_flag: self.source_map.is_some().into(),
                source_map: self.source_map.as_deref().map(|rows| SourceMap { rows: Table::new_at(rows_at, rows) }),
                catch_clauses: (revision != Revision::SourceMap).then(|| CatchClauses {
                    try_table_count: self.try_table_count,
                    try_tables: Run::new(&self.try_tables),
                }),
            },
            sealed: None,
            file: Run::default(),
            target: identity.target(),
            alignment: identity.alignment(),
            mac_key: identity.sealing().mac_key().cloned(),
        };
        if let Some(kind) = kind {
            let seal = Seal {
                key: Bytes(*key.as_bytes()),
                arch: arch.number(),
                os: identity.target().os.number(),
                cpu_features: cpu.bits(),
                build_id: Run::new(identity.build_id()),
                sections: Run::new(sections),
            };
            entry.sealed = Some(sealed(&entry, seal, kind));
        }
        if !cpu.missing_from(identity.cpu()).is_empty() {
            let at = entry.sealed.as_ref().map_or(0, Sealed::cpu_features_at);
            return Err(Error::CpuFeatures { at, expected: identity.cpu(), found: cpu });
        }
        let sections = Sections::of(Run::new(&self.sections));
        let highest = sections.map_while(Result::ok).map(|section| section.tag).max();
        if let Some(tag) = highest.filter(|&tag| tag > METADATA) {
            return Err(unwritable(Field::SectionTag, Bound::AtMost(METADATA.into()), tag.into()));
        }
        let sections = entry.sealed.as_ref().map_or(Ok(()), |sealed| sealed.check_sections(|_| true));
        sections.and_then(|()| entry.check_tables()).map_err(|error| match error {
            // Of offsets in code as the engine counts them.
            Error::Value { field: field @ (Field::FunctionOffsets | Field::SourceMap), expected, found, .. } => {
                unwritable(field, expected.behind(padding), found.saturating_sub(padding))
            }
            Error::Value { field, expected, found, .. } => unwritable(field, expected, found),
            Error::Trailing { expected, found, .. } => unwritable(Field::CatchClauses, Bound::Exactly(expected), found),
            error => error,
        })?;
        Ok(entry)
    }

    /// Puts the sections of the engine in front of those that follow from what else it handed in, and others behind
    /// them.
    fn add_sections(&mut self, is_sealed: bool, key: &Key) -> Result<(), Error> {
        let is_left_out = |(recipe, _): &&(Recipe, u8)| self.is_recipe_taken && recipe.key() != key;
        let recipe = self.recipe.as_ref().filter(|recipe| is_sealed && !is_left_out(recipe));
        if recipe.is_some_and(|(recipe, _)| recipe.key() != key) {
            return Err(Error::Invalid { what: "recipe", rule: "must be that of the key" });
        }
        if self.linked.sections.is_empty() && recipe.is_none() && self.unknown.is_empty() {
            return Ok(());
        }
        let mut sections = Vec::new();
        heap::append(&mut sections, &self.sections)?;
        heap::append(&mut sections, &self.linked.sections)?;
        if let Some((recipe, flags)) = recipe {
            append(&mut sections, &Section { tag: RECIPE, flags: *flags, bytes: Run::new(recipe.bytes()) })?;
        }
        heap::append(&mut sections, &self.unknown)?;
        self.linked.sections = sections;
        Ok(())
    }

    /// Checks that the try tables, as they were handed in, are laid out as in `revision`.
    fn check_try_tables_fit(&self, revision: Revision) -> Result<(), Error> {
        let (tables, with_locals) = (self.try_table_count, self.with_locals);
        let (field, expected, found) = match revision {
            Revision::SourceMap | Revision::Unknown => (Field::TryTableCount, 0, tables),
            Revision::CatchClauses => (Field::LocalCount, 0, with_locals),
            Revision::Locals => (Field::LocalCount, tables, with_locals),
        };
        if found == expected { Ok(()) } else { Err(unwritable(field, Bound::Exactly(expected.into()), found.into())) }
    }

    /// Pads the code as `identity` wants it, and returns where it will lie in the file.
    fn align(&mut self, identity: &Identity) -> Result<u64, Error> {
        // The header, the two counts, and the offsets: what SPEC.md has in front of the code.
        let functions = u64::try_from(self.functions.len()).unwrap_or(u64::MAX);
        let header = size(identity.version().as_bytes()).saturating_add(7);
        let code_at = functions.saturating_mul(8).saturating_add(12).saturating_add(header);
        let padding = if self.code.len() > self.padded { identity.alignment().padding(code_at) } else { 0 };
        let padding = usize::try_from(padding).unwrap_or(0);
        if padding != self.padded {
            let code = match &mut self.code {
                Cow::Borrowed(code) => {
                    let mut copy = Vec::new();
                    heap::reserve(&mut copy, padding.saturating_add(code.len()))?;
                    copy.extend_from_slice(code);
                    self.code = Cow::Owned(copy);
                    self.code.to_mut()
                }
                Cow::Owned(code) => {
                    heap::reserve(code, padding)?;
                    code
                }
            };
            code.splice(..self.padded, iter::repeat_n(0, padding));
            self.padded = padding;
        }
        // Those of an architecture that it was finished for before may stand there.
        if let Cow::Owned(code) = &mut self.code
            && let Some(front) = code.get_mut(..padding)
        {
            front.fill(identity.target().arch.trap());
        }
        if padding != self.padding {
            let columns = self.functions.iter_mut().map(|[offset]| offset);
            for offset in columns.chain(self.source_map.iter_mut().flatten().map(|[_, offset]| offset)) {
                *offset = moved(u64::from_le_bytes(*offset), self.padding, padding);
            }
            self.padding = padding;
        }
        Ok(code_at)
    }
}

fn unwritable(field: Field, expected: Bound, found: u64) -> Error {
    Error::Unwritable { field, expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::from_bytes([7; 32]);

    fn aligned_in_file(bytes: u64) -> Identity {
        Identity::new("builder", *b"BUILD\0", "1").unwrap().with_alignment_in_file(bytes).unwrap()
    }

    #[test]
    fn a_builder_goes_on_from_what_it_has_finished_for_another_alignment() {
        let mut used = Builder::new();
        let mut fresh = Builder::new();
        for (n, alignment) in (0..).zip([64, 16, 1, 64]) {
            for builder in [&mut used, &mut fresh] {
                let offset = u64::from(n) * 64;
                builder.code(vec![n; 256]).function(offset).source(offset, 5);
            }
            let identity = aligned_in_file(alignment);
            let expected = fresh.clone().finish(&identity, &KEY).unwrap().to_vec();
            assert_eq!(used.finish(&identity, &KEY).unwrap().to_vec(), expected, "{alignment}");
        }
    }

    #[test]
    fn an_entry_without_code_has_no_padding_either() {
        let identity = aligned_in_file(64);
        assert!(Builder::new().finish(&identity, &KEY).unwrap().code().is_empty());
    }

    #[test]
    fn code_that_is_lent_and_not_padded_is_not_copied() {
        let code = [0xcc; 64];
        let mut builder = Builder::new();
        let identity = aligned_in_file(1).with_function_alignment(1).unwrap();
        assert_eq!(builder.code(&code[..]).finish(&identity, &KEY).unwrap().code().as_ptr(), code.as_ptr());
    }
}

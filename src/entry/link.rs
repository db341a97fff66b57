//! Linking what an engine hands in: every reference within the image is resolved, and what is left is noted.

use std::collections::BTreeMap;
use std::ops::Range;

use super::append::append as write;
use super::layout::{Data, Layout};
use super::patch::patch;
use super::unwind;
use crate::error::{Error, heap};
use crate::format::{Row, Run, Section, UnwindTables};
use crate::words::{Arch, Place, RelocationKind, size};

/// What code is linked to, as an engine hands it in.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    pub(super) imports: Vec<Box<str>>,
    numbers: BTreeMap<Box<str>, u32>,
    read_only: Vec<u8>,
    writable: Vec<u8>,
    references: Vec<Reference>,
    pub(super) symbols: Vec<(Place, u64, Box<str>)>,
    /// Where the unwind tables begin in the read-only data, and how long they are.
    pub(super) unwind: Option<UnwindTables>,
    /// Whether an alignment was asked for that pages do not have.
    is_misaligned: bool,
    taken: Option<Taken>,
}

/// What an entry was linked to that was taken apart.
#[derive(Clone, Debug)]
struct Taken {
    sections: Vec<u8>,
    /// Where the engine's code lies in its file.
    code: Range<u64>,
}

/// An address that code or data want.
#[derive(Clone, Copy, Debug)]
struct Reference {
    at: Place,
    kind: RelocationKind,
    target: Place,
    addend: i64,
}

/// What came of it: the code, if it was changed, and the sections as they will stand in the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Linked {
    pub(super) code: Option<Vec<u8>>,
    pub(super) sections: Vec<u8>,
}

/// Where code will lie: its place in the file, how much of it is padding, and the machine.
#[derive(Clone, Copy)]
pub(super) struct Site {
    pub(super) at: u64,
    pub(super) padding: u64,
    pub(super) arch: Arch,
    /// Whether offsets count from the start of the file.
    pub(super) is_in_file: bool,
}

impl Links {
    pub(super) fn import(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.imports.len()).unwrap_or(u32::MAX);
        self.imports.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// Adds data, and returns where they begin in those of their kind.
    pub(super) fn data(&mut self, bytes: &[u8], alignment: u64, is_writable: bool) -> Result<u64, Error> {
        // No more is known of where pages begin.
        self.is_misaligned |= !alignment.is_power_of_two() || alignment > 4096;
        append(if is_writable { &mut self.writable } else { &mut self.read_only }, bytes, alignment)
    }

    pub(super) fn relocate(
        &mut self,
        at: Place,
        kind: RelocationKind,
        target: Place,
        addend: i64,
    ) -> Result<(), Error> {
        heap::append(&mut self.references, &[Reference { at, kind, target, addend }])
    }

    pub(super) fn symbol(&mut self, at: Place, length: u64, name: &str) -> Result<(), Error> {
        heap::reserve(&mut self.symbols, 1)?;
        self.symbols.push((at, length, name.into()));
        Ok(())
    }

    /// Adds unwind tables to the data, and returns where they begin there.
    pub(super) fn eh_frame(&mut self, tables: &[u8]) -> Result<u64, Error> {
        let records = Run::new(tables).part(&(0..unwind::records(tables))).bytes();
        let offset = self.data(records, 8, false)?;
        heap::append(&mut self.read_only, &[0; 4])?;
        self.unwind = Some(UnwindTables { offset, length: size(&self.read_only).saturating_sub(offset) });
        Ok(offset)
    }

    /// Takes over what an entry is linked to, whose engine's code lies at `code` in its file.
    pub(super) fn take(&mut self, section: &Section<'_>, code: Range<u64>) -> Result<(), Error> {
        write(&mut self.taken.get_or_insert(Taken { sections: Vec::new(), code }).sections, section)
    }

    /// Resolves everything within the image of `code`, which lies at `site`.
    pub(super) fn link(&self, code: &[u8], site: Site) -> Result<Linked, Error> {
        if self.is_empty() {
            return Ok(self.taken_for(code, site)?.unwrap_or_default());
        }
        if let Some((what, rule)) = self.broken_rule(code, site) {
            return Err(Error::Invalid { what, rule });
        }
        let mut linking = Linking::of(self, code, site)?;
        for reference in &self.references {
            linking.resolve(reference)?;
        }
        linking.write_stubs()?;
        let sections = linking.sections()?;
        Ok(Linked { code: Some(linking.code), sections })
    }

    fn is_empty(&self) -> bool {
        self.imports.is_empty()
            && self.read_only.is_empty()
            && self.writable.is_empty()
            && self.references.is_empty()
            && self.symbols.is_empty()
    }

    fn taken_for(&self, code: &[u8], site: Site) -> Result<Option<Linked>, Error> {
        let Some(Taken { sections, code: before }) = &self.taken else { return Ok(None) };
        let start = site.at.saturating_add(site.padding);
        let in_page = |at: u64| at.checked_rem(site.arch.largest_page());
        let length = before.end.saturating_sub(before.start);
        let is_moved = in_page(before.start) != in_page(start) || length != size(code).saturating_sub(site.padding);
        if is_moved || !site.is_in_file {
            let (what, rule) = (
                "entry that was taken apart",
                "is linked to what lies beside it: its code must stay where it was in its page, and as long",
            );
            return Err(Error::Invalid { what, rule });
        }
        let mut copy = Vec::new();
        heap::append(&mut copy, sections)?;
        Ok(Some(Linked { code: None, sections: copy }))
    }

    fn broken_rule(&self, code: &[u8], site: Site) -> Option<(&'static str, &'static str)> {
        if self.taken.is_some() {
            return Some(("entry that was taken apart", "is linked already: nothing can be added to that"));
        }
        if !site.is_in_file {
            return Some(("alignment of an entry that is linked", "must count from the start of the file"));
        }
        if self.is_misaligned {
            return Some(("alignment of data", "must be a power of two, at most 4096"));
        }
        if size(code) <= site.padding {
            return Some(("code of an entry that is linked", "must not be empty"));
        }
        self.imports.iter().any(|name| name.is_empty()).then_some(("name of an import", "must not be empty"))
    }
}

/// References on their way into code and data.
pub(super) struct Linking<'l> {
    pub(super) links: &'l Links,
    site: Site,
    code: Vec<u8>,
    pub(super) read_only: Vec<u8>,
    pub(super) writable: Vec<u8>,
    pub(super) layout: Layout,
    /// Where in the code the stub of an import begins, padding and all.
    stubs: BTreeMap<u32, u64>,
    /// Where in the read-only data the address of a place within the image lies.
    slots: BTreeMap<(u8, u64), u64>,
    pub(super) rows: Vec<Row<3>>,
}

impl<'l> Linking<'l> {
    /// Makes room for stubs and addresses, so that it is known where everything lies.
    fn of(links: &'l Links, code: &[u8], site: Site) -> Result<Self, Error> {
        let length = stub_length(site.arch);
        let (mut stubs, mut slots) = (BTreeMap::new(), BTreeMap::new());
        let mut end = size(code).saturating_sub(site.padding).next_multiple_of(16).saturating_add(site.padding);
        let (mut linked, mut read_only, mut writable) = (Vec::new(), Vec::new(), Vec::new());
        heap::append(&mut read_only, &links.read_only)?;
        heap::append(&mut writable, &links.writable)?;
        for Reference { kind, target, .. } in &links.references {
            match *target {
                Place::Import(import) if kind.is_call() => {
                    stubs.entry(import).or_insert_with(|| {
                        let at = end;
                        end = end.saturating_add(length);
                        at
                    });
                }
                target if kind.is_slot() => {
                    if let Some(key) = slot_key(target)
                        && !slots.contains_key(&key)
                    {
                        slots.insert(key, append(&mut read_only, &[0; 8], 8)?);
                    }
                }
                _ => {}
            }
        }
        let end = if stubs.is_empty() { code.len() } else { usize::try_from(end).unwrap_or(usize::MAX) };
        heap::reserve(&mut linked, end)?;
        linked.extend_from_slice(code);
        linked.resize(end, site.arch.trap());
        let data = Data {
            read_only: size(&read_only),
            writable: size(&writable),
            imports: u64::try_from(links.imports.len()).unwrap_or(u64::MAX),
        };
        let place = site.at..site.at.saturating_add(size(&linked));
        let layout = Layout::of(site.arch.largest_page(), &place, site.padding, &data);
        let layout = layout.ok_or(Error::Invalid { what: "image of an entry", rule: "must fit memory" })?;
        let mut linking =
            Self { links, site, code: linked, read_only, writable, layout, stubs, slots, rows: Vec::new() };
        for ((part, at), slot) in linking.slots.clone() {
            let target = match part {
                0 => Place::Code(at),
                1 => Place::ReadOnly(at),
                _ => Place::Writable(at),
            };
            linking.row(Place::ReadOnly(slot), target, 0)?;
        }
        Ok(linking)
    }

    /// Returns where a place lies in the image; an import lies in its slot.
    pub(super) fn at(&self, place: Place) -> u64 {
        let (start, offset) = match place {
            Place::Code(at) => (self.layout.engine, at),
            Place::ReadOnly(at) => (self.layout.read_only.start, at),
            Place::Writable(at) => (self.layout.writable.start, at),
            Place::Import(import) => (self.layout.slots.start, u64::from(import).saturating_mul(8)),
        };
        start.saturating_add(offset)
    }

    fn resolve(&mut self, reference: &Reference) -> Result<(), Error> {
        let Reference { at, kind, target, addend } = *reference;
        let refused = |rule| Error::Relocation { at, kind, target, rule };
        if kind != RelocationKind::Abs8 && kind.arch() != Some(self.site.arch) {
            return Err(refused("must be of the architecture that the entry is for"));
        }
        if let Place::Import(import) = target
            && self.links.imports.get(usize::try_from(import).unwrap_or(usize::MAX)).is_none()
        {
            return Err(refused("must be of an import that there is"));
        }
        if kind == RelocationKind::Abs8 && matches!(at, Place::ReadOnly(_) | Place::Writable(_)) {
            return self.row(at, target, addend);
        }
        let to = match target {
            Place::Import(import) if kind.is_call() => {
                let stub = self.stubs.get(&import).copied().unwrap_or(0);
                self.layout.code.start.saturating_add(stub)
            }
            Place::Import(_) if !kind.is_slot() => {
                return Err(refused(
                    "must go by way of a slot or a stub: where an import lies is known when it is loaded",
                ));
            }
            _ if kind.is_slot() => match slot_key(target).and_then(|key| self.slots.get(&key)) {
                Some(slot) => self.at(Place::ReadOnly(*slot)),
                None => self.at(target),
            },
            _ => self.at(target),
        };
        let (place, part, from) = match at {
            Place::Code(from) => (self.at(at), &mut self.code, from.saturating_add(self.site.padding)),
            Place::ReadOnly(from) => (self.at(at), &mut self.read_only, from),
            Place::Writable(from) => (self.at(at), &mut self.writable, from),
            Place::Import(_) => return Err(refused("must lie in the code or the data")),
        };
        let bytes = usize::try_from(from).ok().and_then(|from| part.get_mut(from..)).unwrap_or_default();
        patch(bytes, kind, place, to.wrapping_add_signed(addend)).map_err(refused)
    }

    /// Notes an address that is written when the entry is loaded.
    fn row(&mut self, at: Place, target: Place, addend: i64) -> Result<(), Error> {
        let place = self.layout.offset(self.at(at));
        let (target, addend) = match target {
            Place::Import(import) => (u64::from(import).saturating_add(1), addend.cast_unsigned()),
            target => (0, self.layout.offset(self.at(target)).wrapping_add_signed(addend)),
        };
        heap::append(&mut self.rows, &[[place, target, addend].map(u64::to_le_bytes)])
    }

    /// Writes a jump by way of the slot for every import that is called.
    fn write_stubs(&mut self) -> Result<(), Error> {
        for (import, stub) in self.stubs.clone() {
            let (at, slot) = (self.layout.code.start.saturating_add(stub), self.at(Place::Import(import)));
            let (instructions, patches): (&[u8], &[_]) = match self.site.arch {
                // adrp x16, slot; ldr x16, [x16, slot]; br x16
                Arch::Arm64 => (
                    &[0x10, 0, 0, 0x90, 0x10, 2, 0x40, 0xf9, 0, 2, 0x1f, 0xd6],
                    &[(0, RelocationKind::Aarch64AdrGotPage21, 0), (4, RelocationKind::Aarch64Ld64GotLo12Nc, 0)],
                ),
                // jmp [rip + slot]
                _ => (&[0xff, 0x25, 0, 0, 0, 0], &[(2, RelocationKind::X86GOTPCRel4, -4)]),
            };
            let refused = |kind, rule| {
                let target = Place::Import(import);
                Error::Relocation { at: Place::Code(self.layout.offset(at)), kind, target, rule }
            };
            let stub = usize::try_from(stub).ok().and_then(|stub| self.code.get_mut(stub..)).unwrap_or_default();
            if let Some(to) = stub.get_mut(..instructions.len()) {
                to.copy_from_slice(instructions);
            }
            for &(behind, kind, addend) in patches {
                let place = at.saturating_add(u64::try_from(behind).unwrap_or(0));
                let bytes = stub.get_mut(behind..).unwrap_or_default();
                patch(bytes, kind, place, slot.wrapping_add_signed(addend)).map_err(|rule| refused(kind, rule))?;
            }
        }
        Ok(())
    }
}

/// Tells places within an image apart; `None` for an import, which has a slot.
const fn slot_key(place: Place) -> Option<(u8, u64)> {
    match place {
        Place::Code(at) => Some((0, at)),
        Place::ReadOnly(at) => Some((1, at)),
        Place::Writable(at) => Some((2, at)),
        Place::Import(_) => None,
    }
}

/// Returns how far the stubs are apart, in bytes.
const fn stub_length(arch: Arch) -> u64 {
    match arch {
        Arch::Arm64 => 12,
        _ => 8,
    }
}

/// Appends bytes behind a multiple of `alignment`, and returns where they begin.
fn append(to: &mut Vec<u8>, bytes: &[u8], alignment: u64) -> Result<u64, Error> {
    let start = size(to).checked_next_multiple_of(alignment.max(1)).unwrap_or(u64::MAX);
    let length = usize::try_from(start).unwrap_or(usize::MAX);
    heap::reserve(to, length.saturating_sub(to.len()).saturating_add(bytes.len()))?;
    to.resize(length, 0);
    to.extend_from_slice(bytes);
    Ok(start)
}

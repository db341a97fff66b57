//! Entries out of relocatable ELF objects, as a C compiler writes them.

use std::collections::HashMap;

use object::elf;
use object::read::elf::ElfFile64;
use object::{
    Object as _, ObjectSection, ObjectSymbol as _, RelocationFlags, RelocationTarget, SectionFlags, SectionIndex,
    SectionKind, SymbolIndex, SymbolKind, SymbolSection,
};

use crate::entry::Builder;
use crate::error::{Error, heap};
use crate::words::{Place, RelocationKind};

type Elf<'o> = ElfFile64<'o, object::LittleEndian>;

impl Builder<'_> {
    /// Takes code, data, unwind tables, symbols and relocations out of a relocatable ELF object of x86-64 or arm64.
    ///
    /// All functions of the object become functions of the entry, under their names; what it does not define and refers
    /// to becomes an import. Its code must be position independent (`cc -c -fPIC`) and refer to no thread-local data;
    /// constructors are not run, so there must be none. A builder takes one object, which a linker may have made of
    /// several (`ld -r`).
    ///
    /// # Errors
    ///
    /// [`Error::Object`]; what cannot be resolved [`Builder::finish`] tells.
    pub fn object(&mut self, object: &[u8]) -> Result<&mut Self, Error> {
        let object = Elf::parse(object).map_err(refused)?;
        if object.kind() != object::ObjectKind::Relocatable {
            return Err(refused("it is not relocatable"));
        }
        let (mut places, mut code) = (HashMap::new(), Vec::new());
        for section in object.sections() {
            if let Some(place) = self.section_of(&section, &mut code)? {
                places.insert(section.index(), place);
            }
        }
        self.code(code);
        let mut taking = Taking { object: &object, places, common: HashMap::new() };
        taking.name(self)?;
        taking.relocate(self)?;
        Ok(self)
    }

    /// Puts a section where its kind belongs; `None` if nothing of it is in memory when the object runs.
    fn section_of<'o>(&mut self, section: &impl ObjectSection<'o>, code: &mut Vec<u8>) -> Result<Option<Place>, Error> {
        let SectionFlags::Elf { sh_flags: flags, .. } = section.flags() else { return Ok(None) };
        let name = section.name().map_err(refused)?;
        let has = |flag: elf::SectionFlags| flags.0 & flag.0 != 0;
        if !has(elf::SHF_ALLOC) || section.kind() == SectionKind::Note || section.size() == 0 {
            return Ok(None);
        }
        if has(elf::SHF_TLS) {
            return Err(refused(format_args!("section {name}: there is no thread-local data")));
        }
        if [".init_array", ".fini_array", ".ctors", ".dtors"].iter().any(|kind| name.starts_with(kind)) {
            return Err(refused(format_args!("section {name}: constructors and destructors are not run")));
        }
        let zeros;
        let alignment = section.align().max(1);
        let mut bytes = section.data().map_err(refused)?;
        if section.kind() == SectionKind::UninitializedData {
            zeros = self::zeros(section.size())?;
            bytes = &zeros;
        }
        Ok(Some(if has(elf::SHF_EXECINSTR) {
            let length = code.len().checked_next_multiple_of(usize::try_from(alignment).unwrap_or(usize::MAX));
            let padding = length.unwrap_or(usize::MAX).saturating_sub(code.len());
            heap::reserve(code, padding.saturating_add(bytes.len()))?;
            code.resize(code.len().saturating_add(padding), 0);
            let at = u64::try_from(code.len()).unwrap_or(u64::MAX);
            code.extend_from_slice(bytes);
            Place::Code(at)
        } else if name == ".eh_frame" {
            self.eh_frame(bytes)
        } else if has(elf::SHF_WRITE) && !name.starts_with(".data.rel.ro") {
            self.writable_data(bytes, alignment)
        } else {
            self.data(bytes, alignment)
        }))
    }
}

/// An object on its way into a builder.
struct Taking<'t, 'o> {
    object: &'t Elf<'o>,
    /// Where its sections begin.
    places: HashMap<SectionIndex, Place>,
    /// Data that it leaves to the linker to place.
    common: HashMap<SymbolIndex, Place>,
}

impl Taking<'_, '_> {
    /// Names functions and data.
    fn name(&self, builder: &mut Builder<'_>) -> Result<(), Error> {
        let mut functions = Vec::new();
        for symbol in self.object.symbols() {
            let SymbolSection::Section(section) = symbol.section() else { continue };
            let Some(place) = self.places.get(&section) else { continue };
            let (place, length) = (place.behind(symbol.address()), symbol.size());
            let name = symbol.name().map_err(refused)?;
            match (symbol.kind(), place) {
                (SymbolKind::Text, Place::Code(offset)) => functions.push((offset, length, name)),
                (SymbolKind::Data, _) if symbol.is_global() => {
                    builder.symbol(place, length, name);
                }
                _ => {}
            }
        }
        functions.sort_unstable();
        let mut last = None;
        for (offset, length, name) in functions {
            if last.replace(offset) == Some(offset) {
                builder.symbol(Place::Code(offset), length, name);
            } else {
                builder.function_named(offset, length, name);
            }
        }
        Ok(())
    }

    fn relocate(&mut self, builder: &mut Builder<'_>) -> Result<(), Error> {
        for section in self.object.sections() {
            let Some(start) = self.places.get(&section.index()).copied() else { continue };
            for (offset, relocation) in section.relocations() {
                let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
                let kind = self.kind(r_type.0)?;
                let RelocationTarget::Symbol(symbol) = relocation.target() else {
                    return Err(refused("a relocation has no symbol"));
                };
                let target = self.target(builder, symbol)?;
                builder.relocate(start.behind(offset), kind, target, relocation.addend());
            }
        }
        Ok(())
    }

    fn kind(&self, number: u32) -> Result<RelocationKind, Error> {
        use RelocationKind as Kind;
        let is_x86 = self.object.architecture() == object::Architecture::X86_64;
        Ok(match (is_x86, number) {
            (true, 1) | (false, 257) => Kind::Abs8,
            (true, 2) => Kind::X86PCRel4,
            (true, 4) => Kind::X86CallPLTRel4,
            (true, 9 | 41 | 42) => Kind::X86GOTPCRel4,
            (false, 261) => Kind::Aarch64Prel32,
            (false, 282 | 283) => Kind::Arm64Call,
            (false, 275 | 276) => Kind::Aarch64AdrPrelPgHi21,
            (false, 277) => Kind::Aarch64AddAbsLo12Nc,
            (false, 278 | 284 | 285 | 286 | 299) => Kind::Aarch64LdStAbsLo12Nc,
            (false, 311) => Kind::Aarch64AdrGotPage21,
            (false, 312) => Kind::Aarch64Ld64GotLo12Nc,
            _ => {
                return Err(refused(format_args!(
                    "relocations of type {number} are not position independent, or not known"
                )));
            }
        })
    }

    /// Returns the place of a symbol that something refers to.
    fn target(&mut self, builder: &mut Builder<'_>, index: SymbolIndex) -> Result<Place, Error> {
        let symbol = self.object.symbol_by_index(index).map_err(refused)?;
        let name = symbol.name().unwrap_or_default();
        match symbol.section() {
            SymbolSection::Section(section) => {
                let place = self.places.get(&section).map(|place| place.behind(symbol.address()));
                place.ok_or_else(|| refused(format_args!("symbol {name:?} lies in no section that is loaded")))
            }
            SymbolSection::Undefined => Ok(builder.import(name)),
            SymbolSection::Common => {
                if let Some(place) = self.common.get(&index) {
                    return Ok(*place);
                }
                // The address of such a symbol is its alignment.
                let place = builder.writable_data(&zeros(symbol.size())?, symbol.address().max(1));
                builder.symbol(place, symbol.size(), name);
                self.common.insert(index, place);
                Ok(place)
            }
            _ => Err(refused(format_args!("symbol {name:?} lies at an absolute address"))),
        }
    }
}

/// Length of the longest data without contents that are taken, in bytes: an entry has them as zeros.
const MOST_ZEROS: u64 = 1 << 28;

/// Returns so many zeros.
fn zeros(length: u64) -> Result<Vec<u8>, Error> {
    if length > MOST_ZEROS {
        return Err(refused(format_args!(
            "{length} bytes of uninitialized data are more than the {MOST_ZEROS} that are taken"
        )));
    }
    let (mut zeros, length) = (Vec::new(), usize::try_from(length).unwrap_or(usize::MAX));
    heap::reserve(&mut zeros, length)?;
    zeros.resize(length, 0);
    Ok(zeros)
}

fn refused(reason: impl std::fmt::Display) -> Error {
    Error::Object { reason: reason.to_string().into() }
}

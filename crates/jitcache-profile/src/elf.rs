//! An object file for GDB: where the code of a module lies, and what its functions are called.

use std::ops::Range;

use crate::bytes::Bytes;
use crate::names::Function;

/// Length of an address in bytes.
const ADDRESS: usize = size_of::<usize>();
const IS_WIDE: bool = ADDRESS == 8;

/// Lengths of the header, of a section's, and of a symbol, in bytes.
const HEADER: u16 = if IS_WIDE { 64 } else { 52 };
const SECTION: u16 = if IS_WIDE { 64 } else { 40 };
const SYMBOL: usize = if IS_WIDE { 24 } else { 16 };

/// The names of the sections, which start at 1, 7, 15 and 23.
const SECTION_NAMES: &[u8] = b"\0.text\0.symtab\0.strtab\0.shstrtab\0";

/// A header of a section, in the order of its fields.
#[derive(Default)]
struct Section {
    name: u32,
    kind: u32,
    flags: usize,
    address: usize,
    place: Range<usize>,
    link: u32,
    info: u32,
    align: usize,
    entry: usize,
}

/// Returns an executable file of a module: the section `.text` at the addresses of its code, without the bytes, which
/// are there already, and a symbol for each function.
pub(crate) fn object<'f>(machine: u16, code: &Range<usize>, functions: impl Iterator<Item = Function<'f>>) -> Vec<u8> {
    let (mut symbols, mut names) = (Bytes(vec![0; SYMBOL]), Bytes(vec![0]));
    for function in functions {
        let name = u32::try_from(names.0.len()).unwrap_or_default();
        names.text(&function.name);
        symbol(&mut symbols, name, function.address, function.code.len());
    }
    let tables = [symbols.0, names.0, SECTION_NAMES.to_vec()];
    let mut end = usize::from(HEADER);
    let places = tables.each_ref().map(|table| {
        let start = end;
        end = start.saturating_add(table.len()).next_multiple_of(ADDRESS);
        start..start.saturating_add(table.len())
    });

    let mut object = header(machine, end);
    for (table, place) in tables.iter().zip(&places) {
        object.0.resize(place.start, 0);
        object.0.extend_from_slice(table);
    }
    object.0.resize(end, 0);
    let [symbols, names, section_names] = places;
    let (align, text) = (1, usize::from(HEADER)..usize::from(HEADER).saturating_add(code.len()));
    section(&mut object, Section::default());
    // It has no bytes in the file (SHT_NOBITS), and is in memory and executable (SHF_ALLOC, SHF_EXECINSTR).
    section(
        &mut object,
        Section { name: 1, kind: 8, flags: 6, address: code.start, place: text, align, ..Section::default() },
    );
    // Its names are in section 3, and its first symbol, which is none, is the only local one.
    let table = Section { name: 7, kind: 2, place: symbols, link: 3, info: 1, ..Section::default() };
    section(&mut object, Section { align: ADDRESS, entry: SYMBOL, ..table });
    section(&mut object, Section { name: 15, kind: 3, place: names, align, ..Section::default() });
    section(&mut object, Section { name: 23, kind: 3, place: section_names, align, ..Section::default() });
    object.0
}

/// Returns the header of a file whose five sections are told of at `sections`; the last of them has their names.
fn header(machine: u16, sections: usize) -> Bytes {
    let class = if IS_WIDE { 2 } else { 1 };
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    let mut header = Bytes(vec![0x7f, b'E', b'L', b'F', class, order, 1]);
    header.0.resize(16, 0);
    // An executable file (ET_EXEC) says all by addresses.
    header.halves([2, machine]).words([1]).addresses([0, 0, sections]);
    header.words([0]).halves([HEADER, 0, 0, SECTION, 5, 4]);
    header
}

fn section(object: &mut Bytes, section: Section) {
    let Section { name, kind, flags, address, place, link, info, align, entry } = section;
    object.words([name, kind]).addresses([flags, address, place.start, place.len()]);
    object.words([link, info]).addresses([align, entry]);
}

/// Adds the symbol of a function, which is global and in section 1.
fn symbol(symbols: &mut Bytes, name: u32, address: usize, length: usize) {
    symbols.words([name]);
    if !IS_WIDE {
        symbols.addresses([address, length]);
    }
    symbols.0.extend([1 << 4 | 2, 0]);
    symbols.halves([1]);
    if IS_WIDE {
        symbols.addresses([address, length]);
    }
}

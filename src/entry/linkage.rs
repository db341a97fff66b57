//! What code is linked to, as views: imports, data, the addresses in it, symbols and unwind tables; and whether that is
//! sound.

use std::fmt;
use std::ops::Range;

use super::layout::{self, Layout};
use super::seal::{DATA, IMPORTS, RELOCATIONS, SYMBOLS, UNWIND_TABLES};
use super::symbols::Symbols;
use super::unwind;
use super::view::Entry;
use crate::error::{Bound, Error, Field};
use crate::format::{self, Data, Row, Run, Section, Table, UnwindTables};
use crate::words::Place;

/// The names that code imports, in the order of their slots. Returned by [`Entry::imports`].
#[derive(Clone, Default)]
pub struct Imports<'a> {
    run: Run<'a>,
    at: u64,
}

impl<'a> Imports<'a> {
    fn read(&mut self) -> Result<Option<&'a [u8]>, Error> {
        if self.at == self.run.length() {
            return Ok(None);
        }
        let (import, end) = format::read::<format::Import<'_>>(self.run, self.at, self.run)?;
        self.at = end;
        Ok(Some(import.name.bytes()))
    }
}

impl<'a> Iterator for Imports<'a> {
    type Item = &'a [u8];

    /// Returns the next name. Where the section is damaged, which [`Entry::verify`] and every load tell, there is none.
    fn next(&mut self) -> Option<&'a [u8]> {
        let next = self.read().ok().flatten();
        if next.is_none() {
            *self = Self::default();
        }
        next
    }
}

impl fmt::Debug for Imports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone().map(|name| name.escape_ascii().to_string())).finish()
    }
}

/// An address of 8 bytes that is written to the data when an entry is loaded. Returned by [`Entry::relocations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where, in bytes from the start of the engine's code in the image.
    pub place: u64,
    /// The import whose address it is; `None` for that of the engine's code.
    pub import: Option<u64>,
    /// What is added to the address, wrapping: of the engine's code, it is an offset in the image.
    pub addend: u64,
}

impl From<&Row<3>> for Relocation {
    fn from(row: &Row<3>) -> Self {
        let [place, target, addend] = row.map(u64::from_le_bytes);
        Self { place, import: target.checked_sub(1), addend }
    }
}

/// What the image of an entry is made of beside its code.
#[derive(Debug)]
pub(crate) struct Linkage<'a> {
    pub(crate) layout: Layout,
    pub(crate) imports: Imports<'a>,
    pub(crate) read_only: Run<'a>,
    pub(crate) writable: Run<'a>,
    relocations: Run<'a>,
    symbols: Option<Run<'a>>,
    unwind: Option<Run<'a>>,
}

impl<'a> Entry<'a> {
    /// Returns the names that the code imports.
    #[must_use]
    pub fn imports(&self) -> Imports<'a> {
        Imports { run: self.linkage_section(IMPORTS).unwrap_or_default(), at: 0 }
    }

    /// Returns the data that lie beside the code: first those that nobody writes to, then those that the code may write
    /// to.
    #[must_use]
    pub fn data(&self) -> [&'a [u8]; 2] {
        let linkage = self.linkage().ok().flatten();
        linkage.map_or([&[]; 2], |linkage| [linkage.read_only, linkage.writable].map(|run| run.bytes()))
    }

    /// Returns the addresses that are written to the data when the entry is loaded.
    pub fn relocations(&self) -> impl ExactSizeIterator<Item = Relocation> + use<'a> {
        let run = self.linkage_section(RELOCATIONS).unwrap_or_default();
        Table::<3>::of(run).rows().iter().map(Relocation::from)
    }

    /// Returns the names of functions and data.
    #[must_use]
    pub fn symbols(&self) -> Symbols<'a> {
        Symbols::of(self.linkage_section(SYMBOLS))
    }

    /// Returns what lies at an offset of the image, in bytes from the start of the engine's code; of an import, that is
    /// the slot with its address. `None` between the parts of the image and outside it.
    ///
    /// ```
    /// use jitcache::{Builder, Entry, Identity, Key, Place, RelocationKind};
    ///
    /// let identity = Identity::new("myjit", *b"MYJIT\0", "1.4.2")?;
    /// let key = Key::of(&identity).source(b"import host.log").finish();
    /// let mut builder = Builder::new();
    /// builder.code(vec![0xc3; 24]).function(0);
    /// let (log, pointer) = (builder.import("host.log"), builder.data(&[0; 8], 8));
    /// builder.relocate(pointer, RelocationKind::Abs8, log, 0);
    /// let file = builder.finish(&identity, &key)?.to_vec();
    ///
    /// let entry = Entry::parse(&file, &identity)?;
    /// assert_eq!(entry.place(16), Some(Place::Code(16)));
    /// let relocation = entry.relocations().next().unwrap();
    /// assert_eq!(entry.place(relocation.place), Some(pointer));
    /// # Ok::<(), jitcache::Error>(())
    /// ```
    #[must_use]
    pub fn place(&self, offset: u64) -> Option<Place> {
        let code = self.body.code.length().saturating_sub(self.padding());
        if offset < code {
            return Some(Place::Code(offset));
        }
        let Linkage { layout: Layout { engine, read_only, slots, writable, .. }, .. } = self.linkage().ok()??;
        let at = engine.checked_add(offset)?;
        let behind = |part: &Range<u64>| part.contains(&at).then(|| at.saturating_sub(part.start));
        if let Some(at) = behind(&read_only) {
            Some(Place::ReadOnly(at))
        } else if let Some(at) = behind(&writable) {
            Some(Place::Writable(at))
        } else {
            behind(&slots).and_then(|at| Some(Place::Import(u32::try_from(at / 8).ok()?)))
        }
    }

    /// Returns the unwind tables, as `.eh_frame` has them.
    #[must_use]
    pub fn eh_frame(&self) -> Option<&'a [u8]> {
        let linkage = self.linkage().ok()??;
        Some(linkage.unwind_tables().ok()??.0.bytes())
    }

    fn linkage_section(&self, tag: u32) -> Option<Run<'a>> {
        self.sealed.as_ref()?.sections().find(tag)
    }

    /// Returns what the image of the entry is made of, `None` if it is code alone, after a look at lengths.
    pub(crate) fn linkage(&self) -> Result<Option<Linkage<'a>>, Error> {
        let Some(sealed) = &self.sealed else { return Ok(None) };
        let [mut imports, mut data, mut relocations, mut symbols, mut unwind] = [None; 5];
        for section in sealed.sections() {
            let Section { tag, flags, bytes } = section?;
            let (found, flags_are) = match tag {
                IMPORTS => (&mut imports, 1),
                DATA => (&mut data, 1),
                RELOCATIONS => (&mut relocations, 1),
                SYMBOLS => (&mut symbols, flags),
                UNWIND_TABLES => (&mut unwind, flags),
                _ => continue,
            };
            if flags != flags_are {
                // In front of the bytes stands the length, and in front of that the flags.
                let (field, at) = (Field::SectionFlags, bytes.at().saturating_sub(9));
                return Err(Error::Value { field, at, expected: Bound::Exactly(1), found: flags.into() });
            }
            *found = Some(bytes);
        }
        if [imports, data, relocations, symbols, unwind].iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut names = Imports { run: imports.unwrap_or_default(), at: 0 };
        let imports = names.clone();
        let mut parts = layout::Data::default();
        while names.read()?.is_some() {
            parts.imports = parts.imports.saturating_add(1);
        }
        let (mut read_only, mut writable) = (Run::default(), Run::default());
        if let Some(run) = data {
            let (Data { read_only: length, bytes }, _) = format::read::<Data<'_>>(run, 0, run)?;
            if length > bytes.length() {
                let (field, expected) = (Field::ReadOnlyLength, Bound::AtMost(bytes.length()));
                return Err(Error::Value { field, at: run.at(), expected, found: length });
            }
            (read_only, writable) = (bytes.part(&(0..length)), bytes.part(&(length..bytes.length())));
            (parts.read_only, parts.writable) = (read_only.length(), writable.length());
        }
        let (code, padding) = (self.body.code, self.padding());
        let value = |field, at, expected, found| Err(Error::Value { field, at, expected, found });
        if code.length() == padding {
            return value(Field::CodeLength, code.at().saturating_sub(8), Bound::Above(padding), code.length());
        }
        let Some(layout) = Layout::of(self.target().arch.largest_page(), &code.range(), padding, &parts) else {
            // Only a file that nobody can have is so long.
            return value(Field::CodeLength, code.at().saturating_sub(8), Bound::AtMost(1 << 62), code.length());
        };
        let relocations = relocations.unwrap_or_default();
        Ok(Some(Linkage { layout, imports, read_only, writable, relocations, symbols, unwind }))
    }

    /// Checks all that the sections say of imports, data, addresses in it, symbols and unwind tables.
    pub(crate) fn check_linkage(&self) -> Result<(), Error> {
        self.linkage()?.map_or(Ok(()), |linkage| linkage.check())
    }
}

impl<'a> Linkage<'a> {
    /// Returns whether there is anything beside the code in memory.
    pub(crate) fn has_image(&self) -> bool {
        self.layout.end() > self.layout.code.end
    }

    pub(crate) fn relocations(&self) -> impl Iterator<Item = Relocation> + use<'a> {
        Table::<3>::of(self.relocations).rows().iter().map(Relocation::from)
    }

    /// Returns the unwind tables, and where in the image they begin.
    pub(crate) fn unwind_tables(&self) -> Result<Option<(Run<'a>, u64)>, Error> {
        let Some(run) = self.unwind else { return Ok(None) };
        let (UnwindTables { offset, length }, end) = format::read::<UnwindTables>(run, 0, ())?;
        check_length(run, Bound::Exactly(end), run.length() == end)?;
        let Layout { engine, ref read_only, .. } = self.layout;
        let value = |behind: u64, expected, found| {
            let at = run.at().saturating_add(behind);
            Err(Error::Value { field: Field::UnwindTables, at, expected, found })
        };
        let (first, last) = (read_only.start.saturating_sub(engine), read_only.end.saturating_sub(engine));
        let start = match offset.checked_sub(first) {
            None => return value(0, Bound::Above(first.saturating_sub(1)), offset),
            Some(_) if offset > last => return value(0, Bound::AtMost(last), offset),
            Some(start) => start,
        };
        let rest = last.saturating_sub(offset);
        if length > rest {
            return value(8, Bound::AtMost(rest), length);
        }
        let tables = self.read_only.part(&(start..start.saturating_add(length)));
        Ok(Some((tables, read_only.start.saturating_add(start))))
    }

    /// Checks that all of it is sound.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.check_relocations()?;
        if let Some(run) = self.symbols {
            Symbols::read(run)?.check(self.layout.offset(self.layout.end()))?;
        }
        self.unwind_tables()?.map_or(Ok(()), |(tables, _)| unwind::check(tables))
    }

    /// Checks that addresses lie in the data, one behind the other, and that what they are the addresses of is there.
    pub(crate) fn check_relocations(&self) -> Result<(), Error> {
        check_length(self.relocations, Bound::MultipleOf(24), self.relocations.length().checked_rem(24) == Some(0))?;
        let Layout { read_only, writable, .. } = &self.layout;
        let [first, middle, second, last, end] =
            [read_only.start, read_only.end, writable.start, writable.end, self.layout.end()]
                .map(|at| self.layout.offset(at));
        let last = if last > second { last } else { middle };
        let imports = self.layout.slots.end.saturating_sub(self.layout.slots.start) / 8;
        let table = Table::<3>::of(self.relocations);
        let mut lowest = first;
        for (row, numbers) in table.rows().iter().enumerate() {
            let [place, target, addend] = numbers.map(u64::from_le_bytes);
            let value = |column, expected, found| {
                let at = table.number_at(row, column);
                Err(Error::Value { field: Field::Relocations, at, expected, found })
            };
            if place < lowest {
                return value(0, Bound::Above(lowest.saturating_sub(1)), place);
            }
            let behind = place.saturating_add(8);
            if behind > last {
                return value(0, Bound::Below(last.saturating_sub(7)), place);
            }
            if behind > middle && place < second {
                return value(0, Bound::Above(second.saturating_sub(1)), place);
            }
            if target > imports {
                return value(1, Bound::AtMost(imports), target);
            }
            if target == 0 && addend > end {
                return value(2, Bound::AtMost(end), addend);
            }
            lowest = behind;
        }
        Ok(())
    }
}

/// Checks the length of a section, which stands in front of its bytes.
fn check_length(section: Run<'_>, expected: Bound, is_right: bool) -> Result<(), Error> {
    if is_right {
        return Ok(());
    }
    let (field, at, found) = (Field::SectionLength, section.at().saturating_sub(8), section.length());
    Err(Error::Value { field, at, expected, found })
}

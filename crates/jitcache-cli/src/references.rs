//! What code refers to: functions, data, and what is imported.

use std::collections::BTreeMap;

use jitcache::entry::Relocation;
use jitcache::{Arch, Entry, Place};

use crate::functions::{Function, functions};
use crate::instructions::Instructions;

/// What lies where in the image of an entry.
pub(crate) struct References<'a> {
    entry: &'a Entry<'a>,
    arch: Arch,
    /// By their offsets.
    functions: Vec<Function>,
    imports: Vec<String>,
    relocations: BTreeMap<u64, Relocation>,
}

impl<'a> References<'a> {
    pub(crate) fn of(entry: &'a Entry<'a>, arch: Arch) -> Self {
        let mut functions = functions(entry);
        functions.sort_by_key(|function| (function.offset, function.index));
        let imports = entry.imports().map(|name| name.escape_ascii().to_string()).collect();
        let relocations = entry.relocations().map(|relocation| (relocation.place, relocation)).collect();
        Self { entry, arch, functions, imports, relocations }
    }

    /// Tells what lies at an offset of the image, if anything does.
    pub(crate) fn tell(&self, at: u64) -> Option<String> {
        if let Some(import) = self.stub(at) {
            return Some(import);
        }
        let place = self.entry.place(at)?;
        let name = self.entry.symbols().at(at).map(|symbol| symbol.name.escape_ascii().to_string());
        let what = match place {
            Place::Import(import) => return Some(self.import(import.into())),
            Place::Code(_) => self.code(at),
            Place::ReadOnly(behind) => name.unwrap_or_else(|| format!("read-only data + {behind:#x}")),
            Place::Writable(behind) => name.unwrap_or_else(|| format!("writable data + {behind:#x}")),
        };
        Some(match self.relocations.get(&at) {
            Some(relocation) => format!("{what}: address of {}", self.address(relocation)),
            None => what,
        })
    }

    /// Returns whether what lies there jumps to an import, and does nothing else.
    pub(crate) fn is_stub(&self, at: u64) -> bool {
        self.stub(at).is_some()
    }

    fn import(&self, number: u64) -> String {
        let name = usize::try_from(number).ok().and_then(|number| self.imports.get(number));
        name.map_or_else(|| format!("import {number}"), |name| format!("import {name}"))
    }

    fn address(&self, relocation: &Relocation) -> String {
        let addend = relocation.addend;
        match relocation.import {
            Some(import) if addend == 0 => self.import(import),
            Some(import) => format!("{} + {addend:#x}", self.import(import)),
            None if self.relocations.contains_key(&addend) => format!("{addend:#x}"),
            None => self.tell(addend).unwrap_or_else(|| format!("{addend:#x}")),
        }
    }

    fn code(&self, at: u64) -> String {
        let behind = self.functions.partition_point(|function| function.offset <= at);
        let function = behind.checked_sub(1).and_then(|index| self.functions.get(index));
        match function {
            Some(function) if function.offset == at => function.called(),
            Some(function) => format!("{} + {:#x}", function.called(), at.saturating_sub(function.offset)),
            None => format!("{at:#x}"),
        }
    }

    /// Returns the import that the code at an offset jumps to by way of its slot.
    fn stub(&self, at: u64) -> Option<String> {
        /// How many bytes of a stub are looked at: two instructions on arm64, which load the address.
        const MOST: usize = 8;
        if self.imports.is_empty() {
            return None;
        }
        let code = self.entry.code().get(usize::try_from(at).ok()?..)?;
        let code = code.get(..MOST).unwrap_or(code);
        let in_file = self.entry.code_range().start.saturating_add(self.entry.padding());
        let mut instructions = Instructions::new(self.arch, code, at, in_file)?;
        let first = instructions.next()?;
        let jump = if self.arch == Arch::Arm64 && first.text.starts_with("adrp x16") {
            instructions.next()?
        } else if first.text.starts_with("jmp qword ptr") {
            first
        } else {
            return None;
        };
        match self.entry.place(jump.refers_to?)? {
            Place::Import(import) => Some(self.import(import.into())),
            _ => None,
        }
    }
}

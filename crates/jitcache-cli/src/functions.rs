//! The functions of an entry, by their offsets, and with their names if it has any.

use jitcache::Entry;

pub(crate) struct Function {
    pub(crate) index: usize,
    /// Where it begins, in bytes from the start of the code.
    pub(crate) offset: u64,
    /// Up to the next one, or the end of the code.
    pub(crate) bytes: u64,
    /// What the source map has for its first instruction.
    pub(crate) source: Option<u64>,
    pub(crate) name: Option<String>,
}

impl Function {
    /// Returns its name, or its number for one that has none.
    pub(crate) fn called(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("function {}", self.index))
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// Returns the functions in the order of the entry's table, whose offsets rise unless it is unsound.
pub(crate) fn functions(entry: &Entry<'_>) -> Vec<Function> {
    let (map, symbols, mut end) = (entry.source_map(), entry.symbols(), code_length(entry));
    let mut offsets: Vec<(u64, usize)> = entry.functions().iter().zip(0..).collect();
    // No byte belongs to two functions, whatever stands in the table.
    offsets.sort_unstable();
    let functions = offsets.into_iter().rev().map(|(offset, index)| {
        let bytes = end.saturating_sub(offset);
        end = end.min(offset);
        let source = map.as_ref().and_then(|map| map.at_instruction(offset)).map(|row| row.source);
        let name = symbols.at(offset).map(|symbol| symbol.name.escape_ascii().to_string());
        Function { index, offset, bytes, source, name }
    });
    let mut functions: Vec<_> = functions.collect();
    functions.sort_unstable_by_key(|function| function.index);
    functions
}

/// Returns the length of the code, in bytes.
pub(crate) fn code_length(entry: &Entry<'_>) -> u64 {
    u64::try_from(entry.code().len()).unwrap_or(u64::MAX)
}

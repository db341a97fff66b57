//! The functions of a module, each with the name that is shown.

#[cfg(any(target_os = "linux", all(feature = "gdb", unix, not(target_vendor = "apple"))))]
use jitcache::Module;

/// Names for the functions that the entry has no symbols of.
///
/// A text is a prefix: `"myjit"` names the third function `myjit[2]`. A closure is asked with the index of the function:
/// `|index: usize| format!("myjit::{}", names[index])`. What is no text in an entry's symbol, and control characters in any
/// name, are shown as `\u{fffd}` and `?`.
pub trait Names {
    /// Returns the name of the function of that index.
    fn name(&mut self, index: usize) -> String;
}

impl Names for &str {
    fn name(&mut self, index: usize) -> String {
        format!("{self}[{index}]")
    }
}

impl<F: FnMut(usize) -> String> Names for F {
    fn name(&mut self, index: usize) -> String {
        self(index)
    }
}

/// A function that has code.
#[cfg(any(target_os = "linux", all(feature = "gdb", unix, not(target_vendor = "apple"))))]
pub(crate) struct Function<'m> {
    /// One line without control characters, and not empty.
    pub(crate) name: String,
    pub(crate) address: usize,
    /// Where it starts, in bytes from the start of the module's code.
    #[cfg(target_os = "linux")]
    pub(crate) offset: u64,
    pub(crate) code: &'m [u8],
}

#[cfg(target_os = "linux")]
impl Function<'_> {
    /// Returns whether an offset in the module's code is in this function.
    pub(crate) fn holds(&self, offset: u64) -> bool {
        let into = offset.checked_sub(self.offset).and_then(|into| usize::try_from(into).ok());
        into.is_some_and(|into| into < self.code.len())
    }

    /// Returns the address of an offset that it holds.
    pub(crate) fn address_of(&self, offset: u64) -> usize {
        self.address.saturating_add(usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX))
    }
}

/// Returns the functions of a module in order, those without code left out.
///
/// A function is as long as its symbol says, if there is one that knows, and ends no later than the next one starts.
#[cfg(any(target_os = "linux", all(feature = "gdb", unix, not(target_vendor = "apple"))))]
pub(crate) fn functions<'m>(module: &'m Module, mut names: impl Names) -> impl Iterator<Item = Function<'m>> {
    let (offsets, symbols, code, base) =
        (module.functions(), module.symbols(), module.code(), module.address_range().start);
    offsets.iter().enumerate().filter_map(move |(index, offset)| {
        let symbol = symbols.at(offset);
        let start = usize::try_from(offset).ok()?;
        let next = offsets.get(index.saturating_add(1)).and_then(|next| usize::try_from(next).ok());
        let length = symbol.and_then(|symbol| usize::try_from(symbol.length).ok()).filter(|length| *length > 0);
        let end = next.unwrap_or(code.len()).min(start.saturating_add(length.unwrap_or(code.len())));
        let code = code.get(start..end).filter(|code| !code.is_empty())?;
        let name = match symbol {
            Some(symbol) => String::from_utf8_lossy(symbol.name).into_owned(),
            None => names.name(index),
        };
        Some(Function {
            name: clean(name),
            address: base.saturating_add(start),
            #[cfg(target_os = "linux")]
            offset,
            code,
        })
    })
}

/// Returns a name that takes one line and ends where it ends.
#[cfg(any(target_os = "linux", all(feature = "gdb", unix, not(target_vendor = "apple"))))]
fn clean(name: String) -> String {
    if name.is_empty() {
        return "?".to_owned();
    }
    if name.contains(char::is_control) { name.replace(char::is_control, "?") } else { name }
}

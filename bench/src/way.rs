//! What a way to get code from a file into executable memory is.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Code that can be executed, until this is dropped.
pub trait Loaded {
    /// The code, if the way lets it be seen.
    fn code(&self) -> Option<&[u8]>;
}

/// Whose way it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ours,
    /// As little as can be done, by hand: nothing is checked, or the code alone.
    Floor,
    Peer,
}

pub struct Way {
    pub name: &'static str,
    pub kind: Kind,
    /// What is read: it is this file that has to be out of the cache for a cold load.
    pub file: PathBuf,
    pub load: Box<dyn Fn() -> Outcome<Box<dyn Loaded>>>,
}

pub fn way<T: Loaded + 'static>(
    kind: Kind,
    name: &'static str,
    file: PathBuf,
    load: impl Fn() -> Outcome<T> + 'static,
) -> Way {
    Way { name, kind, file, load: Box::new(move || Ok(Box::new(load()?))) }
}

/// Reads a byte of every page.
pub fn touch(code: &[u8]) {
    for page in code.chunks(4096) {
        std::hint::black_box(page[0]);
    }
}

/// Loads once and checks that what was loaded is the code, and executable.
pub fn check(way: &Way, expected: &[u8]) -> Outcome<()> {
    let loaded = (way.load)()?;
    let Some(code) = loaded.code() else { return Ok(()) };
    // Padding may stand in front of it.
    if !code.ends_with(expected) {
        return Err(format!("{} loaded something else", way.name).into());
    }
    let address = code.as_ptr().addr();
    let maps = fs::read_to_string("/proc/self/maps")?;
    let executable = maps.lines().any(|line| {
        let (range, rest) = line.split_once(' ').unwrap_or_default();
        let (start, end) = range.split_once('-').unwrap_or_default();
        let bound = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        (bound(start)..bound(end)).contains(&address) && rest.starts_with("r-x")
    });
    if executable { Ok(()) } else { Err(format!("{} left the code without execution", way.name).into()) }
}

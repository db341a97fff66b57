//! What is mapped in this process, as Linux tells it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;

/// A line of `/proc/self/maps`.
pub struct Mapping<'a> {
    pub addresses: Range<usize>,
    /// Such as `r-xs`.
    pub protection: &'a str,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Path of the file; empty if there is none.
    pub file: &'a str,
}

impl Mapping<'_> {
    /// Returns the bytes of the file that are mapped.
    pub fn part(&self) -> Range<u64> {
        self.offset..self.offset + u64::try_from(self.addresses.len()).unwrap()
    }
}

/// Looks at each mapping, without much memory.
pub fn each(mut look: impl FnMut(Mapping<'_>)) {
    let (mut maps, mut line) = (BufReader::new(File::open("/proc/self/maps").unwrap()), String::with_capacity(4096));
    while maps.read_line(&mut line).unwrap() > 0 {
        let mut words = line.trim_end().splitn(6, ' ');
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).unwrap());
        let protection = words.next().unwrap();
        let offset = u64::from_str_radix(words.next().unwrap(), 16).unwrap();
        look(Mapping {
            addresses: start..end,
            protection,
            offset,
            file: words.nth(2).unwrap_or_default().trim_start(),
        });
        line.clear();
    }
}

/// Returns how many mappings there are.
pub fn count() -> usize {
    let mut count = 0;
    each(|_| count += 1);
    count
}

/// Returns the protection of the page that holds an address.
pub fn protection(address: usize) -> Option<String> {
    let mut found = None;
    each(|mapping| {
        if mapping.addresses.contains(&address) {
            found = Some(mapping.protection.to_owned());
        }
    });
    found
}

//! The least that can be done to make code executable, and what is done without much thought.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::pages::Pages;
use crate::subject::{Seal, Subject};
use crate::ways::{Kind, Loaded, Outcome, Way, touch, way};

/// The ways whose time the others are divided by: copying, and mapping.
pub const COPY: &str = "floor: read";
pub const MAP: &str = "floor: map + touch";

/// Below this size a huge page costs more than small ones: all of it has to be cleared.
const HUGE_FROM: usize = 1 << 20;

/// Pages, and where in them the code lies.
struct Placed(Pages, Range<usize>);

impl Loaded for Placed {
    fn code(&self) -> Option<&[u8]> {
        self.0.bytes().get(self.1.clone())
    }
}

/// The file of a plain entry: what every floor reads, as the crate has to.
struct Entry {
    file: PathBuf,
    code: Range<usize>,
    /// The CRC-32C of all bytes of the file, and of the code.
    sum: u32,
    code_sum: u32,
}

type Load = fn(&Entry) -> Outcome<Placed>;

const HUGE: &str = "floor: read, huge pages";

const WAYS: [(&str, Load); 6] = [
    (COPY, |entry| read_into(entry, Pages::anonymous)),
    (HUGE, |entry| read_into(entry, Pages::huge)),
    ("floor: map", map),
    (MAP, map_and_touch),
    ("floor: map + CRC", map_and_check),
    ("naive", naive),
];

pub fn names() -> impl Iterator<Item = &'static str> {
    WAYS.into_iter().map(|(name, _)| name)
}

pub fn ways(subject: &Subject) -> Outcome<Vec<Way>> {
    let ways = WAYS.into_iter().filter(|(name, _)| subject.length >= HUGE_FROM || *name != HUGE);
    ways.map(|(name, load)| {
        let store = subject.store(name, Seal::Plain)?;
        let file = store.path(&subject.key(&store));
        let bytes = fs::read(&file)?;
        let code = jitcache::Entry::parse(&bytes, store.identity())?.code_range();
        let code = usize::try_from(code.start)?..usize::try_from(code.end)?;
        let [sum, code_sum] = [&bytes, &bytes[code.clone()]].map(crc_fast::crc32_iscsi);
        let entry = Entry { file: file.clone(), code, sum, code_sum };
        Ok(way(Kind::Floor, name, file, move || load(&entry)))
    })
    .collect()
}

fn open(path: &Path) -> Outcome<(File, usize)> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len())?;
    Ok((file, length))
}

/// `fresh` returns new pages that can be written.
fn read_into(entry: &Entry, fresh: fn(usize) -> io::Result<Pages>) -> Outcome<Placed> {
    let (mut file, length) = open(&entry.file)?;
    let mut pages = fresh(length)?;
    // SAFETY: the pages are new: both callers hand in a function that the contract names.
    file.read_exact(unsafe { pages.bytes_mut() })?;
    Ok(Placed(pages.executable()?, entry.code.clone()))
}

fn map(entry: &Entry) -> Outcome<Placed> {
    let (file, length) = open(&entry.file)?;
    Ok(Placed(Pages::file(&file, length)?, entry.code.clone()))
}

fn map_and_touch(entry: &Entry) -> Outcome<Placed> {
    let placed = map(entry)?;
    touch(placed.0.bytes());
    Ok(placed)
}

fn map_and_check(entry: &Entry) -> Outcome<Placed> {
    let placed = map(entry)?;
    check(placed.0.bytes(), entry.sum)?;
    Ok(placed)
}

fn naive(entry: &Entry) -> Outcome<Placed> {
    let bytes = fs::read(&entry.file)?;
    let code = bytes.get(entry.code.clone()).ok_or("there is less code than there was")?;
    check(code, entry.code_sum)?;
    let mut pages = Pages::anonymous(code.len())?;
    // SAFETY: the pages are new ones, of `Pages::anonymous`.
    unsafe { pages.bytes_mut() }.copy_from_slice(code);
    Ok(Placed(pages.executable()?, 0..code.len()))
}

fn check(code: &[u8], sum: u32) -> Outcome<()> {
    if crc_fast::crc32_iscsi(code) == sum { Ok(()) } else { Err("the code is damaged".into()) }
}

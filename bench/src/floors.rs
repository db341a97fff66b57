//! The least that can be done to make code executable, and what is done without much thought.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::pages::Pages;
use crate::subject::Subject;
use crate::ways::{Kind, Loaded, Outcome, Way, touch, way};

/// The ways whose time the others are divided by: copying, and mapping.
pub const COPY: &str = "floor: read";
pub const MAP: &str = "floor: map + touch";

/// Below this size a huge page costs more than small ones: all of it has to be cleared.
const HUGE_FROM: usize = 1 << 20;

impl Loaded for Pages {
    fn code(&self) -> Option<&[u8]> {
        Some(self.bytes())
    }
}

/// Makes code executable that is all of a file, given what its CRC-32C must be.
type Load = fn(&Path, u32) -> Outcome<Pages>;

pub fn ways(subject: &Subject) -> Outcome<Vec<Way>> {
    let file = subject.code_file();
    let sum = crc_fast::crc32_iscsi(&fs::read(&file)?);
    let mut floors: Vec<(&'static str, Load)> = vec![
        (COPY, |path, _| read_into(path, Pages::anonymous)),
        ("floor: map", |path, _| map(path)),
        (MAP, map_and_touch),
        ("floor: map + CRC", map_and_check),
        ("naive", naive),
    ];
    if subject.length >= HUGE_FROM {
        floors.insert(1, ("floor: read, huge pages", |path, _| read_into(path, Pages::huge)));
    }
    let floor = |(name, load): (&'static str, Load)| {
        let path = file.clone();
        way(Kind::Floor, name, file.clone(), move || load(&path, sum))
    };
    Ok(floors.into_iter().map(floor).collect())
}

fn open(path: &Path) -> Outcome<(File, usize)> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len())?;
    Ok((file, length))
}

/// `fresh` returns new pages that can be written.
fn read_into(path: &Path, fresh: fn(usize) -> io::Result<Pages>) -> Outcome<Pages> {
    let (mut file, length) = open(path)?;
    let mut pages = fresh(length)?;
    // SAFETY: the pages are new: both callers hand in a function that the contract names.
    file.read_exact(unsafe { pages.bytes_mut() })?;
    Ok(pages.executable()?)
}

fn map(path: &Path) -> Outcome<Pages> {
    let (file, length) = open(path)?;
    Ok(Pages::file(&file, length)?)
}

fn map_and_touch(path: &Path, _: u32) -> Outcome<Pages> {
    let pages = map(path)?;
    touch(pages.bytes());
    Ok(pages)
}

fn map_and_check(path: &Path, sum: u32) -> Outcome<Pages> {
    let pages = map(path)?;
    check(pages.bytes(), sum)?;
    Ok(pages)
}

fn naive(path: &Path, sum: u32) -> Outcome<Pages> {
    let code = fs::read(path)?;
    check(&code, sum)?;
    let mut pages = Pages::anonymous(code.len())?;
    // SAFETY: the pages are new ones, of `Pages::anonymous`.
    unsafe { pages.bytes_mut() }.copy_from_slice(&code);
    Ok(pages.executable()?)
}

fn check(code: &[u8], sum: u32) -> Outcome<()> {
    if crc_fast::crc32_iscsi(code) == sum { Ok(()) } else { Err("the code is damaged".into()) }
}

//! The least that can be done to make code executable, and what is done without much thought.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use aegis::aegis128x2::Aegis128X2Mac;

use crate::pages::Pages;
use crate::subject::{Seal, Subject};
use crate::way::{Kind, Loaded, Outcome, Way, touch, way};

/// The ways whose time the others are divided by: copying, and mapping.
pub const COPY: &str = "floor: read";
pub const MAP: &str = "floor: map + touch";

pub const HUGE: &str = "floor: read, huge pages";
pub const CRC: &str = "floor: map + CRC";
pub const DIGEST: &str = "floor: map + digest";

/// Below this size a huge page costs more than small ones: all of it has to be cleared.
const HUGE_FROM: usize = 1 << 20;

/// Pages, and where in them the code lies.
struct Placed(Pages, Range<usize>);

impl Loaded for Placed {
    fn code(&self) -> Option<&[u8]> {
        self.0.bytes().get(self.1.clone())
    }
}

/// The file of an entry, and what it sums to.
struct Entry {
    file: PathBuf,
    code: Range<usize>,
    /// The CRC-32C of all bytes of the file, and of the code.
    sum: u32,
    code_sum: u32,
    /// What sealed entries have, under a key of its own, of all bytes of the file.
    digest: [u8; 32],
}

pub struct Floor {
    pub name: &'static str,
    /// What the crate reads beside it.
    pub seal: Seal,
    load: fn(&Entry) -> Outcome<Placed>,
}

impl Floor {
    const fn of_plain(name: &'static str, load: fn(&Entry) -> Outcome<Placed>) -> Self {
        Self { name, seal: Seal::Plain, load }
    }
}

pub const WAYS: [Floor; 7] = [
    Floor::of_plain(COPY, |entry| read_into(entry, Pages::anonymous)),
    Floor::of_plain(HUGE, |entry| read_into(entry, Pages::huge)),
    Floor::of_plain("floor: map", map),
    Floor::of_plain(MAP, map_and_touch),
    Floor::of_plain(CRC, |entry| map_and_check(entry, |bytes| crc_fast::crc32_iscsi(bytes) == entry.sum)),
    Floor {
        name: DIGEST,
        seal: Seal::Checksum,
        load: |entry| map_and_check(entry, |bytes| digest(bytes) == entry.digest),
    },
    Floor::of_plain("naive", naive),
];

pub fn ways(subject: &Subject, wanted: impl Fn(&str) -> bool) -> Outcome<Vec<Way>> {
    let ways = WAYS.into_iter().filter(|floor| subject.length >= HUGE_FROM || floor.name != HUGE);
    ways.filter(|floor| wanted(floor.name))
        .map(|floor| {
            let store = subject.store(floor.name, floor.seal)?;
            let file = store.path(&subject.key(&store));
            let bytes = fs::read(&file)?;
            let code = jitcache::Entry::parse(&bytes, store.identity())?.code_range();
            let code = usize::try_from(code.start)?..usize::try_from(code.end)?;
            let [sum, code_sum] = [&bytes, &bytes[code.clone()]].map(crc_fast::crc32_iscsi);
            let entry = Entry { file: file.clone(), code, sum, code_sum, digest: digest(&bytes) };
            Ok(way(Kind::Floor, floor.name, file, move || (floor.load)(&entry)))
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

fn map_and_check(entry: &Entry, sound: impl Fn(&[u8]) -> bool) -> Outcome<Placed> {
    let placed = map(entry)?;
    check(sound(placed.0.bytes()))?;
    Ok(placed)
}

fn naive(entry: &Entry) -> Outcome<Placed> {
    let bytes = fs::read(&entry.file)?;
    let code = bytes.get(entry.code.clone()).ok_or("there is less code than there was")?;
    check(crc_fast::crc32_iscsi(code) == entry.code_sum)?;
    let mut pages = Pages::anonymous(code.len())?;
    // SAFETY: the pages are new ones, of `Pages::anonymous`.
    unsafe { pages.bytes_mut() }.copy_from_slice(code);
    Ok(Placed(pages.executable()?, 0..code.len()))
}

fn check(sound: bool) -> Outcome<()> {
    if sound { Ok(()) } else { Err("the bytes are damaged".into()) }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut mac = Aegis128X2Mac::<32>::new_with_nonce(&[0; 16], &[0; 16]);
    mac.update(bytes);
    mac.finalize()
}

//! The build id of the running program.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use crc_fast::{CrcAlgorithm, Digest};

use crate::entry::Identity;
use crate::error::Error;
use crate::words::size;

impl Identity {
    /// Sets the build id to that of the running program, so that entries of a program that was built again are not
    /// used.
    ///
    /// It is the GNU build id, which most linkers for Linux put into a program, and reading it takes microseconds. A
    /// program that has none is read to its end: its length and its CRC-64 are the id then, at some gigabytes a second.
    ///
    /// A change of the *program* is found, and nothing else: an engine that is in a dynamic library, or whose code
    /// depends on one, such as a module of an interpreter or a plugin, has to bring an id of its own:
    /// [`Identity::with_build_id`]. A build id does not change with what is done to a program behind the linker.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the program's file cannot be found or read.
    pub fn with_build_of_program(self) -> Result<Self, Error> {
        // The link leads to the file that runs even if another one has its name by now.
        let path = if cfg!(any(target_os = "linux", target_os = "android")) {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe().map_err(|source| Error::Io {
                action: "find",
                path: "the running program".into(),
                source,
            })?
        };
        let id = File::open(&path).and_then(build_id);
        self.with_build_id(&id.map_err(|source| Error::Io { action: "read", path, source })?)
    }
}

fn build_id(mut program: impl Read + Seek) -> io::Result<Vec<u8>> {
    // What is wrong with the file, if not with its headers alone, is found below.
    if let Ok(Some(id)) = gnu_build_id(&mut program) {
        return Ok(id);
    }
    program.rewind()?;
    let (mut length, mut digest) = (0_u64, Digest::new(CrcAlgorithm::Crc64Nvme));
    loop {
        let bytes = read(&mut program, u64::MAX)?;
        if bytes.is_empty() {
            return Ok([length.to_le_bytes(), digest.finalize().to_le_bytes()].concat());
        }
        length = length.saturating_add(size(&bytes));
        digest.update(&bytes);
    }
}

/// Returns the build id that stands in a note of an ELF file; `None` if there is none, or the file is no ELF file.
fn gnu_build_id(program: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
    const SEGMENT_OF_NOTES: u64 = 4;
    let header = read(program, 64)?;
    let Some((wide, little)) = elf(&header) else { return Ok(None) };
    let header = Numbers { bytes: &header, little };
    // Where the segments are listed, how long each is, and how many there are.
    let places = if wide { [(32, 8), (54, 2), (56, 2)] } else { [(28, 4), (42, 2), (44, 2)] };
    let [Some(at), Some(each), Some(count)] = places.map(|(at, width)| header.get(at, width)) else { return Ok(None) };
    program.seek(SeekFrom::Start(at))?;
    let segments = read(program, each.saturating_mul(count))?;
    for segment in segments.chunks_exact(usize::try_from(each).unwrap_or(0).max(1)) {
        let segment = Numbers { bytes: segment, little };
        let places = if wide { [(8, 8), (32, 8), (48, 8)] } else { [(4, 4), (16, 4), (28, 4)] };
        let places = places.map(|(at, width)| segment.get(at, width));
        let (Some(SEGMENT_OF_NOTES), [Some(at), Some(length), Some(align)]) = (segment.get(0, 4), places) else {
            continue;
        };
        program.seek(SeekFrom::Start(at))?;
        if let Some(id) = note(Numbers { bytes: &read(program, length)?, little }, align.max(4)) {
            return Ok(Some(id.to_vec()));
        }
    }
    Ok(None)
}

/// Returns whether an ELF file is of 64 bits and whether it is little-endian; `None` if it is none.
fn elf(header: &[u8]) -> Option<(bool, bool)> {
    let [class, order] = header.strip_prefix(b"\x7fELF")?.first_chunk()?;
    Some((*class == 2, *order == 1))
}

/// Returns the build id among notes: each is three lengths - of its name, of its content, and the kind -, the name and
/// the content, both of which are padded to `align`.
fn note(notes: Numbers<'_>, align: u64) -> Option<&[u8]> {
    const BUILD_ID: u64 = 3;
    let mut at = 0_u64;
    loop {
        let [name, length, kind] = [0, 4, 8].map(|offset| notes.get(at.checked_add(offset)?, 4));
        let name_at = at.checked_add(12)?;
        let id_at = name_at.checked_add(name?)?.checked_next_multiple_of(align)?;
        if kind? == BUILD_ID && notes.run(name_at, name?)? == b"GNU\0" {
            return notes.run(id_at, length?).filter(|id| !id.is_empty() && id.len() <= 255);
        }
        at = id_at.checked_add(length?)?.checked_next_multiple_of(align)?;
    }
}

/// Bytes with numbers in them.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl<'a> Numbers<'a> {
    fn run(self, at: u64, length: u64) -> Option<&'a [u8]> {
        let (start, end) = (usize::try_from(at).ok()?, usize::try_from(at.checked_add(length)?).ok()?);
        self.bytes.get(start..end)
    }

    /// Returns the number of at most eight bytes that stands at `at`.
    fn get(self, at: u64, width: u64) -> Option<u64> {
        let number = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let bytes = self.run(at, width)?.iter();
        Some(if self.little { bytes.rev().fold(0, number) } else { bytes.fold(0, number) })
    }
}

/// Returns as much as there is of the next `length` bytes, a megabyte at most.
fn read(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length.min(1 << 20)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn number(value: u64, width: usize, little: bool) -> Vec<u8> {
        let bytes = value.to_le_bytes()[..width].to_vec();
        if little { bytes } else { bytes.into_iter().rev().collect() }
    }

    /// A program with two segments, of which the second holds notes.
    fn program(wide: bool, little: bool, notes: &[u8]) -> Vec<u8> {
        let number = |value, width| number(value, width, little);
        let (word, header, each, notes_at) = if wide { (8, 64, 56, 176) } else { (4, 52, 32, 116) };
        let mut file = [&b"\x7fELF"[..], &[if wide { 2 } else { 1 }, if little { 1 } else { 2 }]].concat();
        file.resize(16, 0);
        file.extend([number(2, 2), number(62, 2), number(1, 4), number(0, word), number(header, word)].concat());
        file.extend([number(0, word), number(0, 4), number(header, 2), number(each, 2), number(2, 2)].concat());
        file.resize(if wide { 64 } else { 52 }, 0);
        for (kind, at, length) in [(1, 0, 0), (4, notes_at, size(notes))] {
            let (flags, places) =
                (number(5, 4), [at, at, at, length, length].map(|value| number(value, word)).concat());
            file.extend(number(kind, 4));
            file.extend(if wide { [flags, places].concat() } else { [places, flags].concat() });
            file.extend(number(4, word));
        }
        [&file, notes].concat()
    }

    fn note_of(little: bool, kind: u64, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut note = [size(name), size(content), kind].map(|value| number(value, 4, little)).concat();
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    fn id(file: &[u8]) -> Vec<u8> {
        build_id(Cursor::new(file)).unwrap()
    }

    #[test]
    fn the_build_id_is_that_of_the_note_in_programs_of_every_width_and_order() {
        for (wide, little) in [(true, true), (true, false), (false, true), (false, false)] {
            let other = note_of(little, 1, b"GNU\0", b"abi");
            let notes = [other.clone(), note_of(little, 3, b"Go\0\0", b"no"), note_of(little, 3, b"GNU\0", b"the id")];
            assert_eq!(id(&program(wide, little, &notes.concat())), b"the id");
            assert_eq!(id(&program(wide, little, &other)).len(), 16);
        }
    }

    #[test]
    fn a_program_without_a_note_has_another_id_for_every_change() {
        let file = program(true, true, &[]);
        let mut ids = vec![id(&file), id(b""), id(&[0]), id(&[0, 0])];
        for bit in 0..file.len() * 8 {
            let mut changed = file.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            ids.push(id(&changed));
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn damaged_and_cut_programs_have_an_id_all_the_same() {
        for (wide, little) in [(true, true), (false, false)] {
            let file = program(wide, little, &note_of(little, 3, b"GNU\0", &[7; 20]));
            for length in 0..file.len() {
                assert_ne!(id(&file[..length]), [7; 20]);
            }
            for (at, byte) in (0..file.len()).flat_map(|at| [0, 1, 0x7f, 0xff].map(|byte| (at, byte))) {
                let mut damaged = file.clone();
                damaged[at] = byte;
                assert!(matches!(id(&damaged).len(), 1..=255));
            }
        }
    }

    #[test]
    fn the_running_program_has_the_same_id_every_time_and_it_is_not_none() {
        let of_program = || {
            let identity = Identity::new("program", *b"PROGRA", "1").unwrap().with_build_of_program().unwrap();
            identity.build_id().to_vec()
        };
        assert!(!of_program().is_empty());
        assert_eq!(of_program(), of_program());
    }
}

//! What is loaded: code of some size, as the files that each way reads.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use jitcache::{Builder, Identity, Key, MacKey, Sealing, Store};
use jitcache_testkit::random::Random;

use crate::way::Outcome;

/// Bytes of code for each function of synthetic code.
const FUNCTION: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    Plain,
    Checksum,
    Mac,
}

impl Seal {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Checksum, Self::Mac];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Checksum => "checksum",
            Self::Mac => "MAC",
        }
    }

    pub fn identity(self) -> Outcome<Identity> {
        let sealing = match self {
            Self::Plain => Sealing::Plain,
            Self::Checksum => Sealing::Checksum,
            Self::Mac => Sealing::Mac(MacKey::new([7; 32])),
        };
        Ok(Identity::new("bench", *b"BENCH\0", "1")?.with_sealing(sealing).with_alignment_in_file(16)?)
    }
}

/// Code, in a directory of its own.
#[derive(Clone)]
pub struct Subject {
    pub name: String,
    directory: PathBuf,
    /// Length of the code in bytes.
    pub length: usize,
}

fn directory(name: &str) -> PathBuf {
    work_directory().join(name.replace(' ', ""))
}

/// Everything that the benchmark writes, except for the results.
pub fn work_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench")
}

/// The modules that `fetch` brings.
pub const REAL: [&str; 5] = ["sqlite", "resvg", "dprint", "astro", "esbuild"];

impl Subject {
    /// Opens a subject that was created before; it fails if there is none of that name.
    pub fn open(name: &str) -> Outcome<Self> {
        let directory = directory(name);
        let length = fs::metadata(directory.join("code"))?.len();
        Ok(Self { name: name.into(), directory, length: usize::try_from(length)? })
    }

    /// Returns the offset of each function in the code.
    pub fn functions(&self) -> Outcome<Vec<u64>> {
        let offsets = fs::read(self.directory.join("functions"))?;
        Ok(offsets.as_chunks().0.iter().map(|&offset| u64::from_le_bytes(offset)).collect())
    }

    /// Creates random code of that length.
    pub fn synthetic(name: &str, length: usize) -> Outcome<Self> {
        let functions: Vec<u64> = (0..length).step_by(FUNCTION).map(|offset| offset as u64).collect();
        Self::create(name, &Random(0).bytes(length), &functions)
    }

    /// Creates the files that are no entries, unless they are there.
    pub fn create(name: &str, code: &[u8], functions: &[u64]) -> Outcome<Self> {
        let directory = directory(name);
        fs::create_dir_all(&directory)?;
        let subject = Self { name: name.into(), directory, length: code.len() };
        if fs::read(subject.code_file()).is_ok_and(|there| there == code) {
            return Ok(subject);
        }
        File::create(subject.directory.join("functions"))
            .map(BufWriter::new)
            .and_then(|mut file| functions.iter().try_for_each(|offset| file.write_all(&offset.to_le_bytes())))?;
        subject.write_shared_object(code)?;
        // Last, because it tells that everything is there.
        fs::write(subject.code_file(), code)?;
        Ok(subject)
    }

    /// Writes the entry of each of those ways, with a source map of `rows` rows if that is not 0. An earlier run may
    /// have left entries that the crate would write otherwise by now.
    pub fn write_entries(&self, ways: &[(&str, Seal)], rows: usize) -> Outcome<()> {
        let (code, functions) = (fs::read(self.code_file())?, self.functions()?);
        for (way, seal) in ways {
            let store = self.store(way, *seal)?;
            let key = self.key(&store);
            store.put(&key, &entry(&code, &functions, rows).finish(store.identity(), &key)?)?;
        }
        Ok(())
    }

    fn write_shared_object(&self, code: &[u8]) -> Outcome<()> {
        let (included, source) = (self.directory.join("included"), self.directory.join("code.s"));
        fs::write(&included, code)?;
        fs::write(
            &source,
            ".text\n.balign 64\n.globl code\n.type code, %function\ncode: .incbin \"included\"\n.size code, . - code\n\
             .section .note.GNU-stack, \"\", %progbits\n",
        )?;
        let made = Command::new("cc")
            .current_dir(&self.directory)
            .args(["-shared", "-nostdlib", "-Wl,--build-id=none", "-o", "code.so", "code.s"])
            .status()?;
        fs::remove_file(&included)?;
        fs::remove_file(&source)?;
        if made.success() { Ok(()) } else { Err("cc made no shared object".into()) }
    }

    /// The store that holds the entry of one way.
    pub fn store(&self, way: &str, seal: Seal) -> Outcome<Store> {
        Ok(Store::open(self.directory.join(way), seal.identity()?)?)
    }

    pub fn key(&self, store: &Store) -> Key {
        Key::of(store.identity()).source(self.name.as_bytes()).finish()
    }

    /// The code and nothing else.
    pub fn code_file(&self) -> PathBuf {
        self.directory.join("code")
    }

    /// A file of somebody else's, made of the same module.
    #[cfg(feature = "peers")]
    pub fn artifact(&self, of: &str) -> PathBuf {
        self.directory.join(of)
    }

    pub fn shared_object(&self) -> PathBuf {
        self.directory.join("code.so")
    }
}

/// Returns what makes an entry of code, with a source map of `rows` rows if that is not 0.
pub fn entry<'a>(code: &'a [u8], functions: &[u64], rows: usize) -> Builder<'a> {
    let mut entry = Builder::new();
    entry.code(code);
    for &offset in functions {
        entry.function(offset);
    }
    for row in 0..rows as u64 {
        entry.source(row * code.len() as u64 / rows as u64, row);
    }
    entry
}

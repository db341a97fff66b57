//! What can be given on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use jitcache::MacKey;

use crate::judge::State;
use crate::out::Failure;

/// Looks into caches of compiled machine code, of any engine that keeps its code with jitcache, and of wazero.
///
/// DIR is the root of a cache or one of the directories of entries in it. A KEY may be any beginning that only one key
/// has. Exit codes: 0 all is well; 1 something is unsound or not there; 2 it cannot be done.
#[derive(Parser)]
#[command(name = "jitcache", version, max_term_width = 100)]
pub struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to colour what is printed
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// File with the key of entries that are sealed with a MAC: 32 bytes, or 64 hexadecimal digits
    #[arg(long, global = true, value_name = "FILE")]
    mac_key_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Color {
    /// If it goes to a terminal and NO_COLOR is not set
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List entries, by their lengths alone: no code is read
    List(List),
    /// Show what stands in an entry
    Show(Show),
    /// Disassemble the code of an entry, of x86 or arm64
    Disasm(Disasm),
    /// Check every byte of entries
    Verify(Verify),
    /// Tell why an entry is rejected here, and what to do
    Why(Why),
    /// Tell what a cache consists of
    Stats(Stats),
    /// Remove entries that fulfil every condition given
    Prune(Prune),
    /// Copy sound entries into another cache
    Copy(Copy),
    /// Write the sound entries of an engine into one file
    Pack(Pack),
    /// Copy sound entries from such a file into a cache
    Unpack(Unpack),
    /// Check whether a cache can work in a directory and on this machine
    Doctor(Doctor),
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    Manual,
}

#[derive(Parser)]
pub(crate) struct List {
    pub(crate) dir: PathBuf,
    /// What to sort by
    #[arg(long, default_value = "key")]
    pub(crate) sort: Sort,
    /// The other way round
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Only entries unused for so long, as in 90s, 10m, 12h, 30d or 4w
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Only entries used in that time
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) newer_than: Option<Duration>,
    /// Only entries of at least that size, as in 512, 64K, 10M or 1G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) min_size: Option<u64>,
    /// Only entries of at most that size
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_size: Option<u64>,
    /// Only entries of the engine of that name
    #[arg(long, value_name = "NAME")]
    pub(crate) engine: Option<String>,
    /// Only entries in that state
    #[arg(long)]
    pub(crate) state: Option<State>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Sort {
    Key,
    Age,
    Size,
    State,
}

#[derive(Parser)]
pub(crate) struct Show {
    pub(crate) dir: PathBuf,
    pub(crate) key: String,
    /// Draw the file into that one, to scale, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Parser)]
pub(crate) struct Disasm {
    pub(crate) dir: PathBuf,
    pub(crate) key: String,
    /// One function: by its number, its name, or the offset of a byte of its code, as in 0x1f0
    pub(crate) function: Option<String>,
    /// The source, whose lines are shown where the source map points at them
    #[arg(long, value_name = "FILE")]
    pub(crate) source: Option<PathBuf>,
}

#[derive(Parser)]
pub(crate) struct Verify {
    pub(crate) dir: PathBuf,
    /// Which entries
    #[arg(value_name = "KEY", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) keys: Vec<String>,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Parser)]
pub(crate) struct Why {
    /// A directory, or the file of an entry
    pub(crate) path: PathBuf,
    /// The key, if it is a directory
    pub(crate) key: Option<String>,
}

#[derive(Parser)]
pub(crate) struct Stats {
    pub(crate) dir: PathBuf,
    /// Tell what an engine with that budget would evict, as in 64K, 10M or 1G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) budget: Option<u64>,
    /// Draw it into that file, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Parser)]
#[command(group(
    clap::ArgGroup::new("condition").required(true).multiple(true).args(["older_than", "unsound", "version", "budget"])
))]
pub(crate) struct Prune {
    pub(crate) dir: PathBuf,
    /// Entries unused for so long, as in 90s, 10m, 12h, 30d or 4w
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Entries that are damaged: every byte is checked
    #[arg(long)]
    pub(crate) unsound: bool,
    /// Entries in directories of that version
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Of those, the least recently used, until all that are left take no more than that, as in 64K, 10M or 1G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) budget: Option<u64>,
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Parser)]
pub(crate) struct Copy {
    pub(crate) from: PathBuf,
    /// The root of the other cache, which is made if it is not there
    pub(crate) to: PathBuf,
    /// Which entries; all of them otherwise
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// Tell what would be copied, and copy nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Parser)]
pub(crate) struct Pack {
    /// The directory of entries, or a root that holds only one
    pub(crate) dir: PathBuf,
    /// The file, which takes the place of one that is there
    pub(crate) to: PathBuf,
    /// Of the code in its file, in bytes, as the engine has it
    #[arg(long, value_name = "BYTES", default_value_t = 1)]
    pub(crate) alignment: u64,
    /// Tell what would be packed, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Parser)]
pub(crate) struct Unpack {
    pub(crate) pack: PathBuf,
    /// The root of the cache, which is made if it is not there
    pub(crate) to: PathBuf,
    /// The name of the engine, which no pack tells
    #[arg(long, value_name = "NAME")]
    pub(crate) engine: String,
    /// Tell what would be unpacked, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Parser)]
pub(crate) struct Doctor {
    pub(crate) dir: PathBuf,
}

/// Returns the completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut completions = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "jitcache", &mut completions);
    completions
}

/// Returns the manual page, and behind it that of each command.
pub(crate) fn manual() -> std::io::Result<Vec<u8>> {
    let mut manual = Vec::new();
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    clap_mangen::Man::new(program.clone()).render(&mut manual)?;
    for command in program.get_subcommands() {
        clap_mangen::Man::new(command.clone()).render(&mut manual)?;
    }
    Ok(manual)
}

impl Arguments {
    /// Returns the MAC key in the file that was given.
    pub(crate) fn mac_key(&self) -> Result<Option<MacKey>, Failure> {
        let Some(path) = &self.mac_key_file else { return Ok(None) };
        let bytes = std::fs::read(path).map_err(|error| Failure::io("read", path, &error))?;
        let key = <[u8; 32]>::try_from(&bytes[..]).ok().or_else(|| {
            let digits: jitcache::Key = std::str::from_utf8(&bytes).ok()?.trim().to_lowercase().parse().ok()?;
            Some(*digits.as_bytes())
        });
        let wrong = || Failure::Usage(format!("{}: must hold 32 bytes, or 64 hexadecimal digits", path.display()));
        key.map(|key| Some(MacKey::new(key))).ok_or_else(wrong)
    }
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}

fn age(text: &str) -> Result<Duration, String> {
    let seconds = number(text).and_then(|(number, unit)| {
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "w" => 7 * 24 * 60 * 60,
            _ => return None,
        };
        number.checked_mul(unit)
    });
    seconds.map(Duration::from_secs).ok_or_else(|| "must be a number with s, m, h, d or w behind it".into())
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = number(text).and_then(|(number, unit)| {
        let unit = match unit {
            "" => 1,
            "K" => 1 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(unit)
    });
    bytes.ok_or_else(|| "must be a number of bytes, or one with K, M or G behind it".into())
}

//! What the program `jitcache` does, a tool to look into caches of compiled machine code. docs/tool.md shows each
//! command.
//!
//! No library for others: it is apart from the program so that it can be fuzzed.

mod arguments;
mod copy;
mod disasm;
mod doctor;
mod entries;
mod eviction;
mod functions;
mod instructions;
mod judge;
mod kinds;
mod list;
mod moved;
mod out;
mod pack;
mod picture;
mod progress;
mod prune;
mod references;
mod show;
mod source;
mod stats;
mod table;
mod tally;
mod text;
mod verify;
mod why;

pub use arguments::Arguments;
pub use out::Screen;

use arguments::Command;
use out::{Failure, Out};

/// What a command came to.
enum Outcome {
    Fine,
    /// Something is unsound, or not there.
    Unsound,
}

impl Outcome {
    const fn unsound_if(is_unsound: bool) -> Self {
        if is_unsound { Self::Unsound } else { Self::Fine }
    }
}

/// Does what was asked for, and returns the exit code.
#[must_use]
pub fn run(arguments: &Arguments, screen: Screen) -> u8 {
    let mut out = Out::new(screen, arguments.color, arguments.json);
    match command(arguments, &mut out).and_then(|outcome| out.flush().map(|()| outcome)) {
        Ok(Outcome::Fine) => 0,
        Ok(Outcome::Unsound) => 1,
        // Whoever read has seen enough.
        Err(Failure::Pipe) => 0,
        Err(Failure::Usage(message)) => {
            let _ = out.flush();
            out.tell(&message);
            2
        }
    }
}

fn command(arguments: &Arguments, out: &mut Out) -> Result<Outcome, Failure> {
    let mac_key = arguments.mac_key()?;
    let mac_key = mac_key.as_ref();
    match &arguments.command {
        Command::List(command) => list::run(command, mac_key, out),
        Command::Show(command) => show::run(command, mac_key, out),
        Command::Disasm(command) => disasm::run(command, mac_key, out),
        Command::Verify(command) => verify::run(command, mac_key, out),
        Command::Why(command) => why::run(command, mac_key, out),
        Command::Stats(command) => stats::run(command, mac_key, out),
        Command::Prune(command) => prune::run(command, mac_key, out),
        Command::Copy(command) => copy::run(command, mac_key, out),
        Command::Pack(command) => pack::pack(command, mac_key, out),
        Command::Unpack(command) => pack::unpack(command, mac_key, out),
        Command::Doctor(command) => doctor::run(command, out),
        Command::Completions { shell } => out.made(&arguments::completions(*shell)),
        Command::Manual => out.made(&arguments::manual()?),
    }
}

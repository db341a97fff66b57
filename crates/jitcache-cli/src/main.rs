//! `jitcache`, a tool to look into caches of compiled machine code. docs/tool.md shows each command.

mod arguments;
mod copy;
mod disasm;
mod doctor;
mod entries;
mod functions;
mod instructions;
mod list;
mod out;
mod prune;
mod references;
mod show;
mod source;
mod stats;
mod verify;
mod why;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use out::{Failure, Out};

/// What a command came to.
pub(crate) enum Outcome {
    Fine,
    /// Something is unsound, or not there.
    Unsound,
}

impl Outcome {
    pub(crate) const fn unsound_if(is_unsound: bool) -> Self {
        if is_unsound { Self::Unsound } else { Self::Fine }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = Out::new(arguments.color, arguments.json);
    match run(&arguments, &mut out).and_then(|outcome| out.flush().map(|()| outcome)) {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Unsound) => ExitCode::from(1),
        // Whoever read has seen enough.
        Err(Failure::Pipe) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            let _ = out.flush();
            out::tell(&message);
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments, out: &mut Out) -> Result<Outcome, Failure> {
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
        Command::Doctor(command) => doctor::run(command, out),
        Command::Completions { shell } => out.made(&arguments::completions(*shell)),
        Command::Manual => out.made(&arguments::manual()?),
    }
}

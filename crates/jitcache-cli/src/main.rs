//! The program `jitcache`.

use std::process::ExitCode;

use clap::Parser;
use jitcache_cli::{Arguments, Screen, run};

fn main() -> ExitCode {
    ExitCode::from(run(&Arguments::parse(), Screen::of_process()))
}

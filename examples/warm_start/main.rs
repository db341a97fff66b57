//! A small language, Mill, whose compiler starts warm: the second run loads what the first one compiled.
//!
//! ```text
//! cargo run --release --example warm_start [DIRECTORY]
//! cargo run --release --example warm_start [DIRECTORY]
//! cargo run --release --example warm_start -- --units [DIRECTORY]
//! ```
//!
//! `language.rs` and `compiler.rs` stand in for a real engine and know nothing of jitcache; this file joins the two.
//! With `--units` each function has an entry of its own, and `units.rs` tells what that costs.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the library's rules are for untrusted bytes; the compiler indexes what it has itself resolved"
)]

mod compiler;
mod language;
mod units;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use compiler::Compiled;
use cranelift_codegen::isa::TargetIsa;
use jitcache::{Builder, Cache, Identity, Key, Module};

const SOURCE: &str = include_str!("almanac.mill");

fn main() -> Result<(), Box<dyn Error>> {
    // What is in the directory is run: it has to be one that nobody else can write to.
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/warm_start");
    let mut arguments = std::env::args_os().skip(1).peekable();
    let has_units = arguments.next_if(|argument| argument == "--units").is_some();
    let root = arguments.next().map_or_else(own, PathBuf::from);

    // Who compiles, for the processor of this machine: entries of other engines, of other versions and builds of this
    // one, and for better processors are never run.
    let identity = Identity::new("mill", *b"MILL\0\0", env!("CARGO_PKG_VERSION"))?.with_build_of_program()?;
    if has_units {
        return units::run(&root.join("units"), &identity);
    }
    let cache = Cache::open_or_in_memory(&root, identity).on_event(|key, event| {
        if event.is_trouble() {
            eprintln!("{key}: {event}");
        }
    });

    // What is compiled: everything that changes the code has to be part of the key.
    let isa = compiler::host_isa()?;
    let started = Instant::now();
    let key =
        Key::of(cache.identity()).source(SOURCE.as_bytes()).flag("cranelift", &compiler::fingerprint(&*isa)).finish();

    // The closure runs only if the cache does not have the module; what it hands to `entry` is stored.
    let module = cache.get_or_compile(&key, |entry| compile(&*isa, entry))?;
    let took = started.elapsed();

    let statistics = cache.statistics();
    if statistics.hits > 0 {
        let started = Instant::now();
        compile(&*isa, &mut Builder::new())?;
        let without = started.elapsed();
        let ratio = without.as_secs_f64() / took.as_secs_f64();
        println!("loaded in {took:.2?}; compiling takes {without:.2?}, {ratio:.0} times as long");
    } else if statistics.failures == 0 {
        println!("compiled and stored in {took:.2?}; run it again to load it from {}", root.display());
    } else {
        println!("compiled in {took:.2?}; why the cache was of no help is said above");
    }
    println!("{} functions, {} bytes of code", module.functions().len(), module.code().len());
    println!("main(10) = {}", call_main(&module, 10)?);

    // What a profiler or a backtrace does with a program counter: any thread may ask, for any module of the cache.
    let code = module.address_range();
    let pc = code.start + code.len() / 3;
    let location = cache.locate(pc).ok_or("the cache knows no such code")?;
    let function = location.function.ok_or("the code is in no function")?;
    let at = usize::try_from(location.source.ok_or("the code has no source")?)?;
    let (line, column) = language::locate(SOURCE, at);
    let text = SOURCE.lines().nth(line - 1).unwrap_or_default();
    println!("code+{:#x} is in function {function}, at almanac.mill:{line}:{column}", location.code);
    println!("{line:>6} | {text}\n       | {:>column$}", '^');
    Ok(())
}

fn compile(isa: &dyn TargetIsa, entry: &mut Builder<'_>) -> Result<(), Box<dyn Error>> {
    let program = language::parse(SOURCE).map_err(|error| format!("almanac.mill:{error}"))?;
    add(compiler::compile(&program, 0..program.functions.len(), isa)?, entry);
    Ok(())
}

/// Hands what was compiled to the cache.
fn add(compiled: Compiled, entry: &mut Builder<'_>) {
    let Compiled { code, functions, positions } = compiled;
    for start in functions {
        entry.function(start);
    }
    for position in positions {
        entry.source(position.code, position.source);
    }
    entry.code(code);
}

#[expect(unsafe_code, reason = "only the engine knows the signature of its functions")]
fn call_main(module: &Module, argument: i64) -> Result<i64, Box<dyn Error>> {
    let last = module.functions().len().checked_sub(1).ok_or("no functions")?;
    let main = module.function(last).ok_or("no `main`")?;
    // SAFETY: the last function is `main`, which `parse` lets take one argument only; every function of Mill returns
    // one i64 and has the platform's C calling convention. The module outlives the call.
    let main = unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64) -> i64>(main) };
    Ok(main(argument))
}

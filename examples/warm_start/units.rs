//! Each function of the almanac as a unit of its own: what a cache costs where there is nothing yet, and what it saves.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cranelift_codegen::isa::TargetIsa;
use jitcache::{Cache, Identity, Key};

use crate::language::{self, Program};
use crate::{SOURCE, add, compiler};

const ROUNDS: usize = 21;

/// Times, in turns: compiling alone, a cache in memory, one over an empty directory, which stores before the code runs
/// or behind it, and one that finds all there. The directory stays: the next process finds it.
pub(crate) fn run(root: &Path, identity: &Identity) -> Result<(), Box<dyn Error>> {
    let (isa, program) = (compiler::host_isa()?, language::parse(SOURCE)?);
    let open = || Cache::open(root, identity.clone());
    let units = Units { isa: &*isa, fingerprint: compiler::fingerprint(&*isa), program };
    let first = open()?;
    units.get_all(&first)?;
    let found = first.statistics().hits;
    drop(first);

    let mut times: [Vec<Duration>; 6] = Default::default();
    for round in 0..ROUNDS {
        // A new one each time: some file systems take long to make files where others were removed a moment ago.
        let root = root.join(format!("round-{round}"));
        let open = || Cache::open(&root, identity.clone());
        let time = |what: &dyn Fn() -> Result<(), Box<dyn Error>>| -> Result<Duration, Box<dyn Error>> {
            let started = Instant::now();
            what()?;
            Ok(started.elapsed())
        };
        times[0].push(time(&|| units.compile_all())?);
        times[1].push(time(&|| units.get_all(&Cache::in_memory(identity.clone())))?);
        // From opening to dropping it.
        times[2].push(time(&|| units.get_all(&open()?))?);
        times[3].push(time(&|| units.get_all(&open()?))?);
        // Until all can run; what is left is done by a thread that has nothing better to do.
        let root = root.join("behind");
        let behind = Cache::open(&root, identity.clone())?.with_write_behind(16 << 20);
        let behind = behind.with_waiting_for_processes(false);
        times[4].push(time(&|| units.get_all(&behind))?);
        let flush = || {
            behind.flush();
            Ok(())
        };
        times[5].push(time(&flush)?);
    }
    let tally = Cache::open(root.join("round-0"), identity.clone())?.tally()?;
    for round in 0..ROUNDS {
        fs::remove_dir_all(root.join(format!("round-{round}")))?;
    }
    let [alone, in_memory, cold, warm, behind, flush] = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2]
    });
    println!("{} units, medians of {ROUNDS} interleaved rounds", units.program.functions.len());
    println!("compiled         {alone:.2?}");
    println!("and made to run  {in_memory:.2?}");
    for (what, time) in [("and stored      ", cold), ("to store later  ", behind), ("loaded          ", warm)] {
        println!("{what} {time:.2?}, {:+.1} %", (time.as_secs_f64() / in_memory.as_secs_f64() - 1.0) * 100.0);
    }
    println!("stored later     {flush:.2?}");
    println!("a process before this one had left {found} units");
    println!("of the last round, {} hits have saved {:.2?}", tally.hits, tally.time_saved().unwrap_or_default());
    Ok(())
}

/// What is compiled, and all that it depends on.
struct Units<'p> {
    isa: &'p dyn TargetIsa,
    fingerprint: String,
    program: Program<'p>,
}

impl Units<'_> {
    fn compile_all(&self) -> Result<(), Box<dyn Error>> {
        for at in 0..self.program.functions.len() {
            std::hint::black_box(compiler::compile(&self.program, at..at + 1, self.isa)?);
        }
        Ok(())
    }

    fn get_all(&self, cache: &Cache) -> Result<(), Box<dyn Error>> {
        for (at, function) in self.program.functions.iter().enumerate() {
            let end = self.program.functions.get(at + 1).map_or(SOURCE.len(), |next| next.at as usize);
            let source = &SOURCE[function.at as usize..end];
            let key = Key::of(cache.identity()).source(source.as_bytes()).flag("cranelift", &self.fingerprint);
            let key = key.flag("at", &function.at.to_string()).finish();
            cache.get_or_compile(&key, |entry| -> Result<(), Box<dyn Error>> {
                add(compiler::compile(&self.program, at..at + 1, self.isa)?, entry);
                Ok(())
            })?;
        }
        Ok(())
    }
}

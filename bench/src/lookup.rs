//! From a program counter to its function and source, among many modules.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use jitcache::{Builder, Identity, Key, Module, Registry, Sealing};
use jitcache_testkit::random::Random;

use crate::measure::{percentile, since};
use crate::report;
use crate::way::Outcome;

const MODULES: usize = 1000;
const FUNCTIONS: u64 = 1000;
const FUNCTION: u64 = 64;

/// Lookups between two looks at the clock.
const BATCH: usize = 1 << 16;

/// How often each batch is timed at least.
const LEAST: usize = 5;

/// Returns a table of nanoseconds a lookup, for one and for two threads that look up at once.
pub fn measure(budget: Duration) -> Outcome<String> {
    let registry = Registry::new();
    let modules = fill(&registry)?;
    let mut lines = Vec::new();
    for (place, among) in [("in all modules", MODULES), ("in one module", 1)] {
        let pcs = random_pcs(&modules[..among]);
        if !pcs.iter().all(|&pc| registry.locate(pc).is_some_and(|at| at.function.is_some())) {
            return Err("the registry does not find its own modules".into());
        }
        for threads in [1, 2] {
            let runs = run(&registry, &pcs, threads, budget);
            let nanos = |percent| format!("{:.0}", percentile(&runs, percent) as f64 / BATCH as f64);
            lines.push((format!("{place}, threads: {threads}"), [50, 10, 90].map(nanos).to_vec()));
        }
    }
    Ok(report::table("ns a lookup", &["median", "p10", "p90"].map(String::from), &lines))
}

fn random_pcs(modules: &[Arc<Module>]) -> Vec<usize> {
    let mut random = Random(0);
    let pc =
        |_| modules[random.index(modules.len())].address_range().start + random.index((FUNCTIONS * FUNCTION) as usize);
    (0..BATCH).map(pc).collect()
}

fn fill(registry: &Registry) -> Outcome<Vec<Arc<Module>>> {
    let identity = Identity::new("bench", *b"BENCH\0", "1")?.with_sealing(Sealing::Plain);
    let key = Key::of(&identity).finish();
    let mut builder = Builder::new();
    builder.code(vec![0xc3; (FUNCTIONS * FUNCTION) as usize]);
    for function in 0..FUNCTIONS {
        builder.function(function * FUNCTION).source(function * FUNCTION, function);
    }
    let entry = builder.finish(&identity, &key)?;
    let modules = (0..MODULES).map(|_| Ok(Arc::new(Module::load(&entry)?))).collect::<Outcome<Vec<_>>>()?;
    modules.iter().try_for_each(|module| registry.insert(Arc::clone(module)))?;
    Ok(modules)
}

fn run(registry: &Registry, pcs: &[usize], threads: usize, budget: Duration) -> Vec<u64> {
    let together = Barrier::new(threads);
    let reader = || {
        let mut runs = Vec::new();
        together.wait();
        let end = Instant::now() + budget;
        while runs.len() < LEAST || Instant::now() < end {
            let start = Instant::now();
            for &pc in pcs {
                black_box(registry.locate(black_box(pc)));
            }
            runs.push(since(start));
        }
        runs
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(reader)).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap_or_default()).collect()
    })
}

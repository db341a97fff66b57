//! Adding modules to a registry, taking them out, and finding them meanwhile.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jitcache::{Builder, Identity, Key, Module, Registry, Sealing};
use jitcache_testkit::random::Random;

use crate::measure::{percentile, since};
use crate::report;
use crate::way::Outcome;

const COUNTS: [usize; 3] = [1000, 10_000, 100_000];

/// Modules that are taken out and added again between two looks at the clock, and lookups.
const CHANGES: usize = 1000;
const BATCH: usize = 1 << 14;

/// Returns a table of nanoseconds for registries of more and more modules, which have a page each.
pub fn measure(budget: Duration) -> Outcome<String> {
    let mut modules = load(COUNTS.into_iter().max().unwrap_or_default())?;
    Random(0).shuffle(&mut modules);
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for count in COUNTS {
        for (line, (name, value)) in column(&modules[..count], budget)?.into_iter().enumerate() {
            if lines.len() == line {
                lines.push((name.into(), Vec::new()));
            }
            lines[line].1.push(value);
        }
    }
    let columns = COUNTS.map(|count| format!("{count} modules"));
    Ok(report::table("ns each", &columns, &lines))
}

fn load(count: usize) -> Outcome<Vec<Arc<Module>>> {
    let identity = Identity::new("bench", *b"BENCH\0", "1")?.with_sealing(Sealing::Plain);
    let mut builder = Builder::new();
    builder.code(vec![0xc3; 64]).function(0).source(0, 0);
    let entry = builder.finish(&identity, &Key::of(&identity).finish())?;
    (0..count).map(|_| Ok(Arc::new(Module::load(&entry)?))).collect()
}

fn column(modules: &[Arc<Module>], budget: Duration) -> Outcome<Vec<(&'static str, String)>> {
    let mean = |nanos: u64, count: usize| format!("{:.0}", nanos as f64 / count as f64);
    let registry = Registry::new();
    let start = Instant::now();
    modules.iter().try_for_each(|module| registry.insert(Arc::clone(module)))?;
    let filled = mean(since(start), modules.len());

    let (mut inserts, mut removes) = (Vec::new(), Vec::new());
    let end = Instant::now() + budget;
    for some in modules.chunks(CHANGES).cycle() {
        let start = Instant::now();
        let removed = some.iter().filter(|module| registry.remove(module)).count();
        removes.push(since(start));
        let start = Instant::now();
        some.iter().try_for_each(|module| registry.insert(Arc::clone(module)))?;
        inserts.push(since(start));
        if removed != some.len() {
            return Err("the registry does not find its own modules".into());
        }
        if Instant::now() >= end {
            break;
        }
    }

    let mut numbers = Random(0);
    let mut random = || modules[numbers.index(modules.len())].address_range().start + 5;
    let random: Vec<_> = (0..BATCH).map(|_| random()).collect();
    let one = [random[0]; BATCH];
    if !random.iter().all(|&pc| registry.locate(pc).is_some_and(|at| at.function == Some(0))) {
        return Err("the registry does not find its own modules".into());
    }
    let look = || (lookups(&registry, &one, budget), lookups(&registry, &random, budget));
    let alone = look();
    let beside_reader = beside(look, |_| random.iter().for_each(|&pc| _ = black_box(registry.locate(pc))));
    let beside_writer = beside(look, |at| {
        let module = &modules[at % modules.len()];
        let is_out = registry.remove(module);
        let is_in = registry.insert(Arc::clone(module)).is_ok();
        assert!(is_out && is_in);
    });
    Ok(vec![
        ("insert, from none on", filled),
        ("insert, with so many", mean(percentile(&inserts, 50), CHANGES)),
        ("remove, with so many", mean(percentile(&removes, 50), CHANGES)),
        ("locate, one program counter", mean(alone.0, BATCH)),
        ("the same beside a reader", mean(beside_reader.0, BATCH)),
        ("the same beside a writer", mean(beside_writer.0, BATCH)),
        ("locate, random program counters", mean(alone.1, BATCH)),
        ("the same beside a reader", mean(beside_reader.1, BATCH)),
        ("the same beside a writer", mean(beside_writer.1, BATCH)),
    ])
}

/// Returns the median of the nanoseconds that it takes to look all of `pcs` up.
fn lookups(registry: &Registry, pcs: &[usize], budget: Duration) -> u64 {
    let (mut runs, end) = (Vec::new(), Instant::now() + budget);
    while runs.is_empty() || Instant::now() < end {
        let start = Instant::now();
        for &pc in pcs {
            black_box(registry.locate(black_box(pc)));
        }
        runs.push(since(start));
    }
    percentile(&runs, 50)
}

/// Returns what `this` returns while another thread does `other` over and over.
fn beside<T>(this: impl FnOnce() -> T, other: impl Fn(usize) + Sync) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| (0..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(&other));
        let result = this();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

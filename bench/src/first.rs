//! The first load of a process: nothing of the program, of its allocator or of the processor's caches is warm.

use std::process::Command;
use std::time::Instant;

use jitcache_testkit::random::Random;

use crate::measure::{percentile, since};
use crate::report;
use crate::subject::Subject;
use crate::way::Outcome;
use crate::ways;

pub const CHILD: &str = "--first";

const NOTHING: &str = "a process that loads nothing";

/// The ways that take part, and whether the whole process is theirs: of a floor, much of it is how it finds its code.
const WAYS: [(&str, bool); 8] = [
    (NOTHING, true),
    ("read, checksum", true),
    ("in place, checksum", true),
    ("in place, unchecked", true),
    ("floor: read", false),
    ("floor: map", false),
    ("dlopen", true),
    ("wasmtime, file", true),
];

/// Loads once and tells how many nanoseconds that took.
pub fn child(subject: &str, way: &str) -> Outcome<()> {
    if way != NOTHING {
        let way = ways::named(&Subject::open(subject)?, way)?;
        let start = Instant::now();
        let loaded = (way.load)()?;
        println!("{}", since(start));
        drop(loaded);
    }
    Ok(())
}

/// Returns a table of the first load, and of the process from its start to its end.
pub fn measure(subjects: &[&Subject], rounds: usize) -> Outcome<String> {
    let mut text = String::new();
    for subject in subjects {
        eprintln!("{}, processes ...", subject.name);
        let there = ways::of(subject, |name| WAYS.iter().any(|(other, _)| *other == name))?;
        let mut runs: Vec<_> = WAYS
            .into_iter()
            .filter(|(name, _)| *name == NOTHING || there.iter().any(|way| way.name == *name))
            .map(|(name, whole)| (name, whole, Vec::new(), Vec::new()))
            .collect();
        drop(there);
        let mut random = Random(0);
        for _ in 0..rounds {
            random.shuffle(&mut runs);
            for (name, _, first, process) in &mut runs {
                let start = Instant::now();
                let output = Command::new(std::env::current_exe()?).args([CHILD, &subject.name, name]).output()?;
                process.push(since(start));
                if !output.status.success() {
                    return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into());
                }
                first.extend(String::from_utf8(output.stdout)?.trim().parse::<u64>().ok());
            }
        }
        runs.sort_by_key(|(name, ..)| WAYS.iter().position(|(other, _)| other == name));
        let shown = |runs: &[u64]| [50, 10, 90].map(|percent| report::micros(percentile(runs, percent)));
        let blank = || [const { String::new() }; 3];
        let line = |(name, whole, first, process): &(&str, bool, Vec<u64>, Vec<u64>)| {
            let first = if first.is_empty() { blank() } else { shown(first) };
            let process = if *whole { shown(process) } else { blank() };
            ((*name).into(), first.into_iter().chain(process).collect())
        };
        let columns = ["first load", "p10", "p90", "the process", "p10", "p90"].map(String::from);
        text += &report::table(&format!("{}, µs", subject.name), &columns, &runs.iter().map(line).collect::<Vec<_>>());
    }
    Ok(text)
}

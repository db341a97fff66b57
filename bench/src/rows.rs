//! The rows that are measured: each a subject, loaded in every way.

use std::fs;
use std::time::Duration;

use crate::cold;
use crate::measure::{self, Cell};
use crate::ours;
use crate::report::Row;
use crate::subject::Subject;
use crate::way::{self, Outcome, Way};
use crate::ways;

pub fn warm(budget: Duration, subject: &Subject) -> Outcome<Row> {
    let ways = ways::of(subject, |_| true)?;
    let cells = warm_cells(budget, subject, &ways)?;
    Ok(Row::new(&subject.name, subject.length, &ways, cells))
}

/// Files are read into the page cache anew some times, since where they lie in memory makes a difference. A way loads
/// before each load that is timed: it finds in the caches of the processor what it left there itself, and not what
/// another did.
fn warm_cells(budget: Duration, subject: &Subject, ways: &[Way]) -> Outcome<Vec<Cell>> {
    check(subject, ways)?;
    measure::parts(ways, budget, |way| cold::warm(&way.file), |way| (way.load)().map(drop))
}

pub fn cold(budget: Duration, subject: &Subject) -> Outcome<Row> {
    let ways = ways::of(subject, |name| !IN_MEMORY.contains(&name))?;
    check(subject, &ways)?;
    let cells = measure::row(&ways, budget, |way| cold::evict(&way.file))?;
    Ok(Row::new(&subject.name, subject.length, &ways, cells))
}

/// Ways that read no file.
const IN_MEMORY: [&str; 1] = ["wasmtime, memory"];

/// The same code without a source map, with one of a page or two, and with one of a million rows, in the same rounds:
/// reading the rows leaves less in the caches for whoever comes next.
pub fn source_map(budget: Duration) -> Outcome<Vec<Row>> {
    let subjects = [("4 MB, no map", 0), ("4 MB, 300 rows", 300), ("4 MB, a million rows", 1_000_000)];
    let subject = |(name, rows)| {
        let subject = Subject::synthetic(name, 4 << 20)?;
        subject.write_entries(&ways::of_entries(), rows)?;
        Ok(subject)
    };
    let subjects = subjects.into_iter().map(subject).collect::<Outcome<Vec<_>>>()?;
    let mut ways = Vec::new();
    for subject in &subjects {
        ways.extend(ours::ways(subject, |_| true)?);
    }
    let mut cells = warm_cells(budget, &subjects[0], &ways)?;
    let split = |(at, subject): (usize, &Subject)| {
        let each = ways.len() / subjects.len();
        Row::new(&subject.name, subject.length, &ways[at * each..], cells.drain(..each).collect())
    };
    Ok(subjects.iter().enumerate().map(split).collect())
}

/// Sees each way load the code of `subject`.
fn check(subject: &Subject, ways: &[Way]) -> Outcome<()> {
    eprintln!("{} ...", subject.name);
    let code = fs::read(subject.code_file())?;
    ways.iter().try_for_each(|way| way::check(way, &code))
}

//! Timing the ways of a row, one after the other, over and over.

use std::time::{Duration, Instant};

use jitcache_testkit::random::Random;

use crate::way::{Outcome, Way, touch};

/// The runs of one way, in nanoseconds.
#[derive(Default)]
pub struct Cell {
    /// Until the code can be executed.
    pub load: Vec<u64>,
    /// Reading a byte of every page of it then: what a lazy way has put off. Empty if the code cannot be seen.
    pub touch: Vec<u64>,
    pub drop: Vec<u64>,
}

impl Cell {
    fn append(&mut self, mut more: Self) {
        self.load.append(&mut more.load);
        self.touch.append(&mut more.touch);
        self.drop.append(&mut more.drop);
    }
}

/// Times the ways in several parts, before each of which `prepare` is called for all of them.
pub fn parts(
    ways: &[Way],
    budget: Duration,
    prepare: impl Fn(&Way) -> Outcome<()>,
    before: impl Fn(&Way) -> Outcome<()>,
) -> Outcome<Vec<Cell>> {
    // To read the files again takes as long as a short run.
    let parts = if budget < Duration::from_secs(1) { 4 } else { 16 };
    let mut cells: Vec<Cell> = ways.iter().map(|_| Cell::default()).collect();
    for _ in 0..parts {
        ways.iter().try_for_each(&prepare)?;
        let more = row(ways, budget / parts, &before)?;
        cells.iter_mut().zip(more).for_each(|(cell, more)| cell.append(more));
    }
    Ok(cells)
}

/// Times are shared out so that what disturbs the machine for a while disturbs all ways alike.
pub fn row(ways: &[Way], budget: Duration, before: impl Fn(&Way) -> Outcome<()>) -> Outcome<Vec<Cell>> {
    const LEAST: usize = 5;
    const MOST: usize = 20_000;
    let mut cells: Vec<Cell> = ways.iter().map(|_| Cell::default()).collect();
    let mut order: Vec<usize> = (0..ways.len()).collect();
    let mut random = Random(0);
    let mut end = Instant::now();
    for round in 0..=MOST {
        // Each way leaves caches behind for the next one, so that must not always be the same.
        random.shuffle(&mut order);
        for &index in &order {
            let (way, cell) = (&ways[index], &mut cells[index]);
            before(way)?;
            run(way, cell)?;
        }
        if round == 0 {
            cells.fill_with(Cell::default);
            end = Instant::now() + budget * u32::try_from(ways.len())?;
        } else if round >= LEAST && Instant::now() >= end {
            break;
        }
    }
    Ok(cells)
}

fn run(way: &Way, cell: &mut Cell) -> Outcome<()> {
    let start = Instant::now();
    let loaded = (way.load)()?;
    cell.load.push(since(start));
    if let Some(code) = loaded.code() {
        let start = Instant::now();
        touch(code);
        cell.touch.push(since(start));
    }
    let start = Instant::now();
    drop(loaded);
    cell.drop.push(since(start));
    Ok(())
}

pub fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the value below which `percent` of the runs are; 0 if there are none.
pub fn percentile(runs: &[u64], percent: usize) -> u64 {
    let mut sorted = runs.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

pub fn median(runs: &[u64]) -> u64 {
    percentile(runs, 50)
}

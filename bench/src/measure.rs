//! Timing the ways of a row, one after the other, over and over.

use std::time::{Duration, Instant};

use crate::ways::{self, Outcome, Way};

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
    const PARTS: u32 = 16;
    let mut cells: Vec<Cell> = ways.iter().map(|_| Cell::default()).collect();
    for _ in 0..PARTS {
        ways.iter().try_for_each(&prepare)?;
        let more = row(ways, budget / PARTS, &before)?;
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
    let mut state = 1;
    let mut end = Instant::now();
    for round in 0..=MOST {
        // Each way leaves caches behind for the next one, so that must not always be the same.
        shuffle(&mut order, &mut state);
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
        ways::touch(code);
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

/// The next number of a xorshift generator; `state` must not be 0.
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

pub fn shuffle<T>(order: &mut [T], state: &mut u64) {
    for end in (1..order.len()).rev() {
        let other = next(state) % (end as u64 + 1);
        order.swap(end, other as usize);
    }
}

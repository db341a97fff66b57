//! `stats`: what a cache consists of.

use std::collections::BTreeMap;
use std::time::Duration;

use jitcache::{MacKey, Statistics};
use serde_json::{Map, Value, json};

use crate::Outcome;
use crate::arguments::Stats;
use crate::entries::{Cache, Found, count};
use crate::eviction::{Evicted, evicted};
use crate::judge::State;
use crate::kinds::{Kind, lengths};
use crate::out::{Failure, Out, Paint};
use crate::picture::{self, Chart};
use crate::table::{Cell, Column};
use crate::{tally, text};

/// The sums of a directory.
#[derive(Clone, Default)]
struct Sums {
    states: BTreeMap<State, u64>,
    entries: u64,
    bytes: u64,
    functions: u64,
    youngest: Option<Duration>,
    oldest: Option<Duration>,
}

/// Entries that were last used in a span of time.
struct Span {
    name: &'static str,
    below: Option<Duration>,
    entries: u64,
    bytes: u64,
}

const DAY: u64 = 24 * 60 * 60;

struct Sum {
    directories: Vec<Sums>,
    tallies: Vec<Option<Statistics>>,
    kinds: [u64; 6],
    spans: [Span; 5],
}

pub(crate) fn run(stats: &Stats, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let cache = Cache::open(&stats.dir, out)?;
    cache.tell_passed_over(out);
    let sum = Sum::of(&cache, mac_key, out);
    let evicted = stats.budget.map(|budget| evicted(&cache, budget));
    if let Some(path) = &stats.svg {
        picture::write(path, &[format!("{}", stats.dir.display())], &sum.charts(&cache))?;
    }
    if out.is_json {
        sum.print_json(&cache, evicted.as_deref(), out)?;
    } else {
        sum.print(&cache, out)?;
        if let (Some(budget), Some(evicted)) = (stats.budget, &evicted) {
            print_evicted(&cache, budget, evicted, out)?;
        }
    }
    Ok(Outcome::unsound_if(sum.directories.iter().any(|sums| sums.states.keys().any(|state| state.is_bad()))))
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

impl Sum {
    fn of(cache: &Cache, mac_key: Option<&MacKey>, out: &Out) -> Self {
        let progress = out.progress("looking at", count(&cache.entries));
        let looked = cache.each(&cache.entries, &progress, |entry| {
            let judged = cache.outline(entry, mac_key)?;
            Some((judged.state, judged.functions().unwrap_or(0), lengths(&judged.fields)))
        });
        let span = |name, seconds: u64| {
            let below = Some(Duration::from_secs(seconds)).filter(|_| seconds > 0);
            Span { name, below, entries: 0, bytes: 0 }
        };
        let spans = [
            span("less than an hour", 60 * 60),
            span("less than a day", DAY),
            span("less than a week", DAY.saturating_mul(7)),
            span("less than 30 days", DAY.saturating_mul(30)),
            span("longer", 0),
        ];
        let tallies = cache.directories.iter().map(|directory| tally::of(directory, out)).collect();
        let directories = vec![Sums::default(); cache.directories.len()];
        let mut sum = Self { directories, tallies, kinds: [0; 6], spans };
        for (entry, looked) in cache.entries.iter().zip(looked) {
            let Some((state, functions, kinds)) = looked else { continue };
            sum.kinds.iter_mut().zip(kinds).for_each(|(sum, bytes)| add(sum, bytes));
            // What is no file was never used.
            let age = entry.modified.map(|_| cache.age(entry));
            if let Some(age) = age
                && let Some(span) = sum.spans.iter_mut().find(|span| span.below.is_none_or(|below| age < below))
            {
                add(&mut span.entries, 1);
                add(&mut span.bytes, entry.bytes);
            }
            if let Some(sums) = sum.directories.get_mut(entry.directory) {
                sums.add(entry, state, functions, age);
            }
        }
        sum
    }

    fn print_json(&self, cache: &Cache, evicted: Option<&[Evicted]>, out: &mut Out) -> Result<(), Failure> {
        let kinds: Map<_, _> =
            Kind::ALL.iter().zip(self.kinds).map(|(kind, bytes)| (kind.name().to_owned(), bytes.into())).collect();
        let ages = self.spans.iter().map(|span| {
            json!({
                "below_seconds": span.below.map(|below| below.as_secs()),
                "entries": span.entries,
                "bytes": span.bytes,
            })
        });
        let evicted = evicted.map(|evicted| {
            let of = |evicted: &Evicted| {
                json!({
                    "directory": cache.directories.get(evicted.directory).map(|directory| &directory.name),
                    "entries": evicted.entries,
                    "bytes": evicted.bytes,
                })
            };
            evicted.iter().map(of).collect::<Vec<Value>>()
        });
        let directories = cache.directories.iter().zip(&self.directories).zip(&self.tallies);
        let mut directories = directories.map(|((directory, sums), tally)| {
            let [engine, version, target] = directory.parts();
            let states: Map<_, _> =
                sums.states.iter().map(|(state, many)| (state.name().to_owned(), (*many).into())).collect();
            json!({
                "directory": directory.name,
                "engine": engine,
                "version": version,
                "target": target,
                "entries": sums.entries,
                "bytes": sums.bytes,
                "functions": sums.functions,
                "youngest_seconds": sums.youngest.map(|age| age.as_secs()),
                "oldest_seconds": sums.oldest.map(|age| age.as_secs()),
                "states": states,
                "tally": tally.as_ref().map(tally::as_json),
            })
        });
        let members =
            [("bytes_by_kind", kinds.into()), ("ages", ages.collect::<Vec<_>>().into()), ("evicted", evicted.into())];
        out.json_lists(&members, &mut [("directories", &mut directories)])
    }

    fn print(&self, cache: &Cache, out: &mut Out) -> Result<(), Failure> {
        let [engine, version, target, states] = ["engine", "version", "target", "states"].map(Column::Left);
        let [entries, size, functions, unused, share] =
            ["entries", "size", "functions", "unused for", "share"].map(Column::Right);
        let cells = cache.directories.iter().zip(&self.directories).map(|(directory, sums)| {
            let [engine, version, target] = directory.parts().map(Cell::from);
            let states: Vec<_> = sums.states.iter().map(|(state, many)| format!("{many} {}", state.name())).collect();
            let paint = sums.states.keys().max().map_or(Paint::Plain, |worst| worst.paint());
            let [entries, functions] = [sums.entries, sums.functions].map(|many| many.to_string().into());
            let size = text::bytes(sums.bytes).into();
            [
                engine,
                version,
                target,
                entries,
                size,
                functions,
                sums.unused().into(),
                Cell::new(states.join(", "), paint),
            ]
        });
        out.table([engine, version, target, entries, size, functions, unused, states], cells)?;
        out.line("")?;
        let whole = self.kinds.iter().copied().fold(0, u64::saturating_add);
        let cells = Kind::ALL
            .iter()
            .zip(self.kinds)
            .map(|(kind, bytes)| [kind.name().into(), text::bytes(bytes).into(), Cell::from(percent(bytes, whole))]);
        out.table([Column::Left("kind"), size, share], cells)?;
        out.line("")?;
        let cells = self
            .spans
            .iter()
            .map(|span| [span.name.into(), span.entries.to_string().into(), Cell::from(text::bytes(span.bytes))]);
        out.table([Column::Left("unused for"), entries, size], cells)?;
        let tallies: Vec<_> =
            cache.directories.iter().zip(&self.tallies).filter_map(|(of, tally)| Some((of, tally.as_ref()?))).collect();
        tally::print(&tallies, out)
    }

    fn charts(&self, cache: &Cache) -> Vec<Chart> {
        let row = |name: String, bytes: u64, kind: Kind, note: String| picture::Row {
            name,
            bars: vec![(0..bytes, kind)],
            note,
        };
        let chart = |title: &str, rows: Vec<picture::Row>| {
            let whole = rows.iter().flat_map(|row| &row.bars).map(|(range, _)| range.end).max().unwrap_or(0);
            Chart { title: title.to_owned(), whole, rows }
        };
        let kinds = Kind::ALL.iter().zip(self.kinds);
        let kinds = kinds.map(|(kind, bytes)| row(kind.name().to_owned(), bytes, *kind, text::bytes(bytes)));
        let directories = cache.directories.iter().zip(&self.directories).map(|(directory, sums)| {
            let note = format!("{}, {} entries", text::bytes(sums.bytes), sums.entries);
            row(directory.parts().join(" "), sums.bytes, Kind::Code, note)
        });
        let ages = self.spans.iter().map(|span| {
            let note = format!("{}, {} entries", text::bytes(span.bytes), span.entries);
            row(span.name.to_owned(), span.bytes, Kind::SourceMap, note)
        });
        vec![
            chart("bytes by what they are for", kinds.collect()),
            chart("bytes by engine, version and target", directories.collect()),
            chart("bytes by the time since they were used", ages.collect()),
        ]
    }
}

impl Sums {
    fn add(&mut self, entry: &Found, state: State, functions: u64, age: Option<Duration>) {
        add(self.states.entry(state).or_default(), 1);
        add(&mut self.entries, 1);
        add(&mut self.bytes, entry.bytes);
        add(&mut self.functions, functions);
        self.youngest = [self.youngest, age].into_iter().flatten().min();
        self.oldest = self.oldest.max(age);
    }

    fn unused(&self) -> String {
        match (self.youngest.map(text::age), self.oldest.map(text::age)) {
            (Some(youngest), Some(oldest)) if youngest != oldest => format!("{youngest} to {oldest}"),
            (youngest, _) => youngest.unwrap_or_else(|| "-".to_owned()),
        }
    }
}

fn percent(part: u64, whole: u64) -> String {
    let percent = u128::from(part).saturating_mul(100).checked_div(whole.into()).unwrap_or(0);
    format!("{percent} %")
}

fn print_evicted(cache: &Cache, budget: u64, evicted: &[Evicted], out: &mut Out) -> Result<(), Failure> {
    out.line("")?;
    if evicted.is_empty() {
        return out.line(&format!("With a budget of {} nothing would be evicted.", text::bytes(budget)));
    }
    out.line(&format!("With a budget of {} these would be evicted:", text::bytes(budget)))?;
    let [engine, version, target] = ["engine", "version", "target"].map(Column::Left);
    let cells = evicted.iter().map(|evicted| {
        let directory = cache.directories.get(evicted.directory);
        let [engine, version, target] = directory.map_or([""; 3], |directory| directory.parts()).map(Cell::from);
        [engine, version, target, evicted.entries.to_string().into(), text::bytes(evicted.bytes).into()]
    });
    out.table([engine, version, target, Column::Right("entries"), Column::Right("size")], cells)
}

//! `stats`: what a cache consists of.

use std::collections::BTreeMap;

use jitcache::MacKey;
use jitcache::error::Field;
use serde_json::json;

use crate::Outcome;
use crate::arguments::Stats;
use crate::entries::{Cache, Found, State, length_of};
use crate::out::{self, Failure, Out, Paint, Side};

/// The sums of a directory.
#[derive(Clone, Default)]
struct Sums {
    states: BTreeMap<State, u64>,
    entries: u64,
    bytes: u64,
    functions: u64,
    code: u64,
    source_maps: u64,
    sections: u64,
    youngest: Option<u64>,
    oldest: Option<u64>,
}

pub(crate) fn run(stats: &Stats, mac_key: Option<&MacKey>, out: &mut Out) -> Result<Outcome, Failure> {
    let cache = Cache::open(&stats.dir)?;
    cache.tell_passed_over();
    let looked = |entry: &Found| {
        let judged = cache.outline(entry, mac_key)?;
        let lengths = [Field::Code, Field::SourceMap, Field::Section].map(|field| length_of(&judged.fields, field));
        Some((judged.state, judged.functions().unwrap_or(0), lengths))
    };
    let looked = cache.each(&cache.entries, looked, |_| {});
    let mut sums = vec![Sums::default(); cache.directories.len()];
    for (entry, looked) in cache.entries.iter().zip(looked) {
        let (Some(sums), Some((state, functions, [code, source_maps, sections]))) =
            (sums.get_mut(entry.directory), looked)
        else {
            continue;
        };
        let age = cache.age(entry).as_secs();
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(sums.states.entry(state).or_default(), 1);
        add(&mut sums.entries, 1);
        add(&mut sums.bytes, entry.bytes);
        add(&mut sums.functions, functions);
        add(&mut sums.code, code);
        add(&mut sums.source_maps, source_maps);
        add(&mut sums.sections, sections);
        sums.youngest = Some(sums.youngest.map_or(age, |youngest| youngest.min(age)));
        sums.oldest = sums.oldest.max(Some(age));
    }
    let is_bad = sums.iter().any(|sums| sums.states.keys().any(|state| state.is_bad()));
    let all = cache.directories.iter().zip(&sums);
    if out.is_json {
        out.raw("{")?;
        let members = all.map(|(directory, sums)| {
            let states: serde_json::Map<_, _> =
                sums.states.iter().map(|(state, many)| (state.name().to_owned(), (*many).into())).collect();
            json!({
                "directory": directory.name,
                "entries": sums.entries,
                "bytes": sums.bytes,
                "functions": sums.functions,
                "code_bytes": sums.code,
                "source_map_bytes": sums.source_maps,
                "section_bytes": sums.sections,
                "youngest_seconds": sums.youngest,
                "oldest_seconds": sums.oldest,
                "states": states,
            })
        });
        out.json_list("directories", members)?;
        out.raw("}\n")?;
    } else {
        let head = [
            ("directory", Side::Left),
            ("entries", Side::Right),
            ("size", Side::Right),
            ("functions", Side::Right),
            ("code", Side::Right),
            ("source maps", Side::Right),
            ("sections", Side::Right),
            ("youngest", Side::Right),
            ("oldest", Side::Right),
            ("states", Side::Left),
        ];
        let age = |seconds: Option<u64>| {
            seconds.map_or_else(|| "-".to_owned(), |seconds| out::age(std::time::Duration::from_secs(seconds)))
        };
        let cells = all.map(|(directory, sums)| {
            let states: Vec<_> = sums.states.iter().map(|(state, many)| format!("{many} {}", state.name())).collect();
            let paint = sums.states.keys().max().map_or(Paint::Plain, |worst| worst.paint());
            [
                (directory.name.clone(), Paint::Plain),
                (sums.entries.to_string(), Paint::Plain),
                (out::bytes(sums.bytes), Paint::Plain),
                (sums.functions.to_string(), Paint::Plain),
                (out::bytes(sums.code), Paint::Plain),
                (out::bytes(sums.source_maps), Paint::Plain),
                (out::bytes(sums.sections), Paint::Plain),
                (age(sums.youngest), Paint::Plain),
                (age(sums.oldest), Paint::Plain),
                (states.join(", "), paint),
            ]
        });
        out.table(head, cells)?;
    }
    Ok(Outcome::unsound_if(is_bad))
}

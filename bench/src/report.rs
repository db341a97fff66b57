//! What was measured, as tables and as lines of a file.

use std::fmt::Write;

use crate::floors;
use crate::measure::{Cell, median, percentile};
use crate::ways::{Kind, Way};

/// One size or module, loaded in every way.
pub struct Row {
    pub subject: String,
    /// Length of the code in bytes.
    pub length: usize,
    pub cells: Vec<(&'static str, Kind, Cell)>,
}

impl Row {
    pub fn new(subject: &str, length: usize, ways: &[Way], cells: Vec<Cell>) -> Self {
        let cells = ways.iter().zip(cells).map(|(way, cell)| (way.name, way.kind, cell)).collect();
        Self { subject: subject.into(), length, cells }
    }

    pub fn cell(&self, way: &str) -> Option<&Cell> {
        self.cells.iter().find(|(name, ..)| *name == way).map(|(.., cell)| cell)
    }
}

/// A table of markdown: a name and the columns of each line.
pub fn table(corner: &str, columns: &[String], lines: &[(String, Vec<String>)]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("| {corner} | {} |\n|---|{}\n", columns.join(" | "), "--:|".repeat(columns.len()));
    for (name, values) in lines {
        let _ = writeln!(text, "| {name} | {} |", values.join(" | "));
    }
    text + "\n"
}

/// Every way of the rows, in the order of the fullest one.
pub fn names(rows: &[Row]) -> Vec<(&'static str, Kind)> {
    let fullest = rows.iter().max_by_key(|row| row.cells.len());
    let mut names = Vec::new();
    for &(name, kind, _) in fullest.into_iter().chain(rows).flat_map(|row| &row.cells) {
        if !names.contains(&(name, kind)) {
            names.push((name, kind));
        }
    }
    names
}

fn per_way(rows: &[Row], corner: &str, value: impl Fn(&Row, &str, &Cell) -> Option<String>) -> String {
    let names = names(rows).into_iter().map(|(name, _)| name);
    let columns: Vec<_> = rows.iter().map(|row| row.subject.clone()).collect();
    let lines: Vec<_> = names
        .map(|name| {
            let values = rows.iter().map(|row| row.cell(name).and_then(|cell| value(row, name, cell)));
            (String::from(name), values.map(Option::unwrap_or_default).collect::<Vec<_>>())
        })
        .filter(|(_, values)| values.iter().any(|value| !value.is_empty()))
        .collect();
    table(corner, &columns, &lines)
}

/// Medians in microseconds; `~` where a tenth of the runs took half as long again as another tenth, or longer.
pub fn loads(rows: &[Row]) -> String {
    per_way(rows, "µs", |_, _, cell| {
        let unsteady = percentile(&cell.load, 90) > percentile(&cell.load, 10) * 3 / 2;
        Some(format!("{}{}", if unsteady { "~" } else { "" }, micros(median(&cell.load))))
    })
}

/// Medians of a load and a first look at every page of the code.
pub fn touched(rows: &[Row]) -> String {
    per_way(rows, "µs", |_, _, cell| (!cell.touch.is_empty()).then(|| micros(touched_median(cell))))
}

pub fn touched_median(cell: &Cell) -> u64 {
    let both: Vec<u64> = cell.load.iter().zip(&cell.touch).map(|(load, touch)| load + touch).collect();
    median(&both)
}

/// Medians divided by that of the copying floor of the same row.
pub fn ratios(rows: &[Row]) -> String {
    per_way(rows, "of the floor that reads", |row, name, cell| {
        let floor = median(&row.cell(floors::COPY)?.load);
        (name != floors::COPY).then(|| ratio(median(&cell.load), floor))
    })
}

/// What the seals add, in the same row and in the same way of reading.
pub fn seals(rows: &[Row]) -> String {
    per_way(rows, "of the plain entry", |row, name, cell| {
        let (access, seal) = name.split_once(", ")?;
        let plain = row.cell(&format!("{access}, plain"))?;
        ["checksum", "MAC"].contains(&seal).then(|| ratio(median(&cell.load), median(&plain.load)))
    })
}

/// One line a cell; times in nanoseconds, and the touch empty where the code cannot be seen.
pub fn csv(rows: &[Row], measure: &str) -> String {
    let mut text = String::new();
    for row in rows {
        for (name, _, cell) in &row.cells {
            let at = |percent| percentile(&cell.load, percent);
            let touch = if cell.touch.is_empty() { String::new() } else { median(&cell.touch).to_string() };
            let against = |floor| row.cell(floor).map_or(String::new(), |floor| ratio(at(50), median(&floor.load)));
            let _ = writeln!(
                text,
                "{measure},\"{}\",{},\"{name}\",{},{},{},{},{touch},{},{},{}",
                row.subject,
                row.length,
                cell.load.len(),
                at(10),
                at(50),
                at(90),
                median(&cell.drop),
                against(floors::COPY),
                against(floors::MAP),
            );
        }
    }
    text
}

pub const CSV_HEADER: &str = "measure,subject,code_bytes,way,runs,load_p10_ns,load_median_ns,load_p90_ns,touch_median_ns,drop_median_ns,\
     of_read_floor,of_map_floor\n";

/// Three digits that count.
pub fn micros(nanos: u64) -> String {
    let micros = nanos as f64 / 1000.0;
    let digits = if micros < 10.0 { 2 } else { usize::from(micros < 100.0) };
    format!("{micros:.digits$}")
}

pub fn ratio(value: u64, of: u64) -> String {
    format!("{:.2}", value as f64 / of.max(1) as f64)
}

//! What was measured, as tables and as lines of a file.

use std::fmt::Write;

use crate::floors;
use crate::measure::{Cell, median, percentile};
use crate::plot::Line;
use crate::way::{Kind, Way};

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
    let lines: Vec<_> = names
        .map(|name| {
            let values = rows.iter().map(|row| row.cell(name).and_then(|cell| value(row, name, cell)));
            (String::from(name), values.map(Option::unwrap_or_default).collect::<Vec<_>>())
        })
        .filter(|(_, values)| values.iter().any(|value| !value.is_empty()))
        .collect();
    table(corner, &subjects(rows), &lines)
}

fn subjects(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.subject.clone()).collect()
}

/// Medians in microseconds, marked where they spread.
pub fn loads(rows: &[Row]) -> String {
    per_way(rows, "µs", |_, _, cell| Some(spread_micros(&cell.load)))
}

/// The median in microseconds; `~` where a tenth of the runs took half as long again as another tenth, or longer.
pub fn spread_micros(runs: &[u64]) -> String {
    let unsteady = percentile(runs, 90) > percentile(runs, 10) * 3 / 2;
    format!("{}{}", if unsteady { "~" } else { "" }, micros(median(runs)))
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

/// What is compared with what: the least that can be done for the same, or somebody else's way to do it.
const AGAINST: [(&str, &str); 14] = [
    ("read, plain", floors::HUGE),
    ("read, checksum", floors::HUGE),
    ("read, MAC", floors::HUGE),
    ("map, checksum", floors::HUGE),
    ("read, checksum", floors::COPY),
    ("in place, plain", floors::CRC),
    ("in place, checksum", floors::CRC),
    ("in place, MAC", floors::CRC),
    ("in place, checksum", floors::DIGEST),
    ("in place, MAC", floors::DIGEST),
    ("in place, unchecked", floors::MAP),
    ("in place, checksum", "wasmtime, file"),
    ("in place, unchecked", "wasmtime, file"),
    ("in place, checksum", "read, checksum"),
];

/// The ratios of two ways, round by round: their median, and the tenths below and above.
pub fn by_rounds(ours: &Cell, theirs: &Cell) -> String {
    let millionths = |(ours, theirs): (&u64, &u64)| ours * 1_000_000 / theirs.max(&1);
    let ratios: Vec<u64> = ours.load.iter().zip(&theirs.load).map(millionths).collect();
    let [low, middle, high] = [10, 50, 90].map(|percent| ratio(percentile(&ratios, percent), 1_000_000));
    format!("{middle} ({low}-{high})")
}

/// The ratios of those that are compared.
pub fn against(rows: &[Row]) -> String {
    let value = |row: &Row, way: &str, other: &str| Some(by_rounds(row.cell(way)?, row.cell(other)?));
    let line = |(way, other): (&str, &str)| {
        let values = rows.iter().map(|row| value(row, way, other).unwrap_or_default()).collect::<Vec<_>>();
        (format!("{way} / {other}"), values)
    };
    let lines: Vec<_> =
        AGAINST.into_iter().map(line).filter(|(_, values)| values.iter().any(|v| !v.is_empty())).collect();
    table("ratio", &subjects(rows), &lines)
}

/// The ways that are drawn, the first ten of them that there are.
const DRAWN: [&str; 12] = [
    "read, checksum",
    "in place, checksum",
    "in place, unchecked",
    floors::COPY,
    floors::DIGEST,
    "wasmtime, file",
    "wasmtime, memory",
    "wasmer",
    "dlopen",
    floors::HUGE,
    "naive",
    "floor: map",
];

/// Returns the drawn ways over what `at` makes of a row and its place.
pub fn lines(rows: &[Row], at: impl Fn(usize, &Row) -> f64) -> Vec<Line> {
    let names = names(rows);
    let drawn = DRAWN.into_iter().filter_map(|name| names.iter().find(|(other, _)| *other == name)).take(10);
    drawn
        .map(|&(name, kind)| {
            let time = |row: &Row| Some(median(&row.cell(name)?.load) as f64 / 1000.0);
            let points =
                rows.iter().enumerate().filter_map(|(place, row)| Some((at(place, row), time(row)?))).collect();
            Line { name: name.into(), kind, points }
        })
        .collect()
}

/// A sentence about one row, for those who read no table.
pub fn summary(row: &Row) -> Option<String> {
    let time = |way: &str| Some(format!("{} µs", micros(median(&row.cell(way)?.load))));
    // The size is in the name of what was made up.
    let code = if row.subject.contains(' ') {
        format!("Random code of {}", row.subject)
    } else {
        format!("The code of {}, {},", row.subject, mebibytes(row.length))
    };
    let mut text = format!(
        "{code} is read, checked and executable in {}; mapped and checked in place in {}; vouched for in {}.\n\
         To read it into fresh pages, unchecked, takes {}.\n",
        time("read, checksum")?,
        time("in place, checksum")?,
        time("in place, unchecked")?,
        time(floors::COPY)?,
    );
    if let (Some(file), Some(memory)) = (time("wasmtime, file"), time("wasmtime, memory")) {
        let _ = writeln!(
            text,
            "wasmtime maps its own artifact of the same module, unchecked, in {file}, and copies it in {memory}."
        );
    }
    Some(text)
}

pub fn mebibytes(length: usize) -> String {
    format!("{:.1} MB", length as f64 / f64::from(1 << 20))
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

pub fn micros(nanos: u64) -> String {
    three_digits(nanos as f64 / 1000.0)
}

pub fn three_digits(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}")
}

pub fn ratio(value: u64, of: u64) -> String {
    format!("{:.2}", value as f64 / of.max(1) as f64)
}

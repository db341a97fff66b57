//! Pictures, as SVG: rows of bars, to scale.

use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::kinds::Kind;
use crate::out::Failure;
use crate::text::clean;

/// Rows of bars that have the same scale.
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What the bars are parts of.
    pub(crate) whole: u64,
    pub(crate) rows: Vec<Row>,
}

/// A name, bars, and what there is to say of them.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) bars: Vec<(Range<u64>, Kind)>,
    pub(crate) note: String,
}

/// Sizes in units of the picture: a letter is as wide in every font with letters of one width, near enough.
const LETTER: u64 = 8;
const LINE: u64 = 22;
const MARGIN: u64 = 24;
const BAR: u64 = 14;
/// The width of what is whole.
const WHOLE: u64 = 480;
/// The width of the smallest bar, so that it can be seen.
const LEAST: u64 = 3;
/// How many letters of a name there are at most.
const LONGEST: usize = 128;

/// Writes a picture into a file, and nothing else.
pub(crate) fn write(path: &Path, titles: &[String], charts: &[Chart]) -> Result<(), Failure> {
    fs::write(path, drawn(titles, charts)).map_err(|error| Failure::io("write", path, &error))
}

fn drawn(titles: &[String], charts: &[Chart]) -> String {
    let rows = || charts.iter().flat_map(|chart| &chart.rows);
    let widest = |texts: &mut dyn Iterator<Item = &String>| {
        let letters = texts.map(|text| shortened(text).chars().count()).max().unwrap_or_default();
        u64::try_from(letters).unwrap_or_default().saturating_mul(LETTER)
    };
    let bars_at = [MARGIN, widest(&mut rows().map(|row| &row.name)), LETTER].into_iter().sum();
    let notes_at = [bars_at, WHOLE, LETTER].into_iter().sum();
    let notes = widest(&mut rows().map(|row| &row.note)).saturating_add(notes_at);
    let titles_end = widest(&mut titles.iter().chain(charts.iter().map(|chart| &chart.title))).saturating_add(MARGIN);
    let mut body = String::new();
    let mut at = MARGIN;
    for title in titles {
        at = at.saturating_add(LINE);
        text(&mut body, MARGIN, at, "t", title);
    }
    for chart in charts {
        at = at.saturating_add(LINE.saturating_mul(2));
        text(&mut body, MARGIN, at, "t", &chart.title);
        for row in &chart.rows {
            let top = at.saturating_add(LINE.saturating_sub(BAR));
            at = at.saturating_add(LINE);
            let base = at.saturating_sub(3);
            text(&mut body, MARGIN, base, "", &row.name);
            let _ = writeln!(body, r#"<rect class="b" x="{bars_at}" y="{top}" width="{WHOLE}" height="{BAR}"/>"#);
            for (range, kind) in &row.bars {
                let [start, end] = [range.start, range.end].map(|at| scaled(at, chart.whole));
                if range.is_empty() {
                    continue;
                }
                let width = end.saturating_sub(start).max(LEAST);
                let x = bars_at.saturating_add(start.min(WHOLE.saturating_sub(width)));
                let class = class(*kind);
                let _ = writeln!(body, r#"<rect class="{class}" x="{x}" y="{top}" width="{width}" height="{BAR}"/>"#);
            }
            text(&mut body, notes_at, base, "", &row.note);
        }
    }
    let (width, height) = (notes.max(titles_end).saturating_add(MARGIN), at.saturating_add(MARGIN));
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<style>text{{font:13px monospace;fill:#222}}.t{{font-weight:bold}}.b{{fill:#eee}}.code{{fill:#2a6fb0}}.functions{{fill:#7aa6d0}}.map{{fill:#3a8f5c}}.tables{{fill:#b0803a}}.sections{{fill:#8a5fae}}.frame{{fill:#888}}</style>
<rect width="100%" height="100%" fill="#fff"/>
{body}</svg>
"##
    )
}

const fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Code => "code",
        Kind::Functions => "functions",
        Kind::SourceMap => "map",
        Kind::TryTables => "tables",
        Kind::Sections => "sections",
        Kind::Frame => "frame",
    }
}

fn scaled(at: u64, whole: u64) -> u64 {
    let scaled = u128::from(at).saturating_mul(WHOLE.into()).checked_div(whole.into());
    scaled.and_then(|scaled| u64::try_from(scaled).ok()).unwrap_or(0).min(WHOLE)
}

/// Returns a text as it may be shown, and no longer than there is room.
fn shortened(text: &str) -> String {
    let clean = clean(text);
    match clean.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", clean.get(..end).unwrap_or_default()),
        None => clean,
    }
}

fn text(body: &mut String, x: u64, y: u64, class: &str, text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = write!(body, r#"<text{class} x="{x}" y="{y}" xml:space="preserve">"#);
    for c in shortened(text).chars() {
        match c {
            '&' => body.push_str("&amp;"),
            '<' => body.push_str("&lt;"),
            '>' => body.push_str("&gt;"),
            c => body.push(c),
        }
    }
    body.push_str("</text>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_smallest_is_seen_and_nothing_from_a_name_is_taken_for_markup() {
        let bars = vec![(0..1, Kind::Code), (u64::MAX - 1..u64::MAX, Kind::Frame), (5..5, Kind::Sections)];
        let row = Row { name: "<a>&\u{1b}".into(), bars, note: "n".repeat(500) };
        let picture = drawn(&["</svg>".into()], &[Chart { title: "t".into(), whole: u64::MAX, rows: vec![row] }]);
        assert!(picture.contains("&lt;a&gt;&amp;\\u{1b}"), "{picture}");
        assert!(picture.contains(&format!("width=\"{LEAST}\"")));
        assert!(!picture.contains("class=\"sections\""));
        assert_eq!(picture.matches("</svg>").count(), 1);
    }
}

//! The plot: time over size, both logarithmic.

use std::fmt::Write;

use crate::measure::median;
use crate::report::{self, Row};
use crate::ways::Kind;

const WIDTH: f64 = 980.0;
const HEIGHT: f64 = 620.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 760.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 560.0;

/// Least distance between the names at the ends of the lines.
const LINE: f64 = 15.0;

const OURS: [&str; 10] =
    ["#0b5fa5", "#2f8f2f", "#c2410c", "#4aa3df", "#7cc36a", "#f08a4b", "#5b2ca0", "#b07ae0", "#0f766e", "#5eb8ae"];
const FLOORS: [&str; 6] = ["#000", "#333", "#666", "#888", "#aaa", "#555"];
const PEERS: [&str; 5] = ["#be123c", "#e11d8f", "#854d0e", "#a16207", "#6b7280"];

struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - self.from.log10()) / (self.to.log10() - self.from.log10());
        self.start + part * (self.end - self.start)
    }

    /// Whole powers of ten within the scale.
    fn powers(&self) -> impl Iterator<Item = f64> + use<> {
        let (from, to) = (self.from.log10().ceil() as i32, self.to.log10().floor() as i32);
        (from..=to).map(|power| 10_f64.powi(power))
    }
}

/// Draws a line for each way, from what it takes for the rows.
pub fn draw(title: &str, rows: &[Row]) -> String {
    let times = rows.iter().flat_map(|row| &row.cells).map(|(.., cell)| median(&cell.load) as f64 / 1000.0);
    let (low, high) = times.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), time| (low.min(time), high.max(time)));
    let sizes = rows.iter().map(|row| row.length as f64);
    let (small, large) = sizes.fold((f64::MAX, 1.0_f64), |(small, large), size| (small.min(size), large.max(size)));
    let x = Scale { from: small, to: large, start: LEFT, end: RIGHT };
    let y = Scale { from: low.max(0.1) * 0.8, to: high * 1.25, start: BOTTOM, end: TOP };

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{title}</text>\n"
    );
    axes(&mut svg, &x, &y, rows);
    let mut ends = Vec::new();
    let (mut ours, mut floors, mut peers) = (OURS.iter().cycle(), FLOORS.iter().cycle(), PEERS.iter().cycle());
    for (name, kind) in report::names(rows) {
        let (colors, dash) = match kind {
            Kind::Ours => (&mut ours, ""),
            Kind::Floor => (&mut floors, " stroke-dasharray=\"2 4\""),
            Kind::Peer => (&mut peers, " stroke-dasharray=\"9 4\""),
        };
        let color = *colors.next().unwrap_or(&"#000");
        let points: Vec<(f64, f64)> = rows
            .iter()
            .filter_map(|row| Some((row.length, row.cell(name)?)))
            .map(|(length, cell)| (x.at(length as f64), y.at((median(&cell.load) as f64 / 1000.0).max(0.1))))
            .collect();
        let path: String = points.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let _ =
            writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\"{dash}/>");
        for (x, y) in &points {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.4\" fill=\"{color}\"/>");
        }
        ends.extend(points.last().map(|&(x, y)| (y, x, name, color)));
    }
    label(&mut svg, ends);
    svg + "</svg>\n"
}

fn axes(svg: &mut String, x: &Scale, y: &Scale, rows: &[Row]) {
    for time in y.powers() {
        let at = y.at(time);
        let name = if time < 1000.0 { format!("{time} µs") } else { format!("{} ms", time / 1000.0) };
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>", LEFT - 8.0, at + 4.0);
    }
    for row in rows {
        let at = x.at(row.length as f64);
        let _ = writeln!(svg, "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" stroke=\"#eee\"/>");
        // The size is in the name of what was made up.
        let size = format!(" {:.1} MB", row.length as f64 / f64::from(1 << 20));
        let name = if row.subject.contains(' ') { row.subject.clone() } else { row.subject.clone() + &size };
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>", BOTTOM + 20.0);
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    let _ =
        writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">size of the code</text>", BOTTOM + 42.0);
}

/// Names the lines where they end, moved apart where they end together.
fn label(svg: &mut String, mut ends: Vec<(f64, f64, &str, &str)>) {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP.min(BOTTOM - LINE * (ends.len() as f64 - 1.0));
    let mut places: Vec<f64> = Vec::new();
    for &(y, ..) in &ends {
        free = y.max(free);
        places.push(free);
        free += LINE;
    }
    // What was pushed out at the bottom goes up again.
    let mut lowest = BOTTOM;
    for place in places.iter_mut().rev() {
        *place = place.min(lowest);
        lowest = *place - LINE;
    }
    for ((y, x, name, color), place) in ends.into_iter().zip(places) {
        let from = x + 3.0;
        let to = RIGHT + 20.0;
        let _ =
            writeln!(svg, "<path d=\"M{from:.1} {y:.1}L{to} {place:.1}\" stroke=\"{color}\" stroke-width=\"0.6\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" fill=\"{color}\">{name}</text>", to + 4.0, place + 4.0);
    }
}

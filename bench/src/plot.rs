//! Lines over two logarithmic axes, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::way::{Kind, Outcome};

pub struct Line {
    pub name: String,
    pub kind: Kind,
    /// What it is measured for, and microseconds.
    pub points: Vec<(f64, f64)>,
}

/// What lines are drawn over.
pub struct Axis {
    pub name: &'static str,
    /// The values that are named, far enough apart for that.
    pub marks: Vec<(f64, String)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (960, 560);
/// The names of the lines stand beside the plot.
const NAMES: u32 = 230;
/// Around the lines, as a place on an axis.
const MARGIN: i32 = 150;
const FONT: &str = "sans-serif";
/// Colors that can be told apart by people who see fewer of them, too.
const COLORS: [RGBColor; 10] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(102, 51, 153),
    RGBColor(139, 69, 19),
];

/// Draws the lines, of which there are at most ten, or nothing if there are none.
pub fn draw(title: &str, x: &Axis, lines: &[Line]) -> Outcome<String> {
    let mut svg = String::new();
    if !lines.is_empty() {
        let all = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        all.fill(&WHITE)?;
        let (plot, names) = all.split_horizontally(SIZE.0 - NAMES);
        let mut lines: Vec<_> = lines.iter().zip(COLORS).filter(|(line, _)| !line.points.is_empty()).collect();
        // As they end, from above.
        let end = |line: &Line| line.points.last().map_or(0.0, |(_, time)| *time);
        lines.sort_by(|(one, _), (other, _)| end(other).total_cmp(&end(one)));
        draw_lines(&plot, title, x, &lines)?;
        draw_names(&names, &lines)?;
        all.present()?;
    }
    Ok(svg)
}

fn draw_lines(area: &Area<'_>, title: &str, x: &Axis, lines: &[(&Line, RGBColor)]) -> Outcome<()> {
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.map(thousandths).fold((i32::MAX, i32::MIN), |(low, high), at| (low.min(at), high.max(at)))
    };
    let points = || lines.iter().flat_map(|(line, _)| &line.points);
    let (left, right) = range(&mut points().map(|(at, _)| *at));
    let (bottom, top) = range(&mut points().map(|(_, time)| *time));
    let named = |at: &i32| x.marks.iter().find(|(value, _)| thousandths(*value) == *at).map(|(_, name)| name.clone());
    let time = |at: &i32| match at.div_euclid(1000) {
        power @ ..0 => format!("{} ns", 10_f64.powi(power + 3)),
        power @ 0..3 => format!("{} µs", 10_f64.powi(power)),
        power @ 3..6 => format!("{} ms", 10_f64.powi(power - 3)),
        power @ 6.. => format!("{} s", 10_f64.powi(power - 6)),
    };
    let marks = x.marks.iter().map(|(value, _)| thousandths(*value)).filter(|at| (left..=right).contains(at)).collect();
    let powers = (bottom..=top).filter(|at| at % 1000 == 0).collect();
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(50)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (left - MARGIN..right + MARGIN).with_key_points(marks),
            (bottom - MARGIN..top + MARGIN).with_key_points(powers),
        )?;
    let mesh = RGBColor(225, 225, 225);
    chart
        .configure_mesh()
        .bold_line_style(mesh)
        .light_line_style(TRANSPARENT)
        .x_desc(x.name)
        .label_style((FONT, 13))
        .x_label_formatter(&|at| named(at).unwrap_or_default())
        .y_label_formatter(&time)
        .draw()?;
    for (line, color) in lines {
        let points = line.points.iter().map(|(at, time)| (thousandths(*at), thousandths(*time)));
        let style = style(line, *color);
        chart.draw_series(LineSeries::new(points.clone(), style))?;
        chart.draw_series(points.map(|at| Circle::new(at, style.stroke_width + 1, color.filled())))?;
    }
    Ok(())
}

fn draw_names(area: &Area<'_>, lines: &[(&Line, RGBColor)]) -> Outcome<()> {
    for ((line, color), y) in lines.iter().zip((60..).step_by(24)) {
        area.draw(&PathElement::new([(0, y), (26, y)], style(line, *color)))?;
        area.draw(&Text::new(line.name.clone(), (34, y - 8), (FONT, 15).into_font().color(&BLACK)))?;
    }
    Ok(())
}

/// A place on an axis: thousandths of a power of ten.
fn thousandths(value: f64) -> i32 {
    (value.log10() * 1000.0).round() as i32
}

/// The ways of the crate stand out.
fn style(line: &Line, color: RGBColor) -> ShapeStyle {
    color.stroke_width(if line.kind == Kind::Ours { 3 } else { 1 })
}

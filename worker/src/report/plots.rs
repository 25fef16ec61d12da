//! Curves as SVG for the report. Ink and grid take the page's colours (`currentColor`), so one drawing serves the
//! light and the dark page.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// One line of a plot.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// As the legend names it.
    pub(crate) name: String,
    /// Its colour, a [`color`].
    pub(crate) color: RGBColor,
    /// (x, y), x ascending.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Hues that keep apart on white and on near-black, also for most colour-blind readers (after Okabe and Ito).
const HUES: [RGBColor; 7] = [
    RGBColor(0x2f, 0x81, 0xd9),
    RGBColor(0xe0, 0x7b, 0x1f),
    RGBColor(0x1f, 0xa3, 0x78),
    RGBColor(0xc8, 0x68, 0xb0),
    RGBColor(0xa8, 0x94, 0x1a),
    RGBColor(0x2a, 0x9f, 0xb5),
    RGBColor(0xbf, 0x3f, 0x3f),
];
/// What the other lines add up to stands back.
const SUM: RGBColor = RGBColor(0x8a, 0x8f, 0x98);

/// The colour of line `i`, where line 0 is the sum; hues return when there are no more.
pub(crate) fn color(i: usize) -> RGBColor {
    i.checked_sub(1).map_or(SUM, |hue| HUES[hue % HUES.len()])
}

/// What a plot shows.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    /// What the y axis counts.
    pub(crate) y_label: &'static str,
    /// The lines.
    pub(crate) series: Vec<Series>,
    /// Whether y starts at 0.
    pub(crate) from_zero: bool,
}

/// Stands in the drawing where the page's own ink belongs.
const INK: RGBColor = RGBColor(1, 2, 3);
const SIZE: (u32, u32) = (760, 320);
/// Where the legend may begin and where it ends, in pixels.
const LEGEND: (i32, i32) = (72, SIZE.0 as i32 - 18);
const FONT: &str = "sans-serif";

/// The plot as an inline `<svg>`; `None` where there is nothing to draw.
pub(crate) fn svg(plot: &Plot) -> Option<String> {
    let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
    let points: Vec<(f64, f64)> = plot.series.iter().flat_map(|s| s.points.iter()).filter(finite).copied().collect();
    if points.len() < 2 {
        return None;
    }
    let x_max = points.iter().map(|p| p.0).fold(f64::MIN, f64::max);
    let x_min = points.iter().map(|p| p.0).fold(f64::MAX, f64::min);
    let y_max = points.iter().map(|p| p.1).fold(f64::MIN, f64::max);
    let y_min = if plot.from_zero { 0.0 } else { points.iter().map(|p| p.1).fold(f64::MAX, f64::min) };
    let room = ((y_max - y_min) * 0.05).max(1e-6);
    let mut out = String::new();
    draw(plot, &mut out, x_min..x_max.max(x_min + 1.0), y_min..y_max + room).ok()?;
    Some(adapt(&out))
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw(plot: &Plot, out: &mut String, x: std::ops::Range<f64>, y: std::ops::Range<f64>) -> Drawn {
    let area = SVGBackend::with_string(out, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(18)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(x, y)?;
    let text = (FONT, 13).into_font().color(&INK.mix(0.75));
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(INK.mix(0.0))
        .bold_line_style(INK.mix(0.12))
        .axis_style(INK.mix(0.35))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_label_formatter(&|v| label(*v))
        .x_desc("step")
        .y_desc(plot.y_label)
        .label_style(text.clone())
        .axis_desc_style(text)
        .draw()?;
    for s in &plot.series {
        chart
            .draw_series(LineSeries::new(s.points.iter().copied(), s.color.stroke_width(2)))?
            .label(s.name.as_str())
            .legend(|(x, y)| PathElement::new(vec![(x, y), (x + 1, y)], TRANSPARENT));
    }
    legend(plot, &area)?;
    area.present()
}

/// Names at the top right, each after a stroke of its colour, in as many rows as they take.
fn legend(plot: &Plot, area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn {
    if plot.series.len() < 2 {
        return Ok(());
    }
    let style = (FONT, 13).into_font().color(&INK.mix(0.85)).pos(Pos::new(HPos::Left, VPos::Center));
    let mut y = 18;
    for row in rows(&plot.series) {
        let mut x = LEGEND.1 - row.iter().map(|s| width_of(&s.name)).sum::<i32>();
        for s in row {
            area.draw(&PathElement::new(vec![(x, y), (x + 18, y)], s.color.stroke_width(3)))?;
            area.draw(&Text::new(s.name.as_str(), (x + 24, y), style.clone()))?;
            x += width_of(&s.name);
        }
        y += 18;
    }
    Ok(())
}

/// The lines of a plot, row by row of its legend.
fn rows(series: &[Series]) -> Vec<&[Series]> {
    let mut rows = Vec::new();
    let (mut begin, mut width) = (0, 0);
    for (i, s) in series.iter().enumerate() {
        let own = width_of(&s.name);
        if i > begin && width + own > LEGEND.1 - LEGEND.0 {
            rows.push(&series[begin..i]);
            (begin, width) = (i, 0);
        }
        width += own;
    }
    rows.push(&series[begin..]);
    rows
}

/// Pixels that a legend entry takes: stroke, gap and about 7 a letter.
fn width_of(name: &str) -> i32 {
    24 + 7 * name.chars().count() as i32 + 18
}

fn label(v: f64) -> String {
    let magnitude = v.abs();
    if magnitude >= 100.0 || v == 0.0 {
        format!("{v:.0}")
    } else if magnitude >= 1.0 {
        format!("{v:.1}")
    } else {
        format!("{v:.2}")
    }
}

/// A drawing of fixed size becomes one that scales with the page and takes its ink from it.
fn adapt(svg: &str) -> String {
    let fixed = format!("<svg width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1);
    svg.replacen(&fixed, "<svg class=\"plot\" role=\"img\"", 1).replace("#010203", "currentColor")
}

//! The evaluation as a table for a terminal.

use super::scores::Evaluated;
use comfy_table::{Attribute, Cell, CellAlignment, Table, presets};

/// One block of rows per kind of text: mask, box, all-ones mask, chance.
pub(crate) fn table(results: &[Evaluated]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let heads =
        ["texts", "region shown by", "text→region R@1", "R@5", "R@10", "region→text R@1", "R@5", "R@10", "in image"];
    table.set_header(heads.map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
    for result in results {
        let label = format!("{} ({} regions, {} images)", result.text.word(), result.regions, result.images);
        for (i, (mode, scores)) in result.modes().into_iter().enumerate() {
            let shown = if mode == "full" { "nothing (all ones)" } else { mode };
            let (t, r) = (scores.text_to_region, scores.region_to_text);
            let values = [t.r1, t.r5, t.r10, r.r1, r.r5, r.r10, scores.in_image];
            table.add_row(row(if i == 0 { &label } else { "" }, shown, &values));
        }
        let c = result.chance;
        table.add_row(row("", "chance", &[c.r1, c.r5, c.r10, c.r1, c.r5, c.r10, result.chance_in_image]));
    }
    table.to_string()
}

fn row(label: &str, shown: &str, values: &[f64]) -> Vec<Cell> {
    let mut cells = vec![Cell::new(label), Cell::new(shown)];
    cells.extend(values.iter().map(|v| Cell::new(percent(*v)).set_alignment(CellAlignment::Right)));
    cells
}

/// `0.1234` as `12.3 %`, with more digits where the value is small.
pub(crate) fn percent(share: f64) -> String {
    let p = share * 100.0;
    if p != 0.0 && p.abs() < 1.0 { format!("{p:.2} %") } else { format!("{p:.1} %") }
}

//! The evaluation as a table for a terminal: a row per number, a column per run, and chance.

use super::measure::Measures;
use crate::eval::output::percent;
use comfy_table::{Attribute, Cell, CellAlignment, Table, presets};

/// `runs`: name and numbers, in the order of the columns. Rows are those of the last one.
pub(super) fn table(runs: &[(String, Measures)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let names = runs.iter().map(|(name, _)| name.as_str());
    let heads = ["task", "measure"].into_iter().chain(names).chain(["chance"]);
    table.set_header(heads.map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
    let number = |share: f64| Cell::new(percent(share)).set_alignment(CellAlignment::Right);
    let mut above = "";
    for measure in runs.last().into_iter().flat_map(|(_, measures)| &measures.all) {
        let task = if measure.task == above { "" } else { &measure.task };
        above = &measure.task;
        let mut cells = vec![Cell::new(task), Cell::new(&measure.name)];
        let values = runs.iter().map(|(_, measures)| measures.get(&measure.key));
        cells.extend(values.map(|found| found.map_or_else(|| Cell::new(""), |m| number(m.value))));
        cells.push(number(measure.chance.1));
        table.add_row(cells);
    }
    table.to_string()
}

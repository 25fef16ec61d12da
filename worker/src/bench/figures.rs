//! How what was measured is shown: a table for people, one line of JSON for scripts.

use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// What was measured of one part.
pub(super) trait Figures: Serialize {
    /// Each figure with its unit, by name.
    fn rows(&self) -> Vec<(&'static str, String)>;
    /// One sentence: what holds this part back.
    fn sentence(&self) -> String;
}

/// The middle one of `values`; of an even number the lower one. NaN of none.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Prints one part.
#[allow(clippy::print_stdout, reason = "the command's result")]
pub(super) fn show(title: &str, figures: &impl Figures) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([title, ""]);
    for (name, value) in figures.rows() {
        table.add_row([Cell::new(name), Cell::new(value).set_alignment(CellAlignment::Right)]);
    }
    println!("{table}\n{}", figures.sentence());
}

/// Prints a sentence.
#[allow(clippy::print_stdout, reason = "the command's result")]
pub(super) fn say(sentence: &str) {
    println!("{sentence}");
}

/// Prints one line of JSON.
///
/// # Errors
/// None is known.
#[allow(clippy::print_stdout, reason = "the command's result")]
pub(super) fn show_json(figures: &impl Serialize) -> Result<ExitCode> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!((median(&mut [3.0, 1.0, 2.0]), median(&mut [4.0, 1.0, 2.0, 3.0])), (2.0, 2.0));
        assert!(median(&mut []).is_nan());
    }
}

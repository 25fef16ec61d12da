//! What `pixfleet shards verify --tokens` says: lengths by column, bars, and the longest texts.

use crate::shards::{right, say, table};
use anyhow::Result;
use indicatif::HumanCount;
use pixfleet_shards::token_report::{Lengths, TokenReport};
use pixfleet_shards::tokens::{LONG_TOKENS, SHORT_TOKENS, TextField};

/// Last lengths of the bars; texts beyond the last one are a bar of their own.
const BARS: [usize; 10] = [8, 16, 24, 32, 48, 64, SHORT_TOKENS, 128, 192, LONG_TOKENS];
/// Letters of the longest bar.
const BAR_WIDTH: f64 = 8.0;
/// Letters of a text that are shown.
const TEXT_SHOWN: usize = 60;

/// The three tables.
pub(in crate::shards) fn show(report: &TokenReport) -> Result<()> {
    let fields: Vec<(TextField, &Lengths)> = report.fields().collect();
    if fields.is_empty() {
        return say("no texts to count tokens of");
    }
    say(lengths(&fields))?;
    say(bars(&fields))?;
    say(longest(&fields))
}

fn lengths(fields: &[(TextField, &Lengths)]) -> comfy_table::Table {
    let head = ["column", "texts", "p50", "p95", "p99", "longest"]
        .map(str::to_owned)
        .into_iter()
        .chain([SHORT_TOKENS, LONG_TOKENS].map(|n| format!("cut at {n}")));
    let mut table = table(&head.collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
    for (field, lengths) in fields {
        let texts = lengths.texts();
        let cut = |most| match lengths.cut_at(most) {
            0 => "0".to_owned(),
            n => format!("{} ({:.2} %)", HumanCount(n), 100.0 * n as f64 / texts as f64),
        };
        let quantiles = [0.5, 0.95, 0.99, 1.0].map(|q| lengths.quantile(q).to_string());
        let counts = [field.name().to_owned(), HumanCount(texts).to_string()];
        table.add_row(counts.into_iter().chain(quantiles).chain([cut(SHORT_TOKENS), cut(LONG_TOKENS)]));
    }
    right(&mut table, 1..8);
    table
}

fn bars(fields: &[(TextField, &Lengths)]) -> comfy_table::Table {
    let head = ["tokens"].into_iter().chain(fields.iter().map(|(field, _)| field.name()));
    let mut table = table(&head.collect::<Vec<_>>());
    let ranges: Vec<(usize, usize)> =
        [0].into_iter().chain(BARS).map(|n| n + 1).zip(BARS.into_iter().chain([usize::MAX])).collect();
    let texts: Vec<Vec<u64>> =
        ranges.iter().map(|&(first, last)| fields.iter().map(|(_, f)| f.between(first, last)).collect()).collect();
    let used = |row: &Vec<u64>| row.iter().any(|&n| n > 0);
    let (top, bottom) = (texts.iter().position(used), texts.iter().rposition(used));
    for at in top.unwrap_or(0)..bottom.map_or(0, |last| last + 1) {
        let (first, last) = ranges[at];
        let range = if last == usize::MAX { format!("{first} and more") } else { format!("{first} to {last}") };
        let bars = fields.iter().enumerate().map(|(column, (_, lengths))| {
            let largest = texts.iter().map(|row| row[column]).max().unwrap_or(0).max(1);
            bar(texts[at][column], largest, lengths.texts())
        });
        table.add_row([range].into_iter().chain(bars));
    }
    right(&mut table, 0..1);
    table
}

/// `n` as a bar, which is full for `largest`, and as a share of `all`.
fn bar(n: u64, largest: u64, all: u64) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if n == 0 {
        return String::new();
    }
    // What is there is seen, however little it is.
    let eighths = ((8.0 * BAR_WIDTH * n as f64 / largest as f64).round() as usize).max(1);
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(PARTS[eighths % 8]);
    }
    format!("{bar:<8} {:>5.1} %", 100.0 * n as f64 / all as f64)
}

fn longest(fields: &[(TextField, &Lengths)]) -> comfy_table::Table {
    let mut table = table(&["tokens", "where", "the longest texts"]);
    for text in fields.iter().flat_map(|(_, lengths)| lengths.longest()) {
        let mut shown: String =
            text.text.chars().take(TEXT_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if text.text.chars().nth(TEXT_SHOWN).is_some() {
            shown.push('…');
        }
        table.add_row([text.length.to_string(), text.place.to_string(), shown]);
    }
    right(&mut table, 0..1);
    table
}

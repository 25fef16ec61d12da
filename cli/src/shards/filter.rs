//! `pixfleet shards filter`.

use super::{bytes, check_target, right, say, table};
use crate::progress;
use anyhow::{Context, Result};
use indicatif::HumanCount;
use pixfleet_shards::filter::{Filter, FilterOptions, FilterReport, fields, filter};
use pixfleet_shards::{Location, RowGroupReader, Tokenizer, WriterOptions, index, tokens as clip};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_long_help = help(), after_help = "`--help` tells what a condition may say, with examples.")]
pub(crate) struct Args {
    /// URL of the dataset.
    url: String,
    /// What must hold of rows and regions.
    #[arg(long = "where", value_name = "CONDITION")]
    condition: String,
    /// URL to write to.
    #[arg(long)]
    out: String,
    /// Splits, with commas between them (default: all).
    #[arg(long, value_delimiter = ',')]
    split: Vec<String>,
    /// Keep rows that no region is left of.
    #[arg(long)]
    keep_empty: bool,
    /// Whose tokens are counted: `clip`, which is built in, or a tokenizer.json with CLIP's vocabulary.
    #[arg(long, value_name = "NAME|FILE", default_value = clip::CLIP)]
    tokens: String,
    /// Replace splits that are there already.
    #[arg(long)]
    replace: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn help() -> String {
    let list = |of_region: bool| {
        let fields = fields().filter(|field| field.of_region == of_region);
        fields.map(|f| format!("  {:<16} {:<13} {}\n", f.name, f.kind, f.meaning)).collect::<String>()
    };
    format!(
        "\
A condition compares fields with numbers and 'texts' (= != < <= > >= in), and is put together with and, or, not and
parentheses; has(field) asks whether there is one. A comparison with what is not there is false.

A row goes if the condition is false whatever its regions are. Of the other rows those regions go of which it is false, and
a row without any region left goes too, unless --keep-empty. A condition that asks for no region keeps or drops whole rows.

Fields of a row:
{}
Fields of a region:
{}
Row groups that cannot match by the statistics in their file are not read, and pictures only of rows that stay. Rows keep
their order. Text vectors beside the rows are not copied: run `pixfleet shards embed` on the result.

Examples:
  pixfleet shards filter s3://photos/longgrit --where \"clip_sim_l14 > 0.3 and area > 0.01 and tokens < 400\" --out s3://photos/sharp
  pixfleet shards filter file:///tmp/mini --split train --where \"category in ('fox', 'owl') and not check_ok = false\" --out file:///tmp/animals
  pixfleet shards filter file:///tmp/mini --where \"has(caption_long) and width >= 512\" --out file:///tmp/large",
        list(false),
        list(true)
    )
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let condition = Filter::parse(&args.condition).context("--where")?;
    let tokenizer = condition.needs_tokens().then(|| Tokenizer::open(&args.tokens)).transpose()?;
    let options = FilterOptions { keep_empty: args.keep_empty, tokenizer, writer: WriterOptions::default() };
    let (source, out) = (Location::parse(&args.url)?, Location::parse(&args.out)?);
    let index = index::open(&source).await?;
    index::check_fresh(&source, &index).await?;
    let splits = if args.split.is_empty() { index.splits.keys().cloned().collect() } else { args.split };
    let mut readers = Vec::new();
    for split in splits {
        readers.push((RowGroupReader::new(source.clone(), &index, &split, None)?, split));
    }
    for (_, split) in &readers {
        check_target(&out, split, &[&source], args.replace).await?;
    }
    let mut reports = BTreeMap::new();
    for (reader, split) in readers {
        let bar = progress::bar("filter", "row groups");
        let report = filter(&reader, &condition, &options, (&out, &split), &mut |done, total| {
            progress::set(&bar, done, total);
        })
        .await?;
        bar.finish_and_clear();
        if !args.json {
            show(&split, &report, reader.fetched().bytes())?;
        }
        reports.insert(split, (report, reader.fetched().bytes()));
    }
    // A split of which nothing is left is no part of a dataset.
    let left = reports.values().any(|(report, _)| report.written.rows > 0);
    if left {
        index::build(&out, &mut |_, _| {}).await?;
    }
    if args.json {
        let splits: serde_json::Map<String, Value> =
            reports.iter().map(|(split, (report, read))| (split.clone(), json(report, *read))).collect();
        say(serde_json::to_string_pretty(&splits)?)?;
    } else if left {
        say(format_args!("written and indexed: {}", out.url()))?;
    } else {
        say("no row is left: nothing was written")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn json(report: &FilterReport, read: u64) -> Value {
    let parts: Vec<Value> = report
        .parts
        .iter()
        .map(|p| {
            json!({
                "condition": p.text, "row_groups_not_read": p.row_groups, "rows_not_read": p.skipped,
                "rows": p.rows, "regions": p.regions,
            })
        })
        .collect();
    json!({
        "rows": report.rows,
        "regions": report.regions,
        "row_groups": report.row_groups,
        "rows_kept": report.written.rows,
        "regions_kept": report.written.regions,
        "gone": parts,
        "rows_without_regions": report.emptied,
        "bad_rows": report.bad,
        "bytes_read": read,
        "bytes_written": report.written.bytes,
        "files": report.written.files,
    })
}

fn show(split: &str, report: &FilterReport, read: u64) -> Result<()> {
    let count = |n: u64| HumanCount(n).to_string();
    let mut table = table(&["what went, and why", "row groups not read", "rows", "regions"]);
    for part in &report.parts {
        let rows = part.rows + part.skipped;
        table.add_row([part.text.clone(), count(part.row_groups), count(rows), count(part.regions)]);
    }
    table.add_row(["no region was left".to_owned(), String::new(), count(report.emptied), String::new()]);
    if report.bad > 0 {
        table.add_row(["cannot be read".to_owned(), String::new(), count(report.bad), String::new()]);
    }
    right(&mut table, 1..4);
    say(table)?;
    for bad in &report.bad_rows {
        say(bad)?;
    }
    say(format_args!(
        "{split}: {} of {} rows and {} of {} regions stay; {} read, {} written",
        count(report.written.rows),
        count(report.rows),
        count(report.written.regions),
        count(report.regions),
        bytes(read),
        bytes(report.written.bytes)
    ))
}

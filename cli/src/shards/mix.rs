//! `pixfleet shards mix`.

use super::{bytes, check_target, right, say, table};
use crate::progress;
use anyhow::{Context, Result, ensure};
use indicatif::HumanCount;
use pixfleet_shards::mix::{MixOptions, MixReport, MixSource, Until, mix};
use pixfleet_shards::{Location, WriterOptions, index};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Rows are copied by turns: each turn is drawn by the weights, and the rows of each source come in an order of their own, each
at most once. The same seed makes the same mix. A row that does not say its `source` gets the last part of its dataset's URL.
Text vectors beside the rows are not copied: run `pixfleet shards embed` on the result.

Examples:
  pixfleet shards mix s3://photos/longgrit=0.7 s3://photos/finehard=0.3 --out s3://photos/both
  pixfleet shards mix file:///tmp/a=1 file:///tmp/b=1 --until all --seed 7 --out file:///tmp/ab
  pixfleet shards mix s3://photos/longgrit=3 s3://photos/ours=1 --epoch-rows 1000000 --out s3://photos/million")]
pub(crate) struct Args {
    /// Datasets and how often each has a turn, beside the others.
    #[arg(required = true, value_name = "URL=WEIGHT")]
    sources: Vec<String>,
    /// URL to write to.
    #[arg(long)]
    out: String,
    /// Split to read and to write.
    #[arg(long, default_value = "train")]
    split: String,
    /// Rows to write at most.
    #[arg(long)]
    epoch_rows: Option<u64>,
    /// Seed of turns and orders.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End with the first source of which no row is left, or when none has any.
    #[arg(long, value_enum, default_value = "first")]
    until: Ends,
    /// Replace the split if it is there already.
    #[arg(long)]
    replace: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// `--until`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Ends {
    /// With the first source that ends.
    First,
    /// With the last one.
    All,
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let sources = args.sources.iter().map(|text| source(text)).collect::<Result<Vec<_>>>()?;
    let out = Location::parse(&args.out)?;
    let locations: Vec<&Location> = sources.iter().map(|source| &source.location).collect();
    check_target(&out, &args.split, &locations, args.replace).await?;
    let until = match args.until {
        Ends::First => Until::First,
        Ends::All => Until::All,
    };
    let options = MixOptions { seed: args.seed, until, rows: args.epoch_rows, writer: WriterOptions::default() };
    let bar = progress::bar("mix", "rows");
    let report =
        mix(&sources, (&out, &args.split), &options, &mut |done, total| progress::set(&bar, done, total)).await?;
    bar.finish_and_clear();
    ensure!(
        report.written.rows > 0,
        "no row was written: {}",
        ended(&report).unwrap_or_else(|| "--epoch-rows is 0".into())
    );
    index::build(&out, &mut |_, _| {}).await?;
    if args.json {
        say(serde_json::to_string_pretty(&json(&report))?)?;
    } else {
        show(&report)?;
        say(format_args!("written and indexed: {}", out.url()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `URL=WEIGHT`.
fn source(text: &str) -> Result<MixSource> {
    let wanted = || format!("`{text}`: expected URL=WEIGHT, as in s3://photos/longgrit=0.7");
    let (url, weight) = text.rsplit_once('=').with_context(wanted)?;
    let weight: f64 = weight.parse().ok().filter(|w: &f64| w.is_finite() && *w > 0.0).with_context(wanted)?;
    Ok(MixSource { location: Location::parse(url)?, weight })
}

/// Which source ended first, in words.
fn ended(report: &MixReport) -> Option<String> {
    let (source, after) = report.first_ended?;
    Some(format!("{} ended first, after {} rows of the mix", report.sources[source].name, HumanCount(after)))
}

fn json(report: &MixReport) -> Value {
    let sources: Vec<Value> = report
        .sources
        .iter()
        .map(|s| json!({"name": s.name, "rows": s.rows, "written": s.written, "bad": s.bad}))
        .collect();
    json!({
        "sources": sources,
        "first_ended": report.first_ended.map(|(source, after)| json!({"source": source, "after": after})),
        "rows": report.written.rows,
        "regions": report.written.regions,
        "files": report.written.files,
        "bytes": report.written.bytes,
    })
}

fn show(report: &MixReport) -> Result<()> {
    let mut table = table(&["source", "its rows", "in the mix", "of the mix", "bad"]);
    for source in &report.sources {
        table.add_row([
            source.name.clone(),
            HumanCount(source.rows).to_string(),
            HumanCount(source.written).to_string(),
            format!("{:.2} %", 100.0 * source.written as f64 / report.written.rows.max(1) as f64),
            HumanCount(source.bad).to_string(),
        ]);
    }
    right(&mut table, 1..5);
    say(table)?;
    for bad in &report.bad_rows {
        say(bad)?;
    }
    if let Some(ended) = ended(report) {
        say(ended)?;
    }
    say(format_args!(
        "{} rows, {} regions, {} in {} files",
        HumanCount(report.written.rows),
        HumanCount(report.written.regions),
        bytes(report.written.bytes),
        report.written.files
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_follows_the_last_equals_sign() {
        let found = source("file:///tmp/a=b=2.5").expect("a source");
        assert_eq!((found.location.url(), found.weight), ("file:///tmp/a=b", 2.5));
        for wrong in ["file:///tmp/a", "file:///tmp/a=", "file:///tmp/a=-1", "file:///tmp/a=inf", "file:///tmp/a=0"] {
            let said = source(wrong).expect_err("no weight").to_string();
            assert!(said.contains("expected URL=WEIGHT"), "{wrong}: {said}");
        }
    }
}

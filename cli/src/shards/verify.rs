//! `pixfleet shards verify`.

pub(super) mod tokens;

use super::{bytes, say};
use crate::progress;
use anyhow::Result;
use pixfleet_shards::verify::verify_with;
use pixfleet_shards::{Location, Tokenizer, tokens as clip};
use std::process::ExitCode;
use std::time::Instant;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Every Parquet file of every split is read to its end: schema, captions, boxes, masks, pictures, and the text vectors
beside them. Each fault is a line that names file, row group, row and field.

With --tokens it also says how long the texts are for CLIP's text tower: by column the lengths, a histogram, what a cut at
77 and at 248 would shorten, and where the longest stand.

Examples:
  pixfleet shards verify file:///tmp/mini
  pixfleet shards verify file:///tmp/mini --tokens
  pixfleet shards verify file:///tmp/mini --tokens --tokenizer clip-vit-base-patch16/tokenizer.json
  pixfleet shards verify s3://photos/longgrit > faults.txt")]
pub(crate) struct Args {
    /// URL of the dataset.
    url: String,
    /// Also count the tokens of all texts.
    #[arg(long)]
    tokens: bool,
    /// Whose tokens: `clip`, which is built in, or a tokenizer.json with CLIP's vocabulary.
    #[arg(long, value_name = "NAME|FILE", default_value = clip::CLIP, requires = "tokens")]
    tokenizer: String,
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let location = Location::parse(&args.url)?;
    let tokenizer = if args.tokens { Some(Tokenizer::open(&args.tokenizer)?) } else { None };
    let bar = progress::bar("verify", "row groups");
    let start = Instant::now();
    let report = verify_with(&location, tokenizer.as_ref(), &mut |at| {
        progress::set(&bar, at.row_groups, at.row_groups_total);
        bar.set_message(format!("{} faults", at.faults));
    })
    .await?;
    bar.finish_and_clear();
    for fault in &report.faults {
        say(fault)?;
    }
    let unsaid = report.faults_total - report.faults.len() as u64;
    if unsaid > 0 {
        say(format_args!("and {unsaid} faults more"))?;
    }
    if args.tokens {
        tokens::show(&report.tokens)?;
    }
    let faults = match report.faults_total {
        0 => "no faults".to_owned(),
        1 => "1 fault".to_owned(),
        n => format!("{n} faults"),
    };
    say(format_args!(
        "{faults} in {} files, {} rows, {} regions, {} vectors files; {} read in {:.1} s",
        report.files,
        report.rows,
        report.regions,
        report.vectors_files,
        bytes(report.bytes),
        start.elapsed().as_secs_f64()
    ))?;
    Ok(if report.faults_total == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

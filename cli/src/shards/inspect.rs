//! `pixfleet shards inspect`.

use super::index::splits;
use super::{bytes, say, table};
use anyhow::{Context, Result};
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_shards::inspect::{Seen, sheet, spread};
use pixfleet_shards::{Columns, HardNegCounts, ImageRow, Location, RowGroupReader, index};
use std::path::PathBuf;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet shards inspect file:///tmp/mini
  pixfleet shards inspect s3://photos/longgrit --split test --rows 12 --out sheet.png")]
pub(crate) struct Args {
    /// URL of the dataset.
    url: String,
    /// Split whose rows are shown (default: `train`, or the first one).
    #[arg(long)]
    split: Option<String>,
    /// Rows to show, evenly spread over the split.
    #[arg(long, default_value_t = 6)]
    rows: u64,
    /// Also draw them: pictures, masks and captions, as a PNG.
    #[arg(long, value_name = "PNG")]
    out: Option<PathBuf>,
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let location = Location::parse(&args.url)?;
    let index = index::open(&location).await?;
    say(splits(&index))?;
    say(format_args!("digest {}  {}", index.digest, location.url()))?;
    let split = args.split.unwrap_or_else(|| first(&index));
    let reader = RowGroupReader::new(location, &index, &split, None)?;
    // Without a sheet nobody needs the pictures.
    let columns = Columns { image: args.out.is_some(), ..Columns::ROWS };
    let seen = spread(&reader, args.rows, columns).await?;
    say(rows(&seen))?;
    let counts = negatives(&seen);
    if counts.negatives > 0 {
        say(format_args!("hard negatives in these rows: {counts}"))?;
    }
    if let Some(path) = args.out {
        std::fs::write(&path, sheet(&seen)?).with_context(|| format!("cannot write {}", path.display()))?;
        say(format_args!("{} rows of {split} drawn to {}", seen.len(), path.display()))?;
    }
    say(format_args!("{} fetched", bytes(reader.fetched().bytes())))?;
    Ok(ExitCode::SUCCESS)
}

/// The split that is meant where none is named.
pub(super) fn first(index: &DatasetIndex) -> String {
    let train = "train".to_owned();
    if index.splits.contains_key(&train) { train } else { index.splits.keys().next().cloned().unwrap_or(train) }
}

fn negatives(seen: &[Seen]) -> HardNegCounts {
    let mut counts = HardNegCounts::default();
    seen.iter().filter_map(|s| s.found.as_ref().ok()).flat_map(|row| &row.regions).for_each(|r| counts.add(r));
    counts
}

fn rows(seen: &[Seen]) -> comfy_table::Table {
    let mut table = table(&["group:row", "image", "region", "box", "mask", "short text", "long text"]);
    for seen in seen {
        let at = format!("{}:{}", seen.row_group, seen.row);
        match &seen.found {
            Ok(row) => image(&mut table, &at, row),
            Err(error) => {
                table.add_row([at, "bad row".into(), String::new(), String::new(), String::new(), error.to_string()]);
            }
        }
    }
    table
}

fn image(table: &mut comfy_table::Table, at: &str, row: &ImageRow) {
    let text = |t: Option<&str>| t.unwrap_or("-").to_owned();
    table.add_row([
        at.to_owned(),
        format!("{}\n{} x {}", row.image_id, row.width, row.height),
        "whole".into(),
        String::new(),
        String::new(),
        text(row.caption_short.as_deref()),
        text(row.caption_long.as_deref()),
    ]);
    for (i, region) in row.regions.iter().enumerate() {
        let pixels = |m: &pixfleet_shards::pixels::rle::Rle| u64::from(m.height) * u64::from(m.width);
        let mask = region.mask.as_ref().filter(|m| pixels(m) > 0);
        table.add_row([
            String::new(),
            String::new(),
            format!("{i} {}", region.category.as_deref().unwrap_or_default()),
            region.bbox.map(|v| format!("{v:.2}")).join(" "),
            mask.map_or("-".into(), |m| format!("{:.1} %", 100.0 * m.area() as f64 / pixels(m) as f64)),
            text(region.short_text()),
            text(region.long_text()),
        ]);
    }
}

//! `pixfleet shards index`.

use super::{bytes, right, say, table};
use crate::progress;
use anyhow::Result;
use pixfleet_cluster::index::{DatasetIndex, FileIndex};
use pixfleet_shards::{Location, index};
use std::process::ExitCode;

/// Rows of a row group that are no reason for a note.
const ROWS_COMMON: u32 = 4096;
/// Notes that are shown.
const NOTES_SHOWN: usize = 5;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Files of other programs (pyarrow, DuckDB, polars, Spark) are taken as they are if their columns are those of docs/format.md;
nothing is rewritten.

Examples:
  pixfleet shards index file:///data/longgrit
  AWS_ENDPOINT=http://127.0.0.1:9000 AWS_ALLOW_HTTP=true pixfleet shards index s3://photos/longgrit
  pixfleet shards index s3://photos/longgrit --check")]
pub(crate) struct Args {
    /// URL of the dataset: the folder that holds one folder of Parquet files for each split.
    url: String,
    /// Write nothing; say whether the newest index still fits its files.
    #[arg(long)]
    check: bool,
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let location = Location::parse(&args.url)?;
    let index = if args.check {
        let index = index::open(&location).await?;
        index::check_fresh(&location, &index).await?;
        index
    } else {
        let bar = progress::bar("index", "files");
        let index = index::build(&location, &mut |done, total| progress::set(&bar, done, total)).await?;
        bar.finish_and_clear();
        index
    };
    say(splits(&index))?;
    say(format_args!("digest {}  {}", index.digest, location.url_of(&index.path())))?;
    let notes = notes(&index);
    notes.iter().take(NOTES_SHOWN).try_for_each(say)?;
    if notes.len() > NOTES_SHOWN {
        say(format_args!("and {} files more like these", notes.len() - NOTES_SHOWN))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Files whose row groups are so large that training reads and keeps much for each row, in words.
fn notes(index: &DatasetIndex) -> Vec<String> {
    let note = |file: &FileIndex| {
        let rows = file.row_groups.iter().map(|group| group.rows).max().filter(|rows| *rows > ROWS_COMMON)?;
        Some(format!(
            "{}: row groups of up to {rows} rows, which are read together; {ROWS_COMMON} at most read better (docs/format.md)",
            file.path
        ))
    };
    index.splits.values().flat_map(|split| &split.files).filter_map(note).collect()
}

/// What the splits hold.
pub(crate) fn splits(index: &DatasetIndex) -> comfy_table::Table {
    let mut table = table(&["split", "files", "row groups", "rows", "regions", "size"]);
    for (name, split) in &index.splits {
        table.add_row([
            name.clone(),
            split.files.len().to_string(),
            split.row_groups().count().to_string(),
            split.rows().to_string(),
            split.regions().to_string(),
            bytes(split.bytes()),
        ]);
    }
    right(&mut table, 1..6);
    table
}

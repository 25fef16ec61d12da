//! `pixfleet shards index`.

use super::{bytes, right, say, table};
use crate::progress;
use anyhow::Result;
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_shards::{Location, index};
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
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
    Ok(ExitCode::SUCCESS)
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

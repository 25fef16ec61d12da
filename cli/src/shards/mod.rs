//! `pixfleet shards`: build, index, look at, check, count, filter, mix and embed datasets.

mod build;
mod filter;
mod index;
mod ingest;
mod inspect;
mod mix;
mod stats;
mod verify;

use crate::torch;
use anyhow::{Result, ensure};
use pixfleet_shards::Location;
use std::io::Write;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Compose a dataset.
    #[command(subcommand)]
    Build(build::Command),
    /// Turn a dataset of another format into shards: COCO, LVIS, RefCOCO, GRIT, FineHARD, webdataset, Parquet and others.
    Ingest(Box<ingest::Args>),
    /// Write the index of a dataset: its files, their versions, their row groups.
    Index(index::Args),
    /// Show what a dataset holds: a table, and a PNG sheet of pictures, masks and captions.
    Inspect(inspect::Args),
    /// Decode every row and name every fault. Exit code 1 if there are any.
    Verify(verify::Args),
    /// Count what a split holds: fields, lengths of texts, sizes, categories, and pictures that are there twice.
    Stats(stats::Args),
    /// Copy the rows and regions that a condition holds of.
    Filter(filter::Args),
    /// Copy several datasets into one, row by row by their weights.
    Mix(mix::Args),
    /// Encode captions and write their vectors beside the rows (`--help` shows the encoders).
    Embed(torch::Passed),
}

pub(crate) fn main(command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    match command {
        Command::Build(args) => runtime.block_on(build::main(args)),
        Command::Ingest(args) => runtime.block_on(ingest::main(*args)),
        Command::Index(args) => runtime.block_on(index::main(args)),
        Command::Inspect(args) => runtime.block_on(inspect::main(args)),
        Command::Verify(args) => runtime.block_on(verify::main(args)),
        Command::Stats(args) => runtime.block_on(stats::main(args)),
        Command::Filter(args) => runtime.block_on(filter::main(args)),
        Command::Mix(args) => runtime.block_on(mix::main(args)),
        Command::Embed(args) => torch::main(torch::Command::Embed(args)),
    }
}

/// Refuses to write the split `split` of `out` where it is one of `sources`, or there already.
async fn check_target(out: &Location, split: &str, sources: &[&Location], replace: bool) -> Result<()> {
    let own = sources.iter().any(|source| source.url() == out.url());
    ensure!(!own, "{} is what is read; write somewhere else", out.url());
    ensure!(
        replace || !pixfleet_shards::index::has_split(out, split).await?,
        "{} has a split `{split}` already; write somewhere else, or say --replace",
        out.url()
    );
    Ok(())
}

/// Writes text and a line end to stdout.
pub(crate) fn say(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        // Whoever read has seen enough (`| head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A table with a head, plain enough for a terminal of any kind.
fn table(head: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY.row_separator(comfy_table::LineStyle::none()))
        .set_content_arrangement(comfy_table::ContentArrangement::Dynamic)
        .set_header(head.iter().copied());
    if table.width().is_none() {
        // A file or a pipe: as wide as a log is read.
        table.set_width(160);
    }
    table
}

/// Columns of numbers stand right.
fn right(table: &mut comfy_table::Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
}

/// Bytes for people: `12.3 MB`.
fn bytes(n: u64) -> String {
    indicatif::DecimalBytes(n).to_string()
}

//! `pixfleet shards`: build, index, look at, check and embed datasets.

mod build;
mod index;
mod inspect;
mod verify;

use crate::torch;
use anyhow::Result;
use std::io::Write;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Compose a dataset.
    #[command(subcommand)]
    Build(build::Command),
    /// Write the index of a dataset: its files, their versions, their row groups.
    Index(index::Args),
    /// Show what a dataset holds: a table, and a PNG sheet of pictures, masks and captions.
    Inspect(inspect::Args),
    /// Decode every row and name every fault. Exit code 1 if there are any.
    Verify(verify::Args),
    /// Encode captions and write their vectors beside the rows (`--help` shows the encoders).
    Embed(torch::Passed),
}

pub(crate) fn main(command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    match command {
        Command::Build(args) => runtime.block_on(build::main(args)),
        Command::Index(args) => runtime.block_on(index::main(args)),
        Command::Inspect(args) => runtime.block_on(inspect::main(args)),
        Command::Verify(args) => runtime.block_on(verify::main(args)),
        Command::Embed(args) => torch::main(torch::Command::Embed(args)),
    }
}

/// Writes text and a line end to stdout.
fn say(text: impl std::fmt::Display) -> Result<()> {
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

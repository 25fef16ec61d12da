//! `pixfleet shards`.

use anyhow::Result;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Write the index of a dataset.
    Index {
        /// URL of the dataset.
        url: String,
    },
}

pub(crate) fn main(command: Command) -> Result<ExitCode> {
    match command {
        Command::Index { .. } => anyhow::bail!("not built yet"),
    }
}

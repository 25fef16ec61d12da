//! `pixfleet-worker export`: a run's newest good checkpoint as a file of weights, or as a folder for the Hugging Face Hub.

mod file;
mod hub;
mod names;
#[cfg(test)]
mod tests_names;

use anyhow::{Result, bail};
use std::process::ExitCode;

/// Writes a file, or does one of the commands.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[group(skip)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    file: Option<file::FileArgs>,
}

/// What there is beside a file.
#[derive(clap::Subcommand)]
enum Command {
    /// A folder for the Hugging Face Hub: weights, configuration and a model card.
    Hub(hub::HubArgs),
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    match (args.command, args.file) {
        (Some(Command::Hub(args)), _) => hub::export(&args),
        (None, Some(args)) => file::export(&args),
        (None, None) => bail!("nothing to export; see `pixfleet export --help`"),
    }
}

//! `pixfleet annotate`: stages of questions to models over the rows of a dataset, and a page to look at what came of it.

mod review;
mod run;
mod screen;

use anyhow::{Context, Result};
use std::process::ExitCode;

/// Annotates, or does one of the commands.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[group(skip)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<run::Args>,
}

/// What there is beside annotating.
#[derive(clap::Subcommand)]
enum Command {
    /// Look at random regions on a page, accept or reject them, and put the verdicts into the data.
    Review(review::Args),
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    match (args.command, args.run) {
        (Some(Command::Review(args)), _) => runtime.block_on(review::main(args)),
        (None, Some(args)) => runtime.block_on(run::main(args)),
        (None, None) => anyhow::bail!("nothing to annotate; see `pixfleet annotate --help`"),
    }
}

//! `pixfleet-worker eval`.

pub(crate) mod output;
pub(crate) mod retrieve;
pub(crate) mod scores;

use anyhow::Result;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_args: Args) -> Result<ExitCode> {
    anyhow::bail!("not built yet")
}

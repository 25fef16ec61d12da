//! `pixfleet manual FOLDER`: man pages and shell completions, for whoever packs these programs.

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the files go.
    folder: PathBuf,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let mut command = crate::Cli::command();
    let cannot = || format!("cannot write to {}", args.folder.display());
    clap_mangen::generate_to(command.clone(), &args.folder).with_context(cannot)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "pixfleet", &args.folder).with_context(cannot)?;
    }
    Ok(ExitCode::SUCCESS)
}

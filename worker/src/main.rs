//! `pixfleet-worker`: every command that needs torch. Parses what was typed and hands it to the room that does it.

mod bench;
mod embed;
mod encode;
mod eval;
mod export;
mod hub;
mod import;
mod load;
mod pixels;
mod probe;
mod report;
mod train;
mod weights;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use std::path::PathBuf;
use std::process::ExitCode;

/// pixfleet's commands that need torch.
#[derive(Parser)]
#[command(name = "pixfleet-worker", version, about)]
enum Cli {
    /// Join a run as a worker.
    Worker(train::Args),
    /// Encode captions and write their vectors beside the rows.
    Embed(embed::Args),
    /// Evaluate a checkpoint.
    Eval(eval::Args),
    /// Write image, region and text embeddings of a split to Parquet.
    Encode(encode::Args),
    /// What the parts of a run can do on this machine.
    Bench(bench::Args),
    /// One forward and backward in fp32 on given tensors.
    Probe(probe::Args),
    /// A checkpoint as one safetensors file, or as a folder for the Hugging Face Hub.
    Export(export::Args),
    /// Write man pages into a folder.
    #[command(hide = true)]
    Manual(ManualArgs),
    /// A published checkpoint as a file of weights under pixfleet's names.
    Import(import::Args),
}

#[derive(clap::Args)]
struct ManualArgs {
    /// Where the pages go.
    folder: PathBuf,
}

fn main() -> ExitCode {
    if pixfleet_proto::is_orphan() {
        return ExitCode::FAILURE;
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_ansi(pixfleet_proto::takes_colours())
        .with_writer(std::io::stderr)
        .init();
    let result = match Cli::parse() {
        Cli::Worker(args) => train::main(args),
        Cli::Embed(args) => embed::main(args),
        Cli::Eval(args) => eval::main(args),
        Cli::Encode(args) => encode::main(args),
        Cli::Bench(args) => bench::main(args),
        Cli::Probe(args) => probe::main(args),
        Cli::Export(args) => export::main(args),
        Cli::Import(args) => import::main(args),
        Cli::Manual(args) => manual(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Man pages under the front door's name: that is what people call.
fn manual(args: &ManualArgs) -> Result<ExitCode> {
    clap_mangen::generate_to(Cli::command().name("pixfleet"), &args.folder)
        .with_context(|| format!("cannot write to {}", args.folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

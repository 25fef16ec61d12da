//! `pixfleet`: the one front door. Parses what was typed and hands it to the room that does it; never links torch.

mod annotate;
mod audit;
mod demo;
mod manual;
mod progress;
mod shards;
mod sim;
mod status;
mod stress;
mod torch;
mod train;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A distributed, elastic trainer for pixel-text models.
#[derive(Parser)]
#[command(name = "pixfleet", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a run: coordinator and workers on this machine.
    Train(train::Args),
    /// Prove that a run used every sample of every epoch once, or name those that it did not.
    Audit(audit::Args),
    /// What the coordinator of a run says of it, once or every second.
    Status(status::Args),
    /// Serve one run, for workers on this and other machines: passed on to `pixfleet-coordinator`.
    Coordinator(torch::Passed),
    /// Put the machines of coordinators and workers through simulated trouble and look for broken promises.
    Sim(sim::Args),
    /// Measure what a coordinator takes that leads as many members as there are wanted.
    Stress(stress::Args),
    /// Build, index, look at and check datasets.
    #[command(subcommand)]
    Shards(shards::Command),
    /// Write captions, checks and hard negatives by asking models: LongGRIT's and FineHARD's pipelines.
    Annotate(annotate::Args),
    /// From nothing to a trained model and a report, on real drawings.
    Demo(demo::Args),
    /// Write man pages and shell completions into a folder.
    #[command(hide = true)]
    Manual(manual::Args),
    /// Commands that need torch: passed on to `pixfleet-worker`.
    #[command(flatten)]
    Torch(torch::Command),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,usvg=error".into()),
        )
        .with_ansi(pixfleet_proto::takes_colours())
        .with_writer(std::io::stderr)
        .init();
    let result = match Cli::parse().command {
        Command::Train(args) => train::main(args),
        Command::Audit(args) => audit::main(args),
        Command::Status(args) => status::main(args),
        Command::Coordinator(passed) => torch::pass("pixfleet-coordinator", None, passed),
        Command::Sim(args) => sim::main(args),
        Command::Stress(args) => stress::main(args),
        Command::Shards(command) => shards::main(command),
        Command::Annotate(args) => annotate::main(args),
        Command::Demo(args) => demo::main(args),
        Command::Manual(args) => manual::main(args),
        Command::Torch(command) => torch::main(command),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", told(&error));
        ExitCode::FAILURE
    })
}

/// An error with its causes; those that are already part of the message before them are not said twice.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said {
        said if said.is_empty() => cause,
        said if said.contains(&cause) => said,
        said => said + ": " + &cause,
    })
}

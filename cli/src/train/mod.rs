//! `pixfleet train`: a coordinator and workers on this machine, as child processes, with a progress bar or JSON lines.
//!
//! It decides nothing about the run: it starts programs, tells the coordinator which of them ended and how, starts the
//! coordinator again if it dies, passes Ctrl-C on as a drain, and ends with the run's exit code: 0 done, 75 drained,
//! 1 fault.

mod children;
mod coordinator;
mod leader_client;
mod log_line;
mod screen;
mod supervise;
mod workers;

use anyhow::{Context, Result};
use pixfleet_cluster::RunSpec;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const MORE: &str = "\
Exit codes: 0 all steps are done; 75 drained, wants to be started again; 1 fault.
Ctrl-C, or SIGTERM to this program, drains the run: the step in flight ends, a checkpoint is committed. SIGTERM to one
worker makes that one leave after the step in flight while the others train on. A coordinator that dies is started again;
no step waits for it.

Examples:
  pixfleet train run.toml --workers 4
  pixfleet train run.toml --workers 4 --respawn 10 --log json --set train.min_workers=2
  pixfleet train run.toml --workers 8 --coordinator node7:7000      # more workers for a run that is led elsewhere
  pixfleet train run.toml --print-plan";

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// The run file.
    file: PathBuf,
    /// Workers to start on this machine.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Start a worker that was lost again, at most N times in all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    respawn: u32,
    /// Override a value of the run file: section.key=value. May be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the run file with every value written out, and stop.
    #[arg(long)]
    print_plan: bool,
    /// How to tell what happens: a progress bar, or one JSON object per step on standard output.
    #[arg(long, value_enum, default_value_t = Log::Bar)]
    log: Log,
    /// Join the coordinator at this address instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: Option<String>,
    /// Refuse to go on with a run that exists.
    #[arg(long)]
    fresh: bool,
    /// Where the workers compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
}

/// How to tell what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Log {
    /// A progress bar on standard error.
    Bar,
    /// One JSON object per line on standard output.
    Json,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let spec = RunSpec::parse(&text, &args.set).with_context(|| args.file.display().to_string())?;
    if args.print_plan {
        std::io::stdout().write_all(spec.to_toml().as_bytes()).context("cannot write to standard output")?;
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(args.workers >= 1, "--workers 0: at least one worker is needed");
    anyhow::ensure!(
        args.workers <= spec.train.lanes,
        "--workers {} is more than train.lanes = {}: a worker hosts at least one lane; use fewer workers, or more lanes \
         with --set train.lanes=N",
        args.workers,
        spec.train.lanes
    );
    // Children ask the kernel to die with the thread that started them, so they are started from this, the main one.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let launch = supervise::Launch {
        spec,
        workers: args.workers,
        respawn: args.respawn,
        log: args.log,
        coordinator: args.coordinator,
        fresh: args.fresh,
        device: args.device,
    };
    runtime.block_on(supervise::run(launch))
}

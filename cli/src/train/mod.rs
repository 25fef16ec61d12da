//! `pixfleet train`: a coordinator and workers on this machine, as child processes, with a progress bar or JSON lines.
//!
//! It decides nothing about the run: it starts programs, tells the coordinator which of them ended and how, starts the
//! coordinator again if it dies, passes Ctrl-C on as a drain, and ends with the run's exit code: 0 done, 75 drained,
//! 1 fault.

pub(crate) mod children;
mod coordinator;
mod evaluations;
mod leader_client;
mod log_line;
mod plan;
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
  pixfleet train run.toml --workers 4 --standby 2
  pixfleet train run.toml --workers 8 --coordinator node7:7000      # more workers for a run that is led elsewhere
  pixfleet train stage1.toml stage2.toml --workers 4                # one after the other; the same command goes on
  pixfleet train run.toml --print-plan";

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// The run file. Several are run one after the other, each when the one before is done.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Workers to start on this machine.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Start a worker that was lost again, at most N times in all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    respawn: u32,
    /// Override a value of the run file: section.key=value. May be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the run file with every value written out, and how long everybody waits for what; and stop.
    #[arg(long)]
    print_plan: bool,
    /// How to tell what happens: a progress bar, or one JSON object per step on standard output.
    #[arg(long, value_enum, default_value_t = Log::Bar)]
    log: Log,
    /// Join the coordinator at this address instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: Option<String>,
    /// Coordinators that stand by, started beside the one that leads: if it falls silent, one of them takes over.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "coordinator")]
    standby: u32,
    /// Refuse to go on with a run that exists.
    #[arg(long)]
    fresh: bool,
    /// Where the workers compute: auto, cpu, cuda (a GPU for each worker), or cuda:1, which only one worker can have.
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
    // All files are checked before the first run starts.
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        RunSpec::parse(&text, &args.set).with_context(|| file.display().to_string())
    };
    let specs = args.files.iter().map(read).collect::<Result<Vec<_>>>()?;
    if args.print_plan {
        let plans: Vec<String> = specs.iter().map(plan::plan).collect();
        std::io::stdout().write_all(plans.join("\n").as_bytes()).context("cannot write to standard output")?;
        return Ok(ExitCode::SUCCESS);
    }
    for (i, spec) in specs.iter().enumerate() {
        check(spec, &args)?;
        anyhow::ensure!(
            specs[..i].iter().all(|before| before.run.name != spec.run.name),
            "two of the run files are of the run `{}`; each needs a name of its own",
            spec.run.name
        );
    }
    // Children ask the kernel to die with the thread that started them, so they are started from this, the main one.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let count = specs.len();
    for (number, spec) in specs.into_iter().enumerate() {
        if count > 1 {
            eprintln!("[{}/{count}] {}", number + 1, spec.run.name);
        }
        let launch = supervise::Launch {
            spec,
            workers: args.workers,
            respawn: args.respawn,
            log: args.log,
            coordinator: args.coordinator.clone(),
            fresh: args.fresh,
            standbys: args.standby,
            device: args.device.clone(),
        };
        let code = runtime.block_on(supervise::run(launch))?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(spec: &RunSpec, args: &Args) -> Result<()> {
    anyhow::ensure!(args.workers >= 1, "--workers 0: at least one worker is needed");
    anyhow::ensure!(
        args.workers <= spec.train.lanes,
        "--workers {} is more than train.lanes = {} of {}: a worker hosts at least one lane; use fewer workers, or more \
         lanes with --set train.lanes=N",
        args.workers,
        spec.train.lanes,
        spec.run.name
    );
    anyhow::ensure!(
        args.workers == 1 || !args.device.starts_with("cuda:"),
        "--device {} is one GPU and --workers {} are more; say --device cuda for a GPU each",
        args.device,
        args.workers
    );
    anyhow::ensure!(
        args.files.len() == 1 || args.coordinator.is_none(),
        "--coordinator leads one run; give one run file with it"
    );
    Ok(())
}

//! How long a run takes to heal: real processes are hurt again and again, and the time is taken from the signal to the
//! next committed step, on the workers' own record. `tests/peers/torchrun_elastic.py` times torchrun the same way.

mod faults;
mod harness;
mod report;

use anyhow::{Context, Result};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use harness::Harness;
use report::HealingReport;

/// Measures how long pixfleet takes to go on after a fault.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "healing")]
pub struct HealingArgs {
    /// What is done to the run.
    #[arg(value_enum)]
    mode: Mode,
    /// How many times; default: 100 for kill and drain, 20 for stop, 1 for coordinator.
    #[arg(long)]
    faults: Option<u32>,
    /// Workers that train.
    #[arg(long, default_value_t = 3)]
    workers: u32,
    /// Workers beyond those, warm.
    #[arg(long, default_value_t = 0)]
    standby: u32,
    /// When a worker is started in the place of one that is gone.
    #[arg(long, value_enum, default_value_t = Respawn::AfterCommit)]
    respawn: Respawn,
    /// Seed of victims and moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Override a value of the run file: section.key=value. May be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seconds after which a run counts as never back.
    #[arg(long, default_value_t = 60)]
    limit_s: u64,
    /// Seconds to wait for all workers to train again before the next fault.
    #[arg(long, default_value_t = 30)]
    whole_s: u64,
    /// Seconds for which the coordinator stays dead.
    #[arg(long, default_value_t = 60)]
    dead_s: u64,
    /// The peer's figures, as torchrun_elastic.py writes them: both go into the table.
    #[arg(long, value_name = "FILE.json")]
    peer: Option<PathBuf>,
    /// File for the JSON.
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,
    /// Folder for dataset, run and logs; default: target/healing.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What is done to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// kill -9 of a worker.
    Kill,
    /// SIGSTOP of a worker for longer than the heartbeat timeout, then SIGCONT.
    Stop,
    /// SIGTERM to a worker; another one joins.
    Drain,
    /// kill -9 of the coordinator; later another one is started elsewhere.
    Coordinator,
}

impl Mode {
    fn faults(self) -> u32 {
        match self {
            Self::Kill | Self::Drain => 100,
            Self::Stop => 20,
            Self::Coordinator => 1,
        }
    }
}

/// When a worker is started in the place of one that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Respawn {
    /// At once: its start takes cores from those that heal.
    AtOnce,
    /// After the next committed step, as if the start took place on another machine.
    AfterCommit,
}

/// Measures, prints, and says by the exit code whether every fault was healed and the audit is clean.
///
/// # Errors
/// If the run cannot be set up, or a file cannot be written.
pub fn main(args: &HealingArgs) -> Result<ExitCode> {
    let (report, ended) = measure(args)?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).context("JSON")?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let peer = args.peer.as_deref().map(HealingReport::read).transpose()?;
    writeln!(std::io::stdout(), "{}", report.table(peer.as_ref())).context("cannot write to standard output")?;
    ended?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The report of what was measured, and what ended the measurement early, if anything did.
fn measure(args: &HealingArgs) -> Result<(HealingReport, Result<()>)> {
    let mut harness = Harness::start(args)?;
    let ended = faults::inflict(&mut harness).and_then(|()| harness.finish());
    Ok((harness.report()?, ended))
}

/// Seconds as they are typed.
fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

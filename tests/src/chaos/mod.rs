//! A run of real processes under random faults, and the proof that nothing came of them: the weights are those of a run
//! that nobody disturbed, bit for bit (`train.reduce = "exact"`), every sample was used once, and no process is left
//! behind. `make chaos`.
//!
//! What is injected: processes that die, stop, leave and come; coordinators that die and that are two; connections that
//! break, are late, or fall silent; a store that refuses, is slow, or does what it is asked without saying so. What no run
//! could survive is not: the last worker that holds weights is left alone, and the store keeps what it has stored.

mod compare;
mod link;
mod plan;
mod record;
mod report;
mod setup;
mod store;
mod storm;
mod strike;
mod verdict;
mod watch;

use crate::hosts;
use crate::root;
use crate::steps;
use crate::system::System;
use anyhow::{Context, Result};
use plan::StrikeKind;
use report::ChaosReport;
use setup::{ChaosSetting, StepPace};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use storm::{Storm, WORKERS};
use verdict::Claim;

const MORE: &str = "\
Exit code 0: every claim of the report holds. Logs and report lie in <out>/<seed>/: report.json, faults.jsonl,
storm/logs/ (one file a process), storm/steps/ (committed steps), calm/.

Examples:
  make chaos MINUTES=10 SEED=1
  target/debug/chaos --minutes 10 --seed 1
  target/debug/chaos --minutes 5 --system fgclip
  target/debug/chaos --minutes 2 --only kill,coordinator-kill
  target/debug/chaos --minutes 1 --store file                # no S3 server; the store itself is not hurt";

/// Hurts a run of real processes at random and proves that it came out as if nothing had happened.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "chaos", after_help = MORE)]
pub struct ChaosArgs {
    /// For how long the run is hurt.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Seed of the faults' kinds, targets and moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// These kinds of faults only, with commas between them.
    #[arg(long, value_delimiter = ',', value_parser = StrikeKind::parse)]
    only: Vec<StrikeKind>,
    /// Where the run's store lies: on a real S3 server, or on disk.
    #[arg(long, value_enum, default_value_t = StoreKind::S3)]
    store: StoreKind,
    /// Whether each process has a host of its own: a network namespace, whose link can go down. Needs root and `ip`.
    #[arg(long, value_enum, default_value_t = Netns::Auto)]
    netns: Netns,
    /// Steps of the run; default: what lasts about as long as the faults, by this machine's pace.
    #[arg(long)]
    steps: Option<u64>,
    /// What the run trains.
    #[arg(long, value_enum, default_value_t = System::Pixclip)]
    system: System,
    /// Override a value of the run file: section.key=value. May be given many times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of a dataset that was composed before; default: one is composed.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Folder for dataset, runs and logs; default: target/chaos.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Where a run's store lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StoreKind {
    S3,
    File,
}

/// Whether processes run on hosts of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Netns {
    /// If this machine can.
    Auto,
    Yes,
    No,
}

impl ChaosArgs {
    fn folder(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| root().join("target/chaos"))
    }

    /// Kinds of faults that this run can meet.
    fn kinds(&self, hosts: bool) -> impl Iterator<Item = StrikeKind> {
        let all = StrikeKind::ALL.into_iter().map(|(kind, _)| kind);
        all.filter(|kind| self.only.is_empty() || self.only.contains(kind))
            .filter(|kind| self.store == StoreKind::S3 || !kind.is_of_store())
            .filter(move |kind| hosts || !kind.is_of_hosts())
    }
}

/// Runs, compares, prints, and says by the exit code whether every claim holds.
///
/// # Errors
/// If the harness itself fails.
pub fn main(args: &ChaosArgs) -> Result<ExitCode> {
    let hosts = match args.netns {
        Netns::Auto => hosts::possible(),
        Netns::Yes => true,
        Netns::No => false,
    };
    if hosts {
        hosts::enter()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let setting = ChaosSetting::prepare(args, hosts, runtime.handle())?;
    let dir = setting.dir.clone();
    let mut report = both_runs(args, setting, runtime.handle())?;
    // The setting is gone, and with it the store's server.
    report.claims.push(Claim::without("no process is left behind", &verdict::left_behind(&dir)));
    let path = dir.join("report.json");
    let text = serde_json::to_string_pretty(&report).context("JSON")?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(std::io::stdout(), "{}", report.table()).context("cannot write to standard output")?;
    if report.is_good() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(std::io::stderr(), "NOT as if nothing had happened: look into {}", dir.display())
        .context("cannot write to standard error")?;
    Ok(ExitCode::FAILURE)
}

fn both_runs(args: &ChaosArgs, setting: ChaosSetting, runtime: &tokio::runtime::Handle) -> Result<ChaosReport> {
    let steps = args.steps.map_or_else(|| setting.steps_for(args.minutes), Ok)?;
    tracing::info!(steps, "the undisturbed run");
    let calm = setting.undisturbed("calm", steps)?;
    tracing::info!(step_s = calm.step_s, whole_s = calm.whole_s, "the disturbed run");
    let begun = Instant::now();
    let mut storm = Storm::begin(args, &setting, steps, runtime)?;
    // As long again, and what the last faults take, to come to its end.
    let limit = Duration::from_secs_f64(args.minutes * 60.0 * 2.0 + 180.0);
    let ended = storm.rage(args.minutes, limit)?;
    let whole_s = begun.elapsed().as_secs_f64();
    let end = storm.end();
    let Storm { mut faults, logs, unexpected, fleet, .. } = storm;
    let still: Vec<String> = fleet.alive().into_iter().collect();
    drop(fleet);
    record::examine(&mut faults, logs.commits(), end);
    let step_s = steps::step_median_s(logs.commits()).unwrap_or(f64::NAN);
    let mut claims = vec![
        Claim::new("the run came to its end, and all processes to theirs", ended, format!("still there: {still:?}")),
        Claim::without("no process ended but as it was told", &unexpected),
    ];
    claims.extend(verdict::of_faults(args, setting.hosts, &faults));
    let (comparison, more) = verdict::of_runs(&setting, runtime)?;
    claims.extend(more);
    let (seed, minutes, kinds) = (args.seed, args.minutes, report::rows(&faults));
    let storm = StepPace { workers: WORKERS, steps, step_s, whole_s };
    let hosts = setting.hosts;
    Ok(ChaosReport { seed, minutes, hosts, calm, storm, kinds, comparison, claims, faults })
}

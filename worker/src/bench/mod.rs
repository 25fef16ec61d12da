//! `pixfleet-worker bench`: what the parts of a run can do on this machine, each for itself. Nothing is written to the run's
//! store.

mod feed;
mod figures;
mod step;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pixfleet_cluster::spec::RunSpec;
use pixfleet_shards::reader::CACHE_BYTES;
use serde::Serialize;

use crate::train::feed::FeedSource;
use crate::train::{gpu, start};
use feed::FeedFigures;
use figures::{Figures, say, show, show_json};
use step::{Bench, RunFigures, StepFigures};

/// Part of the time from which on waits for samples count.
const WAITED: f64 = 0.05;
/// A run below this part of its step's own rate has something else to do.
const CROWDED: f64 = 0.9;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet bench run.toml                                   # the feed, the step, and both together: what holds the run back
  pixfleet bench run.toml --device cuda --workers 8         # on one GPU, the share of one of eight workers
  pixfleet bench run.toml --only step --set train.recompute=blocks       # what a choice costs in time, and saves in memory
  pixfleet bench run.toml --only feed                       # reading and decoding one epoch, without training
  pixfleet bench run.toml --only feed --workers 4           # the share of one of four workers
  pixfleet bench run.toml --only feed --steps 50 --json     # one line of JSON, for scripts
  pixfleet bench run.toml --only feed --steps 500 --cache-mib 8          # more than an epoch, all of it from the store
  pixfleet bench run.toml --only feed --set data.url=s3://bucket/mini    # the same data from another store

The dataset is read as a worker that has just started reads it: nothing of it is in its memory yet.")]
pub(crate) struct Args {
    /// The run file.
    #[arg(value_name = "RUN.TOML")]
    run: PathBuf,
    /// The part to measure; default: all.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Overrides of the run file, section.key=value.
    #[arg(long)]
    set: Vec<String>,
    /// Steps to measure; default: of the feed those that one epoch fills, or the run where that is shorter; else 10.
    #[arg(long)]
    steps: Option<u64>,
    /// Workers that share the global batch; the first one's part is measured.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of libtorch on the CPU; 0: one per core. With `train.reduce = "exact"` it is always one.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Threads that decode images; 0: half the cores.
    #[arg(long, default_value_t = 0)]
    decode_threads: usize,
    /// MiB of decoded rows that stay in memory once they were used, as they do in a run; a small number makes every epoch
    /// come from the store.
    #[arg(long, default_value_t = CACHE_BYTES >> 20, value_name = "MIB")]
    cache_mib: usize,
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Reading and decoding, without training.
    Feed,
    /// Computing, one batch again and again.
    Step,
    /// Both together, without peers.
    Run,
}

/// What was measured of every part.
#[derive(Debug, Serialize)]
struct All {
    feed: FeedFigures,
    step: StepFigures,
    run: RunFigures,
    held_back_by: String,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    pixfleet_shim::settings::settle_environment().context("cannot settle the environment of libtorch")?;
    let text = std::fs::read_to_string(&args.run).with_context(|| format!("cannot read {}", args.run.display()))?;
    let spec = RunSpec::parse(&text, &args.set).with_context(|| args.run.display().to_string())?;
    let lanes = spec.train.lanes;
    if args.workers == 0 || args.workers > lanes {
        bail!("--workers {}: a run of train.lanes = {lanes} has 1 to {lanes} workers", args.workers);
    }
    if args.steps == Some(0) {
        bail!("--steps 0: there is nothing to measure; expected at least 1");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    if args.only == Some(Part::Feed) {
        return one("feed", &feed::measure(&args, &spec, &runtime)?, args.json);
    }
    let (device, _gpu) = gpu::place(&args.device)?;
    start::prepare(device, args.threads, spec.train.reduce)?;
    let source = Arc::new(runtime.block_on(FeedSource::open(&spec, None, args.decode_threads))?);
    let mut bench = Bench::new(&args, &spec, device, &runtime)?;
    match args.only {
        Some(Part::Step) => return one("step", &bench.step(&source)?, args.json),
        Some(Part::Run) => return one("run", &bench.run(&source)?, args.json),
        Some(Part::Feed) | None => {}
    }
    let (step, run) = (bench.step(&source)?, bench.run(&source)?);
    drop((bench, source));
    let feed = feed::measure(&args, &spec, &runtime)?;
    let held_back_by = held_back_by(&feed, &step, &run);
    let all = All { feed, step, run, held_back_by };
    if args.json {
        return show_json(&all);
    }
    show("feed", &all.feed);
    show("step", &all.step);
    show("run", &all.run);
    say(&all.held_back_by);
    Ok(ExitCode::SUCCESS)
}

fn one(title: &str, figures: &impl Figures, json: bool) -> Result<ExitCode> {
    if json {
        return show_json(figures);
    }
    show(title, figures);
    Ok(ExitCode::SUCCESS)
}

/// What holds a run back, in one sentence.
fn held_back_by(feed: &FeedFigures, step: &StepFigures, run: &RunFigures) -> String {
    let (fed, stepped, ran) = (feed.samples_per_s, step.samples_per_s, run.samples_per_s);
    let rates = format!("{ran:.1} samples/s of {stepped:.1} that a step alone and {fed:.1} that the feed alone can do");
    if run.waited > WAITED {
        return format!("The feed holds this run back: {rates}; steps waited {:.0} % of the time.", 100.0 * run.waited);
    }
    if ran < CROWDED * stepped {
        return format!("Decoding and computing share this machine's cores, which holds the run back: {rates}.");
    }
    format!("The step holds this run back: {rates}. {}", step.sentence())
}

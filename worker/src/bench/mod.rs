//! `pixfleet-worker bench`: what the parts of a run can do on this machine, each for itself. Nothing is written to the run's
//! store.

mod feed;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use comfy_table::{Cell, CellAlignment, Table, presets};
use pixfleet_cluster::spec::RunSpec;
use pixfleet_shards::reader::CACHE_BYTES;
use serde::Serialize;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
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
    /// The part to measure.
    #[arg(long, value_enum)]
    only: Part,
    /// Overrides of the run file, section.key=value.
    #[arg(long)]
    set: Vec<String>,
    /// Steps to measure; default: those that one epoch fills, or the run where that is shorter.
    #[arg(long)]
    steps: Option<u64>,
    /// Workers that share the global batch; the first one's part is measured.
    #[arg(long, default_value_t = 1)]
    workers: u32,
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
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
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
    match args.only {
        Part::Feed => show(&feed::measure(&args, &spec, &runtime)?, args.json),
    }
}

/// What was measured of one part.
trait Figures: Serialize {
    /// Each figure with its unit, by name.
    fn rows(&self) -> Vec<(&'static str, String)>;
    /// One sentence: what holds this part back.
    fn sentence(&self) -> String;
}

#[allow(clippy::print_stdout, reason = "the command's result")]
fn show(figures: &impl Figures, json: bool) -> Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string(figures)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    for (name, value) in figures.rows() {
        table.add_row([Cell::new(name), Cell::new(value).set_alignment(CellAlignment::Right)]);
    }
    println!("{table}\n{}", figures.sentence());
    Ok(ExitCode::SUCCESS)
}

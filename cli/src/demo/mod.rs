//! `pixfleet demo`: from drawings to a trained model and a report, by the same commands that a user would type:
//! compose and index, `shards embed`, `train`, `eval`.
//!
//! Every stage goes on where it was, so a demo that was stopped is started again by the same command; a stage that is
//! done is not done again. Another configuration, or `--fresh`, starts from nothing.

mod stages;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use pixfleet_shards::Location;
use pixfleet_shards::mini::{self, MiniConfig};
use stages::{DemoConfig, DemoJournal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

/// The run file; it lies in the tree for people to read.
const RUN_FILE: &str = include_str!("../../../examples/demo.toml");
/// The run's name in [`RUN_FILE`].
const RUN: &str = "demo";

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder for data, run and report.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
    /// Scenes to train on; a tenth of it, at least 400, to test on.
    #[arg(long, default_value_t = 1200)]
    scenes: u64,
    /// Optimizer steps instead of the run file's.
    #[arg(long)]
    steps: Option<u64>,
    /// Worker processes.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Where workers compute: auto, cpu, cuda, cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Drawings that scenes are composed from; `make setup` puts them there.
    #[arg(long, default_value = ".cache/drawings")]
    drawings: PathBuf,
    /// Weights of MiniLM; `make setup` puts them there.
    #[arg(long, default_value = ".cache/minilm")]
    minilm: PathBuf,
    /// Overrides of the run file, section.key=value.
    #[arg(long)]
    set: Vec<String>,
    /// Forget an earlier demo in the same folder.
    #[arg(long)]
    fresh: bool,
}

/// Folders of one demo.
struct DemoPaths {
    out: PathBuf,
    data: String,
    store: String,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    let out = std::path::absolute(&args.out).with_context(|| format!("{} is not a path", args.out.display()))?;
    let paths = DemoPaths { data: url(&out.join("data"))?, store: url(&out.join("runs"))?, out };
    let config = DemoConfig { scenes: args.scenes, steps: args.steps, set: args.set.clone() };
    let mut journal = DemoJournal::open(&paths.out, config, args.fresh)?;

    say(1, "compose scenes from drawings");
    journal.stage("compose and index", || compose(&args, &paths))?;
    say(2, "embed their captions with MiniLM");
    journal.stage("embed captions", || embed(&args, &paths))?;
    say(3, &format!("train with {} worker{}", args.workers, if args.workers == 1 { "" } else { "s" }));
    if let Some(code) = journal.try_stage("train", || train(&args, &paths))? {
        eprintln!("stopped; the same command goes on from here");
        return Ok(code);
    }
    say(4, "evaluate on scenes it has not seen");
    eval(&paths, &journal)?;
    eprintln!("\n{}", journal.table(started.elapsed()));
    Ok(ExitCode::SUCCESS)
}

fn say(number: u32, what: &str) {
    eprintln!("[{number}/4] {what}");
}

fn url(folder: &Path) -> Result<String> {
    match url::Url::from_directory_path(folder) {
        Ok(url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        Err(()) => bail!("{} is no folder that a URL can name", folder.display()),
    }
}

fn compose(args: &Args, paths: &DemoPaths) -> Result<()> {
    let config = MiniConfig { scenes: args.scenes, drawings: args.drawings.clone(), ..MiniConfig::default() };
    let location = Location::parse(&paths.data)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let style = ProgressStyle::with_template("compose {bar:32.cyan/dim} {pos}/{len} scenes  {per_sec}  eta {eta}");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let summary = runtime.block_on(mini::build(&config, &location, &mut progress))?;
    bar.finish_and_clear();
    let counts =
        summary.splits.iter().map(|(split, w)| format!("{} {} scenes, {} regions", split.name(), w.rows, w.regions));
    eprintln!("  {} concepts in {} drawings", summary.concepts, summary.drawings);
    eprintln!("  {}", counts.collect::<Vec<_>>().join("; "));
    Ok(())
}

fn embed(args: &Args, paths: &DemoPaths) -> Result<()> {
    let mut command = crate::torch::beside("pixfleet-worker")?;
    command.args(["embed", &paths.data, "--split", "train,test", "--encoder", "minilm"]);
    command.args(["--precision", "bf16", "--weights"]).arg(&args.minilm);
    done("embed", run(&mut command)?)
}

/// `Some` exit code where training was stopped before its end.
fn train(args: &Args, paths: &DemoPaths) -> Result<Option<ExitCode>> {
    let file = paths.out.join("run.toml");
    std::fs::write(&file, RUN_FILE).with_context(|| format!("cannot write {}", file.display()))?;
    let mut sets = vec![format!("data.url={}", paths.data), format!("run.store={}", paths.store)];
    sets.extend(args.steps.map(|steps| format!("schedule.steps={steps}")));
    sets.extend(args.set.iter().cloned());
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own path")?);
    command.arg("train").arg(&file).args(["--workers", &args.workers.to_string(), "--device", &args.device]);
    for set in &sets {
        command.args(["--set", set]);
    }
    let status = run(&mut command)?;
    match status.code() {
        Some(75) => Ok(Some(ExitCode::from(75))),
        _ => done("train", status).map(|()| None),
    }
}

fn eval(paths: &DemoPaths, journal: &DemoJournal) -> Result<()> {
    let run_url = format!("{}/{RUN}", paths.store);
    let mut command = crate::torch::beside("pixfleet-worker")?;
    command.args(["eval", &run_url, "--data", &paths.data, "--split", "test", "--text", "short,long", "--out"]);
    command.arg(&paths.out).arg("--stages").arg(journal.path());
    done("eval", run(&mut command)?)
}

fn run(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| {
        format!("cannot start {}; build it with `cargo build`", Path::new(command.get_program()).display())
    })
}

fn done(what: &str, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{what} ended with {status}; its message stands above");
    }
    Ok(())
}

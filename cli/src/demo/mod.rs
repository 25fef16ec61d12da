//! `pixfleet demo`: from drawings to a trained model and a report, by the same commands that a user would type:
//! compose and index, `shards embed` where texts are stored vectors, `train`, `eval`. PixCLIP trains one run; FG-CLIP two
//! stages, which are reported side by side.
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

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DemoSystem {
    /// Three branches over MiniLM's vectors.
    Pixclip,
    /// Captions, then regions and hard negatives too, with a text tower that learns.
    Fgclip,
}

/// One run of a demo.
struct DemoRun {
    /// What the stage is called.
    stage: &'static str,
    /// The run file; it lies in the tree for people to read.
    file: &'static str,
    /// The run's name in it.
    name: &'static str,
}

const PIXCLIP: [DemoRun; 1] =
    [DemoRun { stage: "train", file: include_str!("../../../examples/demo.toml"), name: "demo" }];
const FGCLIP: [DemoRun; 2] = [
    DemoRun {
        stage: "train stage 1",
        file: include_str!("../../../recipes/fgclip1-stage1-tiny.toml"),
        name: "fgclip1-stage1-tiny",
    },
    DemoRun {
        stage: "train stage 2",
        file: include_str!("../../../recipes/fgclip1-stage2-tiny.toml"),
        name: "fgclip1-stage2-tiny",
    },
];

impl DemoSystem {
    fn runs(self) -> &'static [DemoRun] {
        match self {
            Self::Pixclip => &PIXCLIP,
            Self::Fgclip => &FGCLIP,
        }
    }

    /// FG-CLIP's towers learn some thousands of scenes by heart instead of what tells regions apart (LOG.md, "Tiny FG-CLIP").
    fn scenes(self) -> u64 {
        match self {
            Self::Pixclip => 1200,
            Self::Fgclip => 8000,
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Pixclip => "target/demo",
            Self::Fgclip => "target/demo-fgclip",
        }
    }
}

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to train.
    #[arg(long, value_enum, default_value_t = DemoSystem::Pixclip)]
    system: DemoSystem,
    /// Folder for data, runs and report; default: target/demo, or target/demo-fgclip.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Scenes to train on; a tenth of it, at least 400, to test on; default: 1200, or 8000 for fgclip.
    #[arg(long)]
    scenes: Option<u64>,
    /// Optimizer steps of each run instead of its run file's.
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
    /// Overrides of every run file, section.key=value.
    #[arg(long)]
    set: Vec<String>,
    /// Forget an earlier demo in the same folder.
    #[arg(long)]
    fresh: bool,
}

impl Args {
    fn scenes(&self) -> u64 {
        self.scenes.unwrap_or_else(|| self.system.scenes())
    }
}

/// Folders of one demo.
struct DemoPaths {
    out: PathBuf,
    data: String,
    store: String,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    let out = args.out.clone().unwrap_or_else(|| args.system.folder().into());
    let out = std::path::absolute(&out).with_context(|| format!("{} is not a path", out.display()))?;
    let paths = DemoPaths { data: url(&out.join("data"))?, store: url(&out.join("runs"))?, out };
    let config = DemoConfig { scenes: args.scenes(), steps: args.steps, set: args.set.clone() };
    let mut journal = DemoJournal::open(&paths.out, config, args.fresh)?;

    let runs = args.system.runs();
    let embeds = args.system == DemoSystem::Pixclip;
    let mut number = 0;
    let count = runs.len() + if embeds { 3 } else { 2 };
    let mut say = |what: &str| {
        number += 1;
        eprintln!("[{number}/{count}] {what}");
    };
    say("compose scenes from drawings");
    journal.stage("compose and index", || compose(&args, &paths))?;
    if embeds {
        say("embed their captions with MiniLM");
        journal.stage("embed captions", || embed(&args, &paths))?;
    }
    for run in runs {
        say(&format!("{} with {} worker{}", run.stage, args.workers, if args.workers == 1 { "" } else { "s" }));
        if let Some(code) = journal.try_stage(run.stage, || train(run, &args, &paths))? {
            eprintln!("stopped; the same command goes on from here");
            return Ok(code);
        }
    }
    say("evaluate on scenes it has not seen");
    eval(args.system, &paths, &journal)?;
    eprintln!("\n{}", journal.table(started.elapsed()));
    Ok(ExitCode::SUCCESS)
}

fn url(folder: &Path) -> Result<String> {
    match url::Url::from_directory_path(folder) {
        Ok(url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        Err(()) => bail!("{} is no folder that a URL can name", folder.display()),
    }
}

fn compose(args: &Args, paths: &DemoPaths) -> Result<()> {
    let config = MiniConfig { scenes: args.scenes(), drawings: args.drawings.clone(), ..MiniConfig::default() };
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

/// What must change where bf16 is not what the device computes with: a processor without its arithmetic takes ten times
/// as long as in fp32.
fn overrides(args: &Args) -> &'static [&'static str] {
    if bf16(args) { &[] } else { &["train.precision=fp32", "data.vectors=minilm-plain-256"] }
}

/// Whether bf16 pays.
fn bf16(args: &Args) -> bool {
    #[cfg(target_arch = "x86_64")]
    let processor = std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let processor = false;
    processor || args.device.starts_with("cuda")
}

fn embed(args: &Args, paths: &DemoPaths) -> Result<()> {
    let mut command = crate::torch::beside(crate::torch::WORKER)?;
    command.args(["embed", &paths.data, "--split", "train,test", "--encoder", "minilm", "--precision"]);
    command.args([if bf16(args) { "bf16" } else { "fp32" }, "--weights"]).arg(&args.minilm);
    done("embed", run_to_end(&mut command)?)
}

/// `Some` exit code where training was stopped before its end.
fn train(run: &DemoRun, args: &Args, paths: &DemoPaths) -> Result<Option<ExitCode>> {
    let file = paths.out.join(format!("{}.toml", run.name));
    std::fs::write(&file, run.file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut sets = vec![format!("data.url={}", paths.data), format!("run.store={}", paths.store)];
    sets.extend(overrides(args).iter().map(|set| (*set).to_owned()));
    sets.extend(args.steps.map(|steps| format!("schedule.steps={steps}")));
    sets.extend(args.set.iter().cloned());
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own path")?);
    command.arg("train").arg(&file).args(["--workers", &args.workers.to_string(), "--device", &args.device]);
    for set in &sets {
        command.args(["--set", set]);
    }
    let status = run_to_end(&mut command)?;
    match status.code() {
        Some(75) => Ok(Some(ExitCode::from(75))),
        _ => done("train", status).map(|()| None),
    }
}

fn eval(system: DemoSystem, paths: &DemoPaths, journal: &DemoJournal) -> Result<()> {
    let url = |run: &DemoRun| format!("{}/{}", paths.store, run.name);
    let mut command = crate::torch::beside(crate::torch::WORKER)?;
    match system.runs() {
        [first, second] => command.args([
            "eval",
            &url(second),
            "--beside",
            &url(first),
            "--label",
            "stage2",
            "--beside-label",
            "stage1",
        ]),
        runs => command.args(["eval", &url(&runs[0]), "--text", "short,long"]),
    };
    command.args(["--data", &paths.data, "--split", "test", "--out"]);
    command.arg(&paths.out).arg("--stages").arg(journal.path());
    done("eval", run_to_end(&mut command)?)
}

fn run_to_end(command: &mut Command) -> Result<ExitStatus> {
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

//! `pixfleet eval`, by system. PixCLIP: text -> region and region -> text over a split, the choice of the right region within
//! its image, each with the mask, with the box, and with an all-ones mask. FG-CLIP: [`captions`] (method.md 5.1). With `--bench`,
//! for both: [`benchmarks`]. A table for the terminal; with `--out`, `report.html` and `report.json`.

pub(crate) mod benchmarks;
pub(crate) mod captions;
pub(crate) mod facts;
pub(crate) mod features;
mod feed;
mod follow;
pub(crate) mod history;
mod measure;
pub(crate) mod output;
pub(crate) mod retrieve;
pub(crate) mod scores;
mod show;
pub(crate) mod subject;
mod templates;

use crate::report::{EvalReport, Findings, LossCurve};
use anyhow::{Context, Result, ensure};
use benchmarks::BenchmarkArgs;
use captions::CaptionArgs;
use features::{FeatureJob, ImageFeatures, encode_split};
use follow::Followed;
use measure::Pairs;
use pixfleet_cluster::spec::AlphaInit;
use scores::TextKind;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use subject::{Subject, SubjectArgs};

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet eval s3://bucket/runs/base                             # its newest checkpoint, split test
  pixfleet eval file:///runs/base --text long --out report/       # a page with a gallery
  pixfleet eval file:///runs/base --limit 100 --json
  pixfleet eval file:///runs/stage2 --beside file:///runs/stage1 --label stage2 --beside-label stage1 --out report/
  pixfleet eval s3://bucket/runs/base --bench refcoco,coco-box --data s3://bucket/coco --workers 8
  pixfleet eval s3://bucket/runs/base --bench coco-mask --data s3://bucket/coco --encoder-weights LLM2CLIP-Llama-3-8B --out report/")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    captions: CaptionArgs,
    #[command(flatten)]
    benchmarks: BenchmarkArgs,
    /// Captions to use as queries (PixCLIP).
    #[arg(long, value_enum, value_delimiter = ',', default_value = "short,long")]
    text: Vec<TextKind>,
    /// Folder for `report.html` and `report.json`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the numbers as JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Texts in the report's gallery, per kind; for FG-CLIP, regions.
    #[arg(long, default_value_t = 10)]
    gallery: usize,
    /// A JSON list of `{"name", "seconds"}`: what was done before, for the report.
    #[arg(long, hide = true)]
    stages: Option<PathBuf>,
}

/// What every system's evaluation is given.
struct Opened<'a> {
    args: &'a Args,
    runtime: &'a tokio::runtime::Runtime,
    stages: Vec<facts::StageTime>,
    started: Instant,
}

/// What is shown at the end.
struct Shown {
    report: EvalReport,
    /// For the terminal.
    table: String,
    /// Rows that were left out.
    bad: u64,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    // Who mistyped a name is told so at once, also where there is no checkpoint yet.
    args.benchmarks.split()?;
    if args.benchmarks.is_part() {
        let split = args.benchmarks.split()?.context("--part is of a benchmark")?;
        let subject = runtime.block_on(Subject::open(&args.subject.on_split(split)))?;
        benchmarks::look_at_part(&args, &runtime, &subject)?;
        return Ok(ExitCode::SUCCESS);
    }
    match (args.benchmarks.follow(), args.subject.run()) {
        (Some(every), Some(url)) => follow::follow((url, every), &runtime, || once(&args, &runtime))?,
        (Some(_) | None, _) => {
            once(&args, &runtime)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Evaluates what the run has now.
fn once(args: &Args, runtime: &tokio::runtime::Runtime) -> Result<Followed> {
    let started = Instant::now();
    let stages = args.stages.as_deref().map(facts::stages).transpose()?.unwrap_or_default();
    let bench = args.benchmarks.split()?;
    let typed = bench.map_or_else(|| args.subject.clone(), |split| args.subject.on_split(split));
    let subject = runtime.block_on(Subject::open(&typed))?;
    let opened = Opened { args, runtime, stages, started };
    let end = subject.spec.as_ref().map_or(subject.steps, |spec| spec.schedule.steps);
    let followed = Followed { steps: subject.steps, end };
    let shown = if bench.is_some() {
        benchmarks::evaluate(opened, &subject)?
    } else if subject.needs.draws_region() {
        ensure!(!args.captions.compares(), "--beside compares runs of FG-CLIP; `{}` is of PixCLIP", subject.name);
        masks(opened, &subject)?
    } else {
        captions::evaluate(opened, subject)?
    };
    show(args, shown)?;
    Ok(followed)
}

/// PixCLIP's evaluation.
fn masks(opened: Opened<'_>, subject: &Subject) -> Result<Shown> {
    let args = opened.args;
    ensure!(
        subject.model.spec().alpha_init != AlphaInit::None,
        "`{}` takes no mask, and no run of FG-CLIP has trained it: there is no protocol to evaluate it by",
        subject.name
    );
    let mut images: Vec<ImageFeatures> = Vec::new();
    let job = FeatureJob {
        reader: &subject.reader,
        config: subject.mask_config()?,
        model: &subject.model,
        device: subject.device,
        boxes: true,
        limit: args.subject.limit,
    };
    let bad = encode_split(&job, |chunk| {
        images.extend(chunk);
        Ok(())
    })?;

    let (mut results, mut galleries) = (Vec::new(), Vec::new());
    for kind in &args.text {
        let pairs = match Pairs::new(*kind, &images) {
            Ok(pairs) => pairs,
            Err(error) if args.text.len() > 1 => {
                eprintln!("left out: {error:#}");
                continue;
            }
            Err(error) => return Err(error),
        };
        let (evaluated, places) = pairs.measure()?;
        results.push(evaluated);
        if args.out.is_some() {
            let drawn = show::gallery(&pairs, &places, &subject.reader, args.gallery);
            galleries.push(opened.runtime.block_on(drawn)?);
        }
    }
    ensure!(!results.is_empty(), "no kind of text could be evaluated; run `pixfleet shards embed` on the split");
    let (regions, pictures) = results.iter().map(|r| (r.regions, r.images)).max().unwrap_or_default();
    let mut facts = facts::facts(subject, &opened.stages, opened.started.elapsed().as_secs_f64());
    facts.keys.insert("split".into(), Value::from(args.subject.split()));
    facts.keys.insert("rows_left_out".into(), Value::from(bad));
    let curve = |plot| LossCurve { run: subject.name.clone(), plot };
    let table = output::table(&results);
    let report = EvalReport {
        title: format!("Finding regions by text: {}", subject.name),
        lead: facts::lead(subject, args.subject.split(), regions, pictures),
        findings: Findings::Masks { results, galleries },
        losses: subject.training.loss_plot().map(curve).into_iter().collect(),
        speed: subject.training.speed_plot(),
        facts,
    };
    Ok(Shown { report, table, bad })
}

/// Writes the files and prints.
fn show(args: &Args, Shown { report, table, bad }: Shown) -> Result<()> {
    let page = args.out.as_deref().map(|dir| report.write(dir)).transpose()?;
    let text = if args.json && args.benchmarks.follow().is_some() {
        // A line for each checkpoint.
        report.json().to_string()
    } else if args.json {
        serde_json::to_string_pretty(&report.json()).context("a number that JSON cannot hold")?
    } else {
        table
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    if bad > 0 {
        eprintln!("{bad} bad rows were left out; RUST_LOG=warn names them, `pixfleet shards verify` all of them");
    }
    if let Some(page) = page {
        eprintln!("report: {}", page.display());
    }
    Ok(())
}

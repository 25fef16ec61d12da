//! `pixfleet eval`: text -> region and region -> text over a split, the choice of the right region within its image,
//! each with the mask, with the box, and with an all-ones mask (issue: method.md 5.1). A table for the terminal; with
//! `--out`, `report.html` and `report.json`.

mod facts;
pub(crate) mod features;
mod history;
mod measure;
pub(crate) mod output;
pub(crate) mod retrieve;
pub(crate) mod scores;
mod show;
pub(crate) mod subject;

use crate::report::EvalReport;
use anyhow::{Context, Result};
use features::{FeatureJob, ImageFeatures, encode_split};
use measure::Pairs;
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
  pixfleet eval file:///runs/base --limit 100 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Captions to use as queries.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "short,long")]
    text: Vec<TextKind>,
    /// Folder for `report.html` and `report.json`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the numbers as JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Texts in the report's gallery, per kind.
    #[arg(long, default_value_t = 10)]
    gallery: usize,
    /// A JSON list of `{"name", "seconds"}`: what was done before, for the report.
    #[arg(long, hide = true)]
    stages: Option<PathBuf>,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    let stages = args.stages.as_deref().map(facts::stages).transpose()?.unwrap_or_default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let subject = runtime.block_on(Subject::open(&args.subject))?;

    let mut images: Vec<ImageFeatures> = Vec::new();
    let job = FeatureJob {
        reader: &subject.reader,
        config: subject.config(),
        model: &subject.model,
        device: subject.device,
        boxes: true,
        limit: args.subject.limit,
    };
    let bad = encode_split(&job, |chunk| {
        images.extend(chunk);
        Ok(())
    })?;

    let mut report = EvalReport { title: title(&subject), ..EvalReport::default() };
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
        report.results.push(evaluated);
        if args.out.is_some() {
            let drawn = show::gallery(&pairs, &places, &subject.reader, args.gallery);
            report.galleries.push(runtime.block_on(drawn)?);
        }
    }
    finish(&args, &subject, report, &stages, (bad, started))
}

/// The heading of the report.
fn title(subject: &Subject) -> String {
    format!("Finding regions by text: {}", subject.name)
}

/// Facts, files and what is printed.
fn finish(
    args: &Args,
    subject: &Subject,
    mut report: EvalReport,
    stages: &[facts::StageTime],
    (bad, started): (u64, Instant),
) -> Result<ExitCode> {
    anyhow::ensure!(
        !report.results.is_empty(),
        "no kind of text could be evaluated; run `pixfleet shards embed` on the split"
    );
    let (regions, pictures) = report.results.iter().map(|r| (r.regions, r.images)).max().unwrap_or_default();
    report.facts = facts::facts(subject, stages, started.elapsed().as_secs_f64());
    report.facts.keys.insert("split".into(), Value::from(args.subject.split.clone()));
    report.facts.keys.insert("rows_left_out".into(), Value::from(bad));
    report.lead = facts::lead(subject, &args.subject.split, regions, pictures);
    report.losses = subject.training.loss_plot();
    report.speed = subject.training.speed_plot();
    let page = args.out.as_deref().map(|dir| report.write(dir)).transpose()?;
    let text = if args.json {
        serde_json::to_string_pretty(&report.json()).context("a number that JSON cannot hold")?
    } else {
        output::table(&report.results)
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    if bad > 0 {
        eprintln!("{bad} bad rows were left out; RUST_LOG=warn names them, `pixfleet shards verify` all of them");
    }
    if let Some(page) = page {
        eprintln!("report: {}", page.display());
    }
    Ok(ExitCode::SUCCESS)
}

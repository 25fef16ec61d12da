//! `pixfleet audit`: replays a run's ledger against the order of samples and proves each epoch, or names what is
//! missing, doubled or substituted.

use crate::progress;
use anyhow::{Context, Result, anyhow};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use object_store::ObjectStoreExt;
use pixfleet_checkpoint::{Folder, each_segment};
use pixfleet_cluster::audit::{Audit, AuditPlan, Finding, NAMED_MAX, Trail, prove};
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_cluster::{RunSpec, SampleOrder};
use std::io::Write;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Every step of the ledger that survived is replayed against the order of samples, which follows from the run file's seed
and the dataset's index. Each row that was missing, doubled or replaced is named, up to a hundred of a kind.

Exit code: 0 if the run is clean; 1 if it is not, or cannot be read; 2 if the command is wrong.

Examples:
  pixfleet audit file:///tmp/demo/store/demo
  pixfleet audit s3://bucket/runs/base --json | jq .substitutions")]
pub(crate) struct Args {
    /// URL of the run: the store's URL and the run's name.
    run: String,
    /// Print JSON instead of a table; it names all substitutions.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let (trail, plan) = runtime.block_on(read_run(&args.run))?;
    let bar = progress::bar("audit", "samples");
    let verdict = prove(&trail, plan, &mut |done, total| progress::set(&bar, done, total));
    bar.finish_and_clear();
    let text = if args.json { as_json(&verdict) } else { as_table(&verdict) };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the ledger of the run at `url` says was done, and what its run file and dataset say should have been.
async fn read_run(url: &str) -> Result<(Trail, AuditPlan)> {
    let run = Folder::parse(url)?;
    let file = read(&run, "run.toml").await.with_context(|| format!("there is no run at {url}"))?;
    let spec = RunSpec::parse(&file, &[]).with_context(|| format!("{url}/run.toml"))?;
    let trail = read_trail(&run).await?;
    // The version that the run was started on, not the newest: an index is never rewritten.
    let digest = trail.dataset_digest().ok_or_else(|| anyhow!("the ledger of {url} is empty"))?.to_owned();
    let dataset = Folder::parse(&spec.data.url)?;
    let path = format!("index/{digest}.json");
    let index = read(&dataset, &path).await.with_context(|| format!("the index of dataset version {digest}"))?;
    let index: DatasetIndex =
        serde_json::from_str(&index).with_context(|| format!("{}/{path} is not an index", spec.data.url))?;
    let split = index.split(&spec.data.split).ok_or_else(|| anyhow!("{path} has no split `{}`", spec.data.split))?;
    let order = SampleOrder::new(spec.run.seed, split.shape(), spec.data.window_row_groups)
        .ok_or_else(|| anyhow!("split `{}` has no rows", spec.data.split))?;
    let (seed, steps, global_batch) = (spec.run.seed, spec.schedule.steps, spec.train.global_batch);
    Ok((trail, AuditPlan { order, steps, global_batch, seed, dataset_digest: digest }))
}

async fn read_trail(run: &Folder) -> Result<Trail> {
    let bar = progress::bar("ledger", "segments");
    let mut trail = Trail::default();
    each_segment(run, |segment| {
        segment.records.iter().for_each(|record| trail.apply(record));
        progress::set(&bar, segment.number + 1, segment.of);
    })
    .await?;
    bar.finish_and_clear();
    Ok(trail)
}

async fn read(location: &Folder, path: &str) -> Result<String> {
    let object = location.store().get(&location.path(path)).await.with_context(|| format!("cannot read {path}"))?;
    let bytes = object.bytes().await.with_context(|| format!("cannot read {path}"))?;
    String::from_utf8(bytes.to_vec()).with_context(|| format!("{path} is not UTF-8"))
}

fn as_table(verdict: &Audit) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(["epoch", "samples", "once", "substituted", "missing", "doubled"]);
    for (epoch, e) in &verdict.epochs {
        table.add_row([*epoch, e.expected, e.once, e.substituted, e.missing, e.doubled].map(|n| n.to_string()));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = vec![
        table.to_string(),
        format!(
            "{} steps, {} redone; {} generations, {} members lost, {} left",
            verdict.steps, verdict.redone, verdict.generations, verdict.losses, verdict.left
        ),
    ];
    if verdict.unreported > 0 {
        lines.push(format!("at {} steps a lost rank's substitutions are unknown", verdict.unreported));
    }
    for s in verdict.substitutions.iter().take(NAMED_MAX) {
        lines.push(format!("substituted: {} at position {} by {}: {}", s.wanted, s.position, s.used, s.reason));
    }
    if verdict.substitutions.len() > NAMED_MAX {
        lines.push(format!("and {} substitutions more, which --json names", verdict.substitutions.len() - NAMED_MAX));
    }
    lines.extend(verdict.findings.iter().map(ToString::to_string));
    let unnamed = unnamed(verdict);
    if unnamed > 0 {
        lines.push(format!("and {unnamed} samples more that are missing or doubled"));
    }
    lines.push(verdict_line(verdict).into());
    lines.join("\n")
}

/// Samples missing or doubled beyond those that are named.
fn unnamed(verdict: &Audit) -> u64 {
    let all: u64 = verdict.epochs.values().map(|e| e.missing + e.doubled).sum();
    let named = verdict.findings.iter().filter(|f| matches!(f, Finding::Missing(_) | Finding::Doubled(_))).count();
    all - named as u64
}

fn verdict_line(verdict: &Audit) -> &'static str {
    if !verdict.is_clean() {
        "NOT clean"
    } else if verdict.steps == 0 {
        "clean: no step was done"
    } else if verdict.substitutions.is_empty() {
        "clean: every sample was used exactly once"
    } else {
        "clean: every sample was used exactly once, or its substitute"
    }
}

fn as_json(verdict: &Audit) -> String {
    let epochs: Vec<_> = verdict
        .epochs
        .iter()
        .map(|(epoch, e)| {
            serde_json::json!({
                "epoch": epoch, "samples": e.expected, "once": e.once, "substituted": e.substituted,
                "missing": e.missing, "doubled": e.doubled,
            })
        })
        .collect();
    let findings: Vec<String> = verdict.findings.iter().map(ToString::to_string).collect();
    let all = serde_json::json!({
        "clean": verdict.is_clean(), "steps": verdict.steps, "redone": verdict.redone,
        "generations": verdict.generations, "losses": verdict.losses, "left": verdict.left,
        "unreported": verdict.unreported, "epochs": epochs, "substitutions": verdict.substitutions,
        "findings": findings,
    });
    all.to_string()
}

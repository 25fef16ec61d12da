//! `pixfleet audit`: replays a run's ledger against the order of samples and proves each epoch, or names what is
//! missing, doubled or substituted.

use anyhow::{Context, Result, anyhow};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use object_store::ObjectStoreExt;
use pixfleet_checkpoint::{Location, read_ledger};
use pixfleet_cluster::audit::{Audit, Plan, audit};
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_cluster::ledger::Record;
use pixfleet_cluster::{Order, RunSpec};
use std::io::Write;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// URL of the run: the store's URL and the run's name.
    run: String,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let verdict = runtime.block_on(examine(&args.run))?;
    let text = if args.json { as_json(&verdict) } else { as_table(&verdict) };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn examine(url: &str) -> Result<Audit> {
    let run = Location::parse(url)?;
    let file = read(&run, "run.toml").await.with_context(|| format!("there is no run at {url}"))?;
    let spec = RunSpec::parse(&file, &[]).with_context(|| format!("{url}/run.toml"))?;
    let ledger = read_ledger(&run).await?;
    // The version that the run was started on, not the newest: an index is never rewritten.
    let digest = ledger.records.iter().find_map(|r| match r {
        Record::Opened { dataset_digest, .. } => Some(dataset_digest.clone()),
        _ => None,
    });
    let digest = digest.ok_or_else(|| anyhow!("the ledger of {url} is empty"))?;
    let dataset = Location::parse(&spec.data.url)?;
    let path = format!("index/{digest}.json");
    let index = read(&dataset, &path).await.with_context(|| format!("the index of dataset version {digest}"))?;
    let index: DatasetIndex =
        serde_json::from_str(&index).with_context(|| format!("{}/{path} is not an index", spec.data.url))?;
    let split = index.split(&spec.data.split).ok_or_else(|| anyhow!("{path} has no split `{}`", spec.data.split))?;
    let order = Order::new(spec.run.seed, split.shape(), spec.data.window_row_groups)
        .ok_or_else(|| anyhow!("split `{}` has no rows", spec.data.split))?;
    let (seed, global_batch) = (spec.run.seed, spec.train.global_batch);
    Ok(audit(&ledger.records, Plan { order, global_batch, seed, dataset_digest: digest }))
}

async fn read(location: &Location, path: &str) -> Result<String> {
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
    let mut text = format!(
        "{table}\n{} steps, {} redone, {} members lost, {} generations",
        verdict.steps,
        verdict.redone,
        verdict.losses,
        verdict.generation.unwrap_or_default()
    );
    if verdict.unreported > 0 {
        text += &format!("\nat {} steps a lost rank's substitutions are unknown", verdict.unreported);
    }
    for finding in &verdict.findings {
        text += &format!("\n{finding}");
    }
    text += if verdict.is_clean() { "\nclean: every sample was used exactly once" } else { "\nNOT clean" };
    text
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
        "clean": verdict.is_clean(), "steps": verdict.steps, "redone": verdict.redone, "losses": verdict.losses,
        "unreported": verdict.unreported, "epochs": epochs, "findings": findings,
    });
    all.to_string()
}

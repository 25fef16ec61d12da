//! `pixfleet audit`: replays a run's ledger against the order of samples and proves each epoch, or names what is
//! missing, doubled or substituted, and which steps were fed otherwise than planned.

mod draws;
mod rows;

use crate::progress;
use anyhow::{Context, Result};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use draws::DataDraws;
use pixfleet_checkpoint::{Folder, audited};
use pixfleet_cluster::audit::{Audit, DrawnWords, Finding, NAMED_MAX, prove};
use pixfleet_cluster::index::SplitIndex;
use pixfleet_cluster::ledger::Substitution;
use rows::{OddStep, odd_rows, odd_steps};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Every step of the ledger that survived is replayed against the order of samples, which follows from the run file's seed
and the dataset's index. Each row that was missing, doubled or replaced is named, up to a hundred of a kind.

That alone replays the plan. What shows that the plan was fed is the evidence in each step's record: a sum over its rows of
position, file, row of the file and key of the draws, as the workers found them. It is computed again from run file, index and
recorded substitutions, and each step where it differs is named. With --data the regions and texts that were drawn are drawn
again and compared too. Runs of versions that kept no evidence can be replayed only, and the last line says so.

Exit code: 0 if the run is clean; 1 if it is not, or cannot be read; 2 if the command is wrong.

Examples:
  pixfleet audit file:///tmp/demo/store/demo
  pixfleet audit s3://bucket/runs/base --json | jq .substitutions
  pixfleet audit s3://bucket/runs/base --data                    # reads captions, boxes and masks, no picture
  PIXFLEET_FED_LOG=/tmp/fed pixfleet train run.toml --workers 3  # where a step is named: logs each row that is fed, and
  pixfleet audit file:///tmp/runs/base --bisect /tmp/fed         # names rank, lane and row")]
pub(crate) struct Args {
    /// URL of the run: the store's URL and the run's name.
    run: String,
    /// Read the dataset's captions, boxes and masks, and compare what was drawn of each row.
    #[arg(long)]
    data: bool,
    /// Name the rows of steps that were fed otherwise, by the logs <PREFIX>-<worker>.log that workers wrote with
    /// PIXFLEET_FED_LOG=<PREFIX>.
    #[arg(long, value_name = "PREFIX")]
    bisect: Option<PathBuf>,
    /// Print JSON instead of a table; it names all substitutions.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let run = Folder::parse(&args.run)?;
    let bar = progress::bar("ledger", "segments");
    let run = runtime.block_on(audited(&run, &mut |done, total| progress::set(&bar, done, total)))?;
    bar.finish_and_clear();
    let draws = args.data.then(|| runtime.block_on(DataDraws::read(&run.spec, &run.index))).transpose()?;
    let mut draw = draws.as_ref().map(|draws| move |epoch: u64, row: u64| draws.word(epoch, row));
    let bar = progress::bar("audit", "samples");
    let drawn = draw.as_mut().map(|draw| draw as &mut DrawnWords<'_>);
    let verdict = prove(&run.trail, run.plan.clone(), drawn, &mut |done, total| progress::set(&bar, done, total));
    bar.finish_and_clear();
    let split = run.split();
    let steps = odd_steps(&verdict);
    let mut odd = Vec::new();
    if let Some(prefix) = args.bisect.filter(|_| !steps.is_empty()) {
        let drawn = draw.as_mut().map(|draw| draw as &mut DrawnWords<'_>);
        odd = odd_rows(&prefix, &steps, (&run.plan, &verdict), drawn)?;
    }
    let text = if args.json { as_json(&verdict, &odd, split) } else { as_table(&verdict, &odd, split) };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_table(verdict: &Audit, odd: &[OddStep], split: &SplitIndex) -> String {
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
    lines.extend(evidence_lines(verdict));
    if verdict.unreported > 0 {
        lines.push(format!("at {} steps a lost rank's substitutions are unknown", verdict.unreported));
    }
    let substitutions = || verdict.substitutions.iter().chain(&verdict.recovered);
    for Substitution { position, wanted, used, reason } in substitutions().take(NAMED_MAX) {
        lines.push(format!("substituted: {wanted} at position {position} by {used}: {reason}"));
    }
    let more = substitutions().count().saturating_sub(NAMED_MAX);
    if more > 0 {
        lines.push(format!("and {more} substitutions more, which --json names"));
    }
    lines.extend(verdict.findings.iter().map(ToString::to_string));
    lines.extend(odd.iter().flat_map(|step| step.said(split)));
    let unnamed = unnamed(verdict);
    if unnamed > 0 {
        lines.push(format!("and {unnamed} samples more that are missing or doubled"));
    }
    lines.push(verdict.words());
    lines.join("\n")
}

/// What is known of what was fed.
fn evidence_lines(verdict: &Audit) -> Vec<String> {
    let evidence = &verdict.evidence;
    let mut lines = Vec::new();
    if evidence.steps > 0 {
        let (planned, steps) = (evidence.as_planned, evidence.steps);
        lines.push(format!("fed: {planned} of {steps} steps with evidence had just the rows of the plan"));
    }
    if let Some(drawn) = evidence.drawn {
        lines.push(format!("drawn: {drawn} of {} steps had just the regions and texts of the plan", evidence.steps));
    }
    lines
}

/// Samples missing or doubled beyond those that are named.
fn unnamed(verdict: &Audit) -> u64 {
    let all: u64 = verdict.epochs.values().map(|e| e.missing + e.doubled).sum();
    let named = verdict.findings.iter().filter(|f| matches!(f, Finding::Missing(_) | Finding::Doubled(_))).count();
    all - named as u64
}

/// What a clean verdict rests on.
fn proved_by(verdict: &Audit) -> &'static str {
    match verdict.evidence.steps {
        0 => "plan",
        held if held < verdict.steps => "plan and some evidence",
        _ => "evidence",
    }
}

fn as_json(verdict: &Audit, odd: &[OddStep], split: &SplitIndex) -> String {
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
    let rows: Vec<String> = odd.iter().flat_map(|step| step.said(split)).collect();
    let evidence = serde_json::json!({
        "steps": verdict.evidence.steps, "as_planned": verdict.evidence.as_planned, "drawn": verdict.evidence.drawn,
    });
    let all = serde_json::json!({
        "clean": verdict.is_clean(), "proved_by": proved_by(verdict), "steps": verdict.steps, "redone": verdict.redone,
        "generations": verdict.generations, "losses": verdict.losses, "left": verdict.left,
        "unreported": verdict.unreported, "evidence": evidence, "epochs": epochs,
        "substitutions": verdict.substitutions, "recovered": verdict.recovered, "findings": findings, "rows": rows,
    });
    all.to_string()
}

//! A run's newest good checkpoint as a folder for the Hugging Face Hub: weights, configuration, and a card that says what the
//! model is, how it was trained and what became of every sample. Nothing is uploaded.

mod card;
mod pieces;
#[cfg(test)]
mod tests;

use super::names::{self, Names};
use crate::eval::history::Training;
use crate::hub::config::{Config, preprocessor};
use crate::hub::{CONFIG, PREPROCESSOR, RUN_TOML, published};
use crate::load::{StoredRun, Weights};
use crate::report::plots;
use anyhow::{Context, Result, bail, ensure};
use card::Card;
use pixfleet_checkpoint::{Folder, HostTensor, audited};
use pixfleet_cluster::audit::{Audit, prove};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
The folder reads back: `pixfleet eval FOLDER --data URL`, or model.weights in a run file; once it
is on the Hub, hf://OWNER/NAME stands in its place. docs/hub.md has the whole.

Of the run file only the last parts of its places are published: no bucket and no path.

Examples:
  pixfleet export hub s3://bucket/runs/base --out base --license apache-2.0
  pixfleet export hub file:///runs/base --out base --repo me/pixclip-b16 --dataset me/longgrit --report report/")]
pub(super) struct HubArgs {
    /// URL of the run, <store>/<name>.
    #[arg(value_name = "RUN")]
    run: String,
    /// The folder to write; it must not be there.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Publish the moving average instead of the trained weights (runs with loss.teacher = "ema").
    #[arg(long)]
    ema: bool,
    /// Licence of the weights, as the Hub calls it: apache-2.0, cc-by-4.0, other; absent: the card names none.
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// Where it will be on the Hub, for the card and the command that uploads it.
    #[arg(long, value_name = "OWNER/NAME", value_parser = repo)]
    repo: Option<String>,
    /// The dataset on the Hub, several by comma; the first one stands in the run file.
    #[arg(long, value_name = "OWNER/NAME", value_delimiter = ',', value_parser = repo)]
    dataset: Vec<String>,
    /// Further tags of the card, by comma.
    #[arg(long, value_delimiter = ',')]
    tag: Vec<String>,
    /// Folder of `pixfleet eval --out`: its numbers go into the card.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// Bytes of one file of weights at most; more become several with an index.
    #[arg(long, default_value_t = 5_000_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    piece_bytes: u64,
}

fn repo(text: &str) -> Result<String, String> {
    let allowed = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match text.split_once('/') {
        Some((owner, name)) if allowed(owner) && allowed(name) => Ok(text.to_owned()),
        _ => Err("expected OWNER/NAME of letters, digits, `-`, `_` and `.`".into()),
    }
}

/// What is known of the run, before anything is written.
struct Exported {
    stored: StoredRun,
    params: Vec<HostTensor>,
    training: Training,
    /// `None` if there can be none.
    audit: Option<Audit>,
    report: Option<Map<String, Value>>,
}

pub(super) fn export(args: &HubArgs) -> Result<ExitCode> {
    ensure!(!args.out.exists(), "{} is there already; expected a new folder", args.out.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let exported = runtime.block_on(read(args))?;
    // Readers see the whole folder or none of it.
    let name = args.out.file_name().with_context(|| format!("--out {} names no folder", args.out.display()))?;
    let part = args.out.with_file_name(format!("{}.part", name.display()));
    std::fs::create_dir(&part).with_context(|| format!("cannot create {}", part.display()))?;
    let files = write(args, exported, &part).inspect_err(|_| {
        // It is ours, and what went wrong is told.
        let _ = std::fs::remove_dir_all(&part);
    })?;
    std::fs::rename(&part, &args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let (out, repo) = (args.out.display(), args.repo.as_deref().unwrap_or("OWNER/NAME"));
    eprintln!("{out}: {}", files.join(", "));
    if args.license.is_none() {
        eprintln!("the card names no licence; --license, or a line in {out}/README.md, does");
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "to upload it:\n  hf auth login\n  hf upload {repo} {out} .")
        .context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

async fn read(args: &HubArgs) -> Result<Exported> {
    let stored = StoredRun::open(&args.run).await?;
    let report = args.report.as_deref().map(|folder| report(folder, &stored)).transpose()?;
    let params = stored.params(if args.ema { Weights::Ema } else { Weights::Trained })?;
    let training = Training::read(&args.run).await?;
    let audit = match audited(&Folder::parse(&args.run)?, &mut |_, _| {}).await {
        Ok(run) => Some(prove(&run.trail, run.plan, None, &mut |_, _| {})),
        Err(error) => {
            let error = anyhow::Error::from(error);
            eprintln!("the card will say that the run could not be audited: {error:#}");
            None
        }
    };
    Ok(Exported { stored, params, training, audit, report })
}

/// The numbers of an evaluation of this very checkpoint.
fn report(folder: &Path, stored: &StoredRun) -> Result<Map<String, Value>> {
    let path = folder.join("report.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Value::Object(report) =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?
    else {
        bail!("{} is no report of `pixfleet eval`", path.display());
    };
    let (run, step) = (&stored.spec.run.name, stored.step().0);
    let (of, at) = (report.get("run").and_then(Value::as_str), report.get("steps").and_then(Value::as_u64));
    ensure!(
        of == Some(run.as_str()) && at == Some(step),
        "{} is of step {} of `{}`, the checkpoint is step {step} of `{run}`; run `pixfleet eval` on it again",
        path.display(),
        at.map_or_else(|| "?".into(), |at| at.to_string()),
        of.unwrap_or("?")
    );
    Ok(report)
}

/// Writes everything into `folder`; the names of the files.
fn write(args: &HubArgs, exported: Exported, folder: &Path) -> Result<Vec<String>> {
    let Exported { stored, params, training, audit, report } = exported;
    let parameters = params.iter().map(|t| t.shape.iter().product::<usize>() as u64).sum();
    let tensors = names::named(params, Names::Official)?;
    let mut files = pieces::write(&tensors, folder, args.piece_bytes)?;
    drop(tensors);
    let mut put = |name: &str, text: String| {
        let path = folder.join(name);
        files.push(name.to_owned());
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let spec = published(&stored.spec, args.dataset.first().map(String::as_str));
    let config = Config::of(&spec, stored.step().0);
    put(CONFIG, json(&config)?)?;
    put(PREPROCESSOR, json(&preprocessor(&spec.data, &config))?)?;
    put(RUN_TOML, spec.to_toml())?;
    // On its own the drawing has no page to take its ink from.
    let curve =
        training.loss_plot().and_then(|plot| plots::svg(&plot)).map(|svg| svg.replace("currentColor", "#6b7280"));
    let has_curve = curve.is_some();
    if let Some(curve) = curve {
        put(card::CURVE, curve)?;
    }
    let card = Card {
        repo: args.repo.as_deref(),
        license: args.license.as_deref(),
        tags: &args.tag,
        datasets: &args.dataset,
        spec: &spec,
        config: &config,
        manifest: &stored.manifest,
        training: &training,
        parameters,
        audit: audit.as_ref(),
        report: report.as_ref(),
        has_curve,
    };
    put("README.md", card.text())?;
    Ok(files)
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context("a number that JSON cannot hold")? + "\n")
}

//! `pixfleet annotate`.

use super::screen::Screen;
use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use pixfleet_annotate::{Job, JobEnd, JobTally, Recipe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of whoever was told to stop and wants to be started again.
const STOPPED: u8 = 75;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
A recipe names servers and stages; recipes/annotate/ has LongGRIT's and FineHARD's, with their prompts as plain files. A
server is whatever speaks the OpenAI chat-completions protocol: vLLM, SGLang, llama.cpp, a cloud. Keys come from the
environment variables that the recipe names. docs/annotate.md has the whole.

Each answer is kept in the output before it is used, so a job that was stopped or killed is started again by the same
command and asks nothing twice. Any number of processes, on any machines, may run the same command at the same time: they
share the files among them.

Exit codes: 0 done, 75 stopped by Ctrl-C or SIGTERM, anything else is a fault that the last line names.

Examples:
  pixfleet annotate recipes/annotate/longgrit.toml s3://bucket/grit --out s3://bucket/longgrit
  pixfleet annotate longgrit.toml file:///data/grit --out file:///data/longgrit --server vlm=http://n1:8000/v1,http://n2:8000/v1")]
pub(crate) struct Args {
    /// The recipe.
    recipe: PathBuf,
    /// URL of the dataset whose rows are annotated; it stays as it is.
    data: String,
    /// URL of the annotated dataset.
    #[arg(long)]
    out: String,
    /// Splits, by comma; all of them unless told.
    #[arg(long, value_delimiter = ',')]
    split: Vec<String>,
    /// Where a server of the recipe is, instead of what the recipe says: NAME=URL,URL.
    #[arg(long, value_name = "NAME=URLS", value_parser = server)]
    server: Vec<(String, Vec<String>)>,
    /// Seconds that another process may be silent before its file is taken up here; the same in all processes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    lease: u64,
    /// Print counts by stage as JSON at the end.
    #[arg(long)]
    json: bool,
}

fn server(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, urls) = text.split_once('=').ok_or("expected NAME=URL, like vlm=http://127.0.0.1:8000/v1")?;
    Ok((name.to_owned(), urls.split(',').map(str::to_owned).collect()))
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let recipe = Recipe::load(&args.recipe, &args.server)?;
    let job = Job::new(recipe, &args.data, &args.out, &args.split).await?;
    let job = job.with_lease(Duration::from_secs(args.lease));
    let screen = Screen::new(&job);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let stop = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    let running = job.run(stop);
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            done = &mut running => break done,
            _ = tick.tick() => screen.show(&job.tally()),
        }
    };
    screen.finish();
    let (tally, stopped) = match outcome? {
        JobEnd::Done(tally) => (tally, false),
        JobEnd::Stopped(tally) => (tally, true),
    };
    if args.json {
        crate::shards::say(serde_json::to_string(&tally)?)?;
    } else {
        summary(&tally)?;
    }
    if stopped {
        eprintln!("stopped; the same command goes on from here");
        return Ok(ExitCode::from(STOPPED));
    }
    let asked: u64 = tally.stages.values().map(|s| s.questions).sum();
    let rejected: u64 = tally.stages.values().map(|s| s.rejected).sum();
    if asked > 0 && asked == rejected {
        bail!("none of {asked} questions got a usable answer; the column `provenance` of the rows says why");
    }
    Ok(ExitCode::SUCCESS)
}

/// A table of the stages.
fn summary(tally: &JobTally) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let head =
        ["stage", "questions", "kept", "answered", "repaired", "rejected", "skipped", "tokens in", "out", "cost"];
    table.set_header(head);
    for (name, stage) in &tally.stages {
        let counts = [stage.questions, stage.kept, stage.answered, stage.repaired, stage.rejected, stage.skipped];
        let tokens = [stage.tokens_in, stage.tokens_out];
        let cells = counts.into_iter().chain(tokens).map(|n| n.to_string());
        table.add_row(std::iter::once(name.clone()).chain(cells).chain([format!("{:.2}", stage.cost)]));
    }
    let (files, rows, regions) = (tally.files, tally.rows, tally.regions);
    crate::shards::say(format_args!("{table}\n{files} files, {rows} rows, {regions} regions"))
}

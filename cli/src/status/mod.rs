//! `pixfleet status`: what the coordinator of a run says of it, once or every second.

mod json;
mod table;

use anyhow::{Context, Result, bail};
use pixfleet_checkpoint::{Folder, leaders};
use pixfleet_cluster::run::Outcome;
use pixfleet_proto::{FleetError, Patience, connect, pb};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

const MORE: &str = "\
Examples:
  pixfleet status 127.0.0.1:7000
  pixfleet status file:///data/runs/first --watch     # wherever the run's coordinator is; Ctrl-C ends the view
  pixfleet status s3://bucket/runs/first --json | jq .losses";

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);
/// How long `--watch` goes on without an answer: a coordinator that died is started again within this time.
const SILENCE: Duration = Duration::from_secs(60);
/// Back to the corner, and nothing of the last screen left.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = MORE)]
pub(crate) struct Args {
    /// Address of the coordinator (host:port), or the run's URL (file:///store/run, s3://bucket/run): its store says
    /// where the coordinator is.
    address: String,
    /// Look again every second, until Ctrl-C or the end of the run.
    #[arg(long)]
    watch: bool,
    /// One JSON object on one line instead of a table; with --watch, one every second.
    #[arg(long)]
    json: bool,
}

/// What a look at the run yields.
#[derive(Debug, Clone, PartialEq)]
enum View {
    /// Its coordinator's word.
    Live(Box<pb::StatusReply>),
    /// The store's word: it is over, under this leader.
    Closed(Outcome, u64),
}

impl View {
    fn is_over(&self) -> bool {
        match self {
            Self::Live(status) => ["done", "drained", "fault"].contains(&status.state.as_str()),
            Self::Closed(..) => true,
        }
    }
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let shown = if args.watch { runtime.block_on(watch(&args)) } else { runtime.block_on(once(&args)) };
    shown.map(|()| ExitCode::SUCCESS)
}

async fn once(args: &Args) -> Result<()> {
    show(args, &look(&args.address).await?, false)
}

/// Until Ctrl-C, the end of the run, or a silence that is too long.
async fn watch(args: &Args) -> Result<()> {
    let redraw = !args.json && std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard, mut ever) = (tokio::time::Instant::now(), false);
    loop {
        let seen = tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return interrupted.context("cannot handle Ctrl-C"),
            seen = async { ticks.tick().await; look(&args.address).await } => seen,
        };
        match seen {
            Ok(view) => {
                (heard, ever) = (tokio::time::Instant::now(), true);
                show(args, &view, redraw)?;
                if view.is_over() {
                    return Ok(());
                }
            }
            // One that was there may come back.
            Err(error) if !ever || heard.elapsed() >= SILENCE => return Err(error),
            Err(error) => eprintln!("no answer: {error:#}"),
        }
    }
}

fn show(args: &Args, view: &View, redraw: bool) -> Result<()> {
    let text = if args.json { json::line(view) } else { table::text(view) };
    let clear = if redraw { CLEAR } else { "" };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{clear}{text}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Asks once, wherever the run's coordinator is.
async fn look(address: &str) -> Result<View> {
    let is_run = address.contains("://") && !["http://", "https://"].iter().any(|s| address.starts_with(s));
    if !is_run {
        return ask(address).await;
    }
    let Some(leader) = leaders::newest(&Folder::parse(address)?).await? else {
        bail!("nobody has led a run at {address} yet; give the folder of one run, <run.store>/<run.name>");
    };
    match leader.closed {
        Some(outcome) => Ok(View::Closed(outcome, leader.number)),
        None => ask(&leader.address).await.with_context(|| format!("leader {} of {address}", leader.number)),
    }
}

async fn ask(address: &str) -> Result<View> {
    let mut client = connect(address, Patience(EVERY)).await?;
    let status = client.status(pb::StatusRequest {}).await.map_err(FleetError::from)?;
    Ok(View::Live(Box::new(status.into_inner())))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn live() -> View {
        let losses = pb::Losses { terms: [("global".into(), 1.5), ("local".into(), 0.25)].into(), total: 1.75 };
        let report = pb::StepReport { step: 6, losses: Some(losses), seconds: 0.5, ..pb::StepReport::default() };
        let last = pb::StepDone { report: Some(report), world: 2, epoch: 1, samples_per_s: 48.0, steps: 20 };
        let speed = pb::Speed { step_s: 0.5, data_wait_s: 0.01, collective_wait_s: 0.02, straggler: true };
        let member = pb::MemberStatus {
            member: 3,
            name: "w0".into(),
            host: "here".into(),
            pid: 41,
            rank: Some(0),
            next_step: Some(7),
            state: "training".into(),
            speed: Some(speed),
        };
        View::Live(Box::new(pb::StatusReply {
            run: "r".into(),
            state: "training".into(),
            generation: 4,
            next_step: 7,
            steps: 20,
            members: vec![member],
            last: Some(last),
            checkpoint_step: Some(6),
            losses_of_members: 3,
            message: String::new(),
            leader: 2,
            faults: [("exited".to_string(), 2), ("heartbeat_missed".to_string(), 1)].into(),
            uptime_s: 3725.0,
        }))
    }

    #[tokio::test]
    async fn a_run_is_found_by_its_url() {
        let folder = tempfile::tempdir().expect("temporary");
        let url = format!("file://{}", folder.path().display());
        let error = look(&url).await.expect_err("nobody leads it");
        assert!(error.to_string().starts_with(&format!("nobody has led a run at {url} yet")), "{error}");
        let run = Folder::parse(&url).expect("a URL");
        leaders::announce(&run, 3, "127.0.0.1:9").await.expect("writable");
        let error = look(&url).await.expect_err("nobody listens there");
        assert!(format!("{error:#}").contains("no coordinator answers at 127.0.0.1:9"), "{error:#}");
        leaders::close(&run, 3, Outcome::Done).await.expect("writable");
        assert_eq!(look(&url).await.expect("closed"), View::Closed(Outcome::Done, 3));
    }
}

//! The harness of `make leaderless`: workers come and go, and each time the coordinator is killed at another moment of the
//! change and stays dead for a while. What is measured is the longest pause of the ranks, by their own step logs.

use crate::fleet::{COORDINATOR, Fleet, Signal};
use crate::poll::wait_for;
use crate::{dataset, pixfleet, run_file, scratch, stats, steps, succeed, url};
use anyhow::{Context, Result, ensure};
use pixfleet_cluster::RunSpec;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// For what takes a healthy machine some seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// Workers before one joins, and after one has left.
const FEW: u32 = 2;
/// What a pause may last beyond a median step.
const SLACK_S: f64 = 0.5;

/// Moments while a worker joins two others.
const JOINING: [&str; 6] = ["claim", "claimed", "form=0", "prepare=0", "prepare=1", "told=2"];
/// Moments while one of three leaves.
const LEAVING: [&str; 6] = ["claim", "claimed", "prepare=0", "prepare=1", "prepare=2", "told=3"];

/// The coordinator is killed at planted moments and left dead; how long do the ranks pause?
#[derive(Debug, clap::Parser)]
#[command(name = "leaderless", after_help = "Example: leaderless --kills 12 --dead-s 5")]
pub struct LeaderlessArgs {
    /// Kills of the coordinator, one change of members each.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Seconds that it stays dead.
    #[arg(long, default_value_t = 30.0)]
    dead_s: f64,
}

/// One kill, and what it cost.
struct Kill {
    change: &'static str,
    moment: &'static str,
    pause_s: f64,
}

struct Harness {
    fleet: Fleet,
    logs: steps::StepLogs,
    run: PathBuf,
    /// Workers that were started, and told to leave.
    born: u32,
    left: u32,
}

impl Harness {
    fn new() -> Result<Self> {
        let dir = scratch().join("leaderless");
        let text = run_file("leaderless", dataset(), &url(&dir.join("store")));
        let overrides = ["schedule.steps=1000000", "train.global_batch=6", "train.join_window_ms=100"];
        let spec = RunSpec::parse(&text, &overrides.map(str::to_string))?;
        let fleet = Fleet::new(&dir, &spec.to_toml())?;
        let logs = fleet.step_logs();
        Ok(Self { fleet, logs, run: dir.join("store/leaderless"), born: 0, left: 0 })
    }

    fn worker(&mut self) -> Result<()> {
        self.fleet.start_worker(&format!("w{}", self.born), &[])?;
        self.born += 1;
        Ok(())
    }

    /// A coordinator that is to die at `moment`, once one that nothing happens to has brought what was begun to its end.
    fn coordinator(&mut self, moment: &str, workers: usize) -> Result<()> {
        self.fleet.set_envs(Vec::new());
        self.fleet.start_coordinator(FEW)?;
        while self.born < FEW {
            self.worker()?;
        }
        self.until_training(workers)?;
        self.fleet.kill(COORDINATOR, Signal::KILL)?;
        self.fleet.wait(COORDINATOR, LIMIT)?;
        self.fleet.set_envs(vec![("PIXFLEET_COORDINATOR_FAULT".into(), moment.into())]);
        self.fleet.start_coordinator(FEW)?;
        self.until_training(workers)
    }

    /// Waits until so many workers train.
    fn until_training(&mut self, workers: usize) -> Result<()> {
        let mut last = None;
        let trains = wait_for(&format!("{workers} workers train"), LIMIT, || {
            last = self.fleet.status()?;
            let trains = |s: &pixfleet_proto::pb::StatusReply| {
                s.members.len() == workers && s.members.iter().all(|m| m.state == "training")
            };
            Ok(last.as_ref().is_some_and(trains).then_some(()))
        });
        trains.with_context(|| format!("{last:?}"))
    }

    /// One change of members, during which the coordinator dies at `moment`.
    fn change(&mut self, joins: bool, moment: &'static str, dead: Duration) -> Result<Kill> {
        let from = steps::now();
        let change = if joins {
            self.worker()?;
            "join"
        } else {
            // The oldest of them.
            let leaver = format!("w{}", self.left);
            self.left += 1;
            self.fleet.kill(&leaver, Signal::TERM)?;
            "leave"
        };
        let exit = self.fleet.wait(COORDINATOR, LIMIT)?;
        ensure!(
            exit.signal() == Some(Signal::KILL.as_raw()),
            "the fault did not strike: {}",
            self.fleet.last_words(&exit)
        );
        std::thread::sleep(dead);
        self.logs.refresh()?;
        let to = steps::now();
        let last = self.logs.commits().last().map_or(from, |c| c.at);
        // A pause that has not ended is one, too.
        let pause_s = steps::longest_pause_s(self.logs.commits(), from, to).max(steps::seconds(last, to));
        Ok(Kill { change, moment, pause_s })
    }
}

/// Runs the harness.
///
/// # Errors
/// If a fault does not strike, or the fleet does not do what it should in time.
pub fn main(args: &LeaderlessArgs) -> Result<ExitCode> {
    let mut harness = Harness::new()?;
    let dead = Duration::from_secs_f64(args.dead_s);
    let moments: Vec<(bool, &str)> =
        JOINING.iter().zip(LEAVING).flat_map(|(&join, leave)| [(true, join), (false, leave)]).collect();
    let mut kills = Vec::new();
    for (i, &(joins, moment)) in moments.iter().cycle().take(args.kills).enumerate() {
        harness.coordinator(moment, if joins { 2 } else { 3 })?;
        let kill = harness.change(joins, moment, dead)?;
        println!("{:>3}  {:<6} {:<10} longest pause {:.3} s", i + 1, kill.change, kill.moment, kill.pause_s);
        kills.push(kill);
    }
    verdict(&mut harness, &kills)
}

fn verdict(harness: &mut Harness, kills: &[Kill]) -> Result<ExitCode> {
    let median = steps::step_median_s(harness.logs.commits()).context("steps were done")?;
    let mut pauses: Vec<f64> = kills.iter().map(|k| k.pause_s).collect();
    pauses.sort_by(f64::total_cmp);
    let p99 = pauses[(pauses.len() * 99).div_ceil(100) - 1];
    let redone = steps::redone(harness.logs.commits());
    succeed(pixfleet(["audit", &url(&harness.run)]));
    let p50 = stats::median(&pauses).unwrap_or_default();
    println!(
        "{} kills: pauses p50 {p50:.3} s, p99 {p99:.3} s; median step {median:.3} s; steps redone {redone}; audit clean",
        kills.len()
    );
    let good = p99 <= median + SLACK_S && redone == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! A run under measurement: its processes, its step logs, and the moments at which it is whole.

use super::report::{HealingReport, Recovery};
use super::{HealingArgs, secs};
use crate::dice::Dice;
use crate::fleet::{COORDINATOR, Fleet, Signal};
use crate::poll::{look_for, wait_for};
use crate::steps::{self, Commit, StepLogs};
use crate::{compose, pixfleet, root, run_file, url};
use anyhow::{Context, Result, bail, ensure};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::run::Outcome;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Steps that every member of a generation commits before the next fault.
const SETTLED_STEPS: usize = 3;
/// How long a fresh run may take to its first steps.
const START: Duration = Duration::from_secs(120);
/// How long a process that was told to end, and a drained run, may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(30);
/// More steps than any measurement lasts.
const STEPS: &str = "schedule.steps=1000000";

/// See the module.
pub(super) struct Harness {
    pub(super) args: HealingArgs,
    pub(super) fleet: Fleet,
    pub(super) spec: RunSpec,
    pub(super) dice: Dice,
    pub(super) events: Vec<Recovery>,
    logs: StepLogs,
    audit_clean: Option<bool>,
}

/// Where a fault will strike.
#[derive(Debug)]
pub(super) struct Aim {
    /// The worker.
    pub(super) worker: String,
    /// The generation that it trains in.
    pub(super) generation: u64,
    /// The members of that generation.
    pub(super) world: usize,
}

impl Harness {
    /// Composes the dataset if need be, and starts the processes.
    pub(super) fn start(args: &HealingArgs) -> Result<Self> {
        let out = args.out.clone().unwrap_or_else(|| root().join("target/healing"));
        let name = format!("{:?}", args.mode).to_lowercase();
        let dir = out.join(&name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        let text = run_file(&name, &dataset(&out)?, &url(&dir.join("store")));
        let mut overrides = vec![STEPS.to_string()];
        overrides.extend(args.set.iter().cloned());
        let spec = RunSpec::parse(&text, &overrides).context("the run file of the measurement")?;
        let fleet = Fleet::new(&dir, &spec.to_toml())?;
        let logs = fleet.step_logs();
        let dice = Dice::new(args.seed);
        let mut harness = Self { args: args.clone(), fleet, spec, dice, events: Vec::new(), logs, audit_clean: None };
        harness.fleet.start_coordinator(args.workers)?;
        for i in 0..args.workers + args.standby {
            harness.spawn(&format!("w{i}"))?;
        }
        Ok(harness)
    }

    /// Starts a worker.
    pub(super) fn spawn(&mut self, name: &str) -> Result<()> {
        self.fleet.start_worker(name, &[]).map(drop)
    }

    /// What was committed up to now, unless a process has ended that nobody hurt.
    pub(super) fn commits(&mut self) -> Result<&[Commit]> {
        if let Some(exit) = self.fleet.reap()?.first() {
            bail!("nobody told it to end: {}", self.fleet.last_words(exit));
        }
        self.logged()
    }

    /// What was committed up to now, whoever has ended.
    pub(super) fn logged(&mut self) -> Result<&[Commit]> {
        self.logs.refresh()?;
        Ok(self.logs.commits())
    }

    /// Waits until the run trains steadily with everybody known to the coordinator, and a while longer for all
    /// workers to train. Whether they do.
    pub(super) fn settle(&mut self) -> Result<bool> {
        let limit = if self.events.is_empty() { START } else { secs(self.args.limit_s) };
        wait_for("the run trains", limit, || Ok(self.is_steady()?.then_some(())))?;
        let whole = self.args.workers as usize;
        let all = look_for(secs(self.args.whole_s), || {
            Ok((self.is_steady()? && steps::newest(self.commits()?).1.len() == whole).then_some(()))
        })?;
        Ok(all.is_some())
    }

    fn is_steady(&mut self) -> Result<bool> {
        let (_, members) = steps::newest(self.commits()?);
        let steady = members.values().min().is_some_and(|&committed| committed >= SETTLED_STEPS);
        Ok(steady && self.everybody_has_joined()?)
    }

    fn everybody_has_joined(&self) -> Result<bool> {
        let known = self.fleet.status()?.map_or(0, |status| status.members.len());
        Ok(known == self.fleet.alive().len())
    }

    /// Lets a random part of two steps pass, and picks one of those that train.
    pub(super) fn aim(&mut self) -> Result<Aim> {
        let step = steps::step_median_s(self.commits()?).context("no step has been timed")?;
        std::thread::sleep(Duration::from_secs_f64(self.dice.unit() * 2.0 * step));
        let (generation, members) = steps::newest(self.commits()?);
        let names: Vec<&String> = members.keys().collect();
        let worker = self.dice.pick(&names).context("nobody trains")?;
        Ok(Aim { worker: (*worker).clone(), generation, world: names.len() })
    }

    /// When the first step of a later generation was committed; `None` if none was within the limit.
    pub(super) fn next_commit(&mut self, generation: u64) -> Result<Option<u64>> {
        look_for(secs(self.args.limit_s), || Ok(steps::first_after(self.commits()?, generation).map(|c| c.at)))
    }

    /// Waits for a process that was told to end; its code must be that of a drain.
    pub(super) fn expect_drained(&mut self, name: &str) -> Result<()> {
        let exit = self.fleet.wait(name, FAREWELL)?;
        let drained = Some(i32::from(Outcome::Drained.exit_code()));
        ensure!(exit.code() == drained, "expected exit code {drained:?}: {}", self.fleet.last_words(&exit));
        Ok(())
    }

    /// Drains the run, which shows that the coordinator still leads every worker, and audits it.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.settle()?;
        self.fleet.kill(COORDINATOR, Signal::TERM)?;
        let workers = self.fleet.alive();
        for name in workers.iter().map(String::as_str).chain([COORDINATOR]) {
            self.expect_drained(name)?;
        }
        let run = format!("{}/{}", self.spec.run.store, self.spec.run.name);
        let audit = pixfleet(["audit", &run]).status().context("cannot start the audit")?;
        self.audit_clean = Some(audit.success());
        Ok(())
    }

    /// What was measured.
    pub(super) fn report(mut self) -> Result<HealingReport> {
        self.logs.refresh()?;
        let step_median_s = steps::step_median_s(self.logs.commits()).context("no step has been timed")?;
        Ok(HealingReport::new(&self.args, &self.spec, self.events, step_median_s, self.audit_clean))
    }
}

/// URL of the dataset, composed once.
fn dataset(out: &Path) -> Result<String> {
    let (folder, whole): (PathBuf, PathBuf) = (out.join("mini"), out.join("mini.complete"));
    if !whole.exists() {
        // What an interrupted composer left.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        compose(&url(&folder), &[]);
        std::fs::write(&whole, "").with_context(|| format!("cannot write {}", whole.display()))?;
    }
    Ok(url(&folder))
}

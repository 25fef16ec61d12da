//! The disturbed run: its processes, what was done to each of them on purpose, and the loop that hurts them, mends them
//! and watches. What a fault does stands in `strike.rs`.

use super::ChaosArgs;
use super::link::LinkProxy;
use super::plan::{Stack, StrikeKind};
use super::record::Fault;
use super::setup::ChaosSetting;
use super::store::StoreProxy;
use super::watch::Watch;
use crate::dice::Dice;
use crate::fleet::{COORDINATOR, Exit, Fleet};
use crate::hosts::Hosts;
use crate::steps::{self, StepLogs};
use anyhow::{Context, Result};
use pixfleet_cluster::RunSpec;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Workers that the run begins with; those that are gone are replaced up to this number.
pub(super) const WORKERS: u32 = 3;
/// More than these are never started.
pub(super) const WORKERS_MAX: usize = 4;
/// Seconds from one fault to the next.
const GAP_S: (f64, f64) = (1.5, 8.0);
/// Without a committed step, the next fault comes after this long all the same.
const IMPATIENCE: Duration = Duration::from_secs(15);
/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(25);
/// How long processes may take to end once the run is over.
const FAREWELL: Duration = Duration::from_secs(60);
/// Exit code of a run, and of a worker, that is done; of one that was drained; of a coordinator that was deposed.
const DONE: i32 = 0;
const DRAINED: i32 = 75;
const DEPOSED: i32 = 3;

/// A coordinator and the proxy before it.
pub(super) struct ProxiedCoordinator {
    pub(super) name: String,
    pub(super) link: LinkProxy,
    /// Holds its address once it listens.
    pub(super) port_file: PathBuf,
    pub(super) listens: bool,
}

/// What was done to a process on purpose, and by which fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// SIGTERM.
    Told(usize),
    /// SIGSTOP, or a link that is down.
    Away,
}

/// What is still to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// Start a worker in the place of one that is gone.
    Worker { fault: Option<usize> },
    /// Start a coordinator.
    Coordinator { fault: Option<usize> },
    /// SIGCONT.
    Continue { fault: usize },
    /// Take the link of a host up again.
    Raise { fault: usize },
    /// Let the connections of a coordinator be.
    OpenLink { fault: usize, hurt: u64 },
    /// Let the store be.
    OpenStore { fault: usize, hurt: u64 },
}

/// See the module.
pub(super) struct Storm {
    pub(super) fleet: Fleet,
    pub(super) spec: RunSpec,
    pub(super) dice: Dice,
    pub(super) runtime: Handle,
    /// Where proxies listen.
    pub(super) door: Ipv4Addr,
    pub(super) store: Option<StoreProxy>,
    pub(super) leaders: Vec<ProxiedCoordinator>,
    pub(super) fates: BTreeMap<String, Fate>,
    pub(super) faults: Vec<Fault>,
    pub(super) due: Vec<(Instant, Due)>,
    /// Coordinators and workers ever started.
    pub(super) coordinators: u32,
    pub(super) workers: u32,
    /// Processes that ended although nobody told them to, or otherwise than they should: their last words.
    pub(super) unexpected: Vec<String>,
    pub(super) logs: StepLogs,
    stack: Stack,
    begun: u64,
    over: bool,
    log: File,
}

impl Storm {
    /// Starts the processes.
    ///
    /// # Errors
    /// If they do not start, or the folder cannot be written.
    pub(super) fn begin(args: &ChaosArgs, setting: &ChaosSetting, steps: u64, runtime: &Handle) -> Result<Self> {
        let spec = setting.spec("storm", steps)?;
        let mut fleet = Fleet::new(&setting.dir.join("storm"), &spec.to_toml())?;
        if setting.hosts {
            fleet.set_hosts(Hosts::new()?);
        }
        let store = setting.proxy(runtime)?;
        fleet.set_envs(setting.envs(store.as_ref()));
        let path = setting.dir.join("faults.jsonl");
        let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut dice = Dice::new(args.seed);
        let stack = Stack::new(&mut dice, args.kinds(setting.hosts));
        let logs = fleet.step_logs();
        let mut storm = Self {
            fleet,
            spec,
            dice,
            runtime: runtime.clone(),
            door: setting.door(),
            store,
            leaders: Vec::new(),
            fates: BTreeMap::new(),
            faults: Vec::new(),
            due: Vec::new(),
            coordinators: 0,
            workers: 0,
            unexpected: Vec::new(),
            logs,
            stack,
            begun: steps::now(),
            over: false,
            log,
        };
        storm.launch_coordinator(WORKERS)?;
        for _ in 0..WORKERS {
            storm.start_worker()?;
        }
        Ok(storm)
    }

    /// Hurts the run for so long, then lets it come to its end. Whether it did before `limit`.
    ///
    /// # Errors
    /// If the harness itself fails.
    pub(super) fn rage(&mut self, minutes: f64, limit: Duration) -> Result<bool> {
        let begun = Instant::now();
        let calm_from = begun + Duration::from_secs_f64(minutes * 60.0);
        let mut watch = Watch::new(self.spec.schedule.steps);
        let mut next = None;
        while !self.over {
            if begun.elapsed() > limit {
                return Ok(false);
            }
            self.look()?;
            self.mend()?;
            let trains = !self.logs.commits().is_empty();
            let now = Instant::now();
            if trains && now < calm_from && *next.get_or_insert_with(|| now + self.gap()) <= now && self.is_ready() {
                let trained = self.trained();
                let possible: Vec<StrikeKind> =
                    StrikeKind::ALL.iter().map(|&(kind, _)| kind).filter(|&k| self.is_possible(k, &trained)).collect();
                if let Some(kind) = self.stack.draw(&mut self.dice, |kind| possible.contains(&kind)) {
                    self.strike(kind, &trained)?;
                    next = Some(Instant::now() + self.gap());
                }
            }
            watch.tell(self.logs.commits(), &self.faults);
            std::thread::sleep(LOOK);
        }
        watch.end();
        self.farewell()
    }

    /// When everything has come to its end.
    pub(super) fn end(&self) -> u64 {
        self.logs.commits().last().map_or(self.begun, |c| c.at)
    }

    fn gap(&mut self) -> Duration {
        Duration::from_secs_f64(self.dice.between(GAP_S.0, GAP_S.1))
    }

    /// The last fault was healed, or nobody can wait for that any longer.
    fn is_ready(&self) -> bool {
        let impatience = u64::try_from(IMPATIENCE.as_nanos()).expect("seconds");
        self.faults.last().is_none_or(|f| f.healed.is_some() || steps::now() > f.at + impatience)
    }

    /// The run is over: whoever was stopped goes on, nobody is replaced, and all processes end by themselves.
    fn farewell(&mut self) -> Result<bool> {
        self.due.retain(|(_, due)| !matches!(due, Due::Worker { .. } | Due::Coordinator { .. }));
        let deadline = Instant::now() + FAREWELL;
        while !self.fleet.is_empty() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            self.look()?;
            self.mend()?;
            std::thread::sleep(LOOK);
        }
        self.logs.refresh()?;
        Ok(true)
    }

    /// Looks at processes and step logs.
    fn look(&mut self) -> Result<()> {
        for exit in self.fleet.reap()? {
            self.ended(&exit)?;
        }
        for leader in self.leaders.iter_mut().filter(|leader| !leader.listens) {
            let Ok(address) = std::fs::read_to_string(&leader.port_file) else { continue };
            leader.link.lead_to(address.parse().with_context(|| format!("{address} is no address"))?);
            leader.listens = true;
        }
        self.logs.refresh()?;
        let healed: Vec<usize> = self.faults.iter().filter(|f| f.healed.is_some()).map(|f| f.number).collect();
        for fault in &mut self.faults {
            fault.heal(self.logs.commits());
            if fault.kind == StrikeKind::Join && fault.fired.is_none() {
                let joined = self.logs.commits().iter().find(|c| c.worker == fault.target);
                if let Some(c) = joined {
                    fault.fired(format!("it committed step {} in generation {}", c.step, c.generation));
                }
            }
        }
        let news: Vec<usize> = self.faults.iter().filter(|f| f.healed.is_some()).map(|f| f.number).collect();
        for number in news.into_iter().filter(|number| !healed.contains(number)) {
            let fault = &self.faults[number];
            let entry = json!({ "event": "healed", "number": number, "after_s": fault.healed_s });
            self.write(entry)?;
        }
        Ok(())
    }

    /// A process ended. Whoever did not do so as it should is noted, and replaced.
    fn ended(&mut self, exit: &Exit) -> Result<()> {
        let fate = self.fates.remove(&exit.name);
        if exit.name.starts_with(COORDINATOR) {
            return self.coordinator_ended(exit);
        }
        match (fate, exit.code()) {
            (Some(Fate::Told(fault)), Some(DRAINED)) => self.faults[fault].fired("it ended with exit code 75"),
            (Some(Fate::Told(fault)), Some(DONE)) if self.over || self.is_last_step_done() => {
                self.faults[fault].fired("the run was done before it could leave: exit code 0");
            }
            (_, Some(DONE)) if self.over || self.is_last_step_done() => {}
            (Some(Fate::Told(_) | Fate::Away) | None, _) => {
                self.unexpected.push(self.fleet.last_words(exit));
                self.after(0.0, Due::Worker { fault: None });
            }
        }
        self.write(json!({ "event": "ended", "process": exit.name, "how": exit.to_string() }))
    }

    fn coordinator_ended(&mut self, exit: &Exit) -> Result<()> {
        self.drop_leader(&exit.name);
        let rival = self.faults.iter_mut().rev().find(|f| f.kind == StrikeKind::CoordinatorRival && f.fired.is_none());
        match (exit.code(), rival, self.leaders.as_slice()) {
            (Some(DONE), ..) => self.over = true,
            (Some(DEPOSED), Some(fault), [leader]) => {
                fault.fired(format!("{} ended with exit code {DEPOSED}, {} goes on", exit.name, leader.name));
                fault.lifted = Some(steps::now());
                self.fleet.send_workers_to(&leader.link.address().to_string());
            }
            _ => {
                self.unexpected.push(self.fleet.last_words(exit));
                if self.leaders.is_empty() {
                    self.after(0.0, Due::Coordinator { fault: None });
                }
            }
        }
        self.write(json!({ "event": "ended", "process": exit.name, "how": exit.to_string() }))
    }

    /// Workers end a moment before their coordinator does.
    fn is_last_step_done(&self) -> bool {
        self.logs.commits().iter().any(|c| c.step + 1 == self.spec.schedule.steps)
    }

    pub(super) fn after(&mut self, seconds: f64, due: Due) {
        self.due.push((Instant::now() + Duration::from_secs_f64(seconds), due));
    }

    /// One line of the log of faults.
    pub(super) fn write(&mut self, mut entry: serde_json::Value) -> Result<()> {
        entry["at_s"] = json!(steps::seconds(self.begun, steps::now()));
        writeln!(self.log, "{entry}").context("cannot write the log of faults")
    }
}

//! What each fault does, and how it is taken back. Each leaves word of how it is known to have fired.

use super::link::{LinkProxy, Passage};
use super::plan::StrikeKind;
use super::record::Fault;
use super::store::Temper;
use super::storm::{Due, Fate, ProxiedCoordinator, Storm, WORKERS, WORKERS_MAX};
use crate::fleet::{COORDINATOR, Signal};
use crate::poll::wait_for;
use crate::steps;
use anyhow::{Context, Result, ensure};
use pixfleet_cluster::spec::Rung;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long the kernel may take to do what a signal says.
const SIGNAL: Duration = Duration::from_secs(10);
/// A fault of connections or store that has met nobody goes on for so much longer, up to the limit.
const LONGER_S: f64 = 0.5;
const LONGER_LIMIT_S: f64 = 30.0;
/// Steps at the end of a run in which nothing strikes: what it costs could not be seen.
const LAST_STEPS: u64 = 10;
/// Steps that must be left for two coordinators to find out which of them leads.
const RIVAL_STEPS: u64 = 30;

impl Storm {
    /// Workers that hold weights and that nothing was done to: of the newest generation that committed a step.
    pub(super) fn trained(&self) -> Vec<String> {
        let (_, members) = steps::newest(self.logs.commits());
        let alive = self.fleet.alive();
        members.into_keys().filter(|name| alive.contains(name) && !self.fates.contains_key(name)).collect()
    }

    /// Whether `kind` can strike now and the run can survive it: somebody who holds weights must be left.
    pub(super) fn is_possible(&self, kind: StrikeKind, trained: &[String]) -> bool {
        let led = self.leaders.len() == 1 && self.leaders[0].listens;
        if self.steps_left() < LAST_STEPS {
            return false;
        }
        let lasts = |kinds: &[StrikeKind]| self.faults.iter().any(|f| kinds.contains(&f.kind) && f.lifted.is_none());
        match kind {
            StrikeKind::Kill
            | StrikeKind::StopLong
            | StrikeKind::StopShort
            | StrikeKind::LinkDown
            | StrikeKind::Drain => trained.len() >= 2,
            StrikeKind::Join => led && self.manned() < WORKERS_MAX,
            StrikeKind::CoordinatorKill => led,
            // The one that is deposed learns of it with the next records.
            StrikeKind::CoordinatorRival => led && self.steps_left() > RIVAL_STEPS,
            StrikeKind::LinkCut | StrikeKind::LinkSlow | StrikeKind::LinkSilent => {
                led && !lasts(&[StrikeKind::LinkCut, StrikeKind::LinkSlow, StrikeKind::LinkSilent])
            }
            StrikeKind::StoreBusy | StrikeKind::StoreNoAnswer | StrikeKind::StoreSlow => {
                led && self.store.is_some()
                    && !lasts(&[StrikeKind::StoreBusy, StrikeKind::StoreNoAnswer, StrikeKind::StoreSlow])
            }
        }
    }

    fn steps_left(&self) -> u64 {
        let next = self.logs.commits().iter().map(|c| c.step + 1).max().unwrap_or(0);
        self.spec.schedule.steps.saturating_sub(next)
    }

    /// Workers that run and stay, and those that are about to be started.
    fn manned(&self) -> usize {
        let going = self.fates.values().filter(|fate| matches!(fate, Fate::Told(_))).count();
        let coming = self.due.iter().filter(|(_, due)| matches!(due, Due::Worker { .. })).count();
        self.fleet.alive().len() + coming - going
    }

    /// Hurts the run.
    pub(super) fn strike(&mut self, kind: StrikeKind, trained: &[String]) -> Result<()> {
        let number = self.faults.len();
        let target = match kind {
            StrikeKind::Kill
            | StrikeKind::StopLong
            | StrikeKind::StopShort
            | StrikeKind::LinkDown
            | StrikeKind::Drain => self.dice.pick(trained).context("nobody trains")?.clone(),
            StrikeKind::Join => format!("w{}", self.workers),
            StrikeKind::StoreBusy | StrikeKind::StoreNoAnswer | StrikeKind::StoreSlow => "store".into(),
            StrikeKind::CoordinatorKill
            | StrikeKind::CoordinatorRival
            | StrikeKind::LinkCut
            | StrikeKind::LinkSlow
            | StrikeKind::LinkSilent => self.leaders[0].name.clone(),
        };
        let commits = self.logs.commits();
        let (generation, members) = steps::newest(commits);
        self.faults.push(Fault {
            pid: self.fleet.pid(&target).ok(),
            generation,
            world: members.len(),
            step: commits.last().map_or(0, |c| c.step),
            overlaps: self.faults.iter().filter(|f| f.lasts()).map(|f| f.number).collect(),
            ..Fault::new(number, kind, target.clone(), steps::now())
        });
        match kind {
            StrikeKind::Kill => self.kill_worker(number, &target)?,
            StrikeKind::StopLong | StrikeKind::StopShort => self.stop(number, &target, kind == StrikeKind::StopLong)?,
            StrikeKind::LinkDown => self.lower_link(number, &target)?,
            StrikeKind::Drain => self.drain(number, &target)?,
            StrikeKind::Join => {
                self.faults[number].pid = Some(self.start_worker()?);
                self.faults[number].lifted = Some(steps::now());
            }
            StrikeKind::CoordinatorKill => self.kill_coordinator(number)?,
            StrikeKind::CoordinatorRival => self.launch_coordinator(1)?,
            StrikeKind::LinkCut => self.disturb_link(number, Passage::Cut, (0.05, 1.5)),
            StrikeKind::LinkSlow => {
                let latency = Duration::from_secs_f64(self.dice.between(0.2, 0.8));
                self.disturb_link(number, Passage::Slow(latency), (2.0, 6.0));
            }
            StrikeKind::LinkSilent => self.disturb_link(number, Passage::Silent, (0.5, 6.0)),
            StrikeKind::StoreBusy => self.disturb_store(number, Temper::Busy),
            StrikeKind::StoreNoAnswer => self.disturb_store(number, Temper::NoAnswer),
            StrikeKind::StoreSlow => {
                let latency = Duration::from_secs_f64(self.dice.between(0.3, 1.5));
                self.disturb_store(number, Temper::Slow(latency));
            }
        }
        let fault = serde_json::to_value(&self.faults[number]).context("JSON")?;
        self.write(json!({ "event": "struck", "fault": fault }))
    }

    fn kill_worker(&mut self, number: usize, name: &str) -> Result<()> {
        self.faults[number].at = self.fleet.kill(name, Signal::KILL)?;
        self.await_sigkill(number, name)?;
        self.replace(number);
        Ok(())
    }

    fn await_sigkill(&mut self, number: usize, name: &str) -> Result<()> {
        let exit = self.fleet.wait(name, SIGNAL)?;
        let killed = exit.signal() == Some(Signal::KILL.as_raw());
        ensure!(killed, "kill -9 did not end it: {}", self.fleet.last_words(&exit));
        self.faults[number].fired("waitpid: signal 9");
        Ok(())
    }

    /// Another worker comes later, unless there are enough.
    fn replace(&mut self, number: usize) {
        if self.manned() < WORKERS as usize {
            let after = self.dice.between(0.2, 6.0);
            self.after(after, Due::Worker { fault: Some(number) });
        } else {
            self.faults[number].lifted = Some(steps::now());
        }
    }

    fn stop(&mut self, number: usize, name: &str, long: bool) -> Result<()> {
        let timeout = self.heartbeat_timeout_s();
        self.faults[number].at = self.fleet.kill(name, Signal::STOP)?;
        wait_for("SIGSTOP stops it", SIGNAL, || Ok((self.fleet.state(name)? == 'T').then_some(())))?;
        let seconds = if long { timeout + self.dice.between(0.5, 4.0) } else { timeout * self.dice.between(0.05, 0.6) };
        self.fates.insert(name.into(), Fate::Away);
        self.after(seconds, Due::Continue { fault: number });
        Ok(())
    }

    fn lower_link(&mut self, number: usize, name: &str) -> Result<()> {
        self.faults[number].at = steps::now();
        self.faults[number].evidence = self.fleet.set_link(name, false)?;
        self.fates.insert(name.into(), Fate::Away);
        let seconds = self.heartbeat_timeout_s() + self.dice.between(0.5, 4.0);
        self.after(seconds, Due::Raise { fault: number });
        Ok(())
    }

    fn heartbeat_timeout_s(&self) -> f64 {
        self.spec.ladder()[Rung::HeartbeatTimeout].as_secs_f64()
    }

    fn drain(&mut self, number: usize, name: &str) -> Result<()> {
        self.faults[number].at = self.fleet.kill(name, Signal::TERM)?;
        self.fates.insert(name.into(), Fate::Told(number));
        self.replace(number);
        Ok(())
    }

    fn kill_coordinator(&mut self, number: usize) -> Result<()> {
        let name = self.leaders[0].name.clone();
        self.faults[number].at = self.fleet.kill(&name, Signal::KILL)?;
        self.await_sigkill(number, &name)?;
        self.drop_leader(&name);
        let after = self.dice.between(0.0, 10.0);
        self.after(after, Due::Coordinator { fault: Some(number) });
        Ok(())
    }

    /// For so many seconds, drawn from a range.
    fn disturb_link(&mut self, number: usize, passage: Passage, (least, most): (f64, f64)) {
        let seconds = self.dice.between(least, most);
        let link = &self.leaders[0].link;
        let hurt = link.hurt();
        link.set(passage);
        self.after(seconds, Due::OpenLink { fault: number, hurt });
    }

    fn disturb_store(&mut self, number: usize, temper: Temper) {
        let seconds = self.dice.between(1.0, 4.0);
        let Some(store) = &self.store else { return };
        let hurt = store.hurt();
        store.set(temper);
        self.after(seconds, Due::OpenStore { fault: number, hurt });
    }

    /// Does what has fallen due.
    pub(super) fn mend(&mut self) -> Result<()> {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(Instant, Due)> = due;
        for (at, due) in due {
            match due {
                // A worker needs to know where a coordinator is or was; the next one's proxy listens before it does.
                Due::Worker { .. } if self.leaders.is_empty() => self.due.push((at, due)),
                Due::Worker { fault } => {
                    self.start_worker()?;
                    self.lifted(fault)?;
                }
                Due::Coordinator { fault } => {
                    self.launch_coordinator(1)?;
                    self.lifted(fault)?;
                }
                Due::Continue { fault } => self.go_on(fault)?,
                Due::Raise { fault } => self.raise_link(fault)?,
                Due::OpenLink { fault, hurt } => self.open_link(fault, hurt)?,
                Due::OpenStore { fault, hurt } => self.open_store(fault, hurt)?,
            }
        }
        Ok(())
    }

    fn lifted(&mut self, fault: Option<usize>) -> Result<()> {
        let Some(number) = fault else { return Ok(()) };
        let fault = &mut self.faults[number];
        fault.lifted = Some(steps::now());
        let entry = json!({ "event": "lifted", "number": number, "fired": fault.fired, "evidence": fault.evidence });
        self.write(entry)
    }

    fn go_on(&mut self, number: usize) -> Result<()> {
        let name = self.faults[number].target.clone();
        let stopped = self.fleet.state(&name).is_ok_and(|state| state == 'T');
        if stopped {
            let continued = self.fleet.kill(&name, Signal::CONT)?;
            let for_s = steps::seconds(self.faults[number].at, continued);
            self.faults[number].fired(format!("/proc said T, {for_s:.3} s after the signal too"));
        } else {
            self.faults[number].missed("it did not stay stopped");
        }
        self.fates.remove(&name);
        self.lifted(Some(number))
    }

    fn raise_link(&mut self, number: usize) -> Result<()> {
        let Fault { target: name, evidence: down, at, .. } = self.faults[number].clone();
        if self.fleet.alive().contains(&name) {
            let up = self.fleet.set_link(&name, true)?;
            let for_s = steps::seconds(at, steps::now());
            self.faults[number].fired(format!("`ip` said {down}, and {for_s:.3} s later {up}"));
        } else {
            self.faults[number].missed("its worker ended meanwhile");
        }
        self.fates.remove(&name);
        self.lifted(Some(number))
    }

    fn open_link(&mut self, number: usize, before: u64) -> Result<()> {
        let target = self.faults[number].target.clone();
        let Some(hurt) = self.leader(&target).map(|leader| leader.link.hurt() - before) else { return Ok(()) };
        if self.lasts_longer(number, hurt, Due::OpenLink { fault: number, hurt: before }) {
            return Ok(());
        }
        self.leader(&target).into_iter().for_each(|leader| leader.link.set(Passage::Open));
        self.judge(number, hurt, "times it ended a connection or held something back");
        self.lifted(Some(number))
    }

    fn open_store(&mut self, number: usize, before: u64) -> Result<()> {
        let Some(hurt) = self.store.as_ref().map(|store| store.hurt() - before) else { return Ok(()) };
        if self.lasts_longer(number, hurt, Due::OpenStore { fault: number, hurt: before }) {
            return Ok(());
        }
        self.store.iter().for_each(|store| store.set(Temper::Fair));
        self.judge(number, hurt, "requests met it");
        self.lifted(Some(number))
    }

    /// A fault that has met nobody yet is given more time.
    fn lasts_longer(&mut self, number: usize, hurt: u64, due: Due) -> bool {
        let longer = hurt == 0 && steps::seconds(self.faults[number].at, steps::now()) < LONGER_LIMIT_S;
        if longer {
            self.after(LONGER_S, due);
        }
        longer
    }

    fn judge(&mut self, number: usize, hurt: u64, what: &str) {
        let evidence = format!("{hurt} {what}");
        if hurt > 0 { self.faults[number].fired(evidence) } else { self.faults[number].missed(evidence) }
    }

    /// Starts a worker under a name of its own; its process id.
    pub(super) fn start_worker(&mut self) -> Result<u32> {
        let name = format!("w{}", self.workers);
        self.workers += 1;
        let pid = self.fleet.start_worker(&name, &[])?;
        self.write(json!({ "event": "started", "process": name, "pid": pid }))?;
        Ok(pid)
    }

    /// Starts a coordinator behind a proxy of its own, and sends new workers there.
    pub(super) fn launch_coordinator(&mut self, expect: u32) -> Result<()> {
        let name = format!("{COORDINATOR}-{}", self.coordinators);
        self.coordinators += 1;
        let link = LinkProxy::open(&self.runtime, self.door)?;
        let address = link.address().to_string();
        let port_file = self.fleet.launch_coordinator(&name, expect, &["--advertise", &address])?;
        self.fleet.send_workers_to(&address);
        let pid = self.fleet.pid(&name)?;
        self.write(json!({ "event": "started", "process": name, "pid": pid, "address": address }))?;
        self.leaders.push(ProxiedCoordinator { name, link, port_file, listens: false });
        Ok(())
    }

    fn leader(&self, name: &str) -> Option<&ProxiedCoordinator> {
        self.leaders.iter().find(|leader| leader.name == name)
    }

    /// A coordinator is gone, and so is its proxy: a fault of its connections is over.
    pub(super) fn drop_leader(&mut self, name: &str) {
        let Some(at) = self.leaders.iter().position(|leader| leader.name == name) else { return };
        let leader = self.leaders.remove(at);
        let of = |due: &Due, faults: &[Fault]| match due {
            Due::OpenLink { fault, hurt } if faults[*fault].target == leader.name => Some((*fault, *hurt)),
            Due::OpenLink { .. }
            | Due::Worker { .. }
            | Due::Coordinator { .. }
            | Due::Continue { .. }
            | Due::Raise { .. }
            | Due::OpenStore { .. } => None,
        };
        let open: Vec<_> = self.due.iter().filter_map(|(_, due)| of(due, &self.faults)).collect();
        self.due.retain(|(_, due)| of(due, &self.faults).is_none());
        for (fault, before) in open {
            self.judge(fault, leader.link.hurt() - before, "times before its coordinator was gone");
            self.faults[fault].lifted = Some(steps::now());
        }
    }
}

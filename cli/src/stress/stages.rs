//! From the first session to the audit, with a clock in hand.

use super::fleet::{Page, StressFleet};
use super::leader::StressLeader;
use super::scene::Scene;
use super::{Args, HOST, pid_of};
use crate::train::children::Children;
use anyhow::{Context, Result, bail};
use pixfleet_checkpoint::audited;
use pixfleet_cluster::audit::prove;
use pixfleet_proto::pb;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether something has happened.
const LOOK: Duration = Duration::from_millis(2);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(180);
/// Steps that the members do while nobody leads.
const LEADERLESS: u64 = 2;

/// What came of one number of members.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) members: u32,
    pub(super) form_s: f64,
    pub(super) step_ms: f64,
    pub(super) memory_mib: f64,
    pub(super) order_p50_ms: f64,
    pub(super) order_p99_ms: f64,
    pub(super) heal_s: Option<f64>,
    pub(super) takeover_s: f64,
    pub(super) findings: Vec<String>,
}

struct Stage<'a> {
    args: &'a Args,
    scene: Scene,
    children: Children,
    fleet: StressFleet,
    /// Members that live.
    members: u32,
    /// Steps that the members were let do.
    through: u64,
    measured: Measured,
    /// Processor time of coordinators, and the members' steps that it was for.
    cpu_s: f64,
    member_steps: f64,
}

/// Runs all stages with `members` members.
pub(super) async fn measure(args: &Args, members: u32) -> Result<Measured> {
    let scene = Scene::new(members, args.patience_ms)?;
    let children = Children::new(&scene.folder().join("logs"))?;
    let fleet = StressFleet::start(members);
    let measured = Measured { members, ..Measured::default() };
    let (through, cpu_s, member_steps) = (0, 0.0, 0.0);
    let mut stage = Stage { args, scene, children, fleet, members, through, measured, cpu_s, member_steps };
    let ended = stage.play().await;
    if ended.is_err() {
        stage.children.kill_all();
    }
    ended?;
    let findings = std::mem::take(&mut stage.fleet.book.page().findings);
    stage.measured.findings.extend(findings);
    stage.measured.step_ms = stage.cpu_s * 1e3 / (stage.member_steps / 1e3);
    Ok(stage.measured)
}

impl Stage<'_> {
    async fn play(&mut self) -> Result<()> {
        let first = self.form().await?;
        self.steps(&first, self.args.steps / 2).await?;
        for _ in 0..self.args.faults.min(self.members - 1) {
            self.heal(&first).await?;
        }
        let second = self.take_over(first).await?;
        self.steps(&second, self.args.steps - self.args.steps / 2).await?;
        self.drain(second).await?;
        self.audit().await
    }

    async fn form(&mut self) -> Result<StressLeader> {
        let members = self.members;
        let leader = StressLeader::start(&mut self.children, &self.scene, (1, members), &self.fleet.book).await?;
        let begun = Instant::now();
        let clients = leader.clients.clone();
        self.fleet.cue.send_modify(|cue| (cue.life, cue.clients) = (1, clients));
        self.until("a generation of all", |page| page.formed.values().sum::<u32>() >= members).await?;
        let trains = async {
            while leader.status().await?.state != "training" {
                tokio::time::sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, trains).await.context("the generation does not train")??;
        self.measured.form_s = begun.elapsed().as_secs_f64();
        eprintln!("  formed in {:.2} s", self.measured.form_s);
        Ok(leader)
    }

    /// Lets all members do one more step, and waits until it is recorded.
    async fn step(&mut self) -> Result<()> {
        let step = self.let_do(1);
        self.until("the next step", |page| page.recorded.contains_key(&step)).await
    }

    /// Lets all members do so many more steps; the last one.
    fn let_do(&mut self, steps: u64) -> u64 {
        self.through += steps;
        let through = self.through;
        self.fleet.cue.send_modify(|cue| cue.through = through);
        through - 1
    }

    async fn steps(&mut self, leader: &StressLeader, steps: u64) -> Result<()> {
        // The first one after something else is not measured.
        self.step().await?;
        let before = leader.cpu_s()?;
        for _ in 1..steps {
            let next = Instant::now() + Duration::from_millis(self.args.step_ms);
            self.step().await?;
            tokio::time::sleep_until(next).await;
        }
        self.cpu_s += leader.cpu_s()? - before;
        self.member_steps += (steps - 1) as f64 * f64::from(self.members);
        let step_ms = self.cpu_s * 1e3 / (self.member_steps / 1e3);
        eprintln!("  {} steps, {step_ms:.2} ms of the coordinator a step and 1,000 members", self.through);
        Ok(())
    }

    /// Kills one more member; its parent sees that.
    async fn heal(&mut self, leader: &StressLeader) -> Result<()> {
        let number = self.measured.members - self.members;
        let begun = Instant::now();
        self.fleet.cue.send_modify(|cue| cue.dead = number + 1);
        self.members -= 1;
        let exit = pb::MemberExit { host: HOST.into(), pid: pid_of(number), how: "signal 9".into() };
        leader.control(pb::control_request::Kind::MemberExit(exit)).await?;
        let members = self.members;
        self.until("the next generation", |page| {
            page.formed.last_key_value().is_some_and(|(_, formed)| *formed == members)
                && page.formed.len() > number as usize + 1
        })
        .await?;
        self.step().await?;
        let took = begun.elapsed().as_secs_f64();
        self.measured.heal_s = Some(self.measured.heal_s.unwrap_or_default().max(took));
        eprintln!("  healed in {took:.2} s");
        Ok(())
    }

    async fn take_over(&mut self, first: StressLeader) -> Result<StressLeader> {
        self.weigh(&first)?;
        let (begun, members) = (Instant::now(), self.members);
        {
            let mut page = self.fleet.book.page();
            page.killed = 1;
            // The next one tells again what was not in the store yet.
            page.recorded.clear();
        }
        self.fleet.cue.send_modify(|cue| cue.clients = [].into());
        first.kill(&mut self.children).await?;
        let last = self.let_do(LEADERLESS);
        let second =
            StressLeader::start(&mut self.children, &self.scene, (2, self.measured.members), &self.fleet.book).await?;
        let clients = second.clients.clone();
        self.fleet.cue.send_modify(|cue| (cue.life, cue.clients) = (2, clients));
        let back = |page: &Page| page.welcomed.get(&2).is_some_and(|back| *back >= members);
        self.until("the members' return", |page| back(page) && page.recorded.contains_key(&last)).await?;
        self.step().await?;
        self.measured.takeover_s = begun.elapsed().as_secs_f64();
        eprintln!("  taken over in {:.2} s", self.measured.takeover_s);
        Ok(second)
    }

    async fn drain(&mut self, leader: StressLeader) -> Result<()> {
        self.weigh(&leader)?;
        let (begun, members) = (Instant::now(), self.members);
        leader.control(pb::control_request::Kind::Drain(pb::Drain {})).await?;
        self.until("the order to finish", |page| page.yields.len() >= members as usize).await?;
        self.weigh(&leader)?;
        self.fleet.book.page().ends = true;
        let mut ways: Vec<f64> =
            self.fleet.book.page().yields.iter().map(|at| (*at - begun).as_secs_f64() * 1e3).collect();
        ways.sort_unstable_by(f64::total_cmp);
        let share = |percent: usize| ways[(ways.len() * percent / 100).min(ways.len() - 1)];
        (self.measured.order_p50_ms, self.measured.order_p99_ms) = (share(50), share(99));
        leader.drained(&mut self.children).await?;
        self.until("the last words", |page| page.stopped.values().sum::<u32>() >= members).await?;
        let mut page = self.fleet.book.page();
        if page.stopped.get("drained") != Some(&members) {
            let told = format!("{members} members were to be drained: {:?}", page.stopped);
            page.finding(told);
        }
        let killed: Vec<String> = (0..self.measured.members - members).map(|number| format!("m{number}")).collect();
        let lost = std::mem::take(&mut page.lost);
        for name in lost.iter().filter(|name| !killed.contains(name)) {
            page.finding(format!("{name} was lost, and nobody had killed it"));
        }
        Ok(())
    }

    /// The most memory so far.
    fn weigh(&mut self, leader: &StressLeader) -> Result<()> {
        self.measured.memory_mib = self.measured.memory_mib.max(leader.memory_mib()?);
        Ok(())
    }

    async fn audit(&mut self) -> Result<()> {
        let run = audited(&self.scene.run()?, &mut |_, _| {}).await?;
        let verdict = prove(&run.trail, run.plan.clone(), None, &mut |_, _| {});
        let findings = &mut self.measured.findings;
        findings.extend(verdict.findings.iter().map(|finding| format!("audit: {finding}")));
        if verdict.steps != self.through || verdict.redone != 0 {
            let (steps, redone) = (verdict.steps, verdict.redone);
            findings.push(format!("audit: {steps} steps and {redone} redone, {} were done", self.through));
        }
        let killed = u64::from(self.measured.members - self.members);
        if verdict.losses != killed {
            findings.push(format!("audit: {} members lost, {killed} were killed", verdict.losses));
        }
        Ok(())
    }

    async fn until(&self, what: &str, good: impl Fn(&Page) -> bool) -> Result<()> {
        let limit = Instant::now() + LIMIT;
        while !good(&self.fleet.book.page()) {
            if Instant::now() >= limit {
                let page = self.fleet.book.page();
                bail!("{what} did not come; lost: {:?}; {:?}", &page.lost[..page.lost.len().min(5)], page.findings);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

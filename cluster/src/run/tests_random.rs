//! Seeded random fleets: crashes between any two messages, commits that reach only some ranks, joiners, drains. After
//! each run its ledger is audited against the order of samples.

use super::tests::config;
use super::*;
use crate::audit::{Plan, audit};
use crate::commit::PartEntry;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::{Losses, Record};
use crate::order;
use crate::rng::{key, mix};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Checkpoints every so many steps.
const EVERY: u64 = 4;
/// Crashes in one life of a run.
const KILLS_MAX: u32 = 12;

struct Worker {
    inbox: VecDeque<Order>,
    outbox: VecDeque<Report>,
    at: Option<Step>,
    form: Option<Form>,
    ready: bool,
    finished: bool,
}

struct Sim {
    run: Run,
    now: Duration,
    draws: (u64, u64),
    workers: BTreeMap<MemberId, Worker>,
    next_member: u64,
    ledger: Vec<Record>,
    generations: BTreeSet<Generation>,
    manifests: VecDeque<(Generation, Step)>,
    outcome: Option<Outcome>,
    kills: u32,
}

impl Sim {
    fn new(seed: u64) -> Self {
        Self {
            run: Run::new(RunConfig { fruitless_max: 1000, ..config(3) }),
            now: Duration::ZERO,
            draws: (key(&[seed]), 0),
            workers: BTreeMap::new(),
            next_member: 1,
            ledger: Vec::new(),
            generations: BTreeSet::new(),
            manifests: VecDeque::new(),
            outcome: None,
            kills: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws.1 += 1;
        mix(self.draws.0.wrapping_add(self.draws.1)) % below
    }

    fn event(&mut self, event: Event) {
        for effect in self.run.handle(self.now, event) {
            match effect {
                Effect::Send { member, order } => {
                    if let Some(w) = self.workers.get_mut(&member) {
                        w.inbox.push_back(order);
                    }
                }
                Effect::Ledger(record) => {
                    if let Record::Formed { generation, .. } = &record {
                        assert!(self.generations.insert(*generation), "generation {generation} was used twice");
                    }
                    self.ledger.push(record);
                }
                Effect::StoreManifest { generation, step, parts } => {
                    assert!(!parts.is_empty());
                    self.manifests.push_back((generation, step));
                }
                Effect::Finish { outcome, .. } => self.outcome = Some(outcome),
                Effect::Refuse { refusal, .. } => {
                    assert!(
                        !matches!(refusal, Refusal::OutOfOrder { .. }),
                        "an orderly worker was refused: {refusal:?}"
                    );
                }
                Effect::Welcome { .. }
                | Effect::Close { .. }
                | Effect::OpenRendezvous { .. }
                | Effect::CloseRendezvous
                | Effect::Announce(_) => {}
            }
        }
    }

    fn spawn(&mut self) {
        let member = MemberId(self.next_member);
        self.next_member += 1;
        let worker = Worker {
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            at: None,
            form: None,
            ready: false,
            finished: false,
        };
        self.workers.insert(member, worker);
        self.event(Event::Joined { member, join: Join { name: format!("w{member}"), ..Join::default() } });
    }

    fn kill(&mut self, member: MemberId) {
        self.workers.remove(&member);
        self.kills += 1;
        self.event(Event::Lost { member, cause: LossCause::StreamClosed { how: "killed".into() } });
    }

    /// One order reaches a worker.
    fn obey(&mut self, member: MemberId) {
        let w = self.workers.get_mut(&member).expect("alive");
        match w.inbox.pop_front() {
            Some(Order::Form(form)) => {
                w.finished = false;
                w.ready = false;
                w.form = Some(form);
            }
            Some(Order::Abort { generation, .. }) if w.form.as_ref().is_some_and(|f| f.generation == generation) => {
                w.form = None;
                let (next_step, kind) = (w.at, FailureKind::Aborted);
                w.outbox.push_back(failed(generation, next_step, kind));
            }
            _ => {}
        }
    }

    /// The members of the newest generation that all hold its order: they meet, or one of them does not come.
    fn collective(&mut self) {
        let Some(form) = self.workers.values().filter_map(|w| w.form.clone()).max_by_key(|f| f.generation) else {
            return;
        };
        let here = |s: &Self, m: &MemberId| {
            s.workers.get(m).is_some_and(|w| w.form.as_ref().is_some_and(|f| f.generation == form.generation))
        };
        let all_here = form.members.iter().all(|m| here(self, m));
        let members: Vec<_> = form.members.iter().copied().filter(|m| here(self, m)).collect();
        if !all_here {
            // Some of those who are there notice, as Gloo does when a peer's socket closes.
            for m in members {
                if self.form_is_broken(&form) && self.draw(2) == 0 {
                    let w = self.workers.get_mut(&m).expect("alive");
                    w.form = None;
                    let report = failed(form.generation, w.at, FailureKind::Collective);
                    w.outbox.push_back(report);
                }
            }
            return;
        }
        // In the midst of the step one may die: only some have committed then.
        let whole = members.len() as u64;
        let reach = if self.kills < KILLS_MAX && self.draw(8) == 0 { self.draw(whole) } else { whole };
        let steps = self.run.config.steps;
        let ready = members.iter().all(|m| self.workers[m].ready);
        for (i, &m) in members.iter().enumerate().take(reach as usize) {
            let w = self.workers.get_mut(&m).expect("alive");
            if ready {
                work(w, i as u32, &form, steps);
            } else if !w.ready {
                w.ready = true;
                w.at = Some(form.start_step);
                w.outbox.push_back(Report::Ready { generation: form.generation, next_step: form.start_step });
            }
        }
        let victim = (reach < whole).then(|| members[reach as usize]);
        if let Some(victim) = victim {
            self.kill(victim);
        }
    }

    fn form_is_broken(&self, form: &Form) -> bool {
        form.members.iter().any(|m| self.workers.get(m).is_none_or(|w| w.form.is_none() && w.inbox.is_empty()))
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let ids: Vec<_> = self.workers.keys().copied().collect();
        for m in ids {
            if self.draw(2) == 0 && self.workers.contains_key(&m) {
                self.obey(m);
            }
            if self.draw(2) == 0 {
                let Some(w) = self.workers.get_mut(&m) else { continue };
                if let Some(report) = w.outbox.pop_front() {
                    self.event(Event::Reported { member: m, report });
                }
            }
        }
        if self.draw(2) == 0 {
            self.collective();
        }
        if self.draw(3) == 0
            && let Some((generation, step)) = self.manifests.pop_front()
        {
            self.event(Event::ManifestStored { generation, step, key: format!("m{step}-{generation}") });
        }
        match self.draw(200) {
            0 | 1 if self.kills < KILLS_MAX => {
                let ids: Vec<_> = self.workers.keys().copied().collect();
                if !ids.is_empty() {
                    let i = self.draw(ids.len() as u64) as usize;
                    self.kill(ids[i]);
                }
            }
            2 => {
                let next_step = self.run.next_step();
                let ids: Vec<_> = self.workers.keys().copied().collect();
                for member in ids {
                    self.event(Event::Reported { member, report: Report::Heartbeat { next_step: Some(next_step) } });
                }
            }
            3..=5 if self.workers.len() < 4 => self.spawn(),
            _ => {}
        }
    }
}

fn failed(generation: Generation, next_step: Option<Step>, kind: FailureKind) -> Report {
    Report::Failed(Failed { generation, next_step, kind, message: "peer gone".into(), lost_rank: None })
}

/// One step of one rank, or the checkpoint at the end.
fn work(w: &mut Worker, rank: u32, form: &Form, steps: u64) {
    let at = w.at.expect("ready");
    let part = |step| {
        let entry = PartEntry { path: "p".into(), rank: Rank(rank), bytes: 1, blake3: String::new(), tensors: vec![] };
        Report::Part(PartReport { generation: form.generation, step, entry })
    };
    if w.finished {
        return;
    }
    if at.0 == steps {
        if at == form.start_step {
            w.outbox.push_back(part(at));
        }
        w.finished = true;
        w.outbox.push_back(Report::Finished { generation: form.generation, next_step: at });
        return;
    }
    let losses = Losses { total: 1.0, ..Losses::default() };
    let report = StepReport { generation: form.generation, step: at, losses, samples: 8, ..StepReport::default() };
    w.at = Some(at.next());
    w.outbox.push_back(Report::Committed(report));
    if at.next().0.is_multiple_of(EVERY) || at.next().0 == steps {
        w.outbox.push_back(part(at.next()));
    }
}

#[test]
fn random_fleets_end_with_a_clean_ledger() {
    let mut kills = 0;
    for seed in 0..300 {
        let mut sim = Sim::new(seed);
        for _ in 0..3 {
            sim.spawn();
        }
        let mut rounds = 0;
        while sim.outcome.is_none() {
            sim.step();
            rounds += 1;
            assert!(
                rounds < 20_000,
                "seed {seed}: no end; {:?} of {:#?}",
                sim.run.phase(),
                sim.run.members().collect::<Vec<_>>()
            );
        }
        assert_eq!(sim.outcome, Some(Outcome::Done), "seed {seed}: {}", sim.run.message());
        let order = order::Order::new(seed, order::DatasetShape { rows: vec![7, 9, 5, 11] }, 2).expect("has rows");
        let plan = Plan { order, global_batch: 8, seed, dataset_digest: String::new() };
        let verdict = audit(&sim.ledger, plan);
        assert!(verdict.is_clean(), "seed {seed}: {:?}", verdict.findings);
        assert_eq!(verdict.steps, 10, "seed {seed}");
        kills += sim.kills;
    }
    assert!(kills > 300, "the faults must have fired: {kills}");
}

//! What must never be, and is looked for at the moment when it would come about.

use super::liveness::Vigil;
use super::setup::{DATASET, Setup};
use super::store::Store;
use super::trainer::State;
use super::world::{CoordinatorId, WorkerId, World};
use crate::Manifest;
use crate::audit::{AuditPlan, audit};
use crate::ids::{Generation, MemberId, Step};
use crate::ledger::{Record, StateSource, StepRecord, parse_lines};
use crate::run::Now;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name; the same for the same kind of thing.
    pub name: &'static str,
    /// When it was seen.
    pub at: Now,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.6} s: {}", self.name, self.at.as_secs_f64(), self.detail)
    }
}

#[derive(Debug)]
struct Formed {
    start: Step,
    members: Vec<MemberId>,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) violation: Option<Violation>,
    pub(super) vigil: Vigil,
    records: Vec<Record>,
    segments: u64,
    last_digest: String,
    /// Who may write the ledger.
    writer: Option<CoordinatorId>,
    leader: u64,
    /// The last record of this leader was written.
    closed: bool,
    formed: BTreeMap<Generation, Formed>,
    /// Members of those that were prepared.
    prepared: BTreeMap<Generation, Vec<MemberId>>,
    /// The step that the ledger's next step record must be of.
    next_record: Step,
    /// What ranks have committed.
    commits: BTreeSet<(Generation, Step)>,
    /// The step after the furthest that the newest generation committed.
    tip: Step,
    lost: BTreeSet<MemberId>,
    /// The true weights after each step.
    truth: Vec<State>,
}

impl Oracle {
    /// The newest generation that was formed, and its members.
    pub(super) fn newest(&self) -> Option<(Generation, &[MemberId])> {
        self.formed.last_key_value().map(|(&generation, formed)| (generation, formed.members.as_slice()))
    }

    fn truth(&mut self, setup: &Setup, step: Step) -> State {
        if self.truth.is_empty() {
            self.truth.push(State::INITIAL);
        }
        while self.truth.len() as u64 <= step.0 {
            let last = self.truth[self.truth.len() - 1];
            self.truth.push(last.stepped(&setup.whole(last.next)));
        }
        self.truth[step.0 as usize]
    }
}

fn state_in(body: &[u8]) -> Option<(Manifest, State)> {
    let manifest: Manifest = serde_json::from_slice(body).ok()?;
    let first = manifest.parts.first()?;
    let same = manifest.parts.iter().all(|part| part.blake3 == first.blake3);
    let chain = u64::from_str_radix(&first.blake3, 16).ok().filter(|_| same)?;
    let state = State { next: manifest.step, chain };
    Some((manifest, state))
}

/// The weights that a manifest names, if its parts are of the same.
pub(super) fn state_of(store: &Store, key: &str) -> Option<State> {
    state_in(store.objects.get(key)?).map(|(_, state)| state)
}

impl World {
    /// Something is put into the store.
    pub(super) fn judge_object(&mut self, by: CoordinatorId, key: &str, body: &[u8]) {
        if key.starts_with("ledger/") {
            self.judge_segment(by, key, body);
        } else if key.starts_with("manifests/") {
            self.judge_manifest(key, body);
        }
    }

    fn judge_segment(&mut self, by: CoordinatorId, key: &str, body: &[u8]) {
        let lines = std::str::from_utf8(body).map(parse_lines);
        let Ok(Ok(records)) = lines else {
            return self.accuse("unreadable_segment", || format!("{key}: {lines:?}"));
        };
        let expected = (self.oracle.segments, self.oracle.last_digest.clone());
        let header = if let Some(Record::Segment { number, previous, .. }) = records.first() {
            Some((*number, previous.clone()))
        } else {
            None
        };
        if header.as_ref() != Some(&expected) || key != Record::segment_key(expected.0) {
            return self.accuse("broken_chain", || format!("{key} by {by} has {header:?}, expected {expected:?}"));
        }
        self.oracle.segments += 1;
        self.oracle.last_digest = blake3::hash(body).to_hex().to_string();
        for record in &records[1..] {
            self.judge_record(by, record);
        }
        self.oracle.records.extend(records);
    }

    fn judge_record(&mut self, by: CoordinatorId, record: &Record) {
        self.log(|| format!("ledger: {}", record.to_line().trim_end()));
        match record {
            Record::Opened { leader, .. } => {
                let last = std::mem::replace(&mut self.oracle.leader, *leader);
                if *leader <= last {
                    self.accuse("leader_reused", || format!("leader {leader} after {last}"));
                }
                self.oracle.writer = Some(by);
                self.oracle.closed = false;
                // What it has not seen itself it may find out again.
                self.oracle.lost.clear();
                self.fired.leaders += 1;
            }
            other if self.oracle.closed => {
                self.accuse("record_after_the_last", || format!("{other:?}"));
            }
            other if self.oracle.writer != Some(by) => {
                self.accuse("deposed_writer", || format!("{by} wrote {other:?}"));
            }
            Record::Formed { generation, start_step, members, source } => {
                self.judge_formed(*generation, *start_step, members, source);
            }
            Record::Prepared { generation, members, .. } => {
                self.judge_number(*generation);
                self.fired.prepared += 1;
                self.oracle.prepared.insert(*generation, members.clone());
            }
            Record::Step(step) => self.judge_step(step),
            Record::Lost { member, .. } => {
                self.fired.losses += 1;
                if !self.oracle.lost.insert(*member) {
                    self.accuse("lost_twice", || format!("member {member}"));
                }
            }
            Record::Closed { .. } => self.oracle.closed = true,
            Record::Segment { .. } | Record::Left { .. } | Record::Checkpoint { .. } => {}
        }
    }

    fn judge_formed(&mut self, generation: Generation, start: Step, members: &[MemberId], source: &StateSource) {
        self.fired.generations += 1;
        let prepared = self.oracle.prepared.get(&generation).cloned();
        match &prepared {
            None => self.judge_number(generation),
            Some(those) if those != members => {
                self.accuse("other_members", || {
                    format!("generation {generation} was prepared for {those:?}: {members:?}")
                });
            }
            Some(_) => {
                self.fired.switched += 1;
                let before = self.oracle.newest().map(|(before, _)| before).unwrap_or_default();
                if before >= generation {
                    self.accuse("generation_reused", || format!("generation {generation} after {before}"));
                }
                let further = self.oracle.commits.iter().rev().find(|&&(of, step)| of == before && step >= start);
                if let Some(&(_, step)) = further {
                    self.accuse("gone_over_too_early", || {
                        format!("{before} has done step {step}, {generation} starts at {start}")
                    });
                }
            }
        }
        if start > self.oracle.next_record {
            let next = self.oracle.next_record;
            self.accuse("unrecorded_steps", || {
                format!("generation {generation} starts at step {start}, the ledger ends before step {next}")
            });
        }
        let formed = &self.oracle.formed;
        let survives = |of: Generation, step: Step| formed.range(of.next()..).all(|(_, f)| f.start >= step);
        // A step that nobody who is there can tell of has no place in the ledger, and weights with it in them none in the run.
        let is_there = |w: &&super::worker::Worker| w.peer.member().is_some_and(|member| members.contains(&member));
        let told = |step: u64| self.workers.values().filter(is_there).any(|w| w.peer.owes(Step(step)));
        let has_a_place = |next: Step| (self.oracle.next_record.0..next.0).all(told);
        let held = |w: &super::worker::Worker| Some((w.peer.member()?, w.trainer.next()?, w.trainer.made_in));
        let further: Vec<_> = self
            .workers
            .values()
            .filter_map(held)
            // One that was prepared may have trained before its record was written.
            .filter(|&(_, next, made_in)| made_in < generation && has_a_place(next))
            .filter(|&(member, next, made_in)| members.contains(&member) && next > start && survives(made_in, next))
            .collect();
        if let StateSource::Manifest(key) = source {
            let named = Manifest::parse_key(key).is_some_and(|(step, of)| survives(of, step));
            if !named || !self.store.objects.contains_key(key) {
                self.accuse("dead_manifest", || format!("generation {generation} starts from {key}"));
            }
        }
        if !further.is_empty() {
            self.accuse("state_thrown_away", || format!("generation {generation} starts at {start}: {further:?}"));
        }
        let redone = if prepared.is_some() { 0 } else { self.oracle.tip.0.saturating_sub(start.0) };
        if matches!(source, StateSource::Member(_)) && redone <= 1 {
            self.fired.redone += redone;
        } else {
            self.fired.lost += redone;
        }
        self.oracle.tip = if prepared.is_some() { self.oracle.tip.max(start) } else { start };
        self.oracle.next_record = self.oracle.next_record.min(start);
        self.oracle.formed.insert(generation, Formed { start, members: members.to_vec() });
    }

    /// No generation has had that number.
    fn judge_number(&mut self, generation: Generation) {
        let formed = self.oracle.formed.keys().next_back();
        let used = formed.max(self.oracle.prepared.keys().next_back()).copied();
        if let Some(before) = used.filter(|&before| before >= generation) {
            self.accuse("generation_reused", || format!("generation {generation} after {before}"));
        }
    }

    fn judge_step(&mut self, record: &StepRecord) {
        let StepRecord { step, generation, .. } = *record;
        let newest = self.oracle.formed.last_key_value().map(|(&g, _)| g);
        let expected = self.oracle.next_record;
        if newest != Some(generation) {
            self.accuse("stale_record", || format!("step {step} of generation {generation}, {newest:?} stands"));
        }
        if step != expected {
            self.accuse("record_out_of_order", || format!("step {step}, expected {expected}"));
        }
        if !self.oracle.commits.contains(&(generation, step)) {
            self.accuse("recorded_not_committed", || format!("step {step} of generation {generation}"));
        }
        self.oracle.next_record = step.next();
    }

    fn judge_manifest(&mut self, key: &str, body: &[u8]) {
        let Some((manifest, state)) = state_in(body) else {
            return self.accuse("torn_manifest", || format!("{key}: {:?}", String::from_utf8_lossy(body)));
        };
        let truth = self.oracle.truth(&self.setup, manifest.step);
        if state != truth {
            self.accuse("wrong_manifest", || format!("{key} names {state:?}, the truth is {truth:?}"));
        }
        let recorded = self.oracle.records.iter().filter_map(|record| match record {
            Record::Step(step) if step.generation == manifest.generation => Some(step.step.next()),
            Record::Formed { generation, start_step, .. } if *generation == manifest.generation => Some(*start_step),
            Record::Step(_)
            | Record::Formed { .. }
            | Record::Prepared { .. }
            | Record::Segment { .. }
            | Record::Opened { .. }
            | Record::Lost { .. }
            | Record::Left { .. }
            | Record::Checkpoint { .. }
            | Record::Closed { .. } => None,
        });
        let recorded = recorded.max();
        if recorded < Some(manifest.step) {
            self.accuse("manifest_before_records", || format!("{key}, the ledger ends at {recorded:?}"));
        }
    }

    /// Whether a worker has the place that it thinks it has.
    pub(super) fn judge_member(&mut self, id: WorkerId, generation: Generation) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(stint) = &worker.trainer.stint else { return };
        let members = stint.form.members.to_vec();
        let formed = self.oracle.formed.get(&generation).map(|f| f.members.clone());
        let formed = formed.or_else(|| self.oracle.prepared.get(&generation).cloned());
        if formed.as_ref() != Some(&members) {
            self.accuse("unclaimed_generation", || {
                format!("{id} trains in generation {generation} of {members:?}, the ledger has {formed:?}")
            });
        }
    }

    /// A rank's optimizer has run.
    pub(super) fn judge_commit(&mut self, id: WorkerId, generation: Generation, step: Step, state: State) {
        self.log(|| format!("{id} commits step {step} of generation {generation}"));
        let truth = self.oracle.truth(&self.setup, state.next);
        if state != truth {
            self.accuse("wrong_weights", || format!("{id} holds {state:?}, the truth is {truth:?}"));
        }
        self.oracle.commits.insert((generation, step));
        let newest = self.oracle.newest().map(|(newest, _)| newest);
        // One that was prepared is the newest as soon as its ranks are in it.
        if newest.is_none_or(|newest| newest <= generation) {
            self.note_commit();
            self.oracle.tip = self.oracle.tip.max(step.next());
        } else {
            self.fired.zombies += 1;
        }
    }

    /// The run is over.
    pub(super) fn judge_end(&mut self) {
        if self.oracle.violation.is_some() {
            return;
        }
        let (order, seed) = (self.setup.order(), self.setup.seed);
        let (steps, global_batch) = (self.setup.steps, self.setup.global_batch());
        let (dataset_digest, origins) = (DATASET.into(), Setup::origins());
        let plan = AuditPlan { order, steps, global_batch, seed, dataset_digest, origins };
        let verdict = audit(&self.oracle.records, plan);
        self.fired.steps += verdict.steps;
        if verdict.evidence.as_planned < verdict.steps && verdict.is_clean() {
            self.accuse("no_evidence", || format!("{:?} of {} steps", verdict.evidence, verdict.steps));
        }
        if !verdict.is_clean() {
            self.accuse("audit", || format!("{:?}", verdict.findings));
        }
        if verdict.steps != self.setup.steps {
            let steps = self.setup.steps;
            self.accuse("short", || format!("{} of {steps} steps are in the ledger", verdict.steps));
        }
        let last = Step(self.setup.steps);
        let survives = |of: Generation| self.oracle.formed.range(of.next()..).all(|(_, f)| f.start >= last);
        if !self.store.manifests().iter().any(|&(step, of)| step == last && survives(of)) {
            self.accuse("no_last_checkpoint", || format!("there is none of step {last}"));
        }
    }
}

//! The audit against itself done plainly: every record kept, every position located on its own, every row counted.
//! Random ledgers full of faults, and one as long as a day, must get the same verdict from both.

use super::*;
use crate::ids::{Generation, MemberId, Rank};
use crate::ledger::{History, Losses, StateSource, StepRecord};
use crate::order::DatasetShape;
use crate::rng::{Draws, Use};
use std::collections::BTreeSet;

/// How often each row was used, and the counts and findings of it, none left out.
struct Plain {
    plan: AuditPlan,
    times: BTreeMap<u64, Vec<u32>>,
    epochs: BTreeMap<u64, EpochAudit>,
    findings: Vec<Finding>,
}

impl Plain {
    fn audit(records: &[Record], plan: AuditPlan) -> Audit {
        let mut plain = Self { plan, times: BTreeMap::new(), epochs: BTreeMap::new(), findings: Vec::new() };
        let history = History::replay(records);
        for record in records {
            plain.opened(record);
        }
        for &(before, after) in &history.reused {
            plain.findings.push(Finding::GenerationReused { before, after });
        }
        let survivors: Vec<&StepRecord> = history.steps.values().flatten().collect();
        survivors.iter().for_each(|record| plain.step(record));
        let end = history.steps.keys().next_back().map_or(0, |s| s.0 + 1);
        let missing = (0..end).map(Step).filter(|s| !history.steps.contains_key(s));
        plain.findings.extend(missing.map(Finding::StepMissing));
        plain.close(end);
        let by_position = |record: &&StepRecord| {
            let mut substitutions = record.substitutions.clone();
            substitutions.sort_by_key(|s| s.position);
            substitutions
        };
        Audit {
            steps: history.steps.len() as u64,
            redone: history.redone,
            losses: history.losses,
            left: records.iter().filter(|r| matches!(r, Record::Left { .. })).count() as u64,
            generations: records.iter().filter(|r| matches!(r, Record::Formed { .. })).count() as u64,
            unreported: survivors.iter().filter(|s| !s.unreported.is_empty()).count() as u64,
            substitutions: survivors.iter().flat_map(by_position).collect(),
            recovered: Vec::new(),
            evidence: EvidenceAudit::default(),
            epochs: plain.epochs,
            findings: plain.findings,
        }
    }

    fn opened(&mut self, record: &Record) {
        let Record::Opened { dataset_digest, seed, global_batch, .. } = record else { return };
        let plan = &self.plan;
        let all = [
            ("dataset", plan.dataset_digest.clone(), dataset_digest.clone()),
            ("seed", plan.seed.to_string(), seed.to_string()),
            ("global batch", plan.global_batch.to_string(), global_batch.to_string()),
        ];
        let changed = all.into_iter().filter(|(_, expected, found)| expected != found);
        self.findings.extend(changed.map(|(what, expected, found)| Finding::PlanChanged { what, expected, found }));
    }

    fn step(&mut self, record: &StepRecord) {
        let (step, batch, found) = (record.step, u64::from(self.plan.global_batch), record.first_position);
        let expected = step.0 * batch;
        if (found, record.samples) != (expected, batch) {
            self.findings.push(Finding::WrongPositions { step, expected, found, samples: record.samples });
        }
        let positions = found..found + record.samples.min(2 * batch);
        for s in &record.substitutions {
            let expected = positions.contains(&s.position).then(|| self.plan.order.locate(s.position));
            if expected != Some(s.wanted) {
                let (position, found) = (s.position, s.wanted);
                self.findings.push(Finding::WrongSubstitution { step, position, found, expected });
            }
        }
        for position in positions {
            let sample = self.plan.order.locate(position);
            let row = self.plan.order.row_number(sample) as usize;
            let rows = self.plan.order.epoch_len() as usize;
            let times = &mut self.times.entry(sample.epoch).or_insert_with(|| vec![0; rows])[row];
            let epoch = self.epochs.entry(sample.epoch).or_default();
            *times += 1;
            if *times > 1 {
                epoch.doubled += 1;
                self.findings.push(Finding::Doubled(sample));
            } else if record.substitutions.iter().any(|s| s.position == position) {
                epoch.substituted += 1;
            } else {
                epoch.once += 1;
            }
        }
    }

    fn close(&mut self, steps: u64) {
        for position in 0..steps * u64::from(self.plan.global_batch) {
            let sample = self.plan.order.locate(position);
            let row = self.plan.order.row_number(sample) as usize;
            let epoch = self.epochs.entry(sample.epoch).or_default();
            epoch.expected += 1;
            if self.times.get(&sample.epoch).is_none_or(|t| t[row] == 0) {
                epoch.missing += 1;
                self.findings.push(Finding::Missing(sample));
            }
        }
    }
}

fn kind(finding: &Finding) -> &'static str {
    match finding {
        Finding::Missing(_) => "missing",
        Finding::Doubled(_) => "doubled",
        Finding::StepMissing(_) => "step missing",
        Finding::WrongPositions { .. } => "wrong positions",
        Finding::WrongSubstitution { expected: Some(_), .. } => "another row replaced",
        Finding::WrongSubstitution { expected: None, .. } => "another step's row replaced",
        Finding::FedOtherwise { .. } => "fed otherwise",
        Finding::DrawnOtherwise(_) => "drawn otherwise",
        Finding::GenerationReused { .. } => "generation reused",
        Finding::PlanChanged { .. } => "plan changed",
        Finding::StepBeyond { .. } => "step beyond",
    }
}

fn of_kind(audit: &Audit, wanted: &str) -> Vec<String> {
    let mut said: Vec<String> = audit.findings.iter().filter(|f| kind(f) == wanted).map(ToString::to_string).collect();
    said.sort();
    said
}

/// Audits both ways and demands the same verdict; of each kind of finding as many as are named.
fn same(records: &[Record], plan: AuditPlan, what: &str) -> Audit {
    let quick = audit(records, plan.clone());
    let plain = Plain::audit(records, plan);
    let kinds: BTreeSet<_> = plain.findings.iter().chain(&quick.findings).map(kind).collect();
    for kind in kinds {
        let (named, all) = (of_kind(&quick, kind), of_kind(&plain, kind));
        assert_eq!(named.len(), all.len().min(NAMED_MAX), "{what}: {kind}");
        if named.len() == all.len() {
            assert_eq!(named, all, "{what}: {kind}");
        } else {
            assert!(named.iter().all(|n| all.binary_search(n).is_ok()), "{what}: {kind}");
        }
    }
    assert_eq!(quick, Audit { findings: quick.findings.clone(), ..plain }, "{what}");
    quick
}

fn plan(seed: u64, shape: DatasetShape, window: u32, global_batch: u32) -> AuditPlan {
    let order = SampleOrder::new(seed, shape, window).expect("has rows");
    AuditPlan { order, steps: u64::MAX, global_batch, seed, dataset_digest: "d".into(), origins: Vec::new() }
}

fn step(number: u64, batch: u64) -> StepRecord {
    StepRecord {
        step: Step(number),
        generation: Generation(1),
        world: 2,
        first_position: number * batch,
        samples: batch,
        losses: Losses::default(),
        lr: 0.0,
        seconds: 0.0,
        substitutions: vec![],
        unreported: vec![],
        evidence: None,
    }
}

fn substitution(order: &mut SampleOrder, position: u64) -> Substitution {
    let wanted = order.locate(position);
    Substitution { position, wanted, used: order.substitute(wanted, 1), reason: "corrupt".into() }
}

fn formed(generation: u64, start: u64) -> Record {
    let members = vec![MemberId(1)];
    let source = StateSource::Member(MemberId(1));
    Record::Formed { generation: Generation(generation), start_step: Step(start), members, source }
}

fn opened(digest: &str, seed: u64, global_batch: u32) -> Record {
    let line = format!(
        r#"{{"record":"opened","run":"r","spec_digest":"","dataset_digest":"{digest}","seed":{seed},"global_batch":{global_batch}}}"#
    );
    serde_json::from_str(&line).expect("what an older coordinator wrote")
}

/// A ledger of some dozens of records, in which much goes wrong.
struct Random {
    draws: Draws,
    plan: AuditPlan,
    next: u64,
    generation: u64,
    records: Vec<Record>,
}

impl Random {
    fn new(seed: u64) -> Self {
        let mut draws = Draws::new(seed, 0, 0, Use::Scene);
        let groups = 1 + draws.below(6);
        let rows = (0..groups).map(|_| draws.below(12) as u32).chain([1]).collect();
        let batch = [1, 6, 24, 50][draws.below(4) as usize];
        let plan = plan(seed, DatasetShape { rows }, 1 + draws.below(3) as u32, batch);
        Self { draws, plan, next: 0, generation: 1, records: Vec::new() }
    }

    fn ledger(mut self) -> (Vec<Record>, AuditPlan) {
        let faults = [0, 2, 20][self.draws.below(3) as usize];
        for _ in 0..10 + self.draws.below(40) {
            if self.draws.below(40) < faults { self.odd() } else { self.regular() }
        }
        (self.records, self.plan)
    }

    fn regular(&mut self) {
        let batch = u64::from(self.plan.global_batch);
        self.records.push(Record::Step(step(self.next, batch)));
        self.next += 1;
    }

    fn odd(&mut self) {
        let batch = u64::from(self.plan.global_batch);
        let mut record = step(self.next, batch);
        match self.draws.below(11) {
            0 => self.next += 1 + self.draws.below(3),
            1 => {
                let again = self.draws.below(self.next + 1);
                self.records.push(Record::Step(step(again, batch)));
            }
            2 | 3 => {
                self.generation += self.draws.below(4).min(1);
                self.next = self.draws.below(self.next + 3);
                self.records.push(formed(self.generation, self.next));
            }
            4 => {
                record.first_position = self.draws.below(record.first_position + 3 * batch);
                self.push(record);
            }
            5 => {
                record.samples = self.draws.below(3 * batch);
                self.push(record);
            }
            6 => {
                record.unreported.push(Rank(1));
                self.push(record);
            }
            7 => self.replaced(record, 0),
            8 => {
                let off = self.draws.below(3);
                self.replaced(record, off);
            }
            9 => {
                self.records.push(opened(["d", "e"][self.draws.below(2) as usize], self.plan.seed, 6));
                let (generation, member) = (Generation(self.generation), MemberId(1));
                self.records.push(Record::Lost { generation, member, cause: "killed".into() });
            }
            _ => {
                self.records.push(Record::Step(step(self.next + 1, batch)));
                self.records.push(Record::Step(step(self.next, batch)));
                self.next += 2;
            }
        }
    }

    fn push(&mut self, record: StepRecord) {
        self.records.push(Record::Step(record));
        self.next += 1;
    }

    /// A step with some substitutions, which are said to be `off` beside their positions.
    fn replaced(&mut self, mut record: StepRecord, off: u64) {
        for _ in 0..1 + self.draws.below(3) {
            let position = record.first_position + self.draws.below(record.samples);
            let mut one = substitution(&mut self.plan.order, position);
            one.position += off;
            record.substitutions.push(one);
        }
        self.push(record);
    }
}

#[test]
fn random_ledgers_get_the_verdict_of_a_plain_audit() {
    let mut fired = BTreeSet::new();
    let (mut clean, mut redone, mut substituted, mut unreported) = (0, 0, 0, 0);
    for seed in 0..2000 {
        let (records, plan) = Random::new(seed).ledger();
        let verdict = same(&records, plan, &format!("seed {seed}"));
        fired.extend(verdict.findings.iter().map(kind));
        clean += u32::from(verdict.is_clean());
        redone += verdict.redone;
        substituted += verdict.epochs.values().map(|e| e.substituted).sum::<u64>();
        unreported += verdict.unreported;
    }
    assert_eq!(fired.len(), 8, "{fired:?}");
    assert!(clean > 100 && redone > 100 && substituted > 100 && unreported > 100);
}

/// Of 2 million samples, in row groups and batches as large as real ones, some steps are lost, doubled, shifted, redone
/// and replaced in.
#[test]
fn a_long_ledger_gets_the_verdict_of_a_plain_audit() {
    let batch = 4096;
    let plan = plan(9, DatasetShape { rows: vec![1000; 600] }, 64, batch as u32);
    let mut records = vec![opened("d", 9, batch as u32), formed(1, 0)];
    records.extend((0..300).map(|s| Record::Step(step(s, batch))));
    records.push(formed(2, 250));
    records.extend((250..490).map(|s| Record::Step(step(s, batch))));
    let at = |s: usize| if s < 250 { s + 2 } else { s + 53 };
    let clean = same(&records, plan.clone(), "whole");
    assert!(clean.is_clean(), "{:?}", clean.findings);
    assert_eq!((clean.steps, clean.redone, clean.generations), (490, 50, 2));

    let bad: Vec<u64> = (0..40).map(|i| 100 * batch + i * 97).collect();
    let mut order = plan.order.clone();
    let Record::Step(replaced) = &mut records[at(100)] else { panic!("a step") };
    replaced.substitutions.extend(bad.iter().map(|&position| substitution(&mut order, position)));
    let with_substitutes = same(&records, plan.clone(), "replaced");
    assert!(with_substitutes.is_clean(), "{:?}", with_substitutes.findings);
    assert_eq!(with_substitutes.substitutions.len(), 40);

    let Record::Step(shifted) = &mut records[at(300)] else { panic!("a step") };
    shifted.first_position += 1;
    records.remove(at(400));
    records.push(Record::Step(step(20, batch)));
    let verdict = same(&records, plan, "faulty");
    let sum = |of: fn(&EpochAudit) -> u64| verdict.epochs.values().map(of).sum::<u64>();
    assert_eq!((sum(|e| e.missing), sum(|e| e.doubled), sum(|e| e.substituted)), (1 + batch, 1 + batch, 40));
    let kinds: BTreeSet<_> = verdict.findings.iter().map(kind).collect();
    assert_eq!(kinds, BTreeSet::from(["missing", "doubled", "step missing", "wrong positions"]));
}

#[test]
fn progress_comes_to_the_end() {
    let mut trail = Trail::default();
    for s in 0..40 {
        trail.apply(&Record::Step(step(s, 100)));
    }
    let mut heard = Vec::new();
    let shape = DatasetShape { rows: vec![700, 300] };
    let _ = prove(&trail, plan(1, shape, 1, 100), None, &mut |done, total| heard.push((done, total)));
    assert!(heard.is_sorted() && heard.len() > 4, "{heard:?}");
    assert_eq!(heard.last(), Some(&(4000, 4000)));
}

#[test]
fn a_long_run_without_trouble_is_one_stretch() {
    let mut trail = Trail::default();
    for s in 0..1000 {
        trail.apply(&Record::Step(step(s, 8)));
    }
    assert_eq!(trail.all().count(), 1);
    trail.apply(&formed(2, 600));
    trail.apply(&Record::Step(step(600, 8)));
    assert_eq!((trail.all().count(), trail.end(), trail.redone), (1, 601, 400));
}

//! The proof that every sample of every epoch was used exactly once: the ledger's surviving steps are replayed
//! against the order of samples, which is a pure function of (seed, dataset), and each row that is missing, doubled
//! or substituted is named.

use crate::ids::{Generation, Step};
use crate::ledger::{History, Record};
use crate::order::{Order, SampleId};
use std::collections::BTreeMap;
use std::fmt;

#[cfg(test)]
mod tests;

/// Findings of one kind that are named; further ones are only counted.
const NAMED_MAX: usize = 100;

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No surviving step used this sample.
    Missing(SampleId),
    /// More than one did.
    Doubled(SampleId),
    /// No surviving record of this step, though later ones exist.
    StepMissing(Step),
    /// A step does not cover the positions that are its own.
    WrongPositions {
        /// Which step.
        step: Step,
        /// First position that it must have.
        expected: u64,
        /// First position that it has.
        found: u64,
        /// Samples that it has.
        samples: u64,
    },
    /// A generation's number did not grow.
    GenerationReused {
        /// The one before.
        before: Generation,
        /// The one that should be higher.
        after: Generation,
    },
    /// A coordinator opened the run with another plan.
    PlanChanged {
        /// What changed.
        what: &'static str,
        /// Its value in the plan.
        expected: String,
        /// Its value in the ledger.
        found: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sample = |s: &SampleId| format!("epoch {}, row group {}, row {}", s.epoch, s.row_group, s.row);
        match self {
            Self::Missing(s) => write!(f, "missing: {}", sample(s)),
            Self::Doubled(s) => write!(f, "doubled: {}", sample(s)),
            Self::StepMissing(s) => write!(f, "step {s} is missing"),
            Self::WrongPositions { step, expected, found, samples } => {
                write!(f, "step {step} should start at position {expected} but has {samples} samples from {found}")
            }
            Self::GenerationReused { before, after } => write!(f, "generation {after} was formed after {before}"),
            Self::PlanChanged { what, expected, found } => {
                write!(f, "the ledger was opened with {what} {found}, the plan says {expected}")
            }
        }
    }
}

/// One epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochAudit {
    /// Samples of the epoch that the run has come to.
    pub expected: u64,
    /// Of these, used exactly once, by themselves.
    pub once: u64,
    /// Used by nobody.
    pub missing: u64,
    /// Used more than once.
    pub doubled: u64,
    /// Bad rows that a ledgered substitute stands for.
    pub substituted: u64,
}

/// The verdict.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// By epoch.
    pub epochs: BTreeMap<u64, EpochAudit>,
    /// Steps of the surviving history.
    pub steps: u64,
    /// Steps done and cut off again.
    pub redone: u64,
    /// Members lost.
    pub losses: u64,
    /// The highest generation.
    pub generation: Option<Generation>,
    /// Steps at which a lost rank's substitutions are unknown.
    pub unreported: u64,
    /// What should not be; of each kind at most a hundred are named, [`EpochAudit`] has all counts.
    pub findings: Vec<Finding>,
}

impl Audit {
    /// Whether every sample was used exactly once or has its substitute.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.epochs.values().all(|e| e.missing == 0 && e.doubled == 0)
    }
}

/// What the run file and the index say.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The order of samples.
    pub order: Order,
    /// Samples in a step.
    pub global_batch: u32,
    /// Seed of the run.
    pub seed: u64,
    /// Version of the dataset.
    pub dataset_digest: String,
}

/// Replays `records` against `plan`.
#[must_use]
pub fn audit<'a>(records: impl IntoIterator<Item = &'a Record> + Clone, plan: Plan) -> Audit {
    let history = History::replay(records.clone());
    let mut findings = opened_as_planned(records, &plan);
    findings.extend(
        history.reused.iter().map(|&(before, after)| Finding::GenerationReused { before, after }).take(NAMED_MAX),
    );
    let mut replay = Replay::new(plan);
    for (&step, copies) in &history.steps {
        for copy in copies {
            replay.step(step, copy);
        }
    }
    let end = history.steps.keys().next_back().map_or(0, |s| s.0 + 1);
    let steps_missing = (0..end).map(Step).filter(|s| !history.steps.contains_key(s)).map(Finding::StepMissing);
    findings.extend(steps_missing.take(NAMED_MAX));
    let unreported = history.steps.values().flatten().filter(|s| !s.unreported.is_empty()).count() as u64;
    replay.close(end);
    findings.extend(replay.findings);
    Audit {
        epochs: replay.epochs,
        steps: history.steps.len() as u64,
        redone: history.redone,
        losses: history.losses,
        generation: history.generation,
        unreported,
        findings,
    }
}

fn opened_as_planned<'a>(records: impl IntoIterator<Item = &'a Record>, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut expect = |what, expected: String, found: String| {
        if expected != found && findings.len() < NAMED_MAX {
            findings.push(Finding::PlanChanged { what, expected, found });
        }
    };
    for record in records {
        if let Record::Opened { dataset_digest, seed, global_batch, .. } = record {
            expect("dataset", plan.dataset_digest.clone(), dataset_digest.clone());
            expect("seed", plan.seed.to_string(), seed.to_string());
            expect("global batch", plan.global_batch.to_string(), global_batch.to_string());
        }
    }
    findings
}

/// Marks each sample that a step used, one bit a row.
struct Replay {
    plan: Plan,
    epochs: BTreeMap<u64, EpochAudit>,
    used: BTreeMap<u64, Vec<u64>>,
    findings: Vec<Finding>,
    doubled: usize,
}

impl Replay {
    fn new(plan: Plan) -> Self {
        Self { plan, epochs: BTreeMap::new(), used: BTreeMap::new(), findings: Vec::new(), doubled: 0 }
    }

    fn step(&mut self, step: Step, record: &crate::ledger::StepRecord) {
        let batch = u64::from(self.plan.global_batch);
        let expected = step.0 * batch;
        if (record.first_position, record.samples) != (expected, batch) && self.findings.len() < NAMED_MAX {
            self.findings.push(Finding::WrongPositions {
                step,
                expected,
                found: record.first_position,
                samples: record.samples,
            });
        }
        let mut replaced = record.substitutions.iter().map(|s| s.position).collect::<Vec<_>>();
        replaced.sort_unstable();
        let from = record.first_position;
        for position in from..from.saturating_add(record.samples.min(2 * batch)) {
            self.position(position, replaced.binary_search(&position).is_ok());
        }
    }

    fn position(&mut self, position: u64, replaced: bool) {
        let sample = self.plan.order.locate(position);
        let row = self.plan.order.row_number(sample);
        let (word, bit) = ((row / 64) as usize, 1u64 << (row % 64));
        let words = self.plan.order.epoch_len().div_ceil(64) as usize;
        let used = self.used.entry(sample.epoch).or_insert_with(|| vec![0; words]);
        let epoch = self.epochs.entry(sample.epoch).or_default();
        if used[word] & bit == 0 {
            used[word] |= bit;
            if replaced {
                epoch.substituted += 1;
            } else {
                epoch.once += 1;
            }
            return;
        }
        epoch.doubled += 1;
        if self.doubled < NAMED_MAX {
            self.doubled += 1;
            self.findings.push(Finding::Doubled(sample));
        }
    }

    /// Looks for samples that nobody used among the first `steps` steps.
    fn close(&mut self, steps: u64) {
        let end = steps * u64::from(self.plan.global_batch);
        let per_epoch = self.plan.order.epoch_len();
        for epoch in 0..end.div_ceil(per_epoch) {
            let first = epoch * per_epoch;
            let expected = (end - first).min(per_epoch);
            let counts = self.epochs.entry(epoch).or_default();
            counts.expected = expected;
            let marked = counts.once + counts.substituted;
            if marked < expected {
                counts.missing = expected - marked;
                self.name_missing(epoch, first..first + expected);
            }
        }
    }

    fn name_missing(&mut self, epoch: u64, positions: std::ops::Range<u64>) {
        let used = self.used.get(&epoch);
        let mut named = 0;
        for position in positions {
            let sample = self.plan.order.locate(position);
            let row = self.plan.order.row_number(sample);
            let marked = used.is_some_and(|u| u[(row / 64) as usize] & (1u64 << (row % 64)) != 0);
            if !marked {
                self.findings.push(Finding::Missing(sample));
                named += 1;
            }
            if named == NAMED_MAX {
                return;
            }
        }
    }
}

//! What an audit keeps of a ledger: the surviving steps, as stretches of steps that follow upon each other. A run of
//! any length without trouble is one stretch.

use crate::evidence::Evidence;
use crate::ids::Step;
use crate::ledger::{History, Record, StepRecord, Substitution};
use std::collections::BTreeMap;

/// A ledger, folded record by record.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// Surviving stretches by their first step, without overlap; where a step has several records, each is a stretch
    /// of one step.
    pub(super) stretches: BTreeMap<u64, Vec<Stretch>>,
    /// All else that the ledger says; its steps are never filled.
    pub(super) history: History,
    /// How coordinators opened the run.
    pub(super) opened: Vec<Premise>,
    /// Step records that were cut off.
    pub(super) redone: u64,
    /// Generations formed.
    pub(super) generations: u64,
    /// Members that left by their own wish.
    pub(super) left: u64,
}

/// What a coordinator took for the plan.
#[derive(Debug, Clone)]
pub(super) struct Premise {
    pub(super) dataset_digest: String,
    pub(super) seed: u64,
    pub(super) global_batch: u32,
}

/// Consecutive steps, each with as many samples, that follow upon each other. A step with something to tell stands alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stretch {
    pub(super) first_step: u64,
    pub(super) steps: u64,
    pub(super) first_position: u64,
    /// Samples of each step.
    pub(super) samples: u64,
    /// By position.
    pub(super) substitutions: Vec<Substitution>,
    /// Whether a rank was lost before it reported the step.
    pub(super) unreported: bool,
    /// What each step was fed; empty where there is no evidence of it.
    pub(super) evidence: Vec<Evidence>,
}

impl Trail {
    /// Adds the next record.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Step(step) => return self.step(step),
            Record::Formed { start_step, .. } => {
                self.generations += 1;
                self.cut(start_step.0);
            }
            Record::Opened { dataset_digest, seed, global_batch, .. } => self.opened.push(Premise {
                dataset_digest: dataset_digest.clone(),
                seed: *seed,
                global_batch: *global_batch,
            }),
            Record::Left { .. } => self.left += 1,
            Record::Segment { .. }
            | Record::Prepared { .. }
            | Record::Lost { .. }
            | Record::Checkpoint { .. }
            | Record::Closed { .. } => {}
        }
        self.history.apply(record);
    }

    /// The version of the dataset that the run was begun on; `None` if no coordinator opened it.
    #[must_use]
    pub fn dataset_digest(&self) -> Option<&str> {
        Some(&self.opened.first()?.dataset_digest)
    }

    /// One past the last surviving step.
    pub(super) fn end(&self) -> u64 {
        self.all().next_back().map_or(0, Stretch::end)
    }

    /// All stretches, by step; the records of one step in the order in which they were written.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Stretch> {
        self.stretches.values().flatten()
    }

    fn step(&mut self, record: &StepRecord) {
        let new = Stretch::of(record);
        let step = new.first_step;
        let before = self.stretches.range_mut(..=step).next_back();
        if let Some([one]) = before.map(|(_, s)| s.as_mut_slice())
            && one.is_followed_by(&new)
        {
            one.steps += 1;
            one.evidence.extend(&new.evidence);
            return;
        }
        self.stand_alone(step);
        self.stretches.entry(step).or_default().push(new);
    }

    /// Takes back all steps from `start` on.
    fn cut(&mut self, start: u64) {
        self.stand_alone(start);
        let cut = self.stretches.split_off(&start);
        self.redone += cut.values().flatten().map(|s| s.steps).sum::<u64>();
    }

    /// Makes `step` a stretch of its own, if it is part of one.
    fn stand_alone(&mut self, step: u64) {
        let Some((_, around)) = self.stretches.range_mut(..=step).next_back() else { return };
        let [one] = around.as_mut_slice() else { return };
        if one.end() <= step {
            return;
        }
        let after = one.split_off(step + 1);
        let alone = one.split_off(step);
        for part in [alone, after].into_iter().flatten() {
            self.stretches.insert(part.first_step, vec![part]);
        }
    }
}

impl Stretch {
    fn of(record: &StepRecord) -> Self {
        let mut substitutions = record.substitutions.clone();
        substitutions.sort_by_key(|s| s.position);
        Self {
            first_step: record.step.0,
            steps: 1,
            first_position: record.first_position,
            samples: record.samples,
            substitutions,
            unreported: !record.unreported.is_empty(),
            evidence: record.evidence.into_iter().collect(),
        }
    }

    /// One past its last step.
    pub(super) fn end(&self) -> u64 {
        self.first_step.saturating_add(self.steps)
    }

    fn is_plain(&self) -> bool {
        self.substitutions.is_empty() && !self.unreported
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        let position = self.first_position.checked_add(self.steps.saturating_mul(self.samples));
        self.is_plain()
            && next.is_plain()
            && (self.end(), self.samples) == (next.first_step, next.samples)
            && position == Some(next.first_position)
            && self.evidence.is_empty() == next.evidence.is_empty()
    }

    /// Takes its steps from `step` on out of it; `None` if there are none, or no others.
    fn split_off(&mut self, step: u64) -> Option<Self> {
        let kept = step.checked_sub(self.first_step).filter(|kept| (1..self.steps).contains(kept))?;
        let evidence = self.evidence.split_off((kept as usize).min(self.evidence.len()));
        let rest = Self {
            first_step: step,
            steps: self.steps - kept,
            first_position: self.first_position + kept * self.samples,
            samples: self.samples,
            substitutions: self.substitutions.clone(),
            unreported: self.unreported,
            evidence,
        };
        self.steps = kept;
        Some(rest)
    }

    /// Whether its steps have just the positions that are their own.
    pub(super) fn is_as_planned(&self, global_batch: u64) -> bool {
        self.samples == global_batch && self.first_step.checked_mul(global_batch) == Some(self.first_position)
    }

    /// Each of its steps and that step's first position.
    pub(super) fn each(&self) -> impl Iterator<Item = (Step, u64)> {
        (0..self.steps).map(|i| (Step(self.first_step + i), self.first_position + i * self.samples))
    }
}

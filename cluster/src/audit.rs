//! The proof that every sample of every epoch was used exactly once: the ledger's surviving steps are replayed
//! against the order of samples, which is a pure function of (seed, dataset), and each row that is missing, doubled
//! or substituted is named.
//!
//! A [`Trail`] takes in the ledger record by record and keeps little of it; [`prove`] marks every row of every epoch.

mod finding;
mod replay;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_plain;
mod trail;

use crate::ids::Step;
use crate::ledger::{Record, Substitution};
use crate::order::SampleOrder;
use finding::Findings;
use replay::Replay;
use std::collections::BTreeMap;
use trail::Stretch;

pub use finding::{Finding, NAMED_MAX};
pub use trail::Trail;

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
    /// Generations formed.
    pub generations: u64,
    /// Members that left by their own wish.
    pub left: u64,
    /// Steps at which a lost rank's substitutions are unknown.
    pub unreported: u64,
    /// Substitutions of the surviving steps, by step.
    pub substitutions: Vec<Substitution>,
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
pub struct AuditPlan {
    /// The order of samples.
    pub order: SampleOrder,
    /// Steps of the run: no record may speak of a later one.
    pub steps: u64,
    /// Samples in a step.
    pub global_batch: u32,
    /// Seed of the run.
    pub seed: u64,
    /// Version of the dataset.
    pub dataset_digest: String,
}

/// Replays `records` against `plan`.
#[must_use]
pub fn audit<'a>(records: impl IntoIterator<Item = &'a Record>, plan: AuditPlan) -> Audit {
    let mut trail = Trail::default();
    for record in records {
        trail.apply(record);
    }
    prove(&trail, plan, &mut |_, _| {})
}

/// Replays the ledger that `trail` has taken in against `plan`; `progress` hears of samples done, of how many.
#[must_use]
pub fn prove(trail: &Trail, plan: AuditPlan, progress: &mut dyn FnMut(u64, u64)) -> Audit {
    let mut findings = Findings::default();
    opened_as_planned(trail, &plan, &mut findings);
    for &(before, after) in &trail.history.reused {
        findings.push(Finding::GenerationReused { before, after });
    }
    steps_in_place(trail, &plan, &mut findings);
    let epochs = Replay::new(plan, &mut findings, progress).run(trail);
    Audit {
        epochs,
        steps: trail.stretches.values().flat_map(|copies| copies.first()).map(|s| s.steps).sum(),
        redone: trail.redone,
        losses: trail.history.losses,
        generations: trail.generations,
        left: trail.left,
        unreported: trail.all().filter(|s| s.unreported).count() as u64,
        substitutions: trail.all().flat_map(|s| &s.substitutions).cloned().collect(),
        findings: findings.named,
    }
}

fn opened_as_planned(trail: &Trail, plan: &AuditPlan, findings: &mut Findings) {
    let mut expect = |what, expected: String, found: String| {
        if expected != found {
            findings.push(Finding::PlanChanged { what, expected, found });
        }
    };
    for opened in &trail.opened {
        expect("dataset", plan.dataset_digest.clone(), opened.dataset_digest.clone());
        expect("seed", plan.seed.to_string(), opened.seed.to_string());
        expect("global batch", plan.global_batch.to_string(), opened.global_batch.to_string());
    }
}

/// Every step is there, on the positions that are its own.
fn steps_in_place(trail: &Trail, plan: &AuditPlan, findings: &mut Findings) {
    let batch = u64::from(plan.global_batch);
    let mut next = 0;
    for (&first, copies) in &trail.stretches {
        let end = copies.iter().map(Stretch::end).max().unwrap_or(first);
        if end > plan.steps {
            findings.push(Finding::StepBeyond { step: Step(first.max(plan.steps)), steps: plan.steps });
        }
        for step in (next..first).take(NAMED_MAX) {
            findings.push(Finding::StepMissing(Step(step)));
        }
        next = end;
        for stretch in copies.iter().filter(|s| !s.is_as_planned(batch)) {
            for (step, found) in stretch.each().take(NAMED_MAX) {
                let expected = step.0.saturating_mul(batch);
                findings.push(Finding::WrongPositions { step, expected, found, samples: stretch.samples });
            }
        }
    }
}

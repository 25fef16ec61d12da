//! The proof that every sample of every epoch was used exactly once: the ledger's surviving steps are replayed
//! against the order of samples, which is a pure function of (seed, dataset), and each row that is missing, doubled
//! or substituted is named. That shows what was meant. Where the ledger holds evidence of what was fed
//! ([`crate::evidence`]), it is computed again from the plan, and each step that was fed otherwise is named.
//!
//! A [`Trail`] takes in the ledger record by record and keeps little of it; [`prove`] marks every row of every epoch.

mod bisect;
mod expect;
mod finding;
mod hidden;
mod replay;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_evidence;
#[cfg(test)]
mod tests_plain;
mod trail;

use crate::evidence::Origin;
use crate::ids::Step;
use crate::ledger::{Record, Substitution};
use crate::order::SampleOrder;
use expect::Expected;
use finding::Findings;
use replay::Replay;
use std::collections::BTreeMap;
use trail::Stretch;

pub use bisect::{OddRow, Oddity, bisect};
pub use expect::DrawnWords;
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

/// What the steps' evidence came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EvidenceAudit {
    /// Surviving step records that hold evidence.
    pub steps: u64,
    /// Of these, fed just the rows of the plan, or the stand-ins for them.
    pub as_planned: u64,
    /// Of these, with just the regions and texts that the plan draws; `None` where nobody looked.
    pub drawn: Option<u64>,
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
    /// Substitutions that lost ranks did not tell of, and that the evidence of their steps shows.
    pub recovered: Vec<Substitution>,
    /// What was fed.
    pub evidence: EvidenceAudit,
    /// What should not be; of each kind at most a hundred are named, [`EpochAudit`] has all counts.
    pub findings: Vec<Finding>,
}

impl Audit {
    /// Whether every sample was used exactly once or has its substitute.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.epochs.values().all(|e| e.missing == 0 && e.doubled == 0)
    }

    /// The verdict in a few words, and what it rests on.
    #[must_use]
    pub fn words(&self) -> String {
        if !self.is_clean() {
            return "NOT clean".into();
        }
        if self.steps == 0 {
            return "clean: no step was done".into();
        }
        let replaced = !(self.substitutions.is_empty() && self.recovered.is_empty());
        let once = if replaced { "once, or its substitute" } else { "once" };
        match self.evidence.steps {
            0 => format!("clean, as the plan replayed: every sample {once}; no evidence of what was fed"),
            held if held < self.steps => {
                format!(
                    "clean: every sample was used exactly {once}; {held} of {} steps hold evidence of it",
                    self.steps
                )
            }
            _ => format!("clean: every sample was used exactly {once}"),
        }
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
    /// Where the first row of each row group lies, in index order ([`crate::index::SplitIndex::origins`]).
    pub origins: Vec<Origin>,
}

/// Replays `records` against `plan`.
#[must_use]
pub fn audit<'a>(records: impl IntoIterator<Item = &'a Record>, plan: AuditPlan) -> Audit {
    let mut trail = Trail::default();
    for record in records {
        trail.apply(record);
    }
    prove(&trail, plan, None, &mut |_, _| {})
}

/// Replays the ledger that `trail` has taken in against `plan`; `drawn` says what the plan draws of a row, if somebody knows;
/// `progress` hears of samples done, of how many.
#[must_use]
pub fn prove<'d>(
    trail: &Trail,
    plan: AuditPlan,
    drawn: Option<&'d mut DrawnWords<'d>>,
    progress: &mut dyn FnMut(u64, u64),
) -> Audit {
    let mut findings = Findings::default();
    opened_as_planned(trail, &plan, &mut findings);
    for &(before, after) in &trail.history.reused {
        findings.push(Finding::GenerationReused { before, after });
    }
    steps_in_place(trail, &plan, &mut findings);
    let unsettled = trail.all().filter(|s| s.unreported && s.evidence.is_empty()).count() as u64;
    let expected = Expected::new(&plan, drawn);
    let (mut epochs, expected) = Replay::new(plan, expected, &mut findings, progress).run(trail);
    for epoch in expected.recovered.iter().map(|s| s.wanted.epoch) {
        if let Some(epoch) = epochs.get_mut(&epoch) {
            (epoch.once, epoch.substituted) = (epoch.once - 1, epoch.substituted + 1);
        }
    }
    Audit {
        epochs,
        steps: trail.stretches.values().flat_map(|copies| copies.first()).map(|s| s.steps).sum(),
        redone: trail.redone,
        losses: trail.history.losses,
        generations: trail.generations,
        left: trail.left,
        unreported: unsettled,
        substitutions: trail.all().flat_map(|s| &s.substitutions).cloned().collect(),
        recovered: expected.recovered,
        evidence: expected.counts,
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

//! Step reports of all ranks -> one ledger record per step, in order.

use super::messages::StepReport;
use crate::ids::{Rank, Step};
use crate::ledger::{StepRecord, Substitution};
use std::collections::{BTreeMap, BTreeSet};

/// One step that at least one rank has committed.
#[derive(Debug)]
struct Pending {
    first: StepReport,
    /// Who told it; `None`: somebody who has no rank any more.
    first_rank: Option<Rank>,
    reported: BTreeSet<Rank>,
    substitutions: Vec<Substitution>,
}

/// Steps that not every rank has reported yet. Ranks run in step, so there are never more than a few.
#[derive(Debug)]
pub(super) struct Steps {
    pending: BTreeMap<Step, Pending>,
    /// The first step that has no record.
    next: Step,
}

impl Steps {
    pub(super) fn new(next: Step) -> Self {
        Self { pending: BTreeMap::new(), next }
    }

    /// A generation starts at `step`: records at or beyond it are cut off, and will be written anew.
    pub(super) fn cut_back(&mut self, step: Step) {
        debug_assert!(self.pending.is_empty(), "the steps of the last generation were recorded");
        self.next = step;
    }

    /// Whether nobody has reported `step` yet.
    pub(super) fn is_news(&self, step: Step) -> bool {
        step >= self.next && !self.pending.contains_key(&step)
    }

    /// Takes one rank's report; returns the steps that are now complete, in order. A step that has its record already
    /// (a worker tells again what it is not sure was heard) is nothing new.
    pub(super) fn report(&mut self, rank: Rank, world: u32, report: StepReport) -> Vec<(StepReport, StepRecord)> {
        let step = report.step;
        if step < self.next {
            return Vec::new();
        }
        let substitutions = report.substitutions.clone();
        let pending = self.pending.entry(step).or_insert_with(|| Pending {
            first: report,
            first_rank: Some(rank),
            reported: BTreeSet::new(),
            substitutions: Vec::new(),
        });
        if pending.reported.insert(rank) {
            pending.substitutions.extend(substitutions);
        }
        let mut done = Vec::new();
        while let Some(entry) = self.pending.first_entry() {
            if entry.get().reported.len() < world as usize {
                break;
            }
            self.next = entry.key().next();
            done.push(entry.remove().close(world));
        }
        done
    }

    /// Takes a step from somebody who has no rank any more, if it is the next that nobody has told of.
    pub(super) fn owed(&mut self, report: StepReport) {
        if report.step == self.first_untold() {
            let (first_rank, reported, substitutions) = (None, BTreeSet::new(), report.substitutions.clone());
            self.pending.insert(report.step, Pending { first: report, first_rank, reported, substitutions });
        }
    }

    /// The first step that nobody has told of: no weights that are further have a place in the ledger.
    pub(super) fn first_untold(&self) -> Step {
        self.pending.last_key_value().map_or(self.next, |(step, _)| step.next())
    }

    /// `rank`, if its digest of the step is not the one that was told first.
    pub(super) fn odd_digest(&self, rank: Rank, report: &StepReport) -> Option<Rank> {
        let first = self.pending.get(&report.step)?;
        let (ours, theirs) = (first.first.digest?, report.digest?);
        (ours != theirs && first.first_rank != Some(rank)).then_some(rank)
    }

    /// The generation is over: what some ranks reported counts, and says whose word is missing.
    pub(super) fn flush(&mut self, world: u32) -> Vec<(StepReport, StepRecord)> {
        if let Some((last, _)) = self.pending.last_key_value() {
            self.next = last.next();
        }
        std::mem::take(&mut self.pending).into_values().map(|p| p.close(world)).collect()
    }
}

impl Pending {
    fn close(mut self, world: u32) -> (StepReport, StepRecord) {
        self.substitutions.sort_by_key(|s| s.position);
        let report = self.first;
        let record = StepRecord {
            step: report.step,
            generation: report.generation,
            world,
            first_position: report.step.0 * report.samples,
            samples: report.samples,
            losses: report.losses.clone(),
            lr: report.lr,
            seconds: report.seconds,
            substitutions: self.substitutions,
            unreported: (0..world).map(Rank).filter(|r| !self.reported.contains(r)).collect(),
            evidence: report.evidence,
        };
        (report, record)
    }
}

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
    /// Ranks of its generation.
    world: u32,
    reported: BTreeSet<Rank>,
    substitutions: Vec<Substitution>,
}

/// Steps that not every rank has reported yet. Ranks run in step, so there are never more than a few.
#[derive(Debug)]
pub(super) struct Steps {
    pending: BTreeMap<Step, Pending>,
    /// The first step that has no record.
    next: Step,
    /// Records from this step on wait: that of the generation which they belong to comes first.
    held_from: Option<Step>,
}

impl Steps {
    pub(super) fn new(next: Step) -> Self {
        Self { pending: BTreeMap::new(), next, held_from: None }
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

    /// Takes the report of one rank of `world`; returns the steps that are now complete, in order. A step that has its
    /// record already (a worker tells again what it is not sure was heard) is nothing new.
    pub(super) fn report(&mut self, rank: Rank, world: u32, report: StepReport) -> Vec<(StepReport, StepRecord)> {
        let step = report.step;
        if step < self.next {
            return Vec::new();
        }
        let substitutions = report.substitutions.clone();
        let pending = self.pending.entry(step).or_insert_with(|| Pending {
            first: report,
            first_rank: Some(rank),
            world,
            reported: BTreeSet::new(),
            substitutions: Vec::new(),
        });
        if pending.reported.insert(rank) {
            pending.substitutions.extend(substitutions);
        }
        self.complete()
    }

    fn complete(&mut self) -> Vec<(StepReport, StepRecord)> {
        let held_from = self.held_from;
        self.close_while(|step, pending| {
            held_from.is_none_or(|from| step < from) && pending.reported.len() >= pending.world as usize
        })
    }

    /// Closes steps from the first that has no record on, as long as they are `due`.
    fn close_while(&mut self, due: impl Fn(Step, &Pending) -> bool) -> Vec<(StepReport, StepRecord)> {
        let mut done = Vec::new();
        while let Some(entry) = self.pending.first_entry() {
            if *entry.key() != self.next || !due(self.next, entry.get()) {
                break;
            }
            self.next = self.next.next();
            done.push(entry.remove().close());
        }
        done
    }

    /// Takes a step from somebody who has no rank any more in its generation of `world` ranks, if it is the next that nobody
    /// has told of.
    pub(super) fn owed(&mut self, world: u32, report: StepReport) {
        if report.step == self.first_untold() {
            let (first_rank, reported, substitutions) = (None, BTreeSet::new(), report.substitutions.clone());
            self.pending.insert(report.step, Pending { first: report, first_rank, world, reported, substitutions });
        }
    }

    /// The first step that nobody has told of: no weights that are further have a place in the ledger.
    pub(super) fn first_untold(&self) -> Step {
        let told = self.pending.keys().zip(self.next.0..).take_while(|(step, next)| step.0 == *next).count();
        Step(self.next.0 + told as u64)
    }

    /// One past the furthest step that anybody has told of.
    pub(super) fn furthest_told(&self) -> Step {
        self.pending.last_key_value().map_or(self.next, |(step, _)| step.next())
    }

    /// Whether a step before those that are held back is told by nobody yet: without it they have no place in the ledger.
    pub(super) fn lacks_one(&self) -> bool {
        self.held_from.is_some_and(|from| self.first_untold() < from)
    }

    /// `rank`, if its digest of the step is not the one that was told first.
    pub(super) fn odd_digest(&self, rank: Rank, report: &StepReport) -> Option<Rank> {
        let first = self.pending.get(&report.step)?;
        let (ours, theirs) = (first.first.digest?, report.digest?);
        (ours != theirs && first.first_rank != Some(rank)).then_some(rank)
    }

    /// Holds back all records from `step` on.
    pub(super) fn hold(&mut self, step: Step) {
        self.held_from = Some(step);
    }

    /// What is not complete yet of the steps before those that are held back, as it is: nobody else will report it.
    pub(super) fn before_held(&mut self) -> Vec<(StepReport, StepRecord)> {
        let held_from = self.held_from;
        self.close_while(|step, _| held_from.is_some_and(|from| step < from))
    }

    /// Holds nothing back any more; what is complete of it.
    pub(super) fn release(&mut self) -> Vec<(StepReport, StepRecord)> {
        self.held_from = None;
        self.complete()
    }

    /// The generation is over: what some ranks reported counts, and says whose word is missing. What stands behind a step that
    /// nobody told has no place in the ledger.
    pub(super) fn flush(&mut self) -> Vec<(StepReport, StepRecord)> {
        let done = self.close_while(|_, _| true);
        self.pending.clear();
        self.held_from = None;
        done
    }
}

impl Pending {
    fn close(mut self) -> (StepReport, StepRecord) {
        let world = self.world;
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

//! Step reports of all ranks -> one ledger record per step, in order.

use super::messages::StepReport;
use crate::ids::{Rank, Step};
use crate::ledger::{StepRecord, Substitution};
use std::collections::{BTreeMap, BTreeSet};

/// One step that at least one rank has committed.
#[derive(Debug)]
struct Pending {
    first: StepReport,
    reported: BTreeSet<Rank>,
    substitutions: Vec<Substitution>,
}

/// Steps that not every rank has reported yet. Ranks run in step, so there are never more than a few.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pending: BTreeMap<Step, Pending>,
}

impl Steps {
    /// Takes one rank's report; returns the steps that are now complete, in order.
    pub(super) fn report(&mut self, rank: Rank, world: u32, report: StepReport) -> Vec<(StepReport, StepRecord)> {
        let step = report.step;
        let substitutions = report.substitutions.clone();
        let pending = self.pending.entry(step).or_insert_with(|| Pending {
            first: report,
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
            done.push(entry.remove().close(world));
        }
        done
    }

    /// The generation is over: what some ranks reported counts, and says whose word is missing.
    pub(super) fn flush(&mut self, world: u32) -> Vec<(StepReport, StepRecord)> {
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
            losses: report.losses,
            lr: report.lr,
            seconds: report.seconds,
            substitutions: self.substitutions,
            unreported: (0..world).map(Rank).filter(|r| !self.reported.contains(r)).collect(),
        };
        (report, record)
    }
}

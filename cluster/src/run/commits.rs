//! The machine of checkpoint commit: parts of one generation in, a manifest's parts out once all ranks have reported.

use super::messages::PartReport;
use crate::commit::PartEntry;
use crate::ids::{Generation, Rank, Step};
use std::collections::{BTreeMap, BTreeSet};

/// Checkpoints of the current generation that are being written.
#[derive(Debug, Default)]
pub(super) struct Commits {
    parts: BTreeMap<Step, BTreeMap<Rank, PartEntry>>,
    /// Asked of the store, not yet answered.
    storing: BTreeSet<(Step, Generation)>,
}

impl Commits {
    /// Takes one rank's part; all parts, by rank, when it was the last one. A part told twice counts once.
    pub(super) fn part(&mut self, world: u32, part: PartReport) -> Option<Vec<PartEntry>> {
        if self.storing.contains(&(part.step, part.generation)) {
            return None;
        }
        let parts = self.parts.entry(part.step).or_default();
        parts.insert(part.entry.rank, part.entry);
        if parts.len() < world as usize {
            return None;
        }
        self.storing.insert((part.step, part.generation));
        self.parts.remove(&part.step).map(|parts| parts.into_values().collect())
    }

    /// The store answered.
    pub(super) fn answered(&mut self, step: Step, generation: Generation) {
        self.storing.remove(&(step, generation));
    }

    /// The furthest checkpoint whose manifest is on its way.
    pub(super) fn storing(&self) -> Option<Step> {
        self.storing.last().map(|&(step, _)| step)
    }

    /// The generation is over: parts without their siblings are of no use.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }
}

//! The objective's view of the other ranks, over the process group. What a rank was asked to do rides along with the first
//! gather, so every rank learns of the highest wish in the same step.

use std::ops::Range;

use pixfleet_cluster::{LaneMap, Rank};
use pixfleet_collective::Group;
use pixfleet_model::objective::Exchange;
use tch::Tensor;

use super::error::TrainError;
use super::switches::Wish;

/// Wishes as numbers.
const WISHES: [(Wish, u8); 3] = [(Wish::Nothing, 0), (Wish::Boundary, 1), (Wish::Checkpoint, 2)];

/// One step's gathers.
pub(crate) struct Peers<'g> {
    group: &'g Group,
    /// Rows of each rank.
    rows: Vec<i64>,
    own: Range<i64>,
    /// Of this rank.
    own_wish: Wish,
    /// What the first gather said: the highest of all ranks'.
    wish: Option<Wish>,
    seconds: f64,
}

impl<'g> Peers<'g> {
    /// For one step; `own_wish` is what this rank was asked.
    pub(crate) fn new(group: &'g Group, lanes: &LaneMap, own_wish: Wish) -> Self {
        let rows_of = |rank: u32| {
            let rows = lanes.rows_of(Rank(rank));
            i64::from(rows.start)..i64::from(rows.end)
        };
        let rows = (0..group.world()).map(rows_of).map(|r| r.end - r.start).collect();
        Self { group, rows, own: rows_of(group.rank()), own_wish, wish: None, seconds: 0.0 }
    }

    /// What all ranks do after this step. Nothing before the first gather.
    pub(crate) fn asked(&self) -> Wish {
        self.wish.unwrap_or_default()
    }

    /// Seconds that this rank has waited in gathers.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }
}

impl Exchange for Peers<'_> {
    type Error = TrainError;

    fn all_gather_rows(&mut self, own: &Tensor) -> Result<Tensor, TrainError> {
        let before = self.group.waited_s();
        let all = self.group.all_gather_rows(own, &self.rows)?;
        self.seconds += self.group.waited_s() - before;
        Ok(all)
    }

    fn aside(&self) -> u8 {
        WISHES.iter().find(|(asked, _)| *asked == self.own_wish).map_or(0, |(_, number)| *number)
    }

    fn heard(&mut self, highest: u8) {
        self.wish = WISHES.iter().filter(|(_, number)| *number <= highest).map(|(asked, _)| *asked).max();
    }

    fn own_rows(&self) -> Range<i64> {
        self.own.clone()
    }

    fn total_rows(&self) -> i64 {
        self.rows.iter().sum()
    }
}

#[cfg(test)]
mod tests;

//! The objective's view of the other ranks, over the process group. What a rank was asked to do and what it fed ride along with
//! the first gather, so every rank learns of the highest wish, and of what the whole batch was fed, in the same step.

use std::ops::Range;

use pixfleet_cluster::{Evidence, LaneMap, Rank};
use pixfleet_collective::Group;
use pixfleet_model::objective::Exchange;
use tch::Tensor;

use super::error::TrainError;
use super::switches::Wish;

/// Wishes as numbers.
const WISHES: [(Wish, u8); 3] = [(Wish::Nothing, 0), (Wish::Boundary, 1), (Wish::Checkpoint, 2)];
/// Bytes that a rank tells: its wish, and the evidence of what it fed.
const NOTE: usize = 1 + Evidence::BYTES;

/// One step's gathers.
pub(crate) struct Peers<'g> {
    group: &'g Group,
    /// Rows of each rank.
    rows: Vec<i64>,
    own: Range<i64>,
    /// Bytes of a row that ride along: a rank has a lane at least, and its note lies within those of a lane.
    columns: usize,
    /// What this rank was asked, and what it fed.
    own_note: (Wish, Evidence),
    /// What the first gather said: the highest wish of all ranks', and what all of them fed.
    heard: Option<(Wish, Evidence)>,
    seconds: f64,
}

impl<'g> Peers<'g> {
    /// For one step; `own_note` is what this rank was asked, and what it feeds the step.
    pub(crate) fn new(group: &'g Group, lanes: &LaneMap, own_note: (Wish, Evidence)) -> Self {
        let rows_of = |rank: u32| {
            let rows = lanes.rows_of(Rank(rank));
            i64::from(rows.start)..i64::from(rows.end)
        };
        let rows = (0..group.world()).map(rows_of).map(|r| r.end - r.start).collect();
        let columns = NOTE.div_ceil(lanes.lane_size() as usize);
        Self { group, rows, own: rows_of(group.rank()), columns, own_note, heard: None, seconds: 0.0 }
    }

    /// What all ranks do after this step. Nothing before the first gather.
    pub(crate) fn asked(&self) -> Wish {
        self.heard.unwrap_or_default().0
    }

    /// What the global batch was fed. Nothing before the first gather.
    pub(crate) fn fed(&self) -> Option<Evidence> {
        self.heard.map(|(_, fed)| fed)
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

    fn aside(&self) -> Vec<u8> {
        let (wish, fed) = self.own_note;
        let number = WISHES.iter().find(|(asked, _)| *asked == wish).map_or(0, |(_, number)| *number);
        let mut note = vec![number];
        note.extend(fed.to_bytes());
        note.resize((self.own.end - self.own.start) as usize * self.columns, 0);
        note
    }

    fn heard(&mut self, all: &[u8]) {
        let mut heard = (Wish::default(), Evidence::default());
        let mut rest = all;
        for &rows in &self.rows {
            let (of_rank, others) = rest.split_at((rows as usize * self.columns).min(rest.len()));
            rest = others;
            let Some((&[number, fed @ ..], _)) = of_rank.split_first_chunk::<NOTE>() else { return };
            let wish = WISHES.iter().filter(|(_, of)| *of <= number).map(|(asked, _)| *asked).max();
            heard.0 = heard.0.max(wish.unwrap_or_default());
            heard.1 += Evidence::from_bytes(fed);
        }
        self.heard = Some(heard);
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

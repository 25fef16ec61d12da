//! The objective's view of the other ranks, over the process group. What a rank was asked to do, the order that it holds and what
//! it fed ride along with the first gather, so every rank learns in the same step what all do after it, and what the whole
//! batch was fed.

use std::ops::Range;

use pixfleet_cluster::run::agreed;
use pixfleet_cluster::{Evidence, Generation, LaneMap, Rank};
use pixfleet_collective::Group;
use pixfleet_model::objective::Exchange;
use tch::Tensor;

use super::error::TrainError;
use super::switches::Wish;

/// Bytes of a wish: whether to finish, and the number of the generation whose order is held, which is never 0.
const WISH: usize = 1 + size_of::<u64>();
/// Bytes that a rank tells: its wish, and the evidence of what it fed.
const NOTE: usize = WISH + Evidence::BYTES;

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
    /// What the first gather said: what the ranks do together, and what all of them fed.
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
        let (Wish { finish, next }, fed) = self.own_note;
        let mut note = vec![u8::from(finish)];
        note.extend(next.map_or(0, |next| next.0).to_le_bytes());
        note.extend(fed.to_bytes());
        note.resize((self.own.end - self.own.start) as usize * self.columns, 0);
        note
    }

    fn heard(&mut self, all: &[u8]) {
        let (mut finish, mut fed_by_all) = (false, Evidence::default());
        let mut held = Vec::with_capacity(self.rows.len());
        let mut rest = all;
        for &rows in &self.rows {
            let (of_rank, others) = rest.split_at((rows as usize * self.columns).min(rest.len()));
            rest = others;
            let Some((&[asked, ref note @ ..], _)) = of_rank.split_first_chunk::<NOTE>() else { return };
            let (Some((number, note)), true) = (note.split_first_chunk(), asked <= 1) else { return };
            let Ok(fed) = note.try_into() else { return };
            finish |= asked == 1;
            held.push(Some(Generation(u64::from_le_bytes(*number))).filter(|held| held.0 > 0));
            fed_by_all += Evidence::from_bytes(fed);
        }
        self.heard = Some((Wish { finish, next: agreed(held) }, fed_by_all));
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

//! The objective's view of the other ranks, over the process group. The drain flag rides along: a rank that was asked
//! to leave adds one number to its rows of the first gather, so every rank learns of it in the same step.

use std::ops::Range;
use std::time::Instant;

use pixfleet_cluster::{LaneMap, Rank};
use pixfleet_collective::Group;
use pixfleet_model::objective::Exchange;
use tch::Tensor;

use super::error::TrainError;

/// One step's gathers.
pub(crate) struct Peers<'g> {
    group: &'g Group,
    /// Rows of each rank.
    rows: Vec<i64>,
    own: Range<i64>,
    wants_drain: bool,
    /// What the first gather said: some rank wants to drain.
    drains: Option<bool>,
    seconds: f64,
}

impl<'g> Peers<'g> {
    /// For one step; `wants_drain` is this rank's wish.
    pub(crate) fn new(group: &'g Group, lanes: &LaneMap, wants_drain: bool) -> Self {
        let rows_of = |rank: u32| {
            let rows = lanes.rows_of(Rank(rank));
            i64::from(rows.start)..i64::from(rows.end)
        };
        let rows = (0..group.world()).map(rows_of).map(|r| r.end - r.start).collect();
        Self { group, rows, own: rows_of(group.rank()), wants_drain, drains: None, seconds: 0.0 }
    }

    /// Whether some rank wants this step to be the last one. False before the first gather.
    pub(crate) fn drains(&self) -> bool {
        self.drains.unwrap_or(false)
    }

    /// Seconds spent in gathers.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }

    fn gather(&mut self, own: &Tensor) -> Result<Tensor, TrainError> {
        let started = Instant::now();
        let all = self.group.all_gather_rows(own, &self.rows);
        self.seconds += started.elapsed().as_secs_f64();
        Ok(all?)
    }

    /// `own` with one more column: the wish to drain.
    fn with_wish(&self, own: &Tensor) -> Result<Tensor, tch::TchError> {
        let wish = if self.wants_drain { 1.0 } else { 0.0 };
        let flag = Tensor::f_full([own.size()[0], 1], wish, (own.kind(), own.device()))?;
        Tensor::f_cat(&[own, &flag], 1)
    }
}

impl Exchange for Peers<'_> {
    type Error = TrainError;

    fn all_gather_rows(&mut self, own: &Tensor) -> Result<Tensor, TrainError> {
        if self.drains.is_some() {
            return self.gather(&own.contiguous());
        }
        let torch = |source| TrainError::Torch { doing: "packing features", source };
        let all = self.gather(&self.with_wish(own).map_err(torch)?)?;
        let width = own.size()[1];
        let wishes = all.f_narrow(1, width, 1).and_then(|c| c.f_max()).map_err(torch)?;
        self.drains = Some(f64::try_from(wishes).map_err(torch)? > 0.5);
        all.f_narrow(1, 0, width).and_then(|c| c.f_contiguous()).map_err(torch)
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

//! Sample order as arithmetic: position -> (epoch, row) is a pure function of (seed, dataset shape). No sampler
//! state, no padding, no drop-last: batches run across the seam of two epochs.
//!
//! Row groups are permuted by a keyed Feistel network, cut into windows, and rows are permuted within their window,
//! so a reader touches one window's row groups at a time and reads stay large.

mod epoch;
mod permutation;
#[cfg(test)]
mod tests;

use crate::rng::{Use, key};
use epoch::{Epochs, slot};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Rows per row group of a dataset split, in index order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetShape {
    /// Rows of each row group.
    pub rows: Vec<u32>,
}

impl DatasetShape {
    /// Rows in all: the samples of one epoch.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.iter().map(|&r| u64::from(r)).sum()
    }
}

/// One sample of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SampleId {
    /// Which pass over the data.
    pub epoch: u64,
    /// Row group, by index order.
    pub row_group: u32,
    /// Row within the row group.
    pub row: u32,
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, row group {}, row {}", self.epoch, self.row_group, self.row)
    }
}

/// The order of all epochs of one run.
#[derive(Debug, Clone)]
pub struct SampleOrder {
    seed: u64,
    total: u64,
    /// Rows before each row group, in index order; one more entry than row groups.
    starts: Vec<u64>,
    epochs: Epochs,
}

/// A row that a walk over positions comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// [`SampleOrder::row_number`] of it.
    pub number: u64,
    /// Row group, by index order.
    pub row_group: u32,
    /// Row within the row group.
    pub row: u32,
}

impl SampleOrder {
    /// Stand-ins that are tried for one bad row before the run gives up.
    pub const SUBSTITUTES_MAX: u32 = 16;

    /// `window` row groups are shuffled together. `None` for a dataset without rows.
    #[must_use]
    pub fn new(seed: u64, shape: DatasetShape, window: u32) -> Option<Self> {
        let total = shape.total();
        let starts = prefix(shape.rows.iter().copied());
        let epochs = Epochs::new(seed, shape, window.max(1) as usize);
        (total > 0).then_some(Self { seed, total, starts, epochs })
    }

    /// Samples in one epoch.
    #[must_use]
    pub fn epoch_len(&self) -> u64 {
        self.total
    }

    /// The sample at `position`.
    pub fn locate(&mut self, position: u64) -> SampleId {
        let (epoch, offset) = (position / self.total, position % self.total);
        self.epochs.at(epoch).window(offset).locate(offset)
    }

    /// Hands the rows at `positions`, as [`SampleOrder::locate`] and [`SampleOrder::row_number`] give them, to `visit`, in order
    /// and many at a time: for who walks whole epochs.
    pub fn walk(&mut self, positions: Range<u64>, mut visit: impl FnMut(&[Walked])) {
        let mut next = positions.start;
        while next < positions.end {
            let (epoch, offset) = (next / self.total, next % self.total);
            let window = self.epochs.at(epoch).window(offset);
            let end = window.end().min(offset + (positions.end - next));
            window.rows(offset..end, &self.starts, &mut visit);
            next += end - offset;
        }
    }

    /// The row that stands in for a bad one: `attempt` 1, 2, ... tries further rows. A pure function, so every rank
    /// and every replay choose the same.
    #[must_use]
    pub fn substitute(&self, bad: SampleId, attempt: u32) -> SampleId {
        let row = self.starts[bad.row_group as usize] + u64::from(bad.row);
        let draw = key(&[self.seed, bad.epoch, row, u64::from(attempt), Use::Substitute as u64]);
        let other = (row + 1 + draw % (self.total - 1).max(1)) % self.total;
        let group = slot(&self.starts, other);
        SampleId { epoch: bad.epoch, row_group: group as u32, row: (other - self.starts[group]) as u32 }
    }

    /// Whether there is such a row.
    #[must_use]
    pub fn has(&self, sample: SampleId) -> bool {
        let group = sample.row_group as usize;
        group + 1 < self.starts.len() && u64::from(sample.row) < self.starts[group + 1] - self.starts[group]
    }

    /// The number of `sample`'s row in index order: the key of its random draws.
    #[must_use]
    pub fn row_number(&self, sample: SampleId) -> u64 {
        self.starts[sample.row_group as usize] + u64::from(sample.row)
    }
}

fn prefix(rows: impl Iterator<Item = u32>) -> Vec<u64> {
    let mut starts = vec![0];
    let mut sum = 0;
    for r in rows {
        sum += u64::from(r);
        starts.push(sum);
    }
    starts
}

//! Sample order as arithmetic: position -> (epoch, row) is a pure function of (seed, dataset shape). No sampler
//! state, no padding, no drop-last: batches run across the seam of two epochs.
//!
//! Row groups are permuted by a keyed Feistel network, cut into windows, and rows are permuted within their window,
//! so a reader touches one window's row groups at a time and reads stay large.

use crate::rng::{Use, key, mix};
use serde::{Deserialize, Serialize};

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

/// The order of all epochs of one run.
#[derive(Debug, Clone)]
pub struct Order {
    seed: u64,
    shape: DatasetShape,
    total: u64,
    /// Rows before each row group, in index order; one more entry than row groups.
    starts: Vec<u64>,
    window: usize,
    cached: Option<Epoch>,
}

/// The permuted row groups of one epoch.
#[derive(Debug, Clone)]
struct Epoch {
    number: u64,
    /// Row groups in the order of this epoch.
    groups: Vec<u32>,
    /// Rows before each permuted row group; one more entry than row groups.
    starts: Vec<u64>,
}

impl Order {
    /// `window` row groups are shuffled together. `None` for a dataset without rows.
    #[must_use]
    pub fn new(seed: u64, shape: DatasetShape, window: u32) -> Option<Self> {
        let total = shape.total();
        let starts = prefix(shape.rows.iter().copied());
        (total > 0).then_some(Self { seed, shape, total, starts, window: window.max(1) as usize, cached: None })
    }

    /// Samples in one epoch.
    #[must_use]
    pub fn epoch_len(&self) -> u64 {
        self.total
    }

    /// The sample at `position`.
    pub fn locate(&mut self, position: u64) -> SampleId {
        let (epoch, offset) = (position / self.total, position % self.total);
        let window_size = self.window;
        let seed = self.seed;
        let order = self.epoch(epoch);
        let group_at = order.starts.partition_point(|&s| s <= offset) - 1;
        let window = group_at / window_size;
        let first = window * window_size;
        let last = (first + window_size).min(order.groups.len());
        let (from, to) = (order.starts[first], order.starts[last]);
        let row_key = key(&[seed, epoch, window as u64, Use::Rows as u64]);
        let place = from + permute(row_key, to - from, offset - from);
        let slot = order.starts.partition_point(|&s| s <= place) - 1;
        SampleId { epoch, row_group: order.groups[slot], row: (place - order.starts[slot]) as u32 }
    }

    /// The row that stands in for a bad one: `attempt` 1, 2, ... tries further rows. A pure function, so every rank
    /// and every replay choose the same.
    #[must_use]
    pub fn substitute(&self, bad: SampleId, attempt: u32) -> SampleId {
        let row = self.starts[bad.row_group as usize] + u64::from(bad.row);
        let draw = key(&[self.seed, bad.epoch, row, u64::from(attempt), Use::Substitute as u64]);
        let other = (row + 1 + draw % (self.total - 1).max(1)) % self.total;
        let group = self.starts.partition_point(|&s| s <= other) - 1;
        SampleId { epoch: bad.epoch, row_group: group as u32, row: (other - self.starts[group]) as u32 }
    }

    /// The number of `sample`'s row in index order: the key of its random draws.
    #[must_use]
    pub fn row_number(&self, sample: SampleId) -> u64 {
        self.starts[sample.row_group as usize] + u64::from(sample.row)
    }

    fn epoch(&mut self, number: u64) -> &Epoch {
        if self.cached.as_ref().is_none_or(|e| e.number != number) {
            let n = self.shape.rows.len() as u64;
            let group_key = key(&[self.seed, number, Use::RowGroups as u64]);
            let groups: Vec<u32> = (0..n).map(|i| permute(group_key, n, i) as u32).collect();
            let starts = prefix(groups.iter().map(|&g| self.shape.rows[g as usize]));
            self.cached = Some(Epoch { number, groups, starts });
        }
        self.cached.as_ref().expect("filled above")
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

/// A keyed permutation of `0..n`: a four-round balanced Feistel network over the next even power of two, walking
/// cycles until the value lies below `n` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
#[must_use]
pub fn permute(key: u64, n: u64, value: u64) -> u64 {
    debug_assert!(value < n);
    if n <= 1 {
        return 0;
    }
    let half = (64 - (n - 1).leading_zeros()).div_ceil(2);
    let mask = (1u64 << half) - 1;
    let mut v = value;
    loop {
        let (mut left, mut right) = (v >> half, v & mask);
        for round in 0..4u64 {
            let f = mix(key ^ mix(right.wrapping_add(round.wrapping_mul(0xA24B_AED4_963E_E407)))) & mask;
            (left, right) = (right, left ^ f);
        }
        v = (left << half) | right;
        if v < n {
            return v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn an_epoch_deals_every_row_once(rows in prop::collection::vec(0u32..40, 1..30), window in 1u32..8, seed: u64) {
            let shape = DatasetShape { rows };
            prop_assume!(shape.total() > 0);
            let total = shape.total();
            let mut order = Order::new(seed, shape.clone(), window).expect("has rows");
            for epoch in 0..2 {
                let seen: HashSet<_> = (0..total).map(|q| order.locate(epoch * total + q)).collect();
                prop_assert_eq!(seen.len() as u64, total);
                for s in seen {
                    prop_assert!(s.epoch == epoch && s.row < shape.rows[s.row_group as usize]);
                }
            }
        }

        #[test]
        fn a_substitute_is_another_row(rows in prop::collection::vec(1u32..9, 2..9), seed: u64, attempt in 1u32..5) {
            let mut order = Order::new(seed, DatasetShape { rows }, 4).expect("has rows");
            let bad = order.locate(0);
            prop_assert_ne!(order.substitute(bad, attempt), bad);
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let shape = DatasetShape { rows: vec![50; 20] };
        let list = |seed: u64, epoch: u64| {
            let mut order = Order::new(seed, shape.clone(), 4).expect("has rows");
            (0..1000).map(|q| order.locate(epoch * 1000 + q)).map(|s| (s.row_group, s.row)).collect::<Vec<_>>()
        };
        assert_ne!(list(1, 0), list(1, 1));
        assert_ne!(list(1, 0), list(2, 0));
        assert_eq!(list(1, 0), list(1, 0));
    }
}

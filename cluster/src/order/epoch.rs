//! One epoch of the order: its permuted row groups, cut into windows, and each window's permuted rows.

use super::permutation::{BLOCK, Permutation};
use super::{DatasetShape, SampleId, Walked, prefix};
use crate::rng::{Use, key};

/// All epochs of one run; the one that was asked for last is kept.
#[derive(Debug, Clone)]
pub(super) struct Epochs {
    seed: u64,
    shape: DatasetShape,
    /// Row groups of a window.
    window: usize,
    kept: Option<Epoch>,
}

impl Epochs {
    pub(super) fn new(seed: u64, shape: DatasetShape, window: usize) -> Self {
        Self { seed, shape, window, kept: None }
    }

    pub(super) fn at(&mut self, number: u64) -> &Epoch {
        if self.kept.as_ref().is_none_or(|e| e.number != number) {
            self.kept = Some(Epoch::new(self.seed, number, &self.shape.rows, self.window));
        }
        self.kept.as_ref().expect("filled above")
    }
}

/// The permuted row groups of one epoch.
#[derive(Debug, Clone)]
pub(super) struct Epoch {
    seed: u64,
    number: u64,
    /// Row groups in the order of this epoch.
    groups: Vec<u32>,
    /// Rows before each permuted row group; one more entry than row groups.
    starts: Vec<u64>,
    /// Row groups of a window.
    window: usize,
}

/// Row groups whose rows are shuffled together: a stretch of an epoch's samples.
#[derive(Debug)]
pub(super) struct Window<'a> {
    epoch: u64,
    rows: Permutation,
    groups: &'a [u32],
    /// Rows of the epoch before each of these row groups, and before what follows them.
    starts: &'a [u64],
}

impl Epoch {
    /// `rows` of each row group, `window` row groups shuffled together.
    fn new(seed: u64, number: u64, rows: &[u32], window: usize) -> Self {
        let order = Permutation::new(key(&[seed, number, Use::RowGroups as u64]), rows.len() as u64);
        let groups: Vec<u32> = (0..rows.len() as u64).map(|i| order.of(i) as u32).collect();
        let starts = prefix(groups.iter().map(|&g| rows[g as usize]));
        Self { seed, number, groups, starts, window }
    }

    /// The window of the epoch's sample `offset`.
    pub(super) fn window(&self, offset: u64) -> Window<'_> {
        let number = slot(&self.starts, offset) / self.window;
        let first = number * self.window;
        let last = (first + self.window).min(self.groups.len());
        let starts = &self.starts[first..=last];
        let row_key = key(&[self.seed, self.number, number as u64, Use::Rows as u64]);
        Window {
            epoch: self.number,
            rows: Permutation::new(row_key, self.starts[last] - self.starts[first]),
            groups: &self.groups[first..last],
            starts,
        }
    }
}

impl Window<'_> {
    /// Samples of the epoch before the end of this window.
    pub(super) fn end(&self) -> u64 {
        self.starts[self.groups.len()]
    }

    /// The epoch's sample `offset`, which lies in this window.
    pub(super) fn locate(&self, offset: u64) -> SampleId {
        let place = self.starts[0] + self.rows.of(offset - self.starts[0]);
        let slot = slot(self.starts, place);
        SampleId { epoch: self.epoch, row_group: self.groups[slot], row: (place - self.starts[slot]) as u32 }
    }

    /// Hands the rows of the epoch's samples `offsets`, which lie in this window, to `visit` in order, block by block; `before`
    /// are the rows before each row group in index order.
    pub(super) fn rows(&self, offsets: std::ops::Range<u64>, before: &[u64], mut visit: impl FnMut(&[Walked])) {
        let rows = self.rows.many(offsets.end - offsets.start);
        let (mut block, mut walked) = ([0; BLOCK], [Walked::default(); BLOCK]);
        let mut next = offsets.start;
        while next < offsets.end {
            let block = &mut block[..(offsets.end - next).min(BLOCK as u64) as usize];
            rows.fill(next - self.starts[0], block);
            for (row, walked) in block.iter().zip(&mut walked) {
                let place = self.starts[0] + *row;
                let slot = slot(self.starts, place);
                let (row_group, row) = (self.groups[slot], place - self.starts[slot]);
                *walked = Walked { number: before[row_group as usize] + row, row_group, row: row as u32 };
            }
            visit(&walked[..block.len()]);
            next += block.len() as u64;
        }
    }
}

/// Which of the stretches that begin at `starts` holds `at`.
pub(super) fn slot(starts: &[u64], at: u64) -> usize {
    starts.partition_point(|&s| s <= at) - 1
}

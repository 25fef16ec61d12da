//! Losses as leaves: features in, losses and gradients on the features out, all in fp32, with no autograd inside.
//!
//! A term here is a pure function of the features of the whole global batch and of the range of rows that this rank
//! answers for. Three rules hold for every term, so that a new kind (a sigmoid loss, a margin) is a file beside these and
//! an arm in [`crate::objective`]:
//!
//! * **no N x N**: the term walks over [`Tile`]s; its working memory is a few tiles whatever the batch;
//! * **no world size**: blocks of rows start at multiples of [`Tile::rows`] of the *global* row number and columns are
//!   visited in a fixed order, so a row's numbers are the same whoever computes them;
//! * **dropped rows never enter**: a caller removes masked rows first, and the mean is over those that are left.

pub mod cosine;
pub mod hard_negatives;
pub mod info_nce;

pub use hard_negatives::{ChoiceGrad, Choices, HardNegatives};
pub use info_nce::{InfoNce, PairGrad, RowStats};

use std::ops::Range;

use tch::Device;

/// Largest piece of the similarity matrix that a loss holds at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    rows: i64,
    cols: i64,
}

impl Tile {
    /// Blocks of `rows` rows by `cols` columns. `cols` is rounded up to a multiple of `rows`, so that a block's
    /// diagonal lies in one tile.
    ///
    /// # Panics
    /// If a side is not positive.
    #[must_use]
    pub fn new(rows: i64, cols: i64) -> Self {
        assert!(rows > 0 && cols > 0, "a tile has positive sides");
        Self { rows, cols: (cols + rows - 1) / rows * rows }
    }

    /// The tile for a device: 4 MiB of fp32 on a CPU (it stays in the cache), 64 MiB on an accelerator.
    #[must_use]
    pub fn for_device(device: Device) -> Self {
        match device {
            Device::Cpu => Self::new(256, 4096),
            _ => Self::new(2048, 8192),
        }
    }

    /// Rows of a block.
    #[must_use]
    pub fn rows(self) -> i64 {
        self.rows
    }

    /// Columns of a tile.
    #[must_use]
    pub fn cols(self) -> i64 {
        self.cols
    }

    /// Most elements of one tile in a batch of `n`. [`InfoNce`] holds at most two such tiles at once.
    #[must_use]
    pub fn peak_elements(self, n: i64) -> i64 {
        self.rows.min(n) * self.cols.min(n)
    }

    /// Blocks of `0..n` that touch `rows`, each whole: a row's numbers do not depend on who asks.
    pub(crate) fn blocks(self, rows: &Range<i64>, n: i64) -> impl Iterator<Item = Range<i64>> + use<> {
        let (side, first, end) = (self.rows, rows.start / self.rows, rows.end);
        (first..).map(move |k| k * side..((k + 1) * side).min(n)).take_while(move |block| block.start < end)
    }

    /// Tiles of the columns `0..n`, in the one order that is used everywhere.
    pub(crate) fn columns(self, n: i64) -> impl Iterator<Item = Range<i64>> {
        (0..n)
            .step_by(usize::try_from(self.cols).expect("a tile's side is positive"))
            .map(move |start| start..(start + self.cols).min(n))
    }
}

#[cfg(test)]
mod tests;

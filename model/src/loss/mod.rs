//! Losses as leaves: features in, losses and gradients on the features out, all in fp32, with no autograd inside.
//!
//! A term here is a pure function of the features of the whole global batch and of the range of rows that this rank
//! answers for. Three rules hold for every term, so that a new kind (a sigmoid loss, a margin) is a file beside these and
//! an arm in [`crate::objective`]:
//!
//! * **no N x N**: the term walks over [`Tile`]s; its working memory is a few tiles whatever the batch;
//! * **no world size**: a block of rows never crosses the border of a lane, and columns are visited in a fixed order, so a
//!   row's numbers are the same whoever computes them;
//! * **dropped rows never enter**: a caller removes masked rows first, and the mean is over those that are left.

pub mod cosine;
pub mod hard_negatives;
pub mod info_nce;
mod pair_features;

pub use hard_negatives::{ChoiceGrad, Choices, HardNegatives};
pub use info_nce::{InfoNce, PairGrad, RowStats};
pub use pair_features::PairFeatures;

use std::ops::Range;

use tch::{Device, Tensor};

use crate::ModelError;

/// Largest piece of the similarity matrix that a loss holds at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    rows: i64,
    cols: i64,
}

impl Tile {
    /// Blocks of at most `rows` rows by `cols` columns.
    ///
    /// # Panics
    /// If a side is not positive.
    #[must_use]
    pub fn new(rows: i64, cols: i64) -> Self {
        assert!(rows > 0 && cols > 0, "a tile has positive sides");
        Self { rows, cols }
    }

    /// The tile for a device: 1 MiB of fp32 on a CPU (it and the columns that it is made of stay in the cache), 64 MiB on an
    /// accelerator.
    #[must_use]
    pub fn for_device(device: Device) -> Self {
        match device {
            Device::Cpu => Self::new(256, 1024),
            _ => Self::new(2048, 8192),
        }
    }

    /// Most elements of one tile in a batch of `n`. [`InfoNce`] holds at most two such tiles at once.
    #[must_use]
    pub fn peak_elements(self, n: i64) -> i64 {
        self.rows.min(n) * self.cols.min(n)
    }

    /// The blocks of `lanes`: each lane from its first row on.
    pub(crate) fn blocks(self, lanes: &[Range<i64>]) -> impl Iterator<Item = Range<i64>> {
        lanes.iter().flat_map(move |lane| cut(lane.clone(), self.rows))
    }

    /// Tiles of the columns `0..n`, in the one order that is used everywhere.
    pub(crate) fn columns(self, n: i64) -> impl Iterator<Item = Range<i64>> {
        cut(0..n, self.cols)
    }
}

fn cut(range: Range<i64>, size: i64) -> impl Iterator<Item = Range<i64>> {
    let step = usize::try_from(size).expect("a tile's side is positive");
    let end = range.end;
    range.step_by(step).map(move |start| start..(start + size).min(end))
}

/// Part after part along the first dimension.
pub(crate) fn join(parts: &[&Tensor]) -> Result<Tensor, ModelError> {
    match parts {
        [one] => Ok(one.shallow_clone()),
        many => Ok(Tensor::f_cat(many, 0)?),
    }
}

#[cfg(test)]
mod tests;

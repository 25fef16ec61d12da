//! How an objective sees the other ranks: one gather of rows, in global sample order.

use std::ops::Range;

use tch::Tensor;

use crate::ModelError;

/// The other ranks, as far as a loss needs them. The worker implements it over its process group.
///
/// Every rank of a generation calls [`Self::all_gather_rows`] equally often, in the same order and with the same
/// width; objectives keep to that whatever the data (a branch without a valid row skips no gather).
pub trait Exchange {
    /// What a failed gather is. Errors of this crate pass through it.
    type Error: From<ModelError>;

    /// Gathers rows: own `[n_own, K]` in, `[N, K]` of all ranks in global sample order out, of the same dtype.
    ///
    /// # Errors
    /// The implementer's: a lost peer, an abort, a time-out.
    fn all_gather_rows(&mut self, own: &Tensor) -> Result<Tensor, Self::Error>;

    /// What rides along with the first gather: `[n_own, C]` bytes, row-major, of a C that is the same on every rank whatever the
    /// number of ranks, for the matrix that is gathered must have one width. Empty: nothing.
    fn aside(&self) -> Vec<u8> {
        Vec::new()
    }

    /// All ranks' [`Self::aside`], in global sample order.
    fn heard(&mut self, _all: &[u8]) {}

    /// Global numbers of this rank's rows.
    fn own_rows(&self) -> Range<i64>;

    /// Rows of the global batch.
    fn total_rows(&self) -> i64;
}

/// World size 1: every row is an own row.
#[derive(Debug, Clone, Copy)]
pub struct Alone {
    rows: i64,
}

impl Alone {
    /// A batch of `rows`.
    #[must_use]
    pub fn new(rows: i64) -> Self {
        Self { rows }
    }
}

impl Exchange for Alone {
    type Error = ModelError;

    fn all_gather_rows(&mut self, own: &Tensor) -> Result<Tensor, ModelError> {
        Ok(own.shallow_clone())
    }

    fn own_rows(&self) -> Range<i64> {
        0..self.rows
    }

    fn total_rows(&self) -> i64 {
        self.rows
    }
}

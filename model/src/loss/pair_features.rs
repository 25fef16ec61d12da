//! One side of a contrast: a set's features over all pairs of the batch, given out block by block from where they lie.
//! The gathered matrix is never copied whole.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::ModelError;

/// See the module.
#[derive(Debug)]
pub struct PairFeatures {
    /// [rows, slots, D], any strides, fp32 or bf16.
    rows: Tensor,
    /// Slots that count, i64 [pairs], ascending; `None`: every one.
    chosen: Option<Tensor>,
}

impl PairFeatures {
    /// Every row of `features` [pairs, D].
    ///
    /// # Errors
    /// [`ModelError::Torch`] for another number of dimensions.
    pub fn of(features: &Tensor) -> Result<Self, ModelError> {
        Ok(Self { rows: features.f_unsqueeze(1)?, chosen: None })
    }

    /// The slots `chosen` (i64 [pairs], ascending; `None`: every one) of `rows` [N, slots, D].
    #[must_use]
    pub fn slots(rows: Tensor, chosen: Option<&Tensor>) -> Self {
        Self { rows, chosen: chosen.map(Tensor::shallow_clone) }
    }

    /// Pairs.
    #[must_use]
    pub fn count(&self) -> i64 {
        match &self.chosen {
            Some(chosen) => chosen.size()[0],
            None => self.rows.size()[0] * self.rows.size()[1],
        }
    }

    /// Width of a feature.
    #[must_use]
    pub fn width(&self) -> i64 {
        self.rows.size()[2]
    }

    /// The features of `pairs`, [pairs, D] fp32: a view where they lie in order and are fp32.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn block(&self, pairs: &Range<i64>) -> Result<Tensor, ModelError> {
        let (slots, count) = (self.rows.size()[1], pairs.end - pairs.start);
        let block = match &self.chosen {
            Some(chosen) => {
                let chosen = chosen.f_narrow(0, pairs.start, count)?;
                let row = chosen.f_divide_scalar_mode(slots, "floor")?;
                self.rows.f_index(&[Some(row), Some(chosen.f_remainder(slots)?)])?
            }
            None => {
                let (first, end) = (pairs.start / slots, (pairs.end + slots - 1) / slots);
                let rows = self.rows.f_narrow(0, first, end - first)?;
                let flat = if slots == 1 { rows.f_select(1, 0)? } else { rows.f_reshape([-1, self.width()])? };
                flat.f_narrow(0, pairs.start - first * slots, count)?
            }
        };
        Ok(block.f_to_kind(Kind::Float)?)
    }
}

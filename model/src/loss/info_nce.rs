//! InfoNCE over the global batch (method.md 2.2, 2.8), in two exact halves with a gather of one number per row and
//! direction between them.
//!
//! With `z_ij = s a_i.b_j`, smoothing `e` and n rows,
//! `L = 1/n sum_i 1/2 [CE(z_i., i) + CE(z_.i, i)]`, `CE(z, i) = lse(z) - (1 - e) z_i - e/n sum_j z_j`.
//! [`InfoNce::stats`] yields the log-sum-exps and losses of the own rows; with the log-sum-exps of *all* rows,
//! [`InfoNce::grad`] yields the gradient of L on the own rows of `a` and `b`:
//! `dL/da_i = s/2n sum_j [exp(z_ij - lse_i) + exp(z_ij - lse'_j) - 2 (1 - e) [i = j] - 2 e/n] b_j`.
//! L depends on the features through `z` alone, so `dL/d ln s = sum_i a_i.dL/da_i` (Euler): the gradient of the logit
//! scale costs one dot product per row.
//!
//! Equals open_clip's `ClipLoss` (golden test) and is what averaging the gradients of its `local_loss` with
//! `gather_with_grad` over the ranks gives.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::{PairFeatures, Tile, join};
use crate::ModelError;

/// The loss's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InfoNce {
    /// `s`, the inverse temperature (not its logarithm).
    pub scale: f64,
    /// Label smoothing `e`, as `F.cross_entropy` has it.
    pub smoothing: f64,
    /// Largest piece of the similarity matrix held at once.
    pub tile: Tile,
}

/// What the own rows know after the first half. Every tensor is fp32 `[rows]`.
#[derive(Debug)]
pub struct RowStats {
    /// `1/2 (CE(z_i., i) + CE(z_.i, i))`: the global loss is the mean of this over all rows.
    pub loss: Tensor,
    /// Log-sum-exp of row i: a_i against every b.
    pub lse_ab: Tensor,
    /// Log-sum-exp of column i: b_i against every a.
    pub lse_ba: Tensor,
    /// 1 where no b is nearer to a_i than b_i (a tie counts as a hit), else 0.
    pub hit_ab: Tensor,
    /// The same for b_i among every a.
    pub hit_ba: Tensor,
}

/// The gradient of the mean loss over all rows, own rows only.
#[derive(Debug)]
pub struct PairGrad {
    /// dL/da, `[rows, D]` fp32.
    pub a: Tensor,
    /// dL/db, `[rows, D]` fp32.
    pub b: Tensor,
    /// Each own row's share of dL/d ln s, `[rows]` fp32. The shares of all rows sum to the whole.
    pub log_scale: Tensor,
}

/// One direction's statistics of a range of rows.
struct Directed {
    loss: Tensor,
    lse: Tensor,
    hit: Tensor,
}

impl InfoNce {
    /// First half: statistics of the rows of `lanes`, lane after lane, of the pair `a`, `b` over the whole batch.
    ///
    /// # Errors
    /// [`ModelError::Shape`] if the operands differ or a lane leaves them, [`ModelError::Torch`].
    pub fn stats(&self, a: &PairFeatures, b: &PairFeatures, lanes: &[Range<i64>]) -> Result<RowStats, ModelError> {
        check(a, b, lanes)?;
        let ab = self.directed_stats(a, b, lanes)?;
        let ba = self.directed_stats(b, a, lanes)?;
        Ok(RowStats {
            loss: ab.loss.f_add(&ba.loss)?.f_mul_scalar(0.5)?,
            lse_ab: ab.lse,
            lse_ba: ba.lse,
            hit_ab: ab.hit,
            hit_ba: ba.hit,
        })
    }

    /// Second half: the gradient on the rows of `lanes`. `lse_ab`, `lse_ba`: `[N]` fp32, of all rows in global order.
    ///
    /// # Errors
    /// As [`Self::stats`].
    pub fn grad(
        &self,
        [a, b]: [&PairFeatures; 2],
        [lse_ab, lse_ba]: [&Tensor; 2],
        lanes: &[Range<i64>],
    ) -> Result<PairGrad, ModelError> {
        check(a, b, lanes)?;
        let (grad_a, log_scale) = self.directed_grad([a, b], [lse_ab, lse_ba], lanes)?;
        let (grad_b, _) = self.directed_grad([b, a], [lse_ba, lse_ab], lanes)?;
        Ok(PairGrad { a: grad_a, b: grad_b, log_scale })
    }

    /// CE, log-sum-exp and hit of each row of `lanes` of `x` against all of `y`.
    fn directed_stats(&self, x: &PairFeatures, y: &PairFeatures, lanes: &[Range<i64>]) -> Result<Directed, ModelError> {
        let blocks = self.tile.blocks(lanes).map(|block| self.block_stats(x, y, &block));
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        let part = |pick: fn(&Directed) -> &Tensor| join(&blocks.iter().map(pick).collect::<Vec<_>>());
        if blocks.is_empty() {
            let none = x.block(&(0..0))?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
            return Ok(Directed { loss: none.shallow_clone(), lse: none.shallow_clone(), hit: none });
        }
        Ok(Directed { loss: part(|d| &d.loss)?, lse: part(|d| &d.lse)?, hit: part(|d| &d.hit)? })
    }

    /// One pass over the columns with a running maximum (log-sum-exp without overflow at any scale).
    fn block_stats(&self, x: &PairFeatures, y: &PairFeatures, block: &Range<i64>) -> Result<Directed, ModelError> {
        let (n, len) = (x.count(), block.end - block.start);
        let own = x.block(block)?.f_mul_scalar(self.scale)?;
        let options = (Kind::Float, own.device());
        let mut peak = Tensor::f_full([len], f64::NEG_INFINITY, options)?;
        let mut sum = Tensor::f_zeros([len], options)?;
        let mut logits = Tensor::f_zeros([len], options)?;
        let mut diagonal = Vec::new();
        for tile in self.tile.columns(n) {
            let mut z = own.f_matmul(&y.block(&tile)?.f_tr()?)?;
            if let Some(own_columns) = diagonal_of(&z, block, &tile)? {
                diagonal.push(own_columns.f_mul_scalar(1.0)?);
            }
            if self.smoothing > 0.0 {
                let _ = logits.f_add_(&z.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)?;
            }
            let higher = z.f_amax([1i64].as_slice(), false)?.f_maximum(&peak)?;
            let _ = sum.f_mul_(&peak.f_sub(&higher)?.f_exp()?)?;
            let _ = z.f_sub_(&higher.f_unsqueeze(1)?)?.f_exp_()?;
            let _ = sum.f_add_(&z.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?)?;
            peak = higher;
        }
        let diagonal = join(&diagonal.iter().collect::<Vec<_>>())?;
        let log_sum = sum.f_log()?;
        let hit = diagonal.f_ge_tensor(&peak)?.f_to_kind(Kind::Float)?;
        // Peak minus target first: both may be near the scale (100), their difference is small and exact.
        let mut loss = peak.f_sub(&diagonal.f_mul_scalar(1.0 - self.smoothing)?)?;
        if self.smoothing > 0.0 {
            loss = loss.f_sub(&logits.f_mul_scalar(self.smoothing / n as f64)?)?;
        }
        Ok(Directed { loss: loss.f_add(&log_sum)?, lse: peak.f_add(&log_sum)?, hit })
    }

    /// dL/dx of the rows of `lanes` of `x`, and each row's product with it; `lse[0]` belongs to x's rows, `lse[1]` to y's.
    fn directed_grad(
        &self,
        xy: [&PairFeatures; 2],
        lse: [&Tensor; 2],
        lanes: &[Range<i64>],
    ) -> Result<(Tensor, Tensor), ModelError> {
        let mut parts = Vec::new();
        let mut along = Vec::new();
        for block in self.tile.blocks(lanes) {
            let grad = self.block_grad(xy, lse, &block)?;
            along.push(xy[0].block(&block)?.f_mul(&grad)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?);
            parts.push(grad);
        }
        if parts.is_empty() {
            let none = xy[0].block(&(0..0))?;
            let along = none.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
            return Ok((none, along));
        }
        Ok((join(&parts.iter().collect::<Vec<_>>())?, join(&along.iter().collect::<Vec<_>>())?))
    }

    fn block_grad(
        &self,
        [x, y]: [&PairFeatures; 2],
        lse: [&Tensor; 2],
        block: &Range<i64>,
    ) -> Result<Tensor, ModelError> {
        let (n, len) = (x.count(), block.end - block.start);
        let own = x.block(block)?.f_mul_scalar(self.scale)?;
        let own_lse = lse[0].f_narrow(0, block.start, len)?.f_unsqueeze(1)?;
        let mut grad = Tensor::f_zeros([len, x.width()], (Kind::Float, own.device()))?;
        for tile in self.tile.columns(n) {
            let other = y.block(&tile)?;
            let other_lse = lse[1].f_narrow(0, tile.start, tile.end - tile.start)?.f_unsqueeze(0)?;
            let mut z = own.f_matmul(&other.f_tr()?)?;
            let mut pull = z.f_sub(&own_lse)?.f_exp_()?;
            let _ = pull.f_add_(&z.f_sub_(&other_lse)?.f_exp_()?)?;
            if self.smoothing > 0.0 {
                let _ = pull.f_sub_scalar_(2.0 * self.smoothing / n as f64)?;
            }
            if let Some(mut own_columns) = diagonal_of(&pull, block, &tile)? {
                let _ = own_columns.f_sub_scalar_(2.0 * (1.0 - self.smoothing))?;
            }
            let _ = grad.f_addmm_(&pull, &other)?;
        }
        Ok(grad.f_mul_scalar_(self.scale / (2.0 * n as f64))?)
    }
}

/// A view of the places of `z`, the rows of `block` by the columns of `tile`, where a row meets its own column.
fn diagonal_of(z: &Tensor, block: &Range<i64>, tile: &Range<i64>) -> Result<Option<Tensor>, ModelError> {
    let (first, end) = (block.start.max(tile.start), block.end.min(tile.end));
    if first >= end {
        return Ok(None);
    }
    Ok(Some(z.f_narrow(0, first - block.start, end - first)?.f_diagonal(first - tile.start, 0, 1)?))
}

fn check(a: &PairFeatures, b: &PairFeatures, lanes: &[Range<i64>]) -> Result<(), ModelError> {
    let [found_a, found_b] = [a, b].map(|side| vec![side.count(), side.width()]);
    if found_a != found_b {
        return Err(ModelError::Shape {
            what: "second operand of a contrastive term".into(),
            expected: format!("that of the first, [rows, width] = {found_a:?}"),
            found: found_b,
        });
    }
    match lanes.iter().find(|rows| rows.start < 0 || rows.start > rows.end || rows.end > found_a[0]) {
        Some(rows) => Err(ModelError::Shape {
            what: format!("features of the batch, of which this rank answers for rows {rows:?}"),
            expected: format!("[at least {}, width]", rows.end),
            found: found_a,
        }),
        None => Ok(()),
    }
}

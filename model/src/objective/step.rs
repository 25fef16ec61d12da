//! One step of an objective between its gathers: per-row numbers of the own rows, then losses and gradients.
//!
//! A new kind of term is an arm in [`width`], [`Step::own_columns`] and [`Step::learn`].

use tch::{Kind as Dtype, Tensor};

use super::pack::Batch;
use super::{Branch, FeatureGrads, Kind, Leaves, Losses, Outcome, Part, Term};
use crate::ModelError;
use crate::loss::{InfoNce, cosine};

/// What the two halves share.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) terms: &'a [Term],
    pub(super) leaves: &'a Leaves,
    pub(super) batch: &'a Batch,
    pub(super) nce: InfoNce,
}

/// Columns of a term in the second gather. The first is always the row's loss; a contrastive term adds log-sum-exp
/// and hit of either direction.
fn width(kind: Kind) -> i64 {
    match kind {
        Kind::InfoNce(..) => 5,
        Kind::Cosine { .. } => 1,
    }
}

/// Columns of the second gather by number, within a contrastive term.
const LOSS: i64 = 0;
const LSE_AB: i64 = 1;
const LSE_BA: i64 = 2;
const HIT_AB: i64 = 3;
const HIT_BA: i64 = 4;

impl Step<'_> {
    /// The own rows of the second gather, `[n_own, sum of widths]` fp32.
    pub(super) fn first_half(&self) -> Result<Tensor, ModelError> {
        let n_own = self.batch.own_count();
        let mut columns = Vec::new();
        for term in self.terms {
            let rows = self.batch.rows(term.mask);
            if rows.count == 0 {
                let shape = [n_own, width(term.kind)];
                columns.push(Tensor::f_zeros(shape, (Dtype::Float, self.batch.device()))?);
                continue;
            }
            for column in self.own_columns(term)? {
                columns.push(rows.spread(column, n_own)?.f_unsqueeze(1)?);
            }
        }
        Ok(Tensor::f_cat(&columns, 1)?)
    }

    /// The columns of one term, over the own rows that its mask keeps.
    fn own_columns(&self, term: &Term) -> Result<Vec<Tensor>, ModelError> {
        let rows = self.batch.rows(term.mask);
        match term.kind {
            Kind::InfoNce(a, b) => {
                let a = self.batch.columns(a, term.mask)?;
                let b = self.batch.columns(b, term.mask)?;
                let s = self.nce.stats(&a, &b, rows.own.clone())?;
                Ok(vec![s.loss, s.lse_ab, s.lse_ba, s.hit_ab, s.hit_ba])
            }
            Kind::Cosine { x, y, .. } => {
                Ok(vec![cosine::row_losses(&rows.of_own(self.leaf(x))?, &rows.of_own(self.leaf(y))?)?])
            }
        }
    }

    /// Losses of the global batch and gradients of the own rows, from the gathered columns `[N, sum of widths]`.
    pub(super) fn second_half(&self, gathered: &Tensor, weights: [f64; 3]) -> Result<Outcome, ModelError> {
        self.check_gathered(gathered)?;
        let mut outcome = Outcome {
            losses: Losses::default(),
            terms: Vec::new(),
            image_to_text: 0.0,
            text_to_image: 0.0,
            crops: self.batch.rows(super::Mask::CropValid).count,
            grads: FeatureGrads::default(),
            grad_logit_scale: Tensor::f_zeros([self.batch.own_count()], (Dtype::Double, self.batch.device()))?,
        };
        let mut first = 0;
        for term in self.terms {
            let columns = gathered.f_narrow(1, first, width(term.kind))?;
            first += width(term.kind);
            let loss = self.mean(term, &columns, LOSS)?;
            if !loss.is_finite() {
                return Err(ModelError::NotFinite { term: term.name, loss });
            }
            outcome.terms.push((term.name, loss));
            let line = match term.branch {
                Branch::Global => {
                    outcome.image_to_text = self.mean(term, &columns, HIT_AB)?;
                    outcome.text_to_image = self.mean(term, &columns, HIT_BA)?;
                    &mut outcome.losses.global
                }
                Branch::Crop => &mut outcome.losses.crop,
                Branch::Local => &mut outcome.losses.local,
            };
            *line += term.coefficient * loss;
            self.learn(term, &columns, weights[term.branch as usize] * term.coefficient, &mut outcome)?;
        }
        let Losses { global, crop, local, .. } = outcome.losses;
        outcome.losses.total = weights[0] * global + weights[1] * crop + weights[2] * local;
        Ok(outcome)
    }

    /// Mean of a gathered column over the rows that the term's mask keeps: in global order, in f64. 0 over no row.
    fn mean(&self, term: &Term, columns: &Tensor, column: i64) -> Result<f64, ModelError> {
        let rows = self.batch.rows(term.mask);
        let kept = rows.of_all(&columns.f_select(1, column)?.f_contiguous()?)?;
        Ok(f64::try_from(kept.f_sum(Dtype::Double)?)? / rows.count.max(1) as f64)
    }

    /// Adds a term's gradients, times `factor`. A term over no row adds zeros: its features still go through backward.
    fn learn(&self, term: &Term, columns: &Tensor, factor: f64, outcome: &mut Outcome) -> Result<(), ModelError> {
        let (rows, n_own) = (self.batch.rows(term.mask), self.batch.own_count());
        let mut add = |part: Part, grad: Tensor| -> Result<(), ModelError> {
            let mut grad = rows.spread(grad, n_own)?;
            outcome.grads.add(part, grad.f_mul_scalar_(factor)?)
        };
        match term.kind {
            Kind::InfoNce(a, b) if rows.count == 0 => {
                add(a, self.no_rows(a)?)?;
                add(b, self.no_rows(b)?)?;
            }
            Kind::InfoNce(a, b) => {
                let pair = [self.batch.columns(a, term.mask)?, self.batch.columns(b, term.mask)?];
                let lse = |column| rows.of_all(&columns.f_select(1, column)?.f_contiguous()?);
                let (ab, ba) = (lse(LSE_AB)?, lse(LSE_BA)?);
                let grad = self.nce.grad([&pair[0], &pair[1]], [&ab, &ba], rows.own.clone())?;
                add(a, grad.a)?;
                add(b, grad.b)?;
                let shares = rows.spread(grad.log_scale, n_own)?.f_to_kind(Dtype::Double)?;
                let _ = outcome.grad_logit_scale.f_add_(&shares.f_mul_scalar(factor)?)?;
            }
            Kind::Cosine { x, y, y_learns } => {
                add(x, cosine::grad(&rows.of_own(self.leaf(y))?, rows.count)?)?;
                if y_learns {
                    add(y, cosine::grad(&rows.of_own(self.leaf(x))?, rows.count)?)?;
                }
            }
        }
        Ok(())
    }

    fn leaf(&self, part: Part) -> &Tensor {
        self.leaves.part(part).expect("checked when the leaves were packed")
    }

    /// `[0, D]`, to be spread to zeros.
    fn no_rows(&self, part: Part) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_zeros([0, self.leaf(part).size()[1]], (Dtype::Float, self.batch.device()))?)
    }

    fn check_gathered(&self, gathered: &Tensor) -> Result<(), ModelError> {
        let expected = [self.batch.total(), self.terms.iter().map(|t| width(t.kind)).sum()];
        if gathered.size() == expected {
            return Ok(());
        }
        Err(ModelError::Shape {
            what: "gathered row statistics".into(),
            expected: format!("{expected:?}"),
            found: gathered.size(),
        })
    }
}

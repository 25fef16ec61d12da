//! One step of an objective between its gathers: per-slot numbers of the own rows, then losses and gradients.
//!
//! A new kind of term is an arm in [`width`], [`Step::own_columns`] and [`Step::learn`].

use pixfleet_cluster::spec::terms::{Scope, Set, Temperature, Term, TermKind};
use tch::{Kind as Dtype, Tensor};

use super::pack::Gathered;
use super::pairs::Pairs;
use super::{Leaves, Scales, StepLoss};
use crate::ModelError;
use crate::loss::{HardNegatives, InfoNce, PairFeatures, PairGrad, RowStats, Tile, cosine, join};

/// What the two halves share.
#[derive(Debug)]
pub(super) struct Step<'a> {
    terms: &'a [Term],
    pairs: Vec<Pairs>,
    leaves: &'a Leaves,
    batch: &'a Gathered,
    scales: Scales,
    smoothing: f64,
    tile: Tile,
}

/// Numbers that a term adds to the second gather for each slot: its loss, then how often each side was right, then what
/// its gradient needs of the other ranks.
fn width(kind: TermKind) -> i64 {
    match kind {
        TermKind::InfoNce(..) => 5,
        TermKind::HardNegatives(..) => 2,
        TermKind::Cosine { .. } => 1,
    }
}

/// Columns of the second gather by number, within a term.
const LOSS: i64 = 0;
const LSE_AB: i64 = 3;
const LSE_BA: i64 = 4;

/// Columns that tell whether a side was right.
fn hits(kind: TermKind) -> std::ops::Range<i64> {
    match kind {
        TermKind::InfoNce(..) => 1..3,
        TermKind::HardNegatives(..) => 1..2,
        TermKind::Cosine { .. } => 0..0,
    }
}

impl<'a> Step<'a> {
    pub(super) fn new(
        terms: &'a [Term],
        leaves: &'a Leaves,
        batch: &'a Gathered,
        (scales, smoothing, tile): (Scales, f64, Tile),
    ) -> Result<Self, ModelError> {
        let pairs = terms.iter().map(|t| batch.pairs(t.kind, leaves)).collect::<Result<_, _>>()?;
        Ok(Self { terms, pairs, leaves, batch, scales, smoothing, tile })
    }

    /// The own rows of the second gather, `[n_own, sum of widths x slots]` fp32.
    pub(super) fn first_half(&self) -> Result<Tensor, ModelError> {
        let n_own = self.batch.own_count();
        let mut columns = Vec::new();
        for (term, pairs) in self.terms.iter().zip(&self.pairs) {
            if pairs.count == 0 {
                let shape = [n_own, width(term.kind) * pairs.per_row()];
                columns.push(Tensor::f_zeros(shape, (Dtype::Float, self.batch.device()))?);
                continue;
            }
            for column in self.own_columns(term, pairs)? {
                columns.push(pairs.spread(&column, n_own)?);
            }
        }
        Ok(Tensor::f_cat(&columns, 1)?)
    }

    /// The columns of one term, over its own pairs.
    fn own_columns(&self, term: &Term, pairs: &Pairs) -> Result<Vec<Tensor>, ModelError> {
        match term.kind {
            TermKind::InfoNce(a, b, t) => {
                let nce = self.nce(t);
                let stats = match term.scope {
                    Scope::Global => {
                        let (a, b) = (self.batch.pair_features(a, pairs)?, self.batch.pair_features(b, pairs)?);
                        vec![nce.stats(&a, &b, &pairs.own_lanes())?]
                    }
                    Scope::Lane => {
                        let of_lane = |[a, b]: [Tensor; 2]| {
                            let (a, b) = (PairFeatures::of(&a)?, PairFeatures::of(&b)?);
                            nce.stats(&a, &b, std::slice::from_ref(&(0..a.count())))
                        };
                        self.by_lane(pairs, [a, b], of_lane)?
                    }
                };
                let column = |pick: fn(&RowStats) -> &Tensor| join(&stats.iter().map(pick).collect::<Vec<_>>());
                Ok(vec![
                    column(|s| &s.loss)?,
                    column(|s| &s.hit_ab)?,
                    column(|s| &s.hit_ba)?,
                    column(|s| &s.lse_ab)?,
                    column(|s| &s.lse_ba)?,
                ])
            }
            TermKind::HardNegatives(x, texts, t) => {
                let hard = self.hard(texts, t);
                let choices = self.by_lane(pairs, [x, texts], |[x, texts]| hard.choices(&x, &texts))?;
                let column = |losses: bool| {
                    let of = choices.iter().map(|c| if losses { &c.loss } else { &c.hit });
                    join(&of.collect::<Vec<_>>())
                };
                Ok(vec![column(true)?, column(false)?])
            }
            TermKind::Cosine { x, y, .. } => {
                Ok(vec![cosine::row_losses(&pairs.of_own(0, self.leaf(x))?, &pairs.of_own(1, self.leaf(y))?)?])
            }
        }
    }

    /// Losses of the global batch and gradients of the own rows, from the gathered columns.
    pub(super) fn second_half(&self, gathered: &Tensor) -> Result<StepLoss, ModelError> {
        self.check_gathered(gathered)?;
        let mut step = StepLoss::of(self.batch.own_count());
        let mut start = 0;
        for (term, pairs) in self.terms.iter().zip(&self.pairs) {
            let wide = width(term.kind) * pairs.per_row();
            let columns = gathered.f_narrow(1, start, wide)?;
            start += wide;
            let means = std::iter::once(LOSS).chain(hits(term.kind)).map(|column| self.mean(pairs, &columns, column));
            step.note(term, pairs.count, means.collect::<Result<_, _>>()?);
            self.learn(term, pairs, &columns, &mut step)?;
        }
        Ok(step)
    }

    /// A column over the term's pairs, in global order.
    fn column(&self, pairs: &Pairs, columns: &Tensor, column: i64) -> Result<Tensor, ModelError> {
        let slots = columns.f_narrow(1, column * pairs.per_row(), pairs.per_row())?;
        pairs.of_all(&slots.f_contiguous()?.f_view([-1])?)
    }

    /// Mean of a gathered column over the term's pairs, [] f64: in global order. 0 over no pair.
    fn mean(&self, pairs: &Pairs, columns: &Tensor, column: i64) -> Result<Tensor, ModelError> {
        let kept = self.column(pairs, columns, column)?;
        Ok(kept.f_sum(Dtype::Double)?.f_div_scalar(pairs.count.max(1) as f64)?)
    }

    /// Adds a term's gradients. A term over no pair adds zeros: its features still go through backward.
    fn learn(&self, term: &Term, pairs: &Pairs, columns: &Tensor, step: &mut StepLoss) -> Result<(), ModelError> {
        let mut add = |side: usize, set: Set, grad: Tensor| -> Result<(), ModelError> {
            let mut grad = pairs.to_own(side, grad, self.leaf(set))?;
            step.grads.add(set, grad.f_mul_scalar_(term.coefficient)?)
        };
        if pairs.count == 0 {
            let sides = (0..).zip(term.kind.sets());
            return sides
                .filter(|(_, set)| term.teaches(*set))
                .try_for_each(|(side, set)| add(side, set, Pairs::none(self.leaf(set))?));
        }
        let shares = match term.kind {
            TermKind::InfoNce(a, b, t) => {
                let grads = match term.scope {
                    Scope::Global => vec![self.global_grad([a, b], t, (pairs, columns))?],
                    Scope::Lane => self.lane_grads([a, b], t, (pairs, columns))?,
                };
                let part = |pick: fn(&PairGrad) -> &Tensor| join(&grads.iter().map(pick).collect::<Vec<_>>());
                add(0, a, part(|g| &g.a)?)?;
                add(1, b, part(|g| &g.b)?)?;
                Some((t, part(|g| &g.log_scale)?))
            }
            TermKind::HardNegatives(x, texts, t) => {
                let hard = self.hard(texts, t);
                let grads = self.by_lane(pairs, [x, texts], |[x, texts]| hard.grad(&x, &texts, pairs.count))?;
                add(0, x, join(&grads.iter().map(|g| &g.items).collect::<Vec<_>>())?)?;
                add(1, texts, join(&grads.iter().map(|g| &g.texts).collect::<Vec<_>>())?)?;
                Some((t, join(&grads.iter().map(|g| &g.log_scale).collect::<Vec<_>>())?))
            }
            TermKind::Cosine { x, y, y_learns } => {
                add(0, x, cosine::grad(&pairs.of_own(1, self.leaf(y))?, pairs.count)?)?;
                if y_learns {
                    add(1, y, cosine::grad(&pairs.of_own(0, self.leaf(x))?, pairs.count)?)?;
                }
                None
            }
        };
        let n_own = self.batch.own_count();
        if let Some((temperature, shares)) = shares {
            let by_slot = pairs.spread(&shares, n_own)?.f_to_kind(Dtype::Double)?;
            let by_row = by_slot.f_sum_dim_intlist([1i64].as_slice(), false, Dtype::Double)?;
            step.add_temperature(temperature, by_row.f_mul_scalar(term.coefficient)?)?;
        }
        Ok(())
    }

    fn global_grad(
        &self,
        [a, b]: [Set; 2],
        t: Temperature,
        (pairs, columns): (&Pairs, &Tensor),
    ) -> Result<PairGrad, ModelError> {
        let (a, b) = (self.batch.pair_features(a, pairs)?, self.batch.pair_features(b, pairs)?);
        let (ab, ba) = (self.column(pairs, columns, LSE_AB)?, self.column(pairs, columns, LSE_BA)?);
        self.nce(t).grad([&a, &b], [&ab, &ba], &pairs.own_lanes())
    }

    /// A lane's contrast is a mean over its own pairs; the term is one over all pairs of the batch.
    fn lane_grads(
        &self,
        sets: [Set; 2],
        t: Temperature,
        (pairs, columns): (&Pairs, &Tensor),
    ) -> Result<Vec<PairGrad>, ModelError> {
        let nce = self.nce(t);
        let own = |column| -> Result<Tensor, ModelError> {
            let all = self.column(pairs, columns, column)?;
            Ok(all.f_narrow(0, pairs.own.start, pairs.own.end - pairs.own.start)?)
        };
        let (ab, ba) = (own(LSE_AB)?, own(LSE_BA)?);
        let mut lanes = pairs.lanes.iter();
        self.by_lane(pairs, sets, |[a, b]| {
            let lane = lanes.next().expect("as many lanes as the pairs have");
            let lse = [&ab, &ba].map(|lse| lse.narrow(0, lane.start, lane.end - lane.start));
            let n = lane.end - lane.start;
            let (a, b) = (PairFeatures::of(&a)?, PairFeatures::of(&b)?);
            let mut grad = nce.grad([&a, &b], [&lse[0], &lse[1]], std::slice::from_ref(&(0..n)))?;
            for part in [&mut grad.a, &mut grad.b, &mut grad.log_scale] {
                let _ = part.f_mul_scalar_(n as f64 / pairs.count as f64)?;
            }
            Ok(grad)
        })
    }

    /// What `of_lane` says of each own lane's pairs, also of a lane without any. A lane's numbers are computed apart, so
    /// they are the same bits whoever hosts it.
    fn by_lane<T>(
        &self,
        pairs: &Pairs,
        sets: [Set; 2],
        mut of_lane: impl FnMut([Tensor; 2]) -> Result<T, ModelError>,
    ) -> Result<Vec<T>, ModelError> {
        let own = [pairs.of_own(0, self.leaf(sets[0]))?, pairs.of_own(1, self.leaf(sets[1]))?];
        let of = |lane: &std::ops::Range<i64>, side: usize| {
            let wide = i64::from(sets[side].width());
            own[side].f_narrow(0, lane.start * wide, (lane.end - lane.start) * wide)
        };
        pairs.lanes.iter().map(|lane| of_lane([of(lane, 0)?, of(lane, 1)?])).collect()
    }

    fn nce(&self, t: Temperature) -> InfoNce {
        InfoNce { scale: self.scales.of(t).exp(), smoothing: self.smoothing, tile: self.tile }
    }

    fn hard(&self, texts: Set, t: Temperature) -> HardNegatives {
        HardNegatives { scale: self.scales.of(t).exp(), texts: i64::from(texts.width()) }
    }

    fn leaf(&self, set: Set) -> &Tensor {
        &self.leaves.of(set).expect("checked when the leaves were packed").features
    }

    fn check_gathered(&self, gathered: &Tensor) -> Result<(), ModelError> {
        let wide = self.terms.iter().zip(&self.pairs).map(|(t, p)| width(t.kind) * p.per_row()).sum();
        let expected = [self.batch.total(), wide];
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

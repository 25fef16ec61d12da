//! Gradients of all lanes become those of the global batch, the same on every rank: `train.reduce`.
//!
//! `fast` is c10d's Reducer, which works while backward runs. `exact` keeps each lane's gradient apart, adds own lanes along
//! the tree of lanes (`pixfleet_cluster::lane_sum`), and after backward gathers what each rank could add and adds the
//! rest: the same additions in the same order whatever the world size.

use pixfleet_cluster::lane_sum::{LaneSum, complete, partial_count};
use pixfleet_cluster::spec::Reduce;
use pixfleet_cluster::{LaneMap, Rank};
use pixfleet_collective::{Group, Reducer};
use pixfleet_model::params::Params;
use tch::Tensor;

use super::error::TrainError;

/// Numbers of each partial sum that are gathered at a time.
const PIECE: i64 = 1 << 18;

/// See the module. Of one generation.
pub(crate) enum Reduction {
    /// Overlaps with backward.
    Fast(Reducer),
    /// The same bits whatever the world size.
    Exact(Exact),
}

/// The own lanes' gradients of one step, as far as they can be added.
#[derive(Default)]
pub(crate) struct Exact {
    sum: LaneSum<Tensor>,
    waited_s: f64,
}

impl Reduction {
    /// For the ranks of `group`.
    ///
    /// # Errors
    /// Those of [`Reducer::new`].
    pub(crate) fn new(kind: Reduce, group: &Group, params: &Params) -> Result<Self, TrainError> {
        match kind {
            Reduce::Fast => {
                let trainable = params.trainable().map(|p| (p.name(), p.tensor()));
                Ok(Self::Fast(Reducer::new(group, trainable)?))
            }
            Reduce::Exact => Ok(Self::Exact(Exact::default())),
        }
    }

    /// Call before the backward of the `i`th of the own `lanes`.
    ///
    /// # Errors
    /// Those of the reducer and of libtorch.
    pub(crate) fn before(&mut self, i: usize, lanes: &std::ops::Range<u32>, params: &Params) -> Result<(), TrainError> {
        match self {
            Self::Fast(reducer) if i + 1 == lanes.len() => Ok(reducer.prepare_for_backward()?),
            Self::Fast(_) => Ok(()),
            Self::Exact(exact) if i > 0 => exact.take(lanes.start + i as u32 - 1, params),
            Self::Exact(_) => Ok(()),
        }
    }

    /// Call after the last backward: gradients of the global batch stand in `.grad`.
    ///
    /// # Errors
    /// Those of the group and of libtorch.
    pub(crate) fn finish(&mut self, group: &Group, map: &LaneMap, params: &Params) -> Result<(), TrainError> {
        match self {
            Self::Fast(reducer) => Ok(reducer.finish()?),
            Self::Exact(exact) => exact.finish(group, map, params),
        }
    }

    /// Seconds that the last step waited for other ranks' gradients.
    pub(crate) fn waited_s(&self) -> f64 {
        match self {
            Self::Fast(reducer) => reducer.waited_s(),
            Self::Exact(exact) => exact.waited_s,
        }
    }
}

impl Exact {
    /// Takes the gradients of `lane` out of `.grad`.
    fn take(&mut self, lane: u32, params: &Params) -> Result<(), TrainError> {
        let flat = flat_gradients(params).map_err(|source| TrainError::Torch { doing: "taking gradients", source })?;
        self.sum.push(lane, flat, add)
    }

    fn finish(&mut self, group: &Group, map: &LaneMap, params: &Params) -> Result<(), TrainError> {
        let lanes = |rank: u32| map.lanes_of(Rank(rank));
        self.take(lanes(group.rank()).end - 1, params)?;
        let own = std::mem::take(&mut self.sum).into_partial();
        let rows: Vec<i64> = (0..map.world()).map(|rank| partial_count(lanes(rank)) as i64).collect();
        let whole = own[0].f_zeros_like().map_err(torch)?;
        let (length, mut start) = (whole.size()[0], 0);
        self.waited_s = 0.0;
        while start < length {
            let piece = PIECE.min(length - start);
            let cut = own.iter().map(|sum| sum.f_narrow(0, start, piece)).collect::<Result<Vec<_>, _>>();
            let cut = cut.and_then(|cut| Tensor::f_stack(&cut, 0)).map_err(torch)?;
            let before = group.waited_s();
            let all = group.all_gather_rows(&cut, &rows)?;
            self.waited_s += group.waited_s() - before;
            let sums = (0..all.size()[0]).map(|row| all.f_select(0, row)).collect::<Result<Vec<_>, _>>();
            let sum = complete((0..map.world()).map(lanes), sums.map_err(torch)?, add)?;
            whole.f_narrow(0, start, piece).and_then(|mut at| at.f_copy_(&sum)).map_err(torch)?;
            start += piece;
        }
        put_gradients(params, &whole).map_err(torch)
    }
}

fn torch(source: tch::TchError) -> TrainError {
    TrainError::Torch { doing: "adding the gradients of all lanes", source }
}

fn add(mut left: Tensor, right: Tensor) -> Result<Tensor, TrainError> {
    left.f_add_(&right).map_err(torch)
}

/// The gradients of all trainable parameters, one after the other, and zeros in their place.
fn flat_gradients(params: &Params) -> Result<Tensor, tch::TchError> {
    let grads: Vec<Tensor> = params.trainable().map(|param| param.tensor().grad()).collect();
    let parts = grads.iter().map(|grad| grad.f_reshape([-1])).collect::<Result<Vec<_>, _>>()?;
    let flat = Tensor::f_cat(&parts, 0)?;
    for mut grad in grads {
        let _ = grad.f_zero_()?;
    }
    Ok(flat)
}

/// The other way round.
fn put_gradients(params: &Params, flat: &Tensor) -> Result<(), tch::TchError> {
    let mut start = 0;
    for param in params.trainable() {
        let shape = param.tensor().size();
        let length = shape.iter().product::<i64>();
        param.tensor().grad().f_copy_(&flat.f_narrow(0, start, length)?.f_reshape(&shape)?)?;
        start += length;
    }
    Ok(())
}

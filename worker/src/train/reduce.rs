//! Gradients of all lanes become those of the global batch, the same on every rank: `train.reduce`.
//!
//! `fast` is c10d's Reducer, which works while backward runs. `exact` adds along the tree of lanes, after backward
//! ([`LaneTree`]).

use pixfleet_cluster::LaneMap;
use pixfleet_cluster::spec::Reduce;
use pixfleet_collective::{Group, Reducer};
use pixfleet_model::params::Params;

use super::error::TrainError;
use super::lane_tree::LaneTree;

/// See the module. Of one generation.
pub(crate) enum Reduction {
    /// Overlaps with backward.
    Fast(Reducer),
    /// The same bits whatever the world size.
    Exact(LaneTree),
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
            Reduce::Exact => Ok(Self::Exact(LaneTree::new(group, params)?)),
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
            Self::Exact(tree) => tree.before(lanes.start + i as u32, lanes.start, params),
        }
    }

    /// Call after the last backward: gradients of the global batch stand in `.grad`.
    ///
    /// # Errors
    /// Those of the group and of libtorch.
    pub(crate) fn finish(&mut self, group: &Group, map: &LaneMap, params: &Params) -> Result<(), TrainError> {
        match self {
            Self::Fast(reducer) => Ok(reducer.finish()?),
            Self::Exact(tree) => tree.finish(group, map, params),
        }
    }

    /// Seconds that the last step waited for other ranks' gradients.
    pub(crate) fn waited_s(&self) -> f64 {
        match self {
            Self::Fast(reducer) => reducer.waited_s(),
            Self::Exact(tree) => tree.waited_s(),
        }
    }

    /// Bytes of gradients that this rank of `group` sent to other ranks in the last step: counted for `exact`; for `fast` those
    /// of a ring all-reduce, `2 (W - 1) / W` times the gradients.
    pub(crate) fn bytes(&self, group: &Group, params: &Params) -> u64 {
        match self {
            Self::Fast(_) => {
                let numbers: usize = params.trainable().map(|param| param.tensor().numel()).sum();
                let world = u64::from(group.world());
                2 * (world - 1) * (numbers * size_of::<f32>()) as u64 / world
            }
            Self::Exact(tree) => tree.bytes(),
        }
    }
}

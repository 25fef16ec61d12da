//! What an objective takes and gives: features without a graph by set, and gradients on them.

use std::ops::Range;

use pixfleet_cluster::spec::terms::Set;
use tch::Tensor;

use crate::ModelError;
use crate::items::{BySet, Features, Items, Slots};

/// The own rows' features without a graph, lane after lane, and where lanes end.
#[derive(Debug, Default)]
pub struct Leaves {
    lanes: Vec<Range<i64>>,
    sets: BySet<Items>,
}

impl Leaves {
    /// The leaves of a rank's lanes, concatenated in lane order.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the lanes' widths differ.
    pub fn of_lanes(lanes: &[Features]) -> Result<Self, ModelError> {
        let mut leaves = Self::default();
        let mut start = 0;
        for lane in lanes {
            leaves.lanes.push(start..start + lane.rows);
            start += lane.rows;
        }
        for set in Set::ALL {
            let own: Vec<&Items> = lanes.iter().filter_map(|lane| lane.sets.get(set)).collect();
            let features: Vec<Tensor> = own.iter().map(|items| items.features.detach()).collect();
            let features = match features.len() {
                0 => continue,
                1 => features[0].shallow_clone(),
                _ => Tensor::f_cat(&features, 0)?,
            };
            let slots = Slots::joined(own.iter().map(|items| &items.slots));
            *leaves.sets.entry(set) = Some(Items { features, slots });
        }
        Ok(leaves)
    }

    /// The items of a set.
    #[must_use]
    pub fn of(&self, set: Set) -> Option<&Items> {
        self.sets.get(set)
    }

    /// The rows of each lane.
    #[must_use]
    pub fn lanes(&self) -> &[Range<i64>] {
        &self.lanes
    }
}

/// Gradients of the total loss on the own rows' items: `[items, D]` fp32 by set, absent where no term learns.
#[derive(Debug, Default)]
pub struct SetGrads(BySet<Tensor>);

impl SetGrads {
    /// The gradient on a set's features.
    #[must_use]
    pub fn of(&self, set: Set) -> Option<&Tensor> {
        self.0.get(set)
    }

    pub(super) fn add(&mut self, set: Set, grad: Tensor) -> Result<(), ModelError> {
        match self.0.entry(set) {
            Some(sum) => {
                let _ = sum.f_add_(&grad)?;
            }
            empty => *empty = Some(grad),
        }
        Ok(())
    }
}

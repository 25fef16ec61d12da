//! One forward in fp32 with every part kept, whether the loss reads it or not: for people who compare with another
//! implementation.

use pixfleet_cluster::spec::{LossSpec, PatchMapMask, Pool};
use tch::Tensor;

use crate::error::ModelError;
use crate::params::Compute;
use crate::towers::{Features, Inputs, Model};

/// What a probe yields. `features` has the graph of a training step; the other parts have none.
#[derive(Debug)]
pub struct Probe {
    /// What the loss is computed from.
    pub features: Features,
    /// [n, C, h, w].
    pub patch_map: Tensor,
    /// v_c [n, D], if crops were given.
    pub crop: Option<Tensor>,
    /// v_r [n, D], if what the pooling needs (boxes, or a mask) was given.
    pub roi: Option<Tensor>,
}

impl Model {
    /// Runs the towers in fp32 on `inputs`.
    ///
    /// # Errors
    /// As [`Model::encode`].
    pub fn probe(&self, inputs: &Inputs, loss: &LossSpec) -> Result<Probe, ModelError> {
        let w = self.params.weights(Compute::FP32);
        let (features, map) = self.forward(&w, inputs, loss)?;
        let _guard = tch::no_grad_guard();
        let patch_map = match map {
            Some(map) => map.detach(),
            None => {
                let mask = inputs.mask.as_ref().filter(|_| self.spec().patch_map_mask == PatchMapMask::Shared);
                self.vision().forward(&w, &inputs.pixels, mask, true).map.expect("asked for")
            }
        };
        let crop = match (&features.crop, &inputs.crop_pixels) {
            (Some(crop), _) => Some(crop.detach()),
            (None, Some(pixels)) => Some(self.vision().forward(&w, pixels, inputs.crop_mask.as_ref(), false).image),
            (None, None) => None,
        };
        let can_pool = match loss.pool {
            Pool::RoiAlign => inputs.boxes.is_some(),
            Pool::Mask => inputs.mask.is_some(),
        };
        let roi = match &features.roi {
            Some(roi) => Some(roi.detach()),
            None => can_pool.then(|| self.region(&w, &patch_map, inputs, loss)),
        };
        Ok(Probe { features, patch_map, crop, roi })
    }
}

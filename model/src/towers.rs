//! The model whole: vision tower, text adapter, logit scale, and the features that a loss asks for.

use pixfleet_cluster::spec::{LossSpec, ModelSpec};
use tch::{Device, Tensor};

use crate::error::ModelError;
use crate::params::{Compute, ParamId, Params};

/// A batch on the model's device, fp32. `S` is the tower's image side, `E` the width of the text vectors.
#[derive(Debug)]
pub struct Inputs {
    /// [n, 3, S, S], normalized.
    pub pixels: Tensor,
    /// [n, 1, S, S], normalized; `None` runs the tower without the alpha path.
    pub mask: Option<Tensor>,
    /// [n, 3, S, S], normalized; only for losses that use the crop.
    pub crop_pixels: Option<Tensor>,
    /// [n, 1, S, S], normalized.
    pub crop_mask: Option<Tensor>,
    /// [n, 4] xyxy in 0..1 of the square; only for losses that pool a region.
    pub boxes: Option<Tensor>,
    /// [n, E] text vectors.
    pub text: Tensor,
}

/// What the losses are computed from: rows are L2-normalized fp32 [n, D]. A part that a loss does not use is `None`.
#[derive(Debug)]
pub struct Features {
    /// v_m: the image with its mask. With graph.
    pub image: Tensor,
    /// v_c: the crop. With graph if a loss sends gradients into it, else without.
    pub crop: Option<Tensor>,
    /// u: the text through the adapter. With graph unless the adapter is frozen.
    pub text: Tensor,
    /// v_r: the region pooled from the patch map. With graph.
    pub roi: Option<Tensor>,
    /// v_t: the crop as the EMA or frozen teacher sees it. Never a graph. `None` for the online teachers: there the
    /// teacher is `crop` (detached by the loss unless `no-stop`).
    pub teacher: Option<Tensor>,
}

/// Structure and numbers of one model.
#[derive(Debug)]
pub struct Model {
    /// The numbers. `visual.*`, `text.text_adaptor.*` and `logit_scale`, in that order.
    pub params: Params,
    /// The EMA or frozen teacher's numbers, if the loss has one: same names and order, no gradients.
    pub teacher: Option<Params>,
    logit_scale: ParamId,
    spec: ModelSpec,
}

impl Model {
    /// The logit scale's parameter: ln of the factor, shape [].
    #[must_use]
    pub fn logit_scale(&self) -> &Tensor {
        self.params.tensor(self.logit_scale)
    }

    /// What it was built from.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }
}

//! The model whole: vision tower, text adapter, logit scale, and the features that a loss asks for.

use pixfleet_cluster::spec::{CropLoss, LocalLoss, LossSpec, ModelSpec, PatchMapMask, Pool, PoolOrder, Teacher};
use tch::{Device, Tensor};

use crate::error::ModelError;
use crate::layers::l2_normalize;
use crate::params::{Builder, Compute, Init, ParamId, Params, Weights};
use crate::roi_align::{mask_weights, roi_weights, weighted_sum};
use crate::text_proj::TextProj;
use crate::vision::{Vision, VisionConfig};

/// How a mask in 0..1 is normalized: `(m - MEAN) / STD` (method.md 1.4).
pub const MASK_MEAN: f64 = 0.5;
/// See [`MASK_MEAN`].
pub const MASK_STD: f64 = 0.26;

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
    /// [n, 4] xyxy in 0..1 of the square; only for losses that pool a region by its box.
    pub boxes: Option<Tensor>,
    /// [n, E] text vectors.
    pub text: Tensor,
}

/// What the losses are computed from: rows are L2-normalized fp32 [n, D]. A part that a loss does not use is `None`.
#[derive(Debug)]
pub struct Features {
    /// v_m: the image with its mask. With graph.
    pub image: Tensor,
    /// v_c: the crop. With graph if the loss sends gradients into it, else without.
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
    /// The numbers. `logit_scale`, `visual.*` and `text.text_adaptor.*`, in that order.
    pub params: Params,
    /// The EMA or frozen teacher's numbers, if the loss has one: same names and order, no gradients.
    pub teacher: Option<Params>,
    vision: Vision,
    text_proj: TextProj,
    logit_scale: ParamId,
    spec: ModelSpec,
}

impl Model {
    /// The model of a run file from scratch, fp32, on `device`. Every value is a function of (seed, name, index).
    /// `spec.weights` is not read here: see [`Params::load_bytes`].
    #[must_use]
    pub fn build(spec: &ModelSpec, seed: u64, device: Device) -> Self {
        Self::with_config(spec, &VisionConfig::of(spec), seed, device)
    }

    /// As [`Model::build`] with a vision tower of other sizes (tests).
    #[must_use]
    pub fn with_config(spec: &ModelSpec, config: &VisionConfig, seed: u64, device: Device) -> Self {
        let mut params = Params::new(device);
        let mut root = Builder::new(&mut params, seed);
        let scale = &spec.logit_scale;
        let logit_scale = root.param("logit_scale", &[], Init::Constant(scale.init));
        let vision = Vision::new(config, &mut root.below("visual"), device);
        let text_proj = TextProj::new(&spec.text_proj, config.embed, &mut root.below("text.text_adaptor"));
        params.set_trainable(|name| match name {
            "logit_scale" => scale.trainable,
            _ if name.starts_with("text.") => !spec.text_proj.frozen,
            _ => true,
        });
        Self { params, teacher: None, vision, text_proj, logit_scale, spec: spec.clone() }
    }

    /// Starts the teacher that `loss` asks for as a copy of the present parameters, or drops it. To be called after
    /// weights were loaded.
    pub fn start_teacher(&mut self, loss: &LossSpec) {
        self.teacher = uses_teacher_set(loss).then(|| self.params.detached_copy());
    }

    /// The vision tower's structure.
    #[must_use]
    pub fn vision(&self) -> &Vision {
        &self.vision
    }

    /// The text adapter's structure.
    #[must_use]
    pub fn text_proj(&self) -> &TextProj {
        &self.text_proj
    }

    /// The logit scale's parameter: ln of the factor, shape [].
    pub fn logit_scale(&self) -> &Tensor {
        self.params.tensor(self.logit_scale)
    }

    /// What it was built from.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The features that `loss` needs, with the graph that it needs and no more: a crop that only teaches runs without
    /// one, and a map is made only if a region is pooled from it.
    ///
    /// # Errors
    /// If an input that the loss needs is missing or has another shape than the model's.
    pub fn encode(&self, inputs: &Inputs, loss: &LossSpec, compute: Compute) -> Result<Features, ModelError> {
        Ok(self.forward(&self.params.weights(compute), inputs, loss)?.0)
    }

    /// The features, and the patch map [n, C, h, w] if the loss made one.
    pub(crate) fn forward(
        &self,
        w: &Weights<'_>,
        inputs: &Inputs,
        loss: &LossSpec,
    ) -> Result<(Features, Option<Tensor>), ModelError> {
        self.check(inputs, loss)?;
        let want_map = loss.needs_patch_map();
        let shared = want_map && self.spec.patch_map_mask == PatchMapMask::Shared;
        let main = self.vision.forward(w, &inputs.pixels, inputs.mask.as_ref(), shared);
        let map = match (want_map, main.map) {
            (true, None) => self.vision.forward(w, &inputs.pixels, None, true).map,
            (_, map) => map,
        };
        let features = Features {
            image: main.image,
            crop: self.crop(w, inputs, loss),
            text: self.text_proj.forward(w, &inputs.text),
            roi: map.as_ref().map(|map| self.region(w, map, inputs, loss)),
            teacher: self.teach(inputs, loss, w.compute())?,
        };
        Ok((features, map))
    }

    fn crop(&self, w: &Weights<'_>, inputs: &Inputs, loss: &LossSpec) -> Option<Tensor> {
        let pixels = inputs.crop_pixels.as_ref().filter(|_| uses_online_crop(loss))?;
        let forward = || self.vision.forward(w, pixels, inputs.crop_mask.as_ref(), false).image;
        Some(if crop_has_gradient(loss) { forward() } else { tch::no_grad(forward) })
    }

    fn teach(&self, inputs: &Inputs, loss: &LossSpec, compute: Compute) -> Result<Option<Tensor>, ModelError> {
        if !uses_teacher_set(loss) {
            return Ok(None);
        }
        let hint = "call `Model::start_teacher` before the first step";
        let teacher = self.teacher.as_ref().ok_or(ModelError::MissingInput { what: "teacher parameters", hint })?;
        let pixels = inputs.crop_pixels.as_ref().ok_or(missing_crop())?;
        let w = teacher.weights(compute);
        Ok(Some(tch::no_grad(|| self.vision.forward(&w, pixels, inputs.crop_mask.as_ref(), false).image)))
    }

    /// v_r [n, D] from the map [n, C, h, w].
    pub(crate) fn region(&self, w: &Weights<'_>, map: &Tensor, inputs: &Inputs, loss: &LossSpec) -> Tensor {
        let (h, width) = (map.size()[2], map.size()[3]);
        let weights = match loss.pool {
            Pool::RoiAlign => roi_weights(inputs.boxes.as_ref().expect("checked by encode"), h, width),
            Pool::Mask => {
                let mask = inputs.mask.as_ref().expect("checked by encode") * MASK_STD + MASK_MEAN;
                mask_weights(&mask, h, width)
            }
        };
        match loss.pool_order {
            PoolOrder::PoolThenHead => self.vision.head_norm(w, &weighted_sum(&map.flatten(2, 3), &weights)),
            PoolOrder::HeadThenPool => {
                let patches = self.vision.head_norm(w, &map.flatten(2, 3).transpose(1, 2));
                l2_normalize(&weighted_sum(&patches.transpose(1, 2), &weights))
            }
        }
    }

    /// Shapes of everything that will be read.
    fn check(&self, inputs: &Inputs, loss: &LossSpec) -> Result<(), ModelError> {
        let side = self.vision.config().image;
        let n = inputs.pixels.size().first().copied().unwrap_or(0);
        expect_shape("pixels", &inputs.pixels, &[n, 3, side, side])?;
        expect_shape("text", &inputs.text, &[n, self.text_proj.width()])?;
        let optional = [
            ("mask", &inputs.mask, vec![n, 1, side, side]),
            ("crop_pixels", &inputs.crop_pixels, vec![n, 3, side, side]),
            ("crop_mask", &inputs.crop_mask, vec![n, 1, side, side]),
            ("boxes", &inputs.boxes, vec![n, 4]),
        ];
        for (what, tensor, shape) in optional {
            if let Some(tensor) = tensor {
                expect_shape(what, tensor, &shape)?;
            }
        }
        if loss.needs_crop() && inputs.crop_pixels.is_none() {
            return Err(missing_crop());
        }
        if loss.needs_patch_map() && loss.pool == Pool::RoiAlign && inputs.boxes.is_none() {
            let hint = "pool regions by mask or give their boxes";
            return Err(ModelError::MissingInput { what: "boxes", hint });
        }
        if loss.needs_patch_map() && loss.pool == Pool::Mask && inputs.mask.is_none() {
            let hint = "pool regions by box or give their masks";
            return Err(ModelError::MissingInput { what: "mask", hint });
        }
        Ok(())
    }
}

/// Whether an EMA or frozen parameter set teaches.
#[must_use]
pub fn uses_teacher_set(loss: &LossSpec) -> bool {
    matches!(loss.teacher, Teacher::Ema | Teacher::Frozen) && has_taught_term(loss)
}

/// C2 (also within C3) and G1 compare with a teacher's crop.
fn has_taught_term(loss: &LossSpec) -> bool {
    matches!(loss.crop, CropLoss::C2 | CropLoss::C3) || matches!(loss.local, LocalLoss::G1 | LocalLoss::G1G2)
}

/// Whether the model's own crop feature is read by anything.
fn uses_online_crop(loss: &LossSpec) -> bool {
    crop_has_gradient(loss) || (has_taught_term(loss) && !uses_teacher_set(loss))
}

/// Whether a loss sends gradients into the model's own crop feature.
fn crop_has_gradient(loss: &LossSpec) -> bool {
    matches!(loss.crop, CropLoss::C1 | CropLoss::C2Nce | CropLoss::C3)
        || (has_taught_term(loss) && loss.teacher == Teacher::NoStop)
}

fn missing_crop() -> ModelError {
    ModelError::MissingInput { what: "crop_pixels", hint: "the data section must make crops for this loss" }
}

fn expect_shape(what: &str, tensor: &Tensor, expected: &[i64]) -> Result<(), ModelError> {
    let found = tensor.size();
    if found == expected {
        return Ok(());
    }
    Err(ModelError::Shape { what: what.to_owned(), expected: format!("{expected:?}"), found })
}

#[cfg(test)]
mod tests;

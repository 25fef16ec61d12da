//! The model whole: vision tower, text tower, temperatures, and the features that a run needs.

mod text;
mod vision;

#[cfg(test)]
mod tests;

pub use text::TextTower;
pub(crate) use text::text_is_frozen;
pub use vision::{VisionSizes, VisionTower};

use pixfleet_cluster::spec::terms::{Set, Temperature};
use pixfleet_cluster::spec::{ModelSpec, Needs, PatchMapMask, Pool, PoolOrder, Recompute};
use tch::{Device, Kind, Tensor};

use crate::error::ModelError;
use crate::host::{put, read};
use crate::items::{BySet, Features, Inputs, Items, Slots};
use crate::layers::l2_normalize;
use crate::objective::Scales;
use crate::params::{Builder, Compute, Init, ParamGroup, ParamId, Params, Weights};
use crate::roi_align::{mask_weights, roi_weights, weighted_sum};

/// How a mask in 0..1 is normalized: `(m - MEAN) / STD` (method.md 1.4).
pub const MASK_MEAN: f64 = 0.5;
/// See [`MASK_MEAN`].
pub const MASK_STD: f64 = 0.26;

/// Structure and numbers of one model.
#[derive(Debug)]
pub struct Model {
    /// The numbers: temperatures, vision tower, text tower, in that order.
    pub params: Params,
    /// The EMA or frozen teacher's numbers, if the loss has one: same names and order, no gradients.
    pub teacher: Option<Params>,
    vision: VisionTower,
    text: TextTower,
    temperatures: Vec<(Temperature, ParamId)>,
    spec: ModelSpec,
}

impl Model {
    /// The model of a run file from scratch, fp32, on `device`. Every value is a function of (seed, name, index).
    /// `spec.weights` is not read here: see [`Params::load_bytes`].
    #[must_use]
    pub fn build(spec: &ModelSpec, needs: &Needs, seed: u64, device: Device) -> Self {
        Self::with_sizes(spec, needs, &VisionSizes::of(spec), seed, device)
    }

    /// As [`Model::build`] with a vision tower of other sizes (tests).
    #[must_use]
    pub fn with_sizes(spec: &ModelSpec, needs: &Needs, sizes: &VisionSizes, seed: u64, device: Device) -> Self {
        let mut params = Params::new(device);
        let mut root = Builder::new(&mut params, seed);
        let scale = &spec.logit_scale;
        let mut at = root.of(ParamGroup::Temperature);
        let temperature = |t: Temperature| (t, at.param(t.parameter(), &[], Init::Constant(scale.init)));
        let temperatures = needs.temperatures().map(temperature).collect();
        let vision = VisionTower::new(sizes, &mut root, device);
        let text = TextTower::new(spec, needs, sizes.embed(), &mut root);
        params.set_trainable(|role| match role.group {
            ParamGroup::Temperature => scale.trainable,
            ParamGroup::Text => !text_is_frozen(spec),
            ParamGroup::Vision { .. } | ParamGroup::Alpha => true,
        });
        Self { params, teacher: None, vision, text, temperatures, spec: spec.clone() }
    }

    /// Starts the teacher that a run needs as a copy of the present parameters, or drops it. To be called after weights
    /// were loaded.
    pub fn start_teacher(&mut self, needs: &Needs) {
        self.teacher = needs.teacher().then(|| self.params.detached_copy());
    }

    /// The vision tower's structure.
    #[must_use]
    pub fn vision(&self) -> &VisionTower {
        &self.vision
    }

    /// The text tower's structure.
    #[must_use]
    pub fn text(&self) -> &TextTower {
        &self.text
    }

    /// The temperatures' parameters: each ln of a factor, shape [].
    #[must_use]
    pub fn temperatures(&self) -> Vec<(Temperature, &Tensor)> {
        self.temperatures.iter().map(|(t, id)| (*t, self.params.tensor(*id))).collect()
    }

    /// The temperatures' values, read from the device.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn scales(&self) -> Result<Scales, ModelError> {
        Ok(self.scales_of(&read(&self.temperatures_in_order()?)?))
    }

    /// What [`Self::scales_of`] takes, [temperatures] f64, to be read together with other numbers.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn temperatures_in_order(&self) -> Result<Tensor, ModelError> {
        let parameters: Vec<Tensor> = self.temperatures().iter().map(|(_, p)| p.detach()).collect();
        Ok(Tensor::f_stack(&parameters, 0)?.f_to_kind(Kind::Double)?)
    }

    /// The temperatures from the values of [`Self::temperatures_in_order`].
    #[must_use]
    pub fn scales_of(&self, values: &[f64]) -> Scales {
        let named = self.temperatures.iter().map(|(t, _)| *t).zip(values);
        named.fold(Scales::default(), |scales, (t, value)| scales.with(t, *value))
    }

    /// What it was built from.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The features that a run needs; see [`CastModel::encode`]. For one lane: several share a [`Model::cast`].
    ///
    /// # Errors
    /// Those of [`CastModel::encode`].
    pub fn encode(&self, inputs: &Inputs, needs: &Needs, compute: Compute) -> Result<Features, ModelError> {
        self.cast(compute).encode(inputs, needs)
    }

    /// The model with its weights in the arithmetic of a step, each cast at most once.
    #[must_use]
    pub fn cast(&self, compute: Compute) -> CastModel<'_> {
        let teacher = self.teacher.as_ref().map(|teacher| teacher.weights(compute));
        CastModel { model: self, own: self.params.weights(compute), teacher }
    }

    /// Shapes of everything that will be read.
    fn check(&self, inputs: &Inputs, needs: &Needs) -> Result<(), ModelError> {
        let side = self.vision.image();
        let n = inputs.pixels.size().first().copied().unwrap_or(0);
        expect_shape("pixels", &inputs.pixels, &[n, 3, side, side])?;
        let regions = inputs.slots.get(Set::Region).map_or(n, Slots::count);
        let optional = [
            ("mask", &inputs.mask, vec![n, 1, side, side]),
            ("crop_pixels", &inputs.crop_pixels, vec![n, 3, side, side]),
            ("crop_mask", &inputs.crop_mask, vec![n, 1, side, side]),
            ("boxes", &inputs.boxes, vec![regions, 4]),
        ];
        for (what, tensor, shape) in optional {
            if let Some(tensor) = tensor {
                expect_shape(what, tensor, &shape)?;
            }
        }
        if needs.crop() && inputs.crop_pixels.is_none() {
            return Err(missing_crop());
        }
        if needs.boxes() && inputs.boxes.is_none() {
            let hint = "pool regions by mask or give their boxes";
            return Err(ModelError::MissingInput { what: "boxes", hint });
        }
        if needs.patch_map() && needs.pool == Pool::Mask && inputs.mask.is_none() {
            let hint = "pool regions by box or give their masks";
            return Err(ModelError::MissingInput { what: "mask", hint });
        }
        Ok(())
    }
}

/// See [`Model::cast`]. Lanes of a step share it; make a new one after the parameters have changed.
#[derive(Debug)]
pub struct CastModel<'m> {
    model: &'m Model,
    own: Weights<'m>,
    teacher: Option<Weights<'m>>,
}

impl CastModel<'_> {
    /// The same, keeping of the towers' own blocks what `recompute` says.
    #[must_use]
    pub fn recomputing(self, recompute: Recompute) -> Self {
        Self { own: self.own.recomputing(recompute), ..self }
    }

    /// The features that a run needs, with the graph that it needs and no more: a crop that only teaches runs without
    /// one, and a map is made only if a region is pooled from it.
    ///
    /// # Errors
    /// If an input that is needed is missing or has another shape than the model's.
    pub fn encode(&self, inputs: &Inputs, needs: &Needs) -> Result<Features, ModelError> {
        let (model, w) = (self.model, &self.own);
        model.check(inputs, needs)?;
        let rows = inputs.pixels.size()[0];
        let shared = needs.patch_map() && model.spec.patch_map_mask == PatchMapMask::Shared;
        let main = model.vision.forward(w, &inputs.pixels, inputs.mask.as_ref(), shared);
        let map = match (needs.patch_map(), main.map) {
            (true, None) => model.vision.forward(w, &inputs.pixels, None, true).map,
            (_, map) => map,
        };
        let mut sets = BySet::default();
        if needs.has(Set::Crop) {
            let crop = || self.crop(w, inputs, Set::Crop, &main.image);
            let items = if needs.learns(Set::Crop) { crop()? } else { tch::no_grad(crop)? };
            *sets.entry(Set::Crop) = Some(items);
        }
        if needs.has(Set::Teacher) {
            let hint = "call `Model::start_teacher` before the first step";
            let teacher = self.teacher.as_ref().ok_or(ModelError::MissingInput { what: "teacher parameters", hint })?;
            let taught = || self.crop(teacher, inputs, Set::Teacher, &main.image);
            *sets.entry(Set::Teacher) = Some(tch::no_grad(taught)?);
        }
        *sets.entry(Set::Image) = Some(Items { features: main.image, slots: Slots::all(rows, 1) });
        if let Some(map) = &map {
            let slots = slots_of(inputs, Set::Region)?.clone();
            let features = self.regions(map, (inputs, &slots), needs)?;
            *sets.entry(Set::Region) = Some(Items { features, slots });
        }
        for set in needs.texts() {
            let missing = ModelError::MissingInput { what: set.name(), hint: "the data section must give these texts" };
            let texts = inputs.texts.get(set).ok_or(missing)?;
            let features = model.text.forward(w, set, texts)?;
            *sets.entry(set) = Some(Items { features, slots: slots_of(inputs, set)?.clone() });
        }
        Ok(Features { rows, sets })
    }

    /// The crops that count through the numbers of `w`; others are not run. Without any, nothing of `image`: a set
    /// without an item goes through backward all the same.
    fn crop(&self, w: &Weights<'_>, inputs: &Inputs, set: Set, image: &Tensor) -> Result<Items, ModelError> {
        let slots = slots_of(inputs, set)?.clone();
        let pixels = inputs.crop_pixels.as_ref().ok_or(missing_crop())?;
        let valid = put(&Tensor::from_slice(slots.valid()), pixels.device())?;
        let counting =
            |all: &Tensor| if slots.is_full() { Ok(all.shallow_clone()) } else { all.f_index_select(0, &valid) };
        let features = if slots.count() == 0 {
            image.f_narrow(0, 0, 0)?
        } else {
            let mask = inputs.crop_mask.as_ref().map(counting).transpose()?;
            self.model.vision.forward(w, &counting(pixels)?, mask.as_ref(), false).image
        };
        Ok(Items { features, slots })
    }

    /// v_r [regions, D] from the map [n, C, h, w] of the images that own them.
    fn regions(&self, map: &Tensor, (inputs, slots): (&Inputs, &Slots), needs: &Needs) -> Result<Tensor, ModelError> {
        let (vision, w) = (&self.model.vision, &self.own);
        let (h, width) = (map.size()[2], map.size()[3]);
        let every = slots.is_full() && slots.per_row() == 1;
        let owners = (!every).then(|| put(&Tensor::from_slice(&slots.owners()), map.device())).transpose()?;
        let of_owners = |rows: &Tensor| match &owners {
            Some(owners) => rows.index_select(0, owners),
            None => rows.shallow_clone(),
        };
        let weights = match needs.pool {
            Pool::RoiAlign => roi_weights(inputs.boxes.as_ref().expect("checked by encode"), h, width),
            Pool::Mask => {
                let mask = inputs.mask.as_ref().expect("checked by encode") * MASK_STD + MASK_MEAN;
                mask_weights(&of_owners(&mask), h, width)
            }
        };
        Ok(match needs.pool_order {
            PoolOrder::PoolThenHead => vision.head_norm(w, &weighted_sum(&of_owners(&map.flatten(2, 3)), &weights)),
            PoolOrder::HeadThenPool => {
                let patches = vision.head_norm(w, &map.flatten(2, 3).transpose(1, 2));
                l2_normalize(&weighted_sum(&of_owners(&patches.transpose(1, 2)), &weights))
            }
        })
    }
}

fn slots_of(inputs: &Inputs, set: Set) -> Result<&Slots, ModelError> {
    let hint = "say which of its slots hold an item";
    inputs.slots.get(set).ok_or(ModelError::MissingInput { what: set.name(), hint })
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

//! The probe of FG-CLIP v1 (method.md 4.2): one lane with captions, regions and hard negatives.
//!
//! IN (safetensors): `pixels` [N,3,S,S], normalized; token ids `text_long` [N,248], `text_short` [N,77], `text_region`
//! [4N,77], `text_hard` [11 x sum(hard_counts),77], the true text first; `boxes` [N,4,4] xyxy in 0..1 of which the first
//! `box_counts` [N] of a row count, with `text_region` row 4n + k for box k; `hard_boxes` [N,4,4], `hard_counts` [N] likewise.
//! OUT: `image_features`, `text_long_features`, `text_short_features` [N,D], `region_features` [sum(box_counts),D], all
//! L2-normalized; `loss.long`, `loss.short`, `loss.region`, `loss.hard`, `loss.total` []; `grad.<parameter name>`.
//!
//! A row has eight region slots here: four that meet their texts, four that meet their hard negatives.

mod inputs;

use super::gradients;
use anyhow::Result;
use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{DataSpec, LossSpec, Needs};
use pixfleet_model::{Inputs, Model};
use tch::{Kind, Tensor};

pub(super) use inputs::read;

/// Boxes of a row, and as many hard ones.
const BOXES: i64 = 4;

/// The needs of `loss` over rows of eight slots.
pub(super) fn needs(loss: &LossSpec) -> Needs {
    Needs::of(loss, &DataSpec { regions: 2 * BOXES as u32, ..DataSpec::default() })
}

/// Everything that OUT holds, by name.
pub(super) fn probe(
    model: &mut Model,
    inputs: &Inputs,
    (needs, loss): (&Needs, &LossSpec),
) -> Result<Vec<(String, Tensor)>> {
    let (leaves, told) = super::learn(model, inputs, (needs, loss))?;
    let mut out = Vec::new();
    for (name, set) in
        [("image_features", Set::Image), ("text_long_features", Set::LongText), ("text_short_features", Set::ShortText)]
    {
        out.extend(leaves.of(set).map(|items| (name.to_owned(), items.features.shallow_clone())));
    }
    if let Some(regions) = leaves.of(Set::Region) {
        let slots = (0i64..).zip(regions.slots.valid());
        let boxes: Vec<i64> = slots.filter(|(_, slot)| *slot % (2 * BOXES) < BOXES).map(|(item, _)| item).collect();
        let features = regions.features.index_select(0, &Tensor::from_slice(&boxes));
        out.push(("region_features".to_owned(), features));
    }
    let losses = told.terms.iter().map(|t| (t.name, t.loss)).chain([("total", told.total)]);
    out.extend(losses.map(|(name, value)| (format!("loss.{name}"), Tensor::from(value).to_kind(Kind::Float))));
    out.extend(gradients(model));
    Ok(out)
}

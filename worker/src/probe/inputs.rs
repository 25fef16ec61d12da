//! The given tensors, checked: every one has its name and shape, none is missing, none is unknown.

use anyhow::{Result, bail};
use pixfleet_cluster::spec::Needs;
use pixfleet_cluster::spec::terms::Set;
use pixfleet_model::{BySet, Inputs, Model, Slots, TextItems};
use std::collections::HashMap;
use tch::Tensor;

/// What a model and a loss ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Side of the square input.
    pub(crate) size: i64,
    /// Width of a text vector.
    pub(crate) text: i64,
    /// Whether the loss uses the crop.
    pub(crate) crop: bool,
    /// Whether the loss pools a region.
    pub(crate) boxes: bool,
}

impl Expected {
    pub(crate) fn of(model: &Model, needs: &Needs) -> Self {
        Self {
            size: model.vision().image(),
            text: i64::from(model.spec().text_proj.width),
            crop: needs.crop(),
            boxes: needs.patch_map(),
        }
    }

    /// Name, shape after the batch, whether it must be there.
    fn tensors(&self) -> [(&'static str, Vec<i64>, bool); 6] {
        let s = self.size;
        [
            ("pixels", vec![3, s, s], true),
            ("mask", vec![1, s, s], true),
            ("crop_pixels", vec![3, s, s], self.crop),
            ("crop_mask", vec![1, s, s], self.crop),
            ("boxes", vec![4], self.boxes),
            ("text", vec![self.text], true),
        ]
    }
}

/// The model's inputs. `origin` names the file in messages.
///
/// # Errors
/// A missing, unknown or misshapen tensor, boxes outside 0..1 or empty, each by name with what was expected.
pub(crate) fn check(mut given: HashMap<String, Tensor>, expected: &Expected, origin: &str) -> Result<Inputs> {
    let tensors = expected.tensors();
    let mut unknown: Vec<&str> =
        given.keys().map(String::as_str).filter(|n| !tensors.iter().any(|t| t.0 == *n)).collect();
    unknown.sort_unstable();
    if let Some(name) = unknown.first() {
        let known: Vec<&str> = tensors.iter().map(|t| t.0).collect();
        bail!("{origin}: unknown tensor `{name}`; expected {}", known.join(", "));
    }
    let rows = given.get("pixels").and_then(|t| t.size().first().copied()).unwrap_or(0);
    for (name, shape, required) in &tensors {
        let wanted = format!("[N, {}]", shape.iter().map(i64::to_string).collect::<Vec<_>>().join(", "));
        match given.get(*name) {
            None if *required => bail!("{origin}: tensor `{name}` is missing; expected shape {wanted}"),
            None => {}
            Some(tensor) => {
                let size = tensor.size();
                if size.len() != shape.len() + 1 || size[1..] != shape[..] || size[0] != rows || rows == 0 {
                    bail!(
                        "{origin}: tensor `{name}` has shape {size:?}; expected {wanted} with N = {rows} as in `pixels`, N > 0"
                    );
                }
            }
        }
    }
    if let Some(boxes) = given.get("boxes") {
        check_boxes(boxes, origin)?;
    }
    let mut take = |name: &str| given.remove(name);
    let (Some(pixels), Some(text)) = (take("pixels"), take("text")) else {
        bail!("{origin}: tensors `pixels` and `text` must be there");
    };
    let (crop_pixels, crop_mask) = (take("crop_pixels"), take("crop_mask"));
    // Every sample has one region, one text and one crop.
    let slots = [Set::Crop, Set::Region, Set::RegionText]
        .into_iter()
        .fold(BySet::default(), |slots, set| slots.with(set, Slots::all(rows, 1)));
    let texts = BySet::default().with(Set::RegionText, TextItems::Vectors(text));
    Ok(Inputs { pixels, mask: take("mask"), crop_pixels, crop_mask, boxes: take("boxes"), slots, texts })
}

fn check_boxes(boxes: &Tensor, origin: &str) -> Result<()> {
    for row in 0..boxes.size()[0] {
        let b: Vec<f64> = (0..4).map(|i| boxes.double_value(&[row, i])).collect();
        if !b.iter().all(|v| (0.0..=1.0).contains(v)) || b[0] >= b[2] || b[1] >= b[3] {
            bail!("{origin}: `boxes` row {row} is {b:?}; expected x1 < x2, y1 < y2 as fractions of the image in 0..1");
        }
    }
    Ok(())
}

//! A host batch on the model's device.

use pixfleet_cluster::spec::Needs;
use pixfleet_cluster::spec::terms::Set;
use pixfleet_model::{BySet, Inputs, Slots, TextItems, TokenIds};
use pixfleet_shards::batch::{Batch, BatchTexts};
use pixfleet_shards::tokens::END;
use tch::{Device, TchError, Tensor};

use super::error::TrainError;
use crate::pixels;

/// The planes, slots and texts of one lane.
///
/// # Errors
/// [`TrainError::Torch`] if the device fails, [`TrainError::Model`] for slots that do not fit their rows.
pub(crate) fn inputs(batch: &Batch, needs: &Needs, device: Device) -> Result<Inputs, TrainError> {
    let torch = |source| TrainError::Torch { doing: "copying a batch to the device", source };
    let (n, side) = (batch.n as i64, batch.size as i64);
    let mut slots = BySet::default();
    for (&set, valid) in &batch.slots {
        let valid = valid.iter().map(|&slot| i64::from(slot)).collect();
        *slots.entry(set) = Some(Slots::of(n, i64::from(needs.slots(set)), valid)?);
    }
    let mut texts = BySet::default();
    for (&set, of_set) in &batch.texts {
        *texts.entry(set) = Some(text_items(of_set, device).map_err(torch)?);
    }
    let boxes = batch.slots.contains_key(&Set::Region);
    let planes = || -> Result<Inputs, TchError> {
        let there = |bytes: &[u8]| !bytes.is_empty();
        let mask = |bytes: &[u8], ones: &[(u32, f32)]| {
            there(bytes).then(|| pixels::masks(bytes, ones, side, device)).transpose()
        };
        let crops = &batch.crop_pixels;
        let corners = || Tensor::f_from_slice(batch.boxes.as_flattened())?.f_reshape([-1, 4])?.f_to_device(device);
        Ok(Inputs {
            pixels: pixels::images(&batch.pixels, side, device)?,
            mask: mask(&batch.mask, &batch.mask_ones)?,
            crop_pixels: there(crops).then(|| pixels::images(crops, side, device)).transpose()?,
            crop_mask: mask(&batch.crop_mask, &batch.crop_mask_ones)?,
            boxes: boxes.then(corners).transpose()?,
            slots,
            texts,
        })
    };
    planes().map_err(torch)
}

/// Vectors as they are; token ids filled up to the longest of the set.
pub(crate) fn text_items(texts: &BatchTexts, device: Device) -> Result<TextItems, TchError> {
    match texts {
        BatchTexts::Vectors { width, values } => {
            let vectors = Tensor::f_from_slice(values)?.f_reshape([-1, *width as i64])?;
            Ok(TextItems::Vectors(vectors.f_to_device(device)?))
        }
        BatchTexts::Tokens(all) => {
            let longest = all.iter().map(Vec::len).max().unwrap_or(0);
            let mut ids = vec![i64::from(END); all.len() * longest];
            for (row, text) in ids.chunks_mut(longest.max(1)).zip(all) {
                row.iter_mut().zip(text).for_each(|(place, &id)| *place = i64::from(id));
            }
            // They stay on the host: the tower checks them there, and takes them to its device bucket by bucket.
            let ids = Tensor::f_from_slice(&ids)?.f_reshape([all.len() as i64, longest as i64])?;
            Ok(TextItems::Tokens(TokenIds { ids, lengths: all.iter().map(|text| text.len() as i64).collect() }))
        }
    }
}

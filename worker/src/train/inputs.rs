//! Batches on their way to the model's device: as bytes, ahead of the step that reads them, and normalized there.
//!
//! Invariant: what was staged lives until the step that reads it has read the device at its end. Its memory belongs to the side
//! stream, which might give it to the next batch while kernels still read it.

use pixfleet_cluster::evidence::{Evidence, FedRow};
use pixfleet_cluster::spec::Needs;
use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::{Lane, LaneMap, Rank, Step};
use pixfleet_model::host::put;
use pixfleet_model::{BySet, Inputs, ModelError, Slots, TextItems, TokenIds};
use pixfleet_shards::batch::{Batch, BatchTexts};
use pixfleet_shards::tokens::END;
use pixfleet_shim::cuda::{Event, Stream};
use tch::{Device, Tensor};

use super::error::TrainError;
use crate::pixels;

/// Copies batches to the device beside what runs there.
pub(crate) struct Stager {
    needs: Needs,
    device: Device,
    /// A GPU's; a CPU computes where the batch is.
    side: Option<Stream>,
}

/// One step's lanes on the device, or on their way there.
pub(crate) struct StagedStep {
    lanes: Vec<Staged>,
    there: Option<Event>,
}

/// One lane's planes, slots and texts.
pub(crate) struct Staged {
    pixels: Tensor,
    mask: Option<Masks>,
    crop_pixels: Option<Tensor>,
    crop_mask: Option<Masks>,
    boxes: Option<Tensor>,
    slots: BySet<Slots>,
    texts: BySet<TextItems>,
    /// What its rows are.
    fed: Vec<FedRow>,
}

/// Bytes, and the rows that hold one value everywhere once normalized.
struct Masks {
    bytes: Tensor,
    ones: Vec<(u32, f32)>,
}

impl Stager {
    /// For a model on `device`.
    ///
    /// # Errors
    /// A GPU that gives no stream.
    pub(crate) fn new(needs: &Needs, device: Device) -> Result<Self, TrainError> {
        let side = if device.is_cuda() { Some(Stream::new(device).map_err(ModelError::from)?) } else { None };
        Ok(Self { needs: needs.clone(), device, side })
    }

    /// Sends the planes of `lanes`, which lose them. Waits for nothing on a GPU.
    ///
    /// # Errors
    /// Those of [`Staged::of`].
    pub(crate) fn stage(&self, lanes: &mut [Batch]) -> Result<StagedStep, TrainError> {
        let _beside = self.side.as_ref().map(Stream::enter).transpose().map_err(ModelError::from)?;
        let lanes = lanes.iter_mut().map(|lane| Staged::of(lane, &self.needs, self.device));
        let lanes = lanes.collect::<Result<_, _>>()?;
        let there = self.side.as_ref().map(|_| Event::record(self.device)).transpose().map_err(ModelError::from)?;
        Ok(StagedStep { lanes, there })
    }
}

impl StagedStep {
    /// The lanes, for work that is queued from now on.
    ///
    /// # Errors
    /// A device that fails.
    pub(crate) fn lanes(&self) -> Result<&[Staged], TrainError> {
        if let Some(there) = &self.there {
            there.block_stream().map_err(ModelError::from)?;
        }
        Ok(&self.lanes)
    }

    /// What `rank` feeds `step` if it trains on these lanes: each row at the position that it takes, whatever it was read for.
    pub(crate) fn evidence(&self, map: &LaneMap, (step, rank): (Step, Rank)) -> Evidence {
        let positions = map.lanes_of(rank).flat_map(|lane| map.positions(step, Lane(lane)));
        let rows = self.lanes.iter().flat_map(|lane| &lane.fed);
        positions.zip(rows).map(|(position, fed)| fed.at(position)).sum()
    }

    /// What the rows of each lane are.
    pub(crate) fn fed(&self) -> impl Iterator<Item = &[FedRow]> {
        self.lanes.iter().map(|lane| lane.fed.as_slice())
    }

    /// A mistake on purpose: the first two lanes in each other's place; whether there are two.
    pub(crate) fn swap_lanes(&mut self) -> bool {
        let two = self.lanes.len() > 1;
        if two {
            self.lanes.swap(0, 1);
        }
        two
    }
}

impl Staged {
    /// Sends the planes of `batch`, which loses them and the word of what its rows are: they are most of its memory.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if the device fails, [`TrainError::Model`] for slots that do not fit their rows.
    pub(crate) fn of(batch: &mut Batch, needs: &Needs, device: Device) -> Result<Self, TrainError> {
        let torch = |source| TrainError::Torch { doing: "copying a batch to the device", source };
        let (n, side) = (batch.n as i64, batch.size as i64);
        let mut slots = BySet::default();
        for (&set, valid) in &batch.slots {
            let valid = valid.iter().map(|&slot| i64::from(slot)).collect();
            *slots.entry(set) = Some(Slots::of(n, i64::from(needs.slots(set)), valid)?);
        }
        let mut texts = BySet::default();
        for (&set, of_set) in &batch.texts {
            *texts.entry(set) = Some(text_items(of_set, device)?);
        }
        let planes = |bytes: &mut Vec<u8>, channels: i64| -> Result<Option<Tensor>, TrainError> {
            let bytes = std::mem::take(bytes);
            if bytes.is_empty() {
                return Ok(None);
            }
            Ok(Some(put(&pixels::planes(&bytes, channels, side).map_err(torch)?, device)?))
        };
        let masks = |bytes: &mut Vec<u8>, ones: &[(u32, f32)]| -> Result<Option<Masks>, TrainError> {
            Ok(planes(bytes, 1)?.map(|bytes| Masks { bytes, ones: ones.to_vec() }))
        };
        let corners = || -> Result<Tensor, ModelError> {
            put(&Tensor::f_from_slice(batch.boxes.as_flattened())?.f_reshape([-1, 4])?, device)
        };
        Ok(Self {
            boxes: batch.slots.contains_key(&Set::Region).then(corners).transpose()?,
            pixels: planes(&mut batch.pixels, 3)?.ok_or(ModelError::MissingInput {
                what: "pixels",
                hint: "a batch of no rows, or one that was staged before",
            })?,
            mask: masks(&mut batch.mask, &batch.mask_ones)?,
            crop_pixels: planes(&mut batch.crop_pixels, 3)?,
            crop_mask: masks(&mut batch.crop_mask, &batch.crop_mask_ones)?,
            slots,
            texts,
            fed: std::mem::take(&mut batch.fed),
        })
    }

    /// What towers read. Normalized anew each time: four times the memory of the bytes, which only a forward needs.
    ///
    /// # Errors
    /// A device that fails.
    pub(crate) fn inputs(&self) -> Result<Inputs, ModelError> {
        let masks = |masks: &Masks| pixels::masks(&masks.bytes, &masks.ones);
        let (mut slots, mut texts) = (BySet::default(), BySet::default());
        for (set, of_set) in self.slots.iter() {
            *slots.entry(set) = Some(of_set.clone());
        }
        for (set, of_set) in self.texts.iter() {
            *texts.entry(set) = Some(of_set.shallow_clone());
        }
        Ok(Inputs {
            pixels: pixels::images(&self.pixels)?,
            mask: self.mask.as_ref().map(masks).transpose()?,
            crop_pixels: self.crop_pixels.as_ref().map(pixels::images).transpose()?,
            crop_mask: self.crop_mask.as_ref().map(masks).transpose()?,
            boxes: self.boxes.as_ref().map(Tensor::shallow_clone),
            slots,
            texts,
        })
    }
}

/// Vectors as they are; token ids filled up to the longest of the set.
///
/// # Errors
/// A device that fails.
pub(crate) fn text_items(texts: &BatchTexts, device: Device) -> Result<TextItems, ModelError> {
    match texts {
        BatchTexts::Vectors { width, values } => {
            Ok(TextItems::Vectors(put(&Tensor::f_from_slice(values)?.f_reshape([-1, *width as i64])?, device)?))
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

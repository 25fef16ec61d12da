//! Samples -> one contiguous batch on the host, in the layout that the model reads.

use crate::sample::Sample;
use pixfleet_cluster::{Class, Position, SampleId};

/// A bad row and the one that stands in for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitution {
    /// Place in the stream of samples.
    pub position: Position,
    /// The row that was dealt.
    pub wanted: SampleId,
    /// The row that was used.
    pub used: SampleId,
    /// What was wrong with the row that was dealt.
    pub reason: String,
}

/// `n` samples of side `size`, each plane contiguous.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Samples.
    pub n: usize,
    /// Side `S` of the square input.
    pub size: usize,
    /// `[n, 3, S, S]`, normalized.
    pub pixels: Vec<f32>,
    /// `[n, 1, S, S]`, normalized.
    pub mask: Vec<f32>,
    /// `[n, 3, S, S]`, normalized; empty where the run makes no crops.
    pub crop_pixels: Vec<f32>,
    /// `[n, 1, S, S]`, normalized; like `crop_pixels`.
    pub crop_mask: Vec<f32>,
    /// `[n]`: whether the crop terms count.
    pub crop_valid: Vec<bool>,
    /// `[n]`: x1, y1, x2, y2 in 0..1 of the square.
    pub boxes: Vec<[f32; 4]>,
    /// `[n, text_dim]`.
    pub text: Vec<f32>,
    /// Length of a text vector; 0 without text.
    pub text_dim: usize,
    /// `[n]`: the rows that were used.
    pub samples: Vec<SampleId>,
    /// `[n]`: the regions that were drawn; `None` for whole images.
    pub regions: Vec<Option<u32>>,
    /// Bad rows and their stand-ins.
    pub substitutions: Vec<Substitution>,
}

/// Samples that do not fit together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Two lengths of one plane.
    #[error("sample {index} has {found} numbers of {plane}, the first one has {expected}")]
    Length {
        /// Which sample.
        index: usize,
        /// Which plane.
        plane: &'static str,
        /// Its length.
        found: usize,
        /// The first sample's.
        expected: usize,
    },
}

impl BatchError {
    /// A bug in the caller.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::Fatal
    }
}

/// Puts samples together in the order given.
///
/// # Errors
/// Samples of different sizes or text lengths.
pub fn assemble(items: &[(SampleId, Sample)], substitutions: Vec<Substitution>) -> Result<Batch, BatchError> {
    let Some((_, first)) = items.first() else {
        return Ok(Batch { substitutions, ..Batch::default() });
    };
    let n = items.len();
    let room = |one: &[f32]| Vec::with_capacity(one.len() * n);
    let mut batch = Batch {
        n,
        size: first.mask.len().isqrt(),
        pixels: room(&first.pixels),
        mask: room(&first.mask),
        crop_pixels: room(&first.crop_pixels),
        crop_mask: room(&first.crop_mask),
        text: room(&first.text),
        text_dim: first.text.len(),
        substitutions,
        ..Batch::default()
    };
    for (index, (id, sample)) in items.iter().enumerate() {
        for (plane, out, part, expected) in [
            ("pixels", &mut batch.pixels, &sample.pixels, first.pixels.len()),
            ("mask", &mut batch.mask, &sample.mask, first.mask.len()),
            ("crop_pixels", &mut batch.crop_pixels, &sample.crop_pixels, first.crop_pixels.len()),
            ("crop_mask", &mut batch.crop_mask, &sample.crop_mask, first.crop_mask.len()),
            ("text", &mut batch.text, &sample.text, first.text.len()),
        ] {
            if part.len() != expected {
                return Err(BatchError::Length { index, plane, found: part.len(), expected });
            }
            out.extend_from_slice(part);
        }
        batch.crop_valid.push(sample.crop_valid);
        batch.boxes.push(sample.box_xyxy);
        batch.samples.push(*id);
        batch.regions.push(sample.region);
    }
    Ok(batch)
}

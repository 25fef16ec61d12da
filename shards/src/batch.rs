//! Samples -> one contiguous batch on the host: the rows' planes, and the items of each set with the slots they belong in.

use crate::sample::{Sample, Text};
use crate::tokens::Cuts;
use pixfleet_cluster::evidence::FedRow;
use pixfleet_cluster::ledger::Substitution;
use pixfleet_cluster::spec::Needs;
use pixfleet_cluster::spec::terms::{HARD_TEXTS, Set};
use pixfleet_cluster::{Class, SampleId};
use std::collections::BTreeMap;

/// The texts of one set, one an item (of hard negatives [`HARD_TEXTS`] a slot).
#[derive(Debug, Clone, PartialEq)]
pub enum BatchTexts {
    /// `[items, width]` stored vectors.
    Vectors {
        /// Numbers of a vector.
        width: usize,
        /// One after the other.
        values: Vec<f32>,
    },
    /// Token ids of each item, start and end among them.
    Tokens(Vec<Vec<u32>>),
}

/// `n` samples of side `size`, each plane contiguous. A plane that the run does not need is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Samples.
    pub n: usize,
    /// Side `S` of the square input.
    pub size: usize,
    /// `[n, 3, S, S]`.
    pub pixels: Vec<u8>,
    /// `[n, 1, S, S]`: 255 inside.
    pub mask: Vec<u8>,
    /// Rows whose mask is all ones, and what it is everywhere once normalized.
    pub mask_ones: Vec<(u32, f32)>,
    /// `[n, 3, S, S]`.
    pub crop_pixels: Vec<u8>,
    /// `[n, 1, S, S]`; like `crop_pixels`.
    pub crop_mask: Vec<u8>,
    /// As `mask_ones`.
    pub crop_mask_ones: Vec<(u32, f32)>,
    /// By set, the slots that hold an item: slot `row * slots a row + k`, ascending. Sets that the run does not need, and
    /// the image's, are absent.
    pub slots: BTreeMap<Set, Vec<u32>>,
    /// `[regions]`: x1, y1, x2, y2 in 0..1 of the square, in the order of the region set's slots.
    pub boxes: Vec<[f32; 4]>,
    /// The texts of each text set, in the order of its slots.
    pub texts: BTreeMap<Set, BatchTexts>,
    /// `[n]`: the rows that were used.
    pub samples: Vec<SampleId>,
    /// `[n]`: where each row was found and what was drawn of it; empty where that is not known of every row.
    pub fed: Vec<FedRow>,
    /// `[regions]`: their numbers within their rows; `None` for whole images.
    pub regions: Vec<Option<u32>>,
    /// Bad rows and their stand-ins.
    pub substitutions: Vec<Substitution>,
    /// Texts that were cut into ids, and how many were too long.
    pub cuts: Cuts,
}

/// Samples that do not fit together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    /// Two lengths of one plane.
    #[error("sample {index} has {found} bytes of {plane}, the first one has {expected}")]
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
    /// More regions than a row has slots for.
    #[error("sample {index} has {found} regions, a row has {slots} slots for them")]
    Regions {
        /// Which sample.
        index: usize,
        /// Its regions.
        found: usize,
        /// Slots of a row.
        slots: u32,
    },
    /// Vectors among token ids, or of two lengths.
    #[error("the texts of set `{set}` are not alike")]
    Texts {
        /// Which set.
        set: &'static str,
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
/// Samples of different sizes or texts, or with more regions than there are slots.
pub fn assemble(
    items: &[(SampleId, Sample)],
    needs: &Needs,
    substitutions: Vec<Substitution>,
) -> Result<Batch, BatchError> {
    let Some((_, first)) = items.first() else {
        return Ok(Batch { substitutions, ..Batch::default() });
    };
    let (n, area) = (items.len(), first.pixels.len() / 3);
    let room = |one: &[u8]| Vec::with_capacity(one.len() * n);
    let mut batch = Batch {
        n,
        size: area.isqrt(),
        pixels: room(&first.pixels),
        mask: room(&first.mask),
        crop_pixels: room(&first.crop_pixels),
        crop_mask: room(&first.crop_mask),
        slots: Set::ALL.into_iter().filter(|s| *s != Set::Image && needs.has(*s)).map(|s| (s, Vec::new())).collect(),
        texts: BTreeMap::new(),
        substitutions,
        ..Batch::default()
    };
    for (index, (id, sample)) in items.iter().enumerate() {
        batch.push_planes(index, sample, first)?;
        batch.push_items(index, sample, needs.regions)?;
        batch.samples.push(*id);
        batch.fed.extend(sample.fed);
        batch.cuts.merge(&sample.cuts);
    }
    if batch.fed.len() < n {
        batch.fed.clear();
    }
    for set in needs.texts() {
        // A set without any item still has texts: none of its tower's kind.
        batch.texts.entry(set).or_insert_with(|| BatchTexts::Tokens(Vec::new()));
    }
    Ok(batch)
}

impl Batch {
    fn push_planes(&mut self, index: usize, sample: &Sample, first: &Sample) -> Result<(), BatchError> {
        for (plane, out, part, expected) in [
            ("pixels", &mut self.pixels, &sample.pixels, first.pixels.len()),
            ("mask", &mut self.mask, &sample.mask, first.mask.len()),
            ("crop_pixels", &mut self.crop_pixels, &sample.crop_pixels, first.crop_pixels.len()),
            ("crop_mask", &mut self.crop_mask, &sample.crop_mask, first.crop_mask.len()),
        ] {
            if part.len() != expected {
                return Err(BatchError::Length { index, plane, found: part.len(), expected });
            }
            out.extend_from_slice(part);
        }
        self.mask_ones.extend(sample.mask_ones.map(|value| (index as u32, value)));
        self.crop_mask_ones.extend(sample.crop_mask_ones.map(|value| (index as u32, value)));
        Ok(())
    }

    fn push_items(&mut self, index: usize, sample: &Sample, slots: u32) -> Result<(), BatchError> {
        if sample.regions.len() > slots as usize {
            return Err(BatchError::Regions { index, found: sample.regions.len(), slots });
        }
        let row = index as u32;
        if sample.crop_valid {
            self.note(Set::Crop, row);
            self.note(Set::Teacher, row);
        }
        for (set, text) in [(Set::LongText, &sample.long_text), (Set::ShortText, &sample.short_text)] {
            if let Some(text) = text {
                self.push_text(set, row, std::slice::from_ref(text))?;
            }
        }
        for (slot, region) in (row * slots..).zip(&sample.regions) {
            if self.note(Set::Region, slot) {
                self.boxes.push(region.box_xyxy);
            }
            self.regions.push(region.region);
            if let Some(text) = &region.text {
                self.push_text(Set::RegionText, slot, std::slice::from_ref(text))?;
            }
            if !region.choice.is_empty() {
                debug_assert_eq!(region.choice.len(), HARD_TEXTS as usize);
                self.push_text(Set::HardText, slot, &region.choice)?;
            }
        }
        Ok(())
    }

    /// Notes an item of `set`, if the run needs the set.
    fn note(&mut self, set: Set, slot: u32) -> bool {
        let slots = self.slots.get_mut(&set);
        let needed = slots.is_some();
        slots.into_iter().for_each(|slots| slots.push(slot));
        needed
    }

    fn push_text(&mut self, set: Set, slot: u32, texts: &[Text]) -> Result<(), BatchError> {
        if !self.note(set, slot) {
            return Ok(());
        }
        for text in texts {
            let all = self.texts.entry(set).or_insert_with(|| match text {
                Text::Vector(vector) => BatchTexts::Vectors { width: vector.len(), values: Vec::new() },
                Text::Tokens(_) => BatchTexts::Tokens(Vec::new()),
            });
            match (all, text) {
                (BatchTexts::Vectors { width, values }, Text::Vector(vector)) if vector.len() == *width => {
                    values.extend_from_slice(vector);
                }
                (BatchTexts::Tokens(all), Text::Tokens(ids)) => all.push(ids.clone()),
                (BatchTexts::Vectors { .. }, Text::Vector(_) | Text::Tokens(_))
                | (BatchTexts::Tokens(_), Text::Vector(_)) => return Err(BatchError::Texts { set: set.name() }),
            }
        }
        Ok(())
    }
}

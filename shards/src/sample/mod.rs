//! One row -> one training sample: what is trained on is drawn ([`draw`]), pixels are decoded, fitted, cropped and
//! normalized ([`render`]), texts become vectors or token ids ([`texts`]).
//!
//! A sample is one image with its regions, their texts and negatives. Where a row stands for one drawn region (PixCLIP), it
//! has one region, and mask and crop are that region's.
//!
//! Invariant: a sample is a pure function of (row, seed, epoch, row number, configuration): every rank, every replay
//! and every resumed run makes the same one.

mod draw;
mod error;
mod frames;
mod full;
mod render;
mod texts;
mod views;

#[cfg(test)]
mod tests;

pub use draw::Drawable;
pub use error::SampleError;
pub use frames::{Frame, FrameConfig, Framed, FramedRegion, framed};
pub use full::full_sample;
pub use render::{MASK_STD, MEAN, MEAN_COLOUR, STD};
pub use texts::{Text, TextSource};
pub use views::{RegionView, Views, views};

use crate::pixels::fit;
use crate::row::ImageRow;
use crate::schema::Columns;
use crate::tokens::Cuts;
use draw::{Drawn, TextLength, draw};
use pixfleet_cluster::evidence::{FedRow, Keyed};
use pixfleet_cluster::rng::{Draws, Use};
use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{DataSpec, Needs};
use render::Planes;
use texts::Texts;

/// How rows become samples.
#[derive(Debug, Clone)]
pub struct SampleConfig {
    /// The run file's `[data]`.
    pub data: DataSpec,
    /// Side of the model's square input in pixels.
    pub size: u32,
    /// What the run needs.
    pub needs: Needs,
    /// Where its texts come from.
    pub texts: TextSource,
}

impl SampleConfig {
    /// What to read of a row.
    #[must_use]
    pub fn columns(&self) -> Columns {
        match &self.texts {
            TextSource::None => Columns::PICTURE,
            TextSource::Vectors(_) => Columns::PICTURE.with_vectors(),
            TextSource::Tokens(_) if self.needs.draws_region() => Columns::PICTURE.with_captions(),
            TextSource::Tokens(_) => Columns {
                image_captions: self.needs.has(Set::LongText) || self.needs.has(Set::ShortText),
                expressions: self.needs.has(Set::RegionText) || self.needs.has(Set::HardText),
                hard_negatives: self.needs.has(Set::HardText),
                ..Columns::PICTURE
            },
        }
    }

    fn area(&self) -> usize {
        self.size as usize * self.size as usize
    }
}

/// What a sample's draws are keyed by.
#[derive(Debug, Clone, Copy)]
pub struct SampleKey {
    /// Seed of the run.
    pub seed: u64,
    /// Pass over the data.
    pub epoch: u64,
    /// Number of the row in index order.
    pub row_number: u64,
}

impl SampleKey {
    fn draws(self, purpose: Use) -> Draws {
        Draws::new(self.seed, self.epoch, self.row_number, purpose)
    }

    /// It, as evidence holds it.
    fn word(self) -> u64 {
        Keyed::new(self.seed, self.epoch).word(self.row_number)
    }
}

/// One region of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRegion {
    /// Its number within the row; `None` for a whole image.
    pub region: Option<u32>,
    /// x1, y1, x2, y2 in 0..1 of the fitted square.
    pub box_xyxy: [f32; 4],
    /// Its text; `None` where nobody reads texts.
    pub text: Option<Text>,
    /// Its true expression and its hard negatives, or empty.
    pub choice: Vec<Text>,
}

/// One sample, ready for the model. `S` is [`SampleConfig::size`]; a plane that the run does not need is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `[3, S, S]`.
    pub pixels: Vec<u8>,
    /// `[1, S, S]`: 255 inside.
    pub mask: Vec<u8>,
    /// What the mask is everywhere once normalized, if it is all ones.
    pub mask_ones: Option<f32>,
    /// `[3, S, S]`; anything where the crop is not valid.
    pub crop_pixels: Vec<u8>,
    /// `[1, S, S]`; like `crop_pixels`.
    pub crop_mask: Vec<u8>,
    /// As `mask_ones`.
    pub crop_mask_ones: Option<f32>,
    /// Whether the crop says more than the image does.
    pub crop_valid: bool,
    /// The image's long caption, where it is trained on.
    pub long_text: Option<Text>,
    /// The image's short caption, where it is trained on.
    pub short_text: Option<Text>,
    /// The regions that are trained on.
    pub regions: Vec<SampleRegion>,
    /// Texts that were cut into ids, and how many were too long.
    pub cuts: Cuts,
    /// Where its row was found, and what was drawn of it by which key; of a row that was read, for training.
    pub fed: Option<FedRow>,
}

/// The training sample of `row`: what is trained on and the mask's augmentation are drawn by `key`.
///
/// # Errors
/// The first thing that is wrong with the row, by column.
pub fn make_sample(row: &ImageRow, key: SampleKey, config: &SampleConfig) -> Result<Sample, SampleError> {
    let choices = Drawable::of(row, Texts::has_caption(config, row));
    let drawn = draw(&choices, key, &config.data, &config.needs)?;
    let fed = row.whence.0.map(|origins| FedRow { origins, keyed: key.word(), drawn: drawn.word() });
    Ok(Sample { fed, ..drawn_sample(row, &drawn, key, config)? })
}

/// The sample of what was drawn.
fn drawn_sample(row: &ImageRow, drawn: &Drawn, key: SampleKey, config: &SampleConfig) -> Result<Sample, SampleError> {
    let mut texts = Texts::new(config);
    match drawn {
        Drawn::Whole => whole_image(row, texts, config),
        &Drawn::Region(index, length) => drawn_region(row, (index, length), key, texts, config),
        Drawn::Image(chosen) => {
            let of = |set, text: Option<Text>| text.filter(|_| config.needs.has(set));
            let long_text = of(Set::LongText, texts.long_caption(row)?);
            let short_text = of(Set::ShortText, texts.short_caption(row)?);
            let image = render::decoded(row)?;
            let place = |bbox| fit::fit_box(bbox, config.data.fit, image.width, image.height);
            let regions = chosen.iter().map(|&(index, length)| {
                let region = &row.regions[index as usize];
                let box_xyxy = place(render::checked_box(region, index)?);
                let text = Some(texts.expression(region, index, length)?);
                let choice = if config.needs.has(Set::HardText) { texts.choice(region, index)? } else { Vec::new() };
                Ok(SampleRegion { region: Some(index), box_xyxy, text, choice })
            });
            let regions = regions.collect::<Result<_, SampleError>>()?;
            let planes = render::image_planes(&image, config);
            Ok(Sample { long_text, short_text, ..assembled(planes, regions, texts) })
        }
    }
}

/// One region with its mask, its crop and its text.
fn drawn_region(
    row: &ImageRow,
    (index, length): (u32, TextLength),
    key: SampleKey,
    mut texts: Texts<'_>,
    config: &SampleConfig,
) -> Result<Sample, SampleError> {
    let region = &row.regions[index as usize];
    let text = texts.region(region, index, length)?;
    let image = render::decoded(row)?;
    let bbox = render::checked_box(region, index)?;
    let mask = render::region_mask(region, index, &image)?;
    let mask = render::augmented(mask, bbox, key.draws(Use::MaskAugment), config);
    let box_xyxy = fit::fit_box(bbox, config.data.fit, image.width, image.height);
    let region = SampleRegion { region: Some(index), box_xyxy, text, choice: Vec::new() };
    Ok(assembled(render::region_planes(&image, &mask, bbox, config), vec![region], texts))
}

/// The whole image with an all-ones mask, padding included, and the image caption (AlphaCLIP's `common_pair`).
fn whole_image(row: &ImageRow, mut texts: Texts<'_>, config: &SampleConfig) -> Result<Sample, SampleError> {
    let text = texts.image(row)?;
    let image = render::decoded(row)?;
    let box_xyxy = fit::fit_box([0.0, 0.0, 1.0, 1.0], config.data.fit, image.width, image.height);
    let region = SampleRegion { region: None, box_xyxy, text, choice: Vec::new() };
    Ok(assembled(render::whole_planes(&image, config), vec![region], texts))
}

fn assembled(planes: Planes, regions: Vec<SampleRegion>, texts: Texts<'_>) -> Sample {
    let Planes { pixels, mask, mask_ones, crop_pixels, crop_mask, crop_mask_ones, crop_valid } = planes;
    Sample {
        pixels,
        mask,
        mask_ones,
        crop_pixels,
        crop_mask,
        crop_mask_ones,
        crop_valid,
        long_text: None,
        short_text: None,
        regions,
        cuts: texts.cuts,
        fed: None,
    }
}

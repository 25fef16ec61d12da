//! One row -> one training sample: draw a region and a caption, decode, fit, crop, normalize (method.md 1.4, 2.4, 2.9).
//!
//! Invariant: a sample is a pure function of (row, seed, epoch, row number, configuration): every rank, every replay
//! and every resumed run makes the same one.

mod views;

pub use views::{RegionView, Views, views};

use crate::pixels::crop::{self, Square};
use crate::pixels::decode::{self, DecodeError};
use crate::pixels::resize::{Raster, Rect};
use crate::pixels::rle::RleError;
use crate::pixels::{Mask, Rgb, augment, fit};
use crate::row::{ImageRow, Region};
use pixfleet_cluster::Class;
use pixfleet_cluster::rng::{Draws, Use};
use pixfleet_cluster::spec::{CropBackground, CropMask, DataSpec, TextChoice};

/// Mean of CLIP's images, RGB.
pub const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's images, RGB.
#[allow(clippy::excessive_precision, reason = "as CLIP's code writes them")]
pub const STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
/// [`MEAN`] as bytes: what lies beyond the border of a crop.
pub const MEAN_COLOUR: [u8; 3] = [123, 117, 104];
/// A mask in 0..1 is normalized to (m - 0.5) / 0.26.
pub const MASK_STD: f32 = 0.26;

/// How rows become samples.
#[derive(Debug, Clone)]
pub struct SampleConfig {
    /// The run file's `[data]`.
    pub data: DataSpec,
    /// Side of the model's square input in pixels.
    pub size: u32,
    /// Whether the crop is made at all.
    pub crop: bool,
    /// Length of the text vectors; `None` makes samples without text.
    pub text_dim: Option<usize>,
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
}

/// Which vector of a region is the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextKind {
    /// The short caption.
    Short,
    /// The long caption.
    Long,
}

/// What the mask channel shows, for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaskMode {
    /// The region's mask (its box where it has none).
    Region,
    /// The region's box, filled.
    Box,
    /// All ones: the whole image.
    Ones,
}

/// One sample, ready for the model. `S` is [`SampleConfig::size`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `[3, S, S]`, normalized.
    pub pixels: Vec<f32>,
    /// `[1, S, S]`, normalized.
    pub mask: Vec<f32>,
    /// `[3, S, S]`, normalized; empty without [`SampleConfig::crop`], zero where the crop is not valid.
    pub crop_pixels: Vec<f32>,
    /// `[1, S, S]`, normalized; like `crop_pixels`.
    pub crop_mask: Vec<f32>,
    /// Whether the crop says more than the image does.
    pub crop_valid: bool,
    /// x1, y1, x2, y2 in 0..1 of the fitted square.
    pub box_xyxy: [f32; 4],
    /// Text vector; empty without [`SampleConfig::text_dim`].
    pub text: Vec<f32>,
    /// The region that was drawn; `None` for a whole image.
    pub region: Option<u32>,
}

/// Why a row is not a sample. Each names the column at fault; the caller adds file, row group and row.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// No encoded image.
    #[error("image.bytes: the row holds no image")]
    NoImage,
    /// The image does not decode.
    #[error("image.bytes: {0}")]
    Image(#[from] DecodeError),
    /// The image is not of the size that the row says.
    #[error("width, height: the row says {said_width} x {said_height}, the image is {width} x {height}")]
    ImageSize {
        /// Columns by the row.
        said_width: u32,
        /// Rows by the row.
        said_height: u32,
        /// Columns of the image.
        width: u32,
        /// Rows of the image.
        height: u32,
    },
    /// Nothing to draw from.
    #[error("regions: the row has no region that passed its check and no image caption's vector")]
    NoRegion,
    /// The caller's region is not there.
    #[error("regions: region {wanted} of {found}")]
    RegionIndex {
        /// The index.
        wanted: u32,
        /// Regions of the row.
        found: usize,
    },
    /// A box that is empty, not finite or outside the image.
    #[error("regions[{region}].bbox: {bbox:?} is no box x1 < x2, y1 < y2 within 0..1")]
    Box {
        /// Which region.
        region: u32,
        /// The box.
        bbox: [f32; 4],
    },
    /// A malformed mask.
    #[error("regions[{region}].mask_rle: {source}")]
    Mask {
        /// Which region.
        region: u32,
        /// What is wrong with it.
        source: RleError,
    },
    /// A mask of another shape than its image.
    #[error(
        "regions[{region}].mask_size: {mask_height} x {mask_width} is not the shape of the image, {height} x {width}"
    )]
    MaskShape {
        /// Which region.
        region: u32,
        /// Rows of the mask.
        mask_height: u32,
        /// Columns of the mask.
        mask_width: u32,
        /// Rows of the image.
        height: u32,
        /// Columns of the image.
        width: u32,
    },
    /// A mask without a pixel inside.
    #[error("regions[{region}].mask_rle: no pixel lies inside the mask")]
    EmptyMask {
        /// Which region.
        region: u32,
    },
    /// A caption of nothing but spaces.
    #[error("regions[{region}].{field}: the caption is empty")]
    EmptyCaption {
        /// Which region.
        region: u32,
        /// Which caption.
        field: &'static str,
    },
    /// No text vector.
    #[error("{field}: no text vector; run `pixfleet shards embed` on this split")]
    NoText {
        /// Which vector.
        field: String,
    },
    /// A text vector of another length.
    #[error("{field}: the text vector has {found} numbers, expected {expected}")]
    TextLength {
        /// Which vector.
        field: String,
        /// Its length.
        found: usize,
        /// The length that the run expects.
        expected: usize,
    },
    /// A text vector with NaN or infinity.
    #[error("{field}: number {index} of the text vector is {value}")]
    TextNotFinite {
        /// Which vector.
        field: String,
        /// Which number.
        index: usize,
        /// The number.
        value: f32,
    },
}

impl SampleError {
    /// Bad input stays bad: the row is replaced, not tried again.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::Fatal
    }
}

/// The training sample of `row`: region, caption, whole-image pair and mask augmentation are drawn by `key`.
///
/// # Errors
/// The first thing that is wrong with the row, by column.
pub fn make_sample(row: &ImageRow, key: SampleKey, config: &SampleConfig) -> Result<Sample, SampleError> {
    let data = &config.data;
    let choices: Vec<u32> =
        (0u32..).zip(&row.regions).filter(|(_, r)| r.check_ok != Some(false)).map(|(i, _)| i).collect();
    let whole = config.text_dim.is_none() || row.image_vector.is_some();
    let common = whole && key.draws(Use::CommonPair).unit() < data.common_pair;
    if common || (choices.is_empty() && row.image_vector.is_some()) {
        return whole_image(row, config);
    }
    if choices.is_empty() {
        return Err(SampleError::NoRegion);
    }
    let index = choices[key.draws(Use::Region).below(choices.len() as u64) as usize];
    let region = &row.regions[index as usize];
    let kind = match data.text {
        TextChoice::Short => TextKind::Short,
        TextChoice::Long => TextKind::Long,
        TextChoice::Mixed if key.draws(Use::Caption).unit() < data.long_probability => TextKind::Long,
        TextChoice::Mixed => TextKind::Short,
    };
    let text = region_text(region, index, kind, config)?;
    let image = decoded(row)?;
    let bbox = checked_box(region, index)?;
    let mask = augmented(region_mask(region, index, &image)?, bbox, key.draws(Use::MaskAugment), config);
    Ok(Sample { text, region: Some(index), ..planes(&image, &mask, bbox, config) })
}

/// The sample of one given region, without augmentation: what evaluation and `encode` use.
///
/// With [`MaskMode::Ones`] the mask channel is all ones, everything else stays.
///
/// # Errors
/// As [`make_sample`], and a region that is not there.
pub fn region_sample(
    row: &ImageRow,
    index: u32,
    kind: TextKind,
    mode: MaskMode,
    config: &SampleConfig,
) -> Result<Sample, SampleError> {
    let found = row.regions.len();
    let region = row.regions.get(index as usize).ok_or(SampleError::RegionIndex { wanted: index, found })?;
    let text = region_text(region, index, kind, config)?;
    let image = decoded(row)?;
    let bbox = checked_box(region, index)?;
    let mask = match mode {
        MaskMode::Region | MaskMode::Ones => region_mask(region, index, &image)?,
        MaskMode::Box => Mask::from_box(image.width, image.height, bbox),
    };
    let mut sample = Sample { text, region: Some(index), ..planes(&image, &mask, bbox, config) };
    if mode == MaskMode::Ones {
        sample.mask.fill(config.data.full_mask_value as f32);
    }
    Ok(sample)
}

/// The whole image with an all-ones mask, padding included, and the image caption (AlphaCLIP's `common_pair`).
///
/// # Errors
/// An image that does not decode, a missing or bad image vector.
pub fn whole_image(row: &ImageRow, config: &SampleConfig) -> Result<Sample, SampleError> {
    let text = vector(row.image_vector.as_deref(), config, || "image".into())?;
    let image = decoded(row)?;
    let area = config.size as usize * config.size as usize;
    let blank = |channels: usize| if config.crop { vec![0.0; area * channels] } else { Vec::new() };
    Ok(Sample {
        pixels: normalize_rgb(&fit::fit(&image, config.data.fit, config.size)),
        mask: vec![config.data.full_mask_value as f32; area],
        crop_pixels: blank(3),
        crop_mask: blank(1),
        crop_valid: false,
        box_xyxy: fit::fit_box([0.0, 0.0, 1.0, 1.0], config.data.fit, image.width, image.height),
        text,
        region: None,
    })
}

/// Image, mask and crop of one region. The text is the caller's.
fn planes(image: &Rgb, mask: &Mask, bbox: [f32; 4], config: &SampleConfig) -> Sample {
    let (data, size) = (&config.data, config.size);
    let area = size as usize * size as usize;
    let covered = f64::from(bbox[2] - bbox[0]) * f64::from(bbox[3] - bbox[1]);
    // The crop is cut by the box, so it is the box that tells whether the crop is the image once more.
    let crop_valid = config.crop && covered <= data.crop_skip_area;
    let (crop_pixels, crop_mask) = if crop_valid {
        let window = Square::around(bbox, data.crop_scale, image.width, image.height);
        let cut = match data.crop_background {
            CropBackground::Keep => crop::square(image, window, size, &MEAN_COLOUR),
            CropBackground::Mean => crop::square(&on_mean_colour(image, mask), window, size, &MEAN_COLOUR),
        };
        let cut_mask = match data.crop_mask {
            CropMask::Region => normalize_mask(&crop::square(mask, window, size, &[0])),
            CropMask::Ones => vec![data.full_mask_value as f32; area],
        };
        (normalize_rgb(&cut), cut_mask)
    } else if config.crop {
        (vec![0.0; 3 * area], vec![0.0; area])
    } else {
        (Vec::new(), Vec::new())
    };
    Sample {
        pixels: normalize_rgb(&fit::fit(image, data.fit, size)),
        mask: normalize_mask(&fit::fit(mask, data.fit, size)),
        crop_pixels,
        crop_mask,
        crop_valid,
        box_xyxy: fit::fit_box(bbox, data.fit, image.width, image.height),
        text: Vec::new(),
        region: None,
    }
}

fn decoded(row: &ImageRow) -> Result<Rgb, SampleError> {
    let image = decode::rgb(row.image.bytes.as_ref().ok_or(SampleError::NoImage)?)?;
    let (width, height) = (image.width, image.height);
    if (row.width, row.height) != (width, height) {
        return Err(SampleError::ImageSize { said_width: row.width, said_height: row.height, width, height });
    }
    Ok(image)
}

/// The region's box, held to 0..1 up to what rounding to f32 explains.
fn checked_box(region: &Region, index: u32) -> Result<[f32; 4], SampleError> {
    const ROUNDING: f32 = 1e-5;
    let [x1, y1, x2, y2] = region.bbox;
    let inside = region.bbox.iter().all(|v| (-ROUNDING..=1.0 + ROUNDING).contains(v));
    if !inside || x1 >= x2 || y1 >= y2 {
        return Err(SampleError::Box { region: index, bbox: region.bbox });
    }
    Ok(region.bbox.map(|v| v.clamp(0.0, 1.0)))
}

/// The region's mask at the image's size, or its box where the row has no mask.
fn region_mask(region: &Region, index: u32, image: &Rgb) -> Result<Mask, SampleError> {
    let Some(coded) = &region.mask else {
        return Ok(Mask::from_box(image.width, image.height, checked_box(region, index)?));
    };
    let bad = |source| SampleError::Mask { region: index, source };
    if coded.area() == 0 {
        return Err(SampleError::EmptyMask { region: index });
    }
    let mask = coded.decode().map_err(bad)?;
    if (mask.width, mask.height) == (image.width, image.height) {
        return Ok(mask);
    }
    // A mask made at another resolution of the same picture is welcome, another picture's is not.
    let aspect = |w: u32, h: u32| f64::from(w) / f64::from(h);
    let ratio = aspect(mask.width, mask.height) / aspect(image.width, image.height);
    if !(0.98..1.02).contains(&ratio) {
        let (mask_height, mask_width) = (mask.height, mask.width);
        return Err(SampleError::MaskShape {
            region: index,
            mask_height,
            mask_width,
            height: image.height,
            width: image.width,
        });
    }
    Ok(mask.resized(Rect::whole(mask.width, mask.height), image.width, image.height))
}

fn augmented(mask: Mask, bbox: [f32; 4], mut draws: Draws, config: &SampleConfig) -> Mask {
    let data = &config.data;
    if data.mask_box > 0.0 && draws.unit() < data.mask_box {
        return Mask::from_box(mask.width, mask.height, bbox);
    }
    if data.mask_dilate == 0 {
        return mask;
    }
    let steps = i64::from(data.mask_dilate);
    let drawn = draws.below(2 * steps as u64 + 1) as i64 - steps;
    // The radius is meant in pixels of the input, the mask still has the image's.
    let radius = (drawn.abs() as f64 * f64::from(mask.width.max(mask.height)) / f64::from(config.size)).round() as u32;
    match (radius, drawn > 0) {
        (0, _) => mask,
        (r, true) => augment::dilate(&mask, r),
        (r, false) => Some(augment::erode(&mask, r)).filter(|m| m.area() > 0).unwrap_or(mask),
    }
}

fn on_mean_colour(image: &Rgb, mask: &Mask) -> Rgb {
    let mut out = image.clone();
    for (pixel, &m) in out.data.chunks_exact_mut(3).zip(&mask.data) {
        if m < 128 {
            pixel.copy_from_slice(&MEAN_COLOUR);
        }
    }
    out
}

fn region_text(region: &Region, index: u32, kind: TextKind, config: &SampleConfig) -> Result<Vec<f32>, SampleError> {
    let (text, found, name) = match kind {
        TextKind::Short => (region.short_text(), &region.short_vector, "short"),
        TextKind::Long => (region.long_text(), &region.long_vector, "long"),
    };
    if text.is_some_and(|t| t.trim().is_empty()) {
        let field = match (kind, &region.caption_object, &region.caption_merged) {
            (TextKind::Short, Some(_), _) => "caption_object",
            (TextKind::Short, None, _) => "short_expr",
            (TextKind::Long, _, Some(_)) => "caption_merged",
            (TextKind::Long, _, None) => "long_expr",
        };
        return Err(SampleError::EmptyCaption { region: index, field });
    }
    vector(found.as_deref(), config, || format!("{name}[{index}]"))
}

fn vector(found: Option<&[f32]>, config: &SampleConfig, field: impl Fn() -> String) -> Result<Vec<f32>, SampleError> {
    let Some(expected) = config.text_dim else {
        return Ok(Vec::new());
    };
    let found = found.ok_or_else(|| SampleError::NoText { field: field() })?;
    if found.len() != expected {
        return Err(SampleError::TextLength { field: field(), found: found.len(), expected });
    }
    if let Some(index) = found.iter().position(|v| !v.is_finite()) {
        return Err(SampleError::TextNotFinite { field: field(), index, value: found[index] });
    }
    Ok(found.to_vec())
}

/// Interleaved bytes -> planes, (v / 255 - mean) / std.
fn normalize_rgb(image: &Rgb) -> Vec<f32> {
    let area = image.width as usize * image.height as usize;
    let scale = STD.map(|s| 1.0 / (255.0 * s));
    let shift: [f32; 3] = std::array::from_fn(|c| -MEAN[c] / STD[c]);
    let mut out = vec![0.0; 3 * area];
    let (red, rest) = out.split_at_mut(area);
    let (green, blue) = rest.split_at_mut(area);
    // One pass over the bytes: the three planes are written side by side.
    for (((r, g), b), pixel) in red.iter_mut().zip(green).zip(blue).zip(image.data.chunks_exact(3)) {
        *r = f32::from(pixel[0]) * scale[0] + shift[0];
        *g = f32::from(pixel[1]) * scale[1] + shift[1];
        *b = f32::from(pixel[2]) * scale[2] + shift[2];
    }
    out
}

/// Bytes -> (v / 255 - 0.5) / 0.26.
fn normalize_mask(mask: &Mask) -> Vec<f32> {
    let (scale, shift) = (1.0 / (255.0 * MASK_STD), -0.5 / MASK_STD);
    mask.data.iter().map(|&v| f32::from(v) * scale + shift).collect()
}

#[cfg(test)]
mod tests;

//! Pixels: decode, fit, crop, augment (method.md 1.4, 2.4). They stay bytes until they are on the model's device, where
//! `(v / 255 - mean) / std` is taken.

use super::{SampleConfig, SampleError};
use crate::pixels::crop::{self, Square};
use crate::pixels::decode;
use crate::pixels::resize::{Raster, Rect};
use crate::pixels::{Mask, Rgb, augment, fit};
use crate::row::{ImageRow, Region};
use pixfleet_cluster::rng::Draws;
use pixfleet_cluster::spec::{CropBackground, CropMask};

/// Mean of CLIP's images, RGB.
pub const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's images, RGB.
#[allow(clippy::excessive_precision, reason = "as CLIP's code writes them")]
pub const STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
/// [`MEAN`] as bytes: what lies beyond the border of a crop.
pub const MEAN_COLOUR: [u8; 3] = [123, 117, 104];
/// A mask in 0..1 is normalized to (m - 0.5) / 0.26.
pub const MASK_STD: f32 = 0.26;

/// What a model sees of a row. `S` is [`SampleConfig::size`]; a plane that the run does not need is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Planes {
    /// `[3, S, S]`.
    pub(super) pixels: Vec<u8>,
    /// `[1, S, S]`.
    pub(super) mask: Vec<u8>,
    /// What an all-ones mask is once normalized; `None` for a region's.
    pub(super) mask_ones: Option<f32>,
    /// `[3, S, S]`.
    pub(super) crop_pixels: Vec<u8>,
    /// `[1, S, S]`.
    pub(super) crop_mask: Vec<u8>,
    /// As `mask_ones`.
    pub(super) crop_mask_ones: Option<f32>,
    /// Whether the crop says more than the image does.
    pub(super) crop_valid: bool,
}

/// The image alone.
pub(super) fn image_planes(image: &Rgb, config: &SampleConfig) -> Planes {
    Planes { pixels: planar(&fit::fit(image, config.data.fit, config.size)), ..Planes::default() }
}

/// The image with an all-ones mask, padding included, and no crop.
pub(super) fn whole_planes(image: &Rgb, config: &SampleConfig) -> Planes {
    let mask_ones = Some(config.data.full_mask_value as f32);
    let (crop_pixels, crop_mask) = no_crop(config);
    Planes { mask: vec![255; config.area()], mask_ones, crop_pixels, crop_mask, ..image_planes(image, config) }
}

/// Image, mask and crop of one region.
pub(super) fn region_planes(image: &Rgb, mask: &Mask, bbox: [f32; 4], config: &SampleConfig) -> Planes {
    let (data, size) = (&config.data, config.size);
    let covered = f64::from(bbox[2] - bbox[0]) * f64::from(bbox[3] - bbox[1]);
    // The crop is cut by the box, so it is the box that tells whether the crop is the image once more.
    let crop_valid = config.needs.crop() && covered <= data.crop_skip_area;
    let (crop_pixels, crop_mask) = if crop_valid {
        let window = Square::around(bbox, data.crop_scale, image.width, image.height);
        let cut = match data.crop_background {
            CropBackground::Keep => crop::square(image, window, size, &MEAN_COLOUR),
            CropBackground::Mean => crop::square(&on_mean_colour(image, mask), window, size, &MEAN_COLOUR),
        };
        let cut_mask = match data.crop_mask {
            CropMask::Region => crop::square(mask, window, size, &[0]).data,
            CropMask::Ones => vec![255; config.area()],
        };
        (planar(&cut), cut_mask)
    } else {
        no_crop(config)
    };
    let mask = fit::fit(mask, data.fit, size).data;
    let crop_mask_ones = (crop_valid && data.crop_mask == CropMask::Ones).then_some(data.full_mask_value as f32);
    Planes { mask, crop_pixels, crop_mask, crop_mask_ones, crop_valid, ..image_planes(image, config) }
}

/// The place of a crop that does not count.
fn no_crop(config: &SampleConfig) -> (Vec<u8>, Vec<u8>) {
    if config.needs.crop() { (vec![0; 3 * config.area()], vec![0; config.area()]) } else { Default::default() }
}

pub(super) fn decoded(row: &ImageRow) -> Result<Rgb, SampleError> {
    let image = decode::rgb(row.image.bytes.as_ref().ok_or(SampleError::NoImage)?)?;
    let (width, height) = (image.width, image.height);
    if (row.width, row.height) != (width, height) {
        return Err(SampleError::ImageSize { said_width: row.width, said_height: row.height, width, height });
    }
    Ok(image)
}

/// The region's box, held to 0..1 up to what rounding to f32 explains.
pub(super) fn checked_box(region: &Region, index: u32) -> Result<[f32; 4], SampleError> {
    const ROUNDING: f32 = 1e-5;
    let [x1, y1, x2, y2] = region.bbox;
    let inside = region.bbox.iter().all(|v| (-ROUNDING..=1.0 + ROUNDING).contains(v));
    if !inside || x1 >= x2 || y1 >= y2 {
        return Err(SampleError::Box { region: index, bbox: region.bbox });
    }
    Ok(region.bbox.map(|v| v.clamp(0.0, 1.0)))
}

/// The region's mask at the image's size, or its box where the row has no mask.
pub(super) fn region_mask(region: &Region, index: u32, image: &Rgb) -> Result<Mask, SampleError> {
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

pub(super) fn augmented(mask: Mask, bbox: [f32; 4], mut draws: Draws, config: &SampleConfig) -> Mask {
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

/// Interleaved bytes -> planes.
pub(super) fn planar(image: &Rgb) -> Vec<u8> {
    let area = image.width as usize * image.height as usize;
    let mut out = vec![0; 3 * area];
    let (red, rest) = out.split_at_mut(area);
    let (green, blue) = rest.split_at_mut(area);
    // One pass over the bytes: the three planes are written side by side.
    for (((r, g), b), pixel) in red.iter_mut().zip(green).zip(blue).zip(image.data.chunks_exact(3)) {
        (*r, *g, *b) = (pixel[0], pixel[1], pixel[2]);
    }
    out
}

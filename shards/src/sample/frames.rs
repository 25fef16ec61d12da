//! One row as a benchmark shows it: its regions on canvases that published protocols cut each in its own way (method.md 5.1).

use super::SampleError;
use super::render::{checked_box, decoded, planar, region_mask};
use crate::pixels::crop::{self, Square};
use crate::pixels::resize::{Raster, Rect};
use crate::pixels::{Mask, Rgb, fit};
use crate::row::ImageRow;
use image::RgbImage;
use image::imageops::fast_blur;
use pixfleet_cluster::spec::Fit;

/// How a picture becomes the model's square.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Frame {
    /// Both sides resized freely (PixCLIP's retrieval, FG-CLIP).
    Squash,
    /// Zero-padded to a square (LVIS of AlphaCLIP and PixCLIP).
    Pad,
    /// The square in its middle, as long as its shorter side (ImageNet-S of AlphaCLIP).
    Center,
    /// A square around each region, white beyond the border (COCO of AlphaCLIP and PixCLIP).
    Crop {
        /// Its side over the longer side of the region's box.
        scale: f64,
    },
}

/// What a benchmark shows of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameConfig {
    /// Side `S` of the canvases.
    pub size: u32,
    /// How they are cut.
    pub frame: Frame,
    /// Whether a region's filled box stands for its mask.
    pub boxes: bool,
    /// Standard deviation in pixels of a Gaussian that blurs all that is outside of a region (RefCOCO of ReCLIP).
    pub blur: Option<f32>,
}

/// A row on canvases.
#[derive(Debug, Clone, PartialEq)]
pub struct Framed {
    /// `[3, S, S]` each: one for the picture, or one for each region where they see different pixels.
    pub canvases: Vec<Vec<u8>>,
    /// In the order asked for.
    pub regions: Vec<FramedRegion>,
}

/// A region on its canvas.
#[derive(Debug, Clone, PartialEq)]
pub struct FramedRegion {
    /// Which of the canvases.
    pub canvas: usize,
    /// `[1, S, S]`: 255 inside.
    pub mask: Vec<u8>,
    /// x1, y1, x2, y2 in 0..1 of the canvas.
    pub box_xyxy: [f32; 4],
}

/// The picture of `row` and its `regions` as `config` says. Without regions, the picture alone.
///
/// # Errors
/// An image that does not decode or has another size than the row says; a region that is not there, a bad box or mask.
pub fn framed(row: &ImageRow, regions: &[u32], config: &FrameConfig) -> Result<Framed, SampleError> {
    let image = decoded(row)?;
    let (width, height) = (image.width, image.height);
    let whole = [0.0, 0.0, 1.0, 1.0];
    let picture = |image: &Rgb, bbox| planar(&cut(image, bbox, config, &[255; 3]));
    let blurred = config.blur.map(|sigma| blurred(&image, sigma));
    let own_canvas = blurred.is_some() || matches!(config.frame, Frame::Crop { .. });
    let mut out = Framed { canvases: Vec::new(), regions: Vec::with_capacity(regions.len()) };
    if !own_canvas || regions.is_empty() {
        out.canvases.push(picture(&image, whole));
    }
    for &index in regions {
        let found = row.regions.len();
        let region = row.regions.get(index as usize).ok_or(SampleError::RegionIndex { wanted: index, found })?;
        let bbox = checked_box(region, index)?;
        let mask = if config.boxes { Mask::from_box(width, height, bbox) } else { region_mask(region, index, &image)? };
        if own_canvas {
            let seen = blurred.as_ref().map(|blurred| pasted(&image, blurred, &mask));
            out.canvases.push(picture(seen.as_ref().unwrap_or(&image), bbox));
        }
        out.regions.push(FramedRegion {
            canvas: if own_canvas { out.canvases.len() - 1 } else { 0 },
            mask: cut(&mask, bbox, config, &[0]).data,
            box_xyxy: placed(bbox, config.frame, width, height),
        });
    }
    Ok(out)
}

/// `image` around `bbox` as a canvas; `fill` lies beyond the border of a crop.
fn cut<R: Raster>(image: &R, bbox: [f32; 4], config: &FrameConfig, fill: &[u8]) -> R {
    let (width, height) = image.size();
    match config.frame {
        Frame::Squash => fit::fit(image, Fit::Squash, config.size),
        Frame::Pad => fit::fit(image, Fit::Pad, config.size),
        Frame::Center => {
            let Square { left, top, side } = middle(width, height);
            let rect = Rect { left: left as u32, top: top as u32, width: side, height: side };
            image.resized(rect, config.size, config.size)
        }
        Frame::Crop { scale } => crop::square(image, Square::around(bbox, scale, width, height), config.size, fill),
    }
}

/// The square in the middle, the odd pixel as in AlphaCLIP's `crop_center`.
fn middle(width: u32, height: u32) -> Square {
    let side = width.min(height);
    let start = |n: u32| i64::from(n / 2) - i64::from(side / 2);
    Square { left: start(width), top: start(height), side }
}

/// Where `bbox` comes to lie on its canvas.
fn placed(bbox: [f32; 4], frame: Frame, width: u32, height: u32) -> [f32; 4] {
    let square = match frame {
        Frame::Squash => return bbox,
        Frame::Pad => return fit::fit_box(bbox, Fit::Pad, width, height),
        Frame::Center => middle(width, height),
        Frame::Crop { scale } => Square::around(bbox, scale, width, height),
    };
    let put = |v: f32, n: u32, start: i64| {
        let at = (f64::from(v) * f64::from(n) - start as f64) / f64::from(square.side);
        at.clamp(0.0, 1.0) as f32
    };
    let [x1, y1, x2, y2] = bbox;
    [put(x1, width, square.left), put(y1, height, square.top), put(x2, width, square.left), put(y2, height, square.top)]
}

/// The whole picture blurred, by box filters like PIL's `GaussianBlur`.
fn blurred(image: &Rgb, sigma: f32) -> Rgb {
    let raw =
        RgbImage::from_raw(image.width, image.height, image.data.clone()).expect("the bytes are rows x columns x 3");
    Rgb { data: fast_blur(&raw, sigma).into_raw(), ..*image }
}

/// `image` within `mask`, `beyond` outside.
fn pasted(image: &Rgb, beyond: &Rgb, mask: &Mask) -> Rgb {
    let mut out = beyond.clone();
    let pixels = out.data.chunks_exact_mut(3).zip(image.data.chunks_exact(3)).zip(&mask.data);
    for ((out, own), &m) in pixels {
        if m >= 128 {
            out.copy_from_slice(own);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::rle::Rle;
    use crate::row::{ImageSource, Region};

    /// 60 x 40: red on the left half, blue on the right; the region's mask is the upper half of its box.
    fn row() -> ImageRow {
        let (width, height) = (60, 40);
        let picture =
            RgbImage::from_fn(width, height, |x, _| image::Rgb(if x < 30 { [200, 0, 0] } else { [0, 0, 200] }));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
        let bbox = [0.5, 0.25, 0.75, 0.75];
        let mut mask = Mask::filled(width, height, 0);
        for y in 10..20 {
            mask.data[y * 60 + 30..y * 60 + 45].fill(255);
        }
        let region = Region { bbox, mask: Some(Rle::encode(&mask)), ..Region::default() };
        let image = ImageSource { bytes: Some(bytes.into_inner().into()), ..ImageSource::default() };
        ImageRow { image_id: "x".into(), image, width, height, regions: vec![region], ..ImageRow::default() }
    }

    fn shown(frame: Frame, boxes: bool, blur: Option<f32>) -> Framed {
        framed(&row(), &[0], &FrameConfig { size: 40, frame, boxes, blur }).expect("a good row")
    }

    #[test]
    fn the_middle_is_as_long_as_the_shorter_side() {
        let seen = shown(Frame::Center, false, None);
        // Columns 10 to 50 of the picture, not resized.
        assert_eq!((seen.canvases.len(), seen.canvases[0][19], seen.canvases[0][20]), (1, 200, 0));
        assert_eq!(seen.regions[0].box_xyxy, [0.5, 0.25, 0.875, 0.75]);
        assert_eq!(seen.regions[0].mask.iter().filter(|&&m| m == 255).count(), 15 * 10);
        assert_eq!(shown(Frame::Center, true, None).regions[0].mask.iter().filter(|&&m| m == 255).count(), 15 * 20);
    }

    #[test]
    fn a_crop_is_white_beyond_the_border_and_its_mask_is_not() {
        // The box is 15 x 20 pixels: a square of 60 around (37.5, 20), which begins 10 pixels above the picture.
        let seen = shown(Frame::Crop { scale: 3.0 }, false, None);
        let (canvas, region) = (&seen.canvases[0], &seen.regions[0]);
        assert_eq!((canvas[0], canvas[1600], canvas[3200]), (255, 255, 255), "a white corner");
        assert_eq!((region.mask[0], region.canvas), (0, 0));
        let across: Vec<f64> = region.box_xyxy.iter().map(|v| f64::from(*v) * 60.0).collect();
        assert!((across[2] - across[0] - 15.0).abs() < 1e-4 && (across[3] - across[1] - 20.0).abs() < 1e-4);
    }

    #[test]
    fn beyond_a_region_the_picture_is_blurred_and_within_it_is_not() {
        let (sharp, seen) = (shown(Frame::Center, false, None), shown(Frame::Center, false, Some(20.0)));
        let changed: Vec<bool> = sharp.canvases[0].iter().zip(&seen.canvases[0]).map(|(a, b)| a != b).collect();
        let within = |i: usize| seen.regions[0].mask[i] == 255;
        assert!((0..1600).filter(|&i| within(i)).all(|i| !changed[i] && !changed[i + 1600] && !changed[i + 3200]));
        assert!((0..1600).filter(|&i| !within(i)).any(|i| changed[i]));
    }

    #[test]
    fn without_regions_the_picture_stands_alone() {
        let config = FrameConfig { size: 8, frame: Frame::Squash, boxes: false, blur: None };
        let seen = framed(&row(), &[], &config).expect("a good row");
        assert_eq!((seen.canvases.len(), seen.canvases[0].len(), seen.regions.len()), (1, 192, 0));
        assert!(matches!(framed(&row(), &[1], &config), Err(SampleError::RegionIndex { wanted: 1, found: 1 })));
    }
}

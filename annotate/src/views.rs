//! What a model is shown of a row: the picture, the picture with the region's box drawn, the region cut out with or without what
//! lies around it (LongGRIT's object and context stages, method.md 3.1).

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use pixfleet_shards::pixels::crop::{Square, square};
use pixfleet_shards::pixels::resize::{Raster, Rect};
use pixfleet_shards::pixels::{Mask, Rgb, decode};
use pixfleet_shards::{ImageRow, Region};
use serde::Deserialize;

/// Longest side of a whole picture that is shown.
const SIDE_MAX: u32 = 1024;
/// Sides of a cut-out: small regions are enlarged, since models see little of a thumbnail.
const CROP: std::ops::RangeInclusive<u32> = 336..=768;
/// Side of a cut-out over the longer side of its box.
const CROP_SCALE: f64 = 1.2;
/// What lies outside a mask, and beyond the picture's border.
const GREY: u8 = 128;
/// Red, as people draw boxes.
const LINE: [u8; 3] = [230, 20, 20];
const QUALITY: u8 = 90;

/// A way to show a row, or a region of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// The whole picture.
    Picture,
    /// The whole picture with the region's box drawn in red.
    Boxed,
    /// The whole picture with the region's box drawn and its mask tinted.
    Marked,
    /// A square around the region's box.
    Crop,
    /// The same, grey wherever the region's mask is not; without a mask, the box.
    Masked,
}

/// A JPEG as it goes to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown(pub(crate) Vec<u8>);

impl View {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Picture => "picture",
            Self::Boxed => "boxed",
            Self::Marked => "marked",
            Self::Crop => "crop",
            Self::Masked => "masked",
        }
    }

    /// Whether it needs a region.
    pub(crate) fn is_of_region(self) -> bool {
        match self {
            Self::Picture => false,
            Self::Boxed | Self::Marked | Self::Crop | Self::Masked => true,
        }
    }
}

/// The JPEG that shows `row`, and of it `region` where `view` is of one; the same bytes each time.
///
/// # Errors
/// In words: no bytes, bytes that are no picture, a mask that does not decode.
pub fn picture(row: &ImageRow, region: Option<&Region>, view: View) -> Result<Vec<u8>, String> {
    let bytes = row.image.bytes.as_ref().ok_or("the row has no picture's bytes")?;
    let image = decode::rgb(bytes).map_err(|e| e.to_string())?;
    let region = || region.ok_or_else(|| format!("the view `{}` is of a region", view.name()));
    let shown = match view {
        View::Picture => whole(&image),
        View::Boxed => {
            let mut shown = whole(&image);
            draw(&mut shown, region()?.bbox);
            shown
        }
        View::Marked => {
            let mut shown = whole(&image);
            paint(&mut shown, region()?, |pixel| {
                for (value, line) in pixel.iter_mut().zip(LINE) {
                    *value = ((u16::from(*value) * 2 + u16::from(line)) / 3) as u8;
                }
            })?;
            draw(&mut shown, region()?.bbox);
            shown
        }
        View::Crop => cut(&image, region()?),
        View::Masked => cut(&masked(image, region()?)?, region()?),
    };
    jpeg(&shown)
}

fn whole(image: &Rgb) -> Rgb {
    let longest = image.width.max(image.height);
    let scaled = |side: u32| (u64::from(side) * u64::from(SIDE_MAX)).div_ceil(u64::from(longest)) as u32;
    if longest <= SIDE_MAX {
        return image.clone();
    }
    image.resized(Rect::whole(image.width, image.height), scaled(image.width), scaled(image.height))
}

fn cut(image: &Rgb, region: &Region) -> Rgb {
    let window = Square::around(region.bbox, CROP_SCALE, image.width, image.height);
    square(image, window, window.side.clamp(*CROP.start(), *CROP.end()), &[GREY; 3])
}

/// The picture, grey outside the region.
fn masked(image: Rgb, region: &Region) -> Result<Rgb, String> {
    let mut shown = Rgb::filled(image.width, image.height, [GREY; 3]);
    let inside = inside(&image, region)?;
    for (at, _) in inside.iter().enumerate().filter(|(_, inside)| **inside) {
        shown.data[3 * at..3 * at + 3].copy_from_slice(&image.data[3 * at..3 * at + 3]);
    }
    Ok(shown)
}

/// Changes the pixels of the region.
fn paint(image: &mut Rgb, region: &Region, change: impl Fn(&mut [u8])) -> Result<(), String> {
    let inside = inside(image, region)?;
    for (pixel, _) in image.data.chunks_exact_mut(3).zip(inside).filter(|(_, inside)| *inside) {
        change(pixel);
    }
    Ok(())
}

/// Which pixels are the region's: those of its mask, which may be of another size, or of its box.
fn inside(image: &Rgb, region: &Region) -> Result<Vec<bool>, String> {
    let mask = match &region.mask {
        Some(mask) => mask.decode().map_err(|e| format!("the region's mask: {e}"))?,
        None => Mask::from_box(image.width, image.height, region.bbox),
    };
    let nearest = |at: u32, side: u32, of: u32| (u64::from(at) * u64::from(of) / u64::from(side)) as usize;
    let row = |y| {
        let start = nearest(y, image.height, mask.height) * mask.width as usize;
        let mask = &mask;
        (0..image.width).map(move |x| mask.data[start + nearest(x, image.width, mask.width)] >= 128)
    };
    Ok((0..image.height).flat_map(row).collect())
}

/// Draws a box, as thick as can be seen.
fn draw(image: &mut Rgb, bbox: [f32; 4]) {
    let thick = (image.width.max(image.height) / 200).max(2);
    let at = |v: f32, side: u32| ((v * side as f32) as u32).min(side - 1);
    let (x1, x2) = (at(bbox[0], image.width), at(bbox[2], image.width));
    let (y1, y2) = (at(bbox[1], image.height), at(bbox[3], image.height));
    for y in y1..=y2 {
        for x in x1..=x2 {
            if x < x1 + thick || x + thick > x2 || y < y1 + thick || y + thick > y2 {
                let at = 3 * (y as usize * image.width as usize + x as usize);
                image.data[at..at + 3].copy_from_slice(&LINE);
            }
        }
    }
}

fn jpeg(image: &Rgb) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, QUALITY)
        .encode(&image.data, image.width, image.height, ExtendedColorType::Rgb8)
        .map_err(|e| e.to_string())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixfleet_shards::ImageSource;
    use pixfleet_shards::pixels::rle::Rle;

    /// A green square on blue, at the right half's middle.
    fn row() -> (ImageRow, Region) {
        let mut image = Rgb::filled(64, 32, [0, 0, 200]);
        let mut mask = Mask::filled(64, 32, 0);
        for y in 8..24 {
            for x in 40..56 {
                image.data[3 * (y * 64 + x)..][..3].copy_from_slice(&[0, 200, 0]);
                mask.data[y * 64 + x] = 255;
            }
        }
        let bytes = jpeg(&image).expect("a picture");
        let row = ImageRow {
            image: ImageSource { bytes: Some(bytes.into()), ..ImageSource::default() },
            ..ImageRow::default()
        };
        let bbox = [40.0 / 64.0, 0.25, 56.0 / 64.0, 0.75];
        (row, Region { bbox, mask: Some(Rle::encode(&mask)), ..Region::default() })
    }

    fn pixel(bytes: &[u8], x: f32, y: f32) -> [u8; 3] {
        let image = decode::rgb(bytes).expect("a JPEG");
        let at = (y * image.height as f32) as usize * image.width as usize + (x * image.width as f32) as usize;
        [image.data[3 * at], image.data[3 * at + 1], image.data[3 * at + 2]]
    }

    #[test]
    fn each_view_shows_what_it_says() {
        let (row, region) = row();
        let view = |view| picture(&row, Some(&region), view).expect("shown");
        let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(&a, b)| a.abs_diff(b) < 40);
        assert!(near(pixel(&view(View::Picture), 0.2, 0.5), [0, 0, 200]));
        assert!(near(pixel(&view(View::Crop), 0.5, 0.5), [0, 200, 0]));
        assert!(near(pixel(&view(View::Crop), 0.03, 0.03), [0, 0, 200]));
        assert!(near(pixel(&view(View::Masked), 0.5, 0.5), [0, 200, 0]));
        assert!(near(pixel(&view(View::Masked), 0.03, 0.03), [GREY; 3]));
        let boxed = pixel(&view(View::Boxed), 41.0 / 64.0, 0.5);
        assert!(boxed[0] > 120, "{boxed:?}");
        assert_eq!(view(View::Masked), view(View::Masked));
    }

    #[test]
    fn what_cannot_be_shown_is_told() {
        let (row, _) = row();
        assert!(picture(&row, None, View::Boxed).expect_err("no region").contains("of a region"));
        assert!(picture(&ImageRow::default(), None, View::Picture).expect_err("no bytes").contains("no picture"));
    }
}

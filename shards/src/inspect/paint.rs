//! Regions painted onto a picture: a tint and an outline for each mask, an outline for each box.

use crate::pixels::{Mask, Rgb};
use crate::row::Region;

/// Strength of the tint within a mask, of 255: light, so that the picture's own colours stay.
const TINT: u32 = 44;

/// Colours of regions, in their order; told apart by people who do not see red and green alike (Okabe and Ito 2008).
pub(crate) const COLOURS: [[u8; 3]; 7] =
    [[213, 94, 0], [0, 114, 178], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233], [240, 228, 66]];

/// The colour of region `index`.
pub(crate) fn colour(index: usize) -> [u8; 3] {
    COLOURS[index % COLOURS.len()]
}

/// The picture at `width` x `height` by its nearest pixels.
pub(crate) fn scaled(image: &Rgb, width: u32, height: u32) -> Rgb {
    let mut data = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        let from = nearest(y, height, image.height) as usize * image.width as usize;
        for x in 0..width {
            let at = 3 * (from + nearest(x, width, image.width) as usize);
            data.extend_from_slice(&image.data[at..at + 3]);
        }
    }
    Rgb { width, height, data }
}

fn nearest(at: u32, of: u32, source: u32) -> u32 {
    ((u64::from(at) * 2 + 1) * u64::from(source) / (u64::from(of) * 2)) as u32
}

/// Paints region `index`; `mask` is its decoded mask, of any size.
pub(crate) fn region(image: &mut Rgb, region: &Region, mask: Option<&Mask>, index: usize) {
    let colour = colour(index);
    let (w, h) = (image.width, image.height);
    if let Some(mask) = mask.filter(|m| m.width > 0 && m.height > 0) {
        let inside = |x: u32, y: u32| {
            let (mx, my) = (nearest(x, w, mask.width), nearest(y, h, mask.height));
            mask.data[(my * mask.width + mx) as usize] >= 128
        };
        for y in 0..h {
            for x in 0..w {
                if inside(x, y) {
                    let edge = x == 0
                        || y == 0
                        || x + 1 == w
                        || y + 1 == h
                        || !(inside(x - 1, y) && inside(x + 1, y) && inside(x, y - 1) && inside(x, y + 1));
                    blend(image, x, y, colour, if edge { 255 } else { TINT });
                }
            }
        }
    }
    let [x1, y1, x2, y2] = region.bbox;
    let at = |v: f32, side: u32| ((v * side as f32) as u32).min(side - 1);
    let (x1, y1, x2, y2) = (at(x1, w), at(y1, h), at(x2, w), at(y2, h));
    for x in x1..=x2 {
        blend(image, x, y1, colour, 255);
        blend(image, x, y2, colour, 255);
    }
    for y in y1..=y2 {
        blend(image, x1, y, colour, 255);
        blend(image, x2, y, colour, 255);
    }
}

fn blend(image: &mut Rgb, x: u32, y: u32, colour: [u8; 3], alpha: u32) {
    let at = 3 * (y as usize * image.width as usize + x as usize);
    for (value, &target) in image.data[at..at + 3].iter_mut().zip(&colour) {
        *value = ((u32::from(*value) * (255 - alpha) + u32::from(target) * alpha) / 255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_tinted_inside_and_outlined() {
        let mut image = Rgb::filled(16, 16, [0, 0, 0]);
        let mut mask = Mask::filled(8, 8, 0);
        for y in 2..6 {
            mask.data[y * 8 + 2..y * 8 + 6].fill(255);
        }
        let boxed = Region { bbox: [0.0, 0.0, 1.0, 1.0], ..Region::default() };
        region(&mut image, &boxed, Some(&mask), 0);
        let at = |x: usize, y: usize| image.data[3 * (y * 16 + x)];
        assert_eq!(at(8, 8), (213 * TINT / 255) as u8, "tint");
        assert_eq!(at(4, 8), 213, "outline of the mask");
        assert_eq!(at(0, 8), 213, "outline of the box");
        assert_eq!(at(2, 8), 0, "outside");
    }

    #[test]
    fn pictures_scale_by_their_nearest_pixels() {
        let image = Rgb { width: 2, height: 1, data: vec![1, 2, 3, 7, 8, 9] };
        assert_eq!(scaled(&image, 4, 1).data, [1, 2, 3, 1, 2, 3, 7, 8, 9, 7, 8, 9]);
    }
}

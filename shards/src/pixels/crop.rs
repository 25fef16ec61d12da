//! Square windows of an image, also beyond its border, resized to the model's side (method.md 2.4).

use super::resize::{Raster, Rect};

/// Largest side of a padded window that is made at full resolution; beyond it the inner part is shrunk first.
const MAX_PADDED: u32 = 4096;

/// A square of pixels; it may reach beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Square {
    /// First column, may be negative.
    pub left: i64,
    /// First row, may be negative.
    pub top: i64,
    /// Columns and rows, at least 1.
    pub side: u32,
}

impl Square {
    /// The square of side `scale` x the longer side of `bbox`, centred on it. `bbox` is x1, y1, x2, y2 in 0..1 of an
    /// image of `width` x `height`.
    #[must_use]
    pub fn around(bbox: [f32; 4], scale: f64, width: u32, height: u32) -> Self {
        let [x1, y1, x2, y2] = bbox.map(f64::from);
        let (w, h) = (f64::from(width), f64::from(height));
        let side = (scale * ((x2 - x1) * w).max((y2 - y1) * h)).round().clamp(1.0, 1e6);
        let start = |lo: f64, hi: f64, n: f64| ((lo + hi) * 0.5 * n - side * 0.5).round() as i64;
        Self { left: start(x1, x2, w), top: start(y1, y2, h), side: side as u32 }
    }

    /// The smallest square around an image, centred, the odd pixel to the right or below.
    #[must_use]
    pub fn padded(width: u32, height: u32) -> Self {
        let side = width.max(height);
        Self { left: -i64::from((side - width) / 2), top: -i64::from((side - height) / 2), side }
    }

    /// The part within an image of `width` x `height`; `None` if there is none.
    fn within(self, width: u32, height: u32) -> Option<Rect> {
        let clip = |start: i64, n: u32| {
            let (from, to) = (start.max(0), (start + i64::from(self.side)).min(i64::from(n)));
            (from < to).then(|| (from as u32, (to - from) as u32))
        };
        let ((left, w), (top, h)) = (clip(self.left, width)?, clip(self.top, height)?);
        Some(Rect { left, top, width: w, height: h })
    }
}

/// `square` of `image`, resized to `size` x `size`; beyond the border lies `fill` (one byte for each channel).
#[must_use]
pub fn square<R: Raster>(image: &R, square: Square, size: u32, fill: &[u8]) -> R {
    debug_assert_eq!(fill.len(), R::CHANNELS);
    let (w, h) = image.size();
    let Some(inner) = square.within(w, h) else {
        return R::from_bytes(size, size, fill.repeat(size as usize * size as usize));
    };
    if inner.width == square.side && inner.height == square.side {
        return image.resized(inner, size, size);
    }
    let shrink = f64::from(MAX_PADDED.min(square.side)) / f64::from(square.side);
    let scaled = |v: f64| (v * shrink).round() as usize;
    let side = scaled(f64::from(square.side));
    let (left, top) =
        (scaled((i64::from(inner.left) - square.left) as f64), scaled((i64::from(inner.top) - square.top) as f64));
    let width = scaled(f64::from(inner.width)).clamp(1, (side - left).max(1));
    let height = scaled(f64::from(inner.height)).clamp(1, (side - top).max(1));
    let (left, top) = (left.min(side - width), top.min(side - height));
    let mut padded = fill.repeat(side * side);
    let small;
    let (bytes, stride, from) = if shrink < 1.0 {
        small = image.resized(inner, width as u32, height as u32);
        (small.bytes(), width, (0, 0))
    } else {
        (image.bytes(), w as usize, (inner.left as usize, inner.top as usize))
    };
    let c = R::CHANNELS;
    for y in 0..height {
        let source = ((from.1 + y) * stride + from.0) * c;
        let target = ((top + y) * side + left) * c;
        padded[target..target + width * c].copy_from_slice(&bytes[source..source + width * c]);
    }
    R::from_bytes(side as u32, side as u32, padded).resized(Rect::whole(side as u32, side as u32), size, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::{Mask, Rgb};

    #[test]
    fn the_square_is_centred_on_the_box() {
        let s = Square::around([0.25, 0.4, 0.75, 0.6], 1.5, 200, 100);
        assert_eq!(s, Square { left: 25, top: -25, side: 150 });
        assert_eq!(Square::padded(5, 2), Square { left: 0, top: -1, side: 5 });
    }

    #[test]
    fn beyond_the_border_lies_the_fill() {
        let image = Rgb::filled(4, 4, [200, 10, 10]);
        let out = square(&image, Square { left: -4, top: 0, side: 8 }, 8, &[1, 2, 3]);
        assert_eq!(out.data[..3], [1, 2, 3]);
        assert_eq!(out.data[4 * 3..5 * 3], [200, 10, 10]);
        assert_eq!(out.data[(7 * 8 + 7) * 3..], [1, 2, 3]);
        let nowhere = square(&image, Square { left: 50, top: 50, side: 8 }, 2, &[1, 2, 3]);
        assert_eq!(nowhere.data, [1, 2, 3].repeat(4));
    }

    #[test]
    fn a_giant_window_stays_small_in_memory() {
        let mask = Mask::filled(100, 1, 255);
        let out = square(&mask, Square { left: -500_000, top: -500_000, side: 1_000_000 }, 8, &[0]);
        assert_eq!(out.data.len(), 64);
        let long = Mask::filled(20_000, 2_000, 255);
        let out = square(&long, Square::padded(20_000, 2_000), 16, &[0]);
        assert_eq!((out.data[0], out.data[8 * 16] > 0), (0, true));
    }
}

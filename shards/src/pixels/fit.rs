//! The whole image as a square (method.md 2.9): zero-padded (AlphaCLIP's training) or squashed (PixCLIP's retrieval
//! evaluation, FG-CLIP), and where a box comes to lie in it.

use super::crop::{Square, square};
use super::resize::{Raster, Rect};
use pixfleet_cluster::spec::Fit;

/// `image` as a `size` x `size` square; padding is zero.
#[must_use]
pub fn fit<R: Raster>(image: &R, how: Fit, size: u32) -> R {
    let (w, h) = image.size();
    match how {
        Fit::Pad if w != h => square(image, Square::padded(w, h), size, &[0; 3][..R::CHANNELS]),
        Fit::Pad | Fit::Squash => image.resized(Rect::whole(w, h), size, size),
    }
}

/// `bbox` (x1, y1, x2, y2 in 0..1 of an image of `width` x `height`) in 0..1 of the fitted square.
#[must_use]
pub fn fit_box(bbox: [f32; 4], how: Fit, width: u32, height: u32) -> [f32; 4] {
    if how == Fit::Squash || width == height {
        return bbox;
    }
    let s = Square::padded(width, height);
    let put = |v: f32, n: u32, start: i64| ((f64::from(v) * f64::from(n) - start as f64) / f64::from(s.side)) as f32;
    [put(bbox[0], width, s.left), put(bbox[1], height, s.top), put(bbox[2], width, s.left), put(bbox[3], height, s.top)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Mask;

    #[test]
    fn padding_moves_the_box_and_squashing_does_not() {
        assert_eq!(fit_box([0.0, 0.0, 1.0, 1.0], Fit::Pad, 200, 100), [0.0, 0.25, 1.0, 0.75]);
        assert_eq!(fit_box([0.5, 0.0, 1.0, 1.0], Fit::Pad, 100, 200), [0.5, 0.0, 0.75, 1.0]);
        assert_eq!(fit_box([0.5, 0.0, 1.0, 1.0], Fit::Squash, 100, 200), [0.5, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn padding_is_zero_and_the_picture_lies_in_its_middle() {
        let mask = Mask::filled(8, 4, 255);
        let padded = fit(&mask, Fit::Pad, 8);
        assert!(padded.data[..16].iter().all(|&v| v == 0) && padded.data[48..].iter().all(|&v| v == 0));
        assert!(padded.data[16..48].iter().all(|&v| v == 255));
        assert!(fit(&mask, Fit::Squash, 8).data.iter().all(|&v| v == 255));
    }
}

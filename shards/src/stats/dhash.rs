//! A picture's difference hash: whether each of 8 x 8 places is brighter than the one on its right (N. Krawetz, "Kind of
//! Like That", 2013). It outlives scaling and recompression, not crops or turns.

use crate::pixels::Rgb;
use std::ops::Range;

const COLUMNS: usize = 9;
const ROWS: usize = 8;
/// Levels of grey, of 255, within which a picture has nothing to compare: flat pictures would all be each other's duplicates.
const FLAT: u64 = 8;

/// The hash, first row in the highest byte; `None` for a picture that is flat, or of no size.
#[must_use]
pub fn dhash(picture: &Rgb) -> Option<u64> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    if width == 0 || height == 0 {
        return None;
    }
    let mut cells = [[0; COLUMNS]; ROWS];
    for (y, line) in cells.iter_mut().enumerate() {
        for (x, cell) in line.iter_mut().enumerate() {
            *cell = brightness(picture, span(x, COLUMNS, width), span(y, ROWS, height));
        }
    }
    let all = cells.iter().flatten();
    let (least, most) = (all.clone().min()?, all.max()?);
    if most - least < FLAT << 8 {
        return None;
    }
    let brighter = cells.iter().flat_map(|line| line.windows(2).map(|pair| u64::from(pair[0] > pair[1])));
    Some(brighter.fold(0, |hash, bit| (hash << 1) | bit))
}

/// The pixels of cell `at` of `cells`, at least one.
fn span(at: usize, cells: usize, pixels: usize) -> Range<usize> {
    let from = (at * pixels / cells).min(pixels - 1);
    from..((at + 1) * pixels / cells).max(from + 1)
}

/// Mean brightness in 1/256 of a level (luma of ITU-R BT.601).
fn brightness(picture: &Rgb, columns: Range<usize>, lines: Range<usize>) -> u64 {
    let pixels = (columns.len() * lines.len()) as u64;
    let line = |y: usize| {
        let from = 3 * y * picture.width as usize;
        let line = &picture.data[from + 3 * columns.start..from + 3 * columns.end];
        let luma = |p: &[u8]| 77 * u64::from(p[0]) + 150 * u64::from(p[1]) + 29 * u64::from(p[2]);
        line.chunks_exact(3).map(luma).sum::<u64>()
    };
    lines.map(line).sum::<u64>() / pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Brightness by place in 0..1.
    fn picture(width: u32, height: u32, of: impl Fn(f64, f64) -> f64) -> Rgb {
        let mut data = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let at = |v: u32, n: u32| (f64::from(v) + 0.5) / f64::from(n);
                data.extend([(255.0 * of(at(x, width), at(y, height))) as u8; 3]);
            }
        }
        Rgb { width, height, data }
    }

    #[test]
    fn it_says_where_brightness_falls() {
        assert_eq!(dhash(&picture(90, 80, |x, _| 1.0 - x)), Some(u64::MAX));
        assert_eq!(dhash(&picture(90, 80, |x, _| x)), Some(0));
        // The upper half falls, the lower one rises.
        let halves = picture(90, 80, |x, y| if y < 0.5 { 1.0 - x } else { x });
        assert_eq!(dhash(&halves), Some(0xffff_ffff_0000_0000));
        assert_eq!(dhash(&picture(40, 40, |_, _| 0.5)), None, "flat");
        assert!(dhash(&picture(3, 2, |x, y| (x + y) / 2.0)).is_some(), "smaller than the hash");
    }

    #[test]
    fn another_size_is_the_same_picture_and_another_picture_is_not() {
        let waves = |x: f64, y: f64| 0.5 + 0.25 * ((9.0 * x + 3.0 * y).sin() + (5.0 * x * y).cos());
        let others = |x: f64, y: f64| 0.5 + 0.25 * ((4.0 * x - 7.0 * y).sin() + (8.0 * x).cos());
        let hash = |w, h, of: &dyn Fn(f64, f64) -> f64| dhash(&picture(w, h, of)).expect("not flat");
        let (large, small) = (hash(640, 480, &waves), hash(200, 150, &waves));
        assert!((large ^ small).count_ones() <= 3, "{large:016x} {small:016x}");
        assert!((large ^ hash(640, 480, &others)).count_ones() > 10);
    }
}

//! COCO run-length encoding: column-major runs that begin with the outside, and their compressed string.
//!
//! Invariant: an [`Rle`] from [`Rle::from_coco_string`] fills its image exactly, so decoding it cannot write outside.
//! Format: `maskApi.c` of the COCO API (runs, `rleToString`, `rleFrString`); held to pycocotools by
//! `tests/golden/rle.txt`.

use super::Mask;
use super::decode::MAX_PIXELS;

/// Why runs are not a mask.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RleError {
    /// A byte that the format does not use.
    #[error("byte {byte:#04x} at offset {offset} is not part of COCO's compressed counts (0x30 to 0x6f)")]
    Byte {
        /// Offset into the string.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// The string ends within a number.
    #[error("the compressed counts end in the middle of a number")]
    Truncated,
    /// A run that is negative or does not fit 32 bits.
    #[error("run {index} has the length {length}; expected 0 to 4294967295")]
    Run {
        /// Which run.
        index: usize,
        /// The length that was read.
        length: i64,
    },
    /// More or fewer pixels than the image has.
    #[error("the runs cover {runs} pixels, the mask of {height} x {width} has {pixels}")]
    Length {
        /// Sum of all runs.
        runs: u64,
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// Pixels of the image.
        pixels: u64,
    },
    /// The image is larger than what is decoded.
    #[error("a mask of {height} x {width} has more than the {limit} pixels that are decoded")]
    TooLarge {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// The limit.
        limit: u64,
    },
}

/// A mask as runs down the columns: outside, inside, outside, ...
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Lengths of the runs, the first one outside (0 if the first pixel is inside).
    pub counts: Vec<u32>,
}

impl Rle {
    /// The runs of `mask`; inside is a value of at least 128.
    #[must_use]
    pub fn encode(mask: &Mask) -> Self {
        let (w, h) = (mask.width as usize, mask.height as usize);
        let mut counts = Vec::new();
        let (mut inside, mut run) = (false, 0u32);
        let mut column = vec![0u8; h];
        for x in 0..w {
            for (y, v) in column.iter_mut().enumerate() {
                *v = mask.data[y * w + x];
            }
            for &v in &column {
                if (v >= 128) != inside {
                    counts.push(run);
                    run = 0;
                    inside = !inside;
                }
                run += 1;
            }
        }
        counts.push(run);
        Self { height: mask.height, width: mask.width, counts }
    }

    /// Reads COCO's compressed counts.
    ///
    /// # Errors
    /// A byte outside the alphabet, an unfinished number, a negative run, runs that do not fill the image exactly.
    pub fn from_coco_string(text: &[u8], height: u32, width: u32) -> Result<Self, RleError> {
        let mut counts: Vec<u32> = Vec::with_capacity(text.len() / 2 + 1);
        let mut at = 0;
        while at < text.len() {
            let (value, next) = number(text, at)?;
            let index = counts.len();
            let before = if index > 2 { i64::from(counts[index - 2]) } else { 0 };
            let length = value + before;
            counts.push(u32::try_from(length).map_err(|_| RleError::Run { index, length })?);
            at = next;
        }
        let rle = Self { height, width, counts };
        rle.check()?;
        Ok(rle)
    }

    /// COCO's compressed counts: differences to the run before the last, in groups of five bits.
    #[must_use]
    pub fn to_coco_string(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.counts.len() * 2);
        for (i, &count) in self.counts.iter().enumerate() {
            let mut x = i64::from(count) - if i > 2 { i64::from(self.counts[i - 2]) } else { 0 };
            loop {
                let low = (x & 0x1f) as u8;
                x >>= 5;
                let more = if low & 0x10 != 0 { x != -1 } else { x != 0 };
                text.push((low | if more { 0x20 } else { 0 }) + 48);
                if !more {
                    break;
                }
            }
        }
        text
    }

    /// The mask, 0 or 255.
    ///
    /// # Errors
    /// Runs that do not fill the image exactly, or an image beyond [`MAX_PIXELS`]; nothing is allocated then.
    pub fn decode(&self) -> Result<Mask, RleError> {
        self.check()?;
        let (h, w) = (self.height as usize, self.width as usize);
        let mut mask = Mask::filled(self.width, self.height, 0);
        for (from, to) in self.inside() {
            let (mut x, mut y) = (from as usize / h, from as usize % h);
            for _ in from..to {
                mask.data[y * w + x] = 255;
                y += 1;
                if y == h {
                    (x, y) = (x + 1, 0);
                }
            }
        }
        Ok(mask)
    }

    /// Pixels inside.
    #[must_use]
    pub fn area(&self) -> u64 {
        self.counts.iter().skip(1).step_by(2).map(|&c| u64::from(c)).sum()
    }

    /// Tight box in pixels, x1, y1, x2, y2, the last two exclusive; `None` for an empty mask.
    #[must_use]
    pub fn bbox(&self) -> Option<[u32; 4]> {
        let h = u64::from(self.height);
        let mut tight: Option<[u64; 4]> = None;
        for (from, to) in self.inside().filter(|(from, to)| to > from) {
            let (x1, x2) = (from / h, (to - 1) / h);
            let (y1, y2) = if x1 == x2 { (from % h, (to - 1) % h) } else { (0, h - 1) };
            let b = tight.get_or_insert([x1, y1, x2 + 1, y2 + 1]);
            *b = [b[0].min(x1), b[1].min(y1), b[2].max(x2 + 1), b[3].max(y2 + 1)];
        }
        tight.map(|b| b.map(|v| v as u32))
    }

    /// The runs inside, as half-open ranges of column-major offsets.
    fn inside(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0u64;
        self.counts.chunks(2).filter_map(move |pair| {
            let from = at + u64::from(pair[0]);
            let to = from + u64::from(*pair.get(1)?);
            at = to;
            Some((from, to))
        })
    }

    fn check(&self) -> Result<(), RleError> {
        let (height, width) = (self.height, self.width);
        let pixels = u64::from(height) * u64::from(width);
        if pixels > MAX_PIXELS {
            return Err(RleError::TooLarge { height, width, limit: MAX_PIXELS });
        }
        let runs: u64 = self.counts.iter().map(|&c| u64::from(c)).sum();
        if runs != pixels {
            return Err(RleError::Length { runs, height, width, pixels });
        }
        Ok(())
    }
}

/// One signed number of little-endian groups of five bits, and the offset after it.
fn number(text: &[u8], start: usize) -> Result<(i64, usize), RleError> {
    let (mut value, mut shift, mut at) = (0i64, 0u32, start);
    loop {
        let byte = *text.get(at).ok_or(RleError::Truncated)?;
        let group = byte.wrapping_sub(48);
        // Eight groups hold 40 bits: no run of a decodable image needs more, and the shift stays within 64.
        if group > 0x3f || shift > 35 {
            return Err(RleError::Byte { offset: at, byte });
        }
        value |= i64::from(group & 0x1f) << shift;
        shift += 5;
        at += 1;
        if group & 0x20 == 0 {
            if group & 0x10 != 0 {
                value |= -1 << shift;
            }
            return Ok((value, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_longer_than_the_image_are_refused_with_their_size() {
        let long = Rle { height: 4, width: 4, counts: vec![3, 20] }.to_coco_string();
        let error = Rle::from_coco_string(&long, 4, 4).expect_err("too long");
        assert_eq!(error.to_string(), "the runs cover 23 pixels, the mask of 4 x 4 has 16");
        assert!(matches!(Rle::from_coco_string(&long, 6, 4), Err(RleError::Length { runs: 23, .. })));
    }

    #[test]
    fn malformed_strings_are_refused() {
        assert_eq!(Rle::from_coco_string(b"P", 4, 4), Err(RleError::Truncated));
        assert_eq!(Rle::from_coco_string(b" ", 4, 4), Err(RleError::Byte { offset: 0, byte: b' ' }));
        assert!(matches!(Rle::from_coco_string(b"ooooooooooo", 4, 4), Err(RleError::Byte { .. })));
        assert_eq!(Rle::from_coco_string(b"N", 4, 4), Err(RleError::Run { index: 0, length: -2 }));
        let huge = Rle { height: 60_000, width: 60_000, counts: vec![3_600_000_000] };
        assert!(matches!(huge.decode(), Err(RleError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn any_string_is_read_or_refused(text in prop::collection::vec(0x2eu8..0x72, 0..40), h in 0u32..9, w in 0u32..9) {
            if let Ok(rle) = Rle::from_coco_string(&text, h, w) {
                let mask = rle.decode().expect("checked");
                prop_assert_eq!(mask.area(), rle.area());
            }
        }

        #[test]
        fn a_mask_comes_back(w in 1u32..20, h in 1u32..20, seed: u64) {
            let data = (0..w * h).map(|i| if pixfleet_cluster::rng::mix(seed ^ u64::from(i)) & 3 == 0 { 255 } else { 0 }).collect();
            let mask = Mask { width: w, height: h, data };
            let rle = Rle::encode(&mask);
            prop_assert_eq!(&Rle::from_coco_string(&rle.to_coco_string(), h, w).expect("own string"), &rle);
            let tight = rle.bbox();
            prop_assert_eq!(&rle.decode().expect("own runs"), &mask);
            prop_assert_eq!(tight.is_some(), mask.area() > 0);
        }
    }
}

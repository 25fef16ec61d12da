//! Pixels: masks as COCO runs, decoding, resizing, fitting to the model's square, crops and mask augmentation.
//!
//! Everything here is pure and synchronous, and bounded before it allocates.

pub mod augment;
pub mod crop;
pub mod decode;
pub mod fit;
pub mod polygon;
pub mod resize;
pub mod rle;

/// An 8-bit RGB image, row-major, 3 bytes a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

/// An 8-bit mask, row-major: 0 outside, 255 inside, between only after resizing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `height * width` bytes.
    pub data: Vec<u8>,
}

impl Rgb {
    /// One colour throughout.
    #[must_use]
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        Self { width, height, data: colour.repeat(width as usize * height as usize) }
    }
}

impl Mask {
    /// One value throughout.
    #[must_use]
    pub fn filled(width: u32, height: u32, value: u8) -> Self {
        Self { width, height, data: vec![value; width as usize * height as usize] }
    }

    /// The filled box x1, y1, x2, y2 in 0..1, at least one pixel.
    #[must_use]
    pub fn from_box(width: u32, height: u32, bbox: [f32; 4]) -> Self {
        let span = |lo: f32, hi: f32, n: u32| {
            let from = ((f64::from(lo) * f64::from(n)).round() as u32).min(n.saturating_sub(1));
            let to = ((f64::from(hi) * f64::from(n)).round() as u32).clamp(from + 1, n.max(from + 1));
            from as usize..to as usize
        };
        let mut mask = Self::filled(width, height, 0);
        let columns = span(bbox[0], bbox[2], width);
        for y in span(bbox[1], bbox[3], height) {
            mask.data[y * width as usize..][columns.clone()].fill(255);
        }
        mask
    }

    /// Pixels inside (at least 128).
    #[must_use]
    pub fn area(&self) -> u64 {
        self.data.iter().map(|&v| u64::from(v >> 7)).sum()
    }
}

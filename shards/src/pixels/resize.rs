//! SIMD resizing, antialiased: bicubic with a = -0.5 (PIL's and torchvision's) for images, bilinear for masks.
//!
//! A rectangle is cut out first and resized then: no pixel outside it has a share in the result.

use super::{Mask, Rgb};
use fast_image_resize::images::{Image, TypedCroppedImage, TypedImageRef};
use fast_image_resize::pixels::{InnerPixel, U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use std::cell::RefCell;

thread_local! {
    /// The resizer keeps its buffers, so a thread that makes samples allocates them once.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// A rectangle of whole pixels within an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

impl Rect {
    /// The whole of an image.
    #[must_use]
    pub fn whole(width: u32, height: u32) -> Self {
        Self { left: 0, top: 0, width, height }
    }
}

/// One plane layout that can be resized: [`Rgb`] and [`Mask`].
pub trait Raster: Sized {
    /// A pixel as the resizer has it. Named, for its untyped call is compiled for all thirty kinds of pixels, at each place
    /// that calls it: most of this crate's code.
    type Pixel: PixelTrait;
    /// Bytes of a pixel.
    const CHANNELS: usize;
    /// What pixels are weighted by.
    const FILTER: FilterType;
    /// Columns and rows.
    fn size(&self) -> (u32, u32);
    /// Row-major bytes.
    fn bytes(&self) -> &[u8];
    /// From row-major bytes of the right length.
    fn from_bytes(width: u32, height: u32, data: Vec<u8>) -> Self;
    /// Resizes `rect` to `width` x `height`, both at least 1.
    #[must_use]
    fn resized(&self, rect: Rect, width: u32, height: u32) -> Self {
        let (w, h) = self.size();
        if (rect, width, height) == (Rect::whole(w, h), w, h) {
            return Self::from_bytes(w, h, self.bytes().to_vec());
        }
        let source = TypedImageRef::<Self::Pixel>::from_buffer(w, h, self.bytes())
            .expect("the bytes are rows x columns x channels");
        let view = TypedCroppedImage::new(source, rect.left, rect.top, rect.width, rect.height)
            .expect("the rectangle lies within the image");
        let mut out = Image::new(width, height, Self::Pixel::pixel_type());
        let mut typed = out.typed_image_mut::<Self::Pixel>().expect("of this pixel");
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(Self::FILTER)).use_alpha(false);
        RESIZER.with_borrow_mut(|r| r.resize_typed(&view, &mut typed, &options)).expect("neither side is empty");
        Self::from_bytes(width, height, out.into_vec())
    }
}

impl Raster for Rgb {
    type Pixel = U8x3;
    const CHANNELS: usize = 3;
    const FILTER: FilterType = FilterType::CatmullRom;
    fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }
    fn bytes(&self) -> &[u8] {
        &self.data
    }
    fn from_bytes(width: u32, height: u32, data: Vec<u8>) -> Self {
        Self { width, height, data }
    }
}

impl Raster for Mask {
    type Pixel = U8;
    const CHANNELS: usize = 1;
    const FILTER: FilterType = FilterType::Bilinear;
    fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }
    fn bytes(&self) -> &[u8] {
        &self.data
    }
    fn from_bytes(width: u32, height: u32, data: Vec<u8>) -> Self {
        Self { width, height, data }
    }
}

//! Why a row is not a sample.

use crate::pixels::decode::DecodeError;
use crate::pixels::rle::RleError;
use crate::tokens::TokenizerError;
use pixfleet_cluster::Class;

/// Why a row is not a sample. Each names the column at fault; the caller adds file, row group and row.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// No encoded image.
    #[error("image.bytes: the row holds no image")]
    NoImage,
    /// The image does not decode.
    #[error("image.bytes: {0}")]
    Image(#[from] DecodeError),
    /// The image is not of the size that the row says.
    #[error("width, height: the row says {said_width} x {said_height}, the image is {width} x {height}")]
    ImageSize {
        /// Columns by the row.
        said_width: u32,
        /// Rows by the row.
        said_height: u32,
        /// Columns of the image.
        width: u32,
        /// Rows of the image.
        height: u32,
    },
    /// Nothing to draw from.
    #[error("regions: the row has no region that passed its check and no image caption's vector")]
    NoRegion,
    /// An image without a caption that is trained on.
    #[error("{field}: the image has no such caption, which `loss.global = \"captions\"` trains on")]
    NoCaption {
        /// Which caption.
        field: &'static str,
    },
    /// A region without a text.
    #[error(
        "regions[{region}].short_expr, long_expr: the region has no text; give it an expression, or leave the region out"
    )]
    NoExpression {
        /// Which region.
        region: u32,
    },
    /// Hard negatives of nothing.
    #[error(
        "regions[{region}].hard_negs: {found} negatives and no short_expr, the true text that they are negatives of"
    )]
    NoPositive {
        /// Which region.
        region: u32,
        /// Negatives of the region.
        found: usize,
    },
    /// Too few or too many hard negatives.
    #[error("regions[{region}].hard_negs: {found} negatives; expected {expected}, or none")]
    HardCount {
        /// Which region.
        region: u32,
        /// Negatives of the region.
        found: usize,
        /// Negatives that a choice has.
        expected: usize,
    },
    /// A text that the tokenizer refuses.
    #[error("{field}: {source}")]
    Tokens {
        /// Which text.
        field: String,
        /// Why.
        source: TokenizerError,
    },
    /// The caller's region is not there.
    #[error("regions: region {wanted} of {found}")]
    RegionIndex {
        /// The index.
        wanted: u32,
        /// Regions of the row.
        found: usize,
    },
    /// A box that is empty, not finite or outside the image.
    #[error("regions[{region}].bbox: {bbox:?} is no box x1 < x2, y1 < y2 within 0..1")]
    Box {
        /// Which region.
        region: u32,
        /// The box.
        bbox: [f32; 4],
    },
    /// A malformed mask.
    #[error("regions[{region}].mask_rle: {source}")]
    Mask {
        /// Which region.
        region: u32,
        /// What is wrong with it.
        source: RleError,
    },
    /// A mask of another shape than its image.
    #[error(
        "regions[{region}].mask_size: {mask_height} x {mask_width} is not the shape of the image, {height} x {width}"
    )]
    MaskShape {
        /// Which region.
        region: u32,
        /// Rows of the mask.
        mask_height: u32,
        /// Columns of the mask.
        mask_width: u32,
        /// Rows of the image.
        height: u32,
        /// Columns of the image.
        width: u32,
    },
    /// A mask without a pixel inside.
    #[error("regions[{region}].mask_rle: no pixel lies inside the mask")]
    EmptyMask {
        /// Which region.
        region: u32,
    },
    /// A caption of nothing but spaces.
    #[error("regions[{region}].{field}: the caption is empty")]
    EmptyCaption {
        /// Which region.
        region: u32,
        /// Which caption.
        field: &'static str,
    },
    /// No text.
    #[error("{field}: the row has no such text")]
    NoText {
        /// Which text.
        field: String,
    },
    /// No text vector.
    #[error("{field}: no text vector; run `pixfleet shards embed` on this split")]
    NoVector {
        /// Which vector.
        field: String,
    },
    /// A text vector of another length.
    #[error("{field}: the text vector has {found} numbers, expected {expected}")]
    TextLength {
        /// Which vector.
        field: String,
        /// Its length.
        found: usize,
        /// The length that the run expects.
        expected: usize,
    },
    /// A text vector with NaN or infinity.
    #[error("{field}: number {index} of the text vector is {value}")]
    TextNotFinite {
        /// Which vector.
        field: String,
        /// Which number.
        index: usize,
        /// The number.
        value: f32,
    },
}

impl SampleError {
    /// Bad input stays bad: the row is replaced, not tried again.
    #[must_use]
    pub fn class(&self) -> Class {
        Class::Fatal
    }
}

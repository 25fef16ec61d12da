//! `[data]`: where samples come from and how a row becomes tensors (method.md 1.4, 2.4, 2.9).

use serde::{Deserialize, Serialize};

/// How an image becomes a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Zero-pad image and mask to a square, then resize (AlphaCLIP training).
    Pad,
    /// Resize both sides freely (PixCLIP's retrieval evaluation, FG-CLIP).
    Squash,
}

/// The mask that goes along with the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropMask {
    /// The region's mask, cropped.
    Region,
    /// All ones.
    Ones,
}

/// What the crop shows outside the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropBackground {
    /// The picture.
    Keep,
    /// The mean colour.
    Mean,
}

/// Which text of a region is trained on: of its captions, or of its expressions where all regions of an image are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextChoice {
    /// The short caption.
    Short,
    /// The merged long caption.
    Long,
    /// One of the two, drawn per (epoch, sample) (LLM2CLIP).
    Mixed,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataSpec {
    /// URL of the dataset (`file://`, `s3://`, `gs://`, `az://`, `hf://datasets/OWNER/NAME[@REVISION]`), the folder that holds
    /// the index.
    pub url: String,
    /// Split to train on.
    pub split: String,
    /// Key of the text vectors beside the rows, as `shards embed` named it: model, template, most tokens.
    pub vectors: String,
    /// Which caption is the training text.
    pub text: TextChoice,
    /// With `text = "mixed"`: probability of the long caption.
    pub long_probability: f64,
    /// Most regions of an image that are trained on, the first of its row; where a row stands for one drawn region, that
    /// is one whatever this says.
    pub regions: u32,
    /// Tokenizer of a text tower that reads token ids: `clip`, or the path of a `tokenizer.json`.
    pub tokenizer: String,
    /// Tokens of a long caption, start and end among them; what is longer is cut and counted.
    pub long_tokens: u32,
    /// Tokens of every other text.
    pub short_tokens: u32,
    /// What an image's short caption is preceded by (FG-CLIP: `a photo of `).
    pub short_prefix: String,
    /// How an image becomes a square.
    pub fit: Fit,
    /// Probability that a sample becomes (whole image, all-ones mask, image caption) (AlphaCLIP `common_pair`).
    pub common_pair: f64,
    /// Normalized value of an all-ones mask: (1 - 0.5) / 0.26 = 1.923, or 1.0 as in PixCLIP's retrieval evaluation.
    pub full_mask_value: f64,
    /// Side of the square crop over the longer side of the box.
    pub crop_scale: f64,
    /// The mask that goes along with the crop.
    pub crop_mask: CropMask,
    /// What the crop shows outside the region.
    pub crop_background: CropBackground,
    /// A region that covers more of the image than this has no crop term.
    pub crop_skip_area: f64,
    /// Mask augmentation: probability that the box replaces the mask.
    pub mask_box: f64,
    /// Mask augmentation: largest radius, in pixels of the input, of a random dilation or erosion.
    pub mask_dilate: u32,
    /// Row groups that are shuffled together.
    pub window_row_groups: u32,
}

impl DataSpec {
    /// Keys that may change between two starts of one run: they shape no weight.
    pub(super) const NEUTRAL: [&str; 1] = ["url"];
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            url: String::new(),
            split: "train".into(),
            vectors: "minilm-plain-256".into(),
            text: TextChoice::Mixed,
            long_probability: 0.5,
            regions: 4,
            tokenizer: "clip".into(),
            long_tokens: 248,
            short_tokens: 77,
            short_prefix: "a photo of ".into(),
            fit: Fit::Pad,
            common_pair: 0.1,
            full_mask_value: 0.5 / 0.26,
            crop_scale: 1.5,
            crop_mask: CropMask::Region,
            crop_background: CropBackground::Keep,
            crop_skip_area: 0.9,
            mask_box: 0.0,
            mask_dilate: 0,
            window_row_groups: 64,
        }
    }
}

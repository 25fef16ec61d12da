//! Sizes of the CLIP towers (method.md 1.3, 4.1): OpenAI's published ones, and tiny twins for a CPU.

use pixfleet_cluster::spec::{AlphaInit, LastBlock, ModelSpec, TextPreset, VisionPreset};

use super::positions::{KEPT_POSITIONS, stretched};

/// How the position table of a vision tower starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PositionStart {
    /// CLIP's: no position is like another.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Neighbours alike, so that pooling over a region's cells keeps its place: `Init::Waves` of the tower's grid.
    Waves {
        /// Standard deviation.
        std: f64,
    },
}

/// Sizes of a vision tower. Tests make smaller ones than the presets.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipVisionConfig {
    /// Side of the square image, pixels.
    pub image: i64,
    /// Side of a patch, pixels; divides `image`.
    pub patch: i64,
    /// Width C of a token; a multiple of `heads`.
    pub width: i64,
    /// Blocks, at least one.
    pub depth: i64,
    /// Attention heads.
    pub heads: i64,
    /// Hidden width of the MLP.
    pub hidden: i64,
    /// Width D of the joint embedding.
    pub embed: i64,
    /// Start of the position table.
    pub positions: PositionStart,
    /// Start of the alpha convolution, or that there is none.
    pub alpha_init: AlphaInit,
    /// The last block on the way to the patch map.
    pub last_block: LastBlock,
}

/// Sizes of a text tower. Tests make smaller ones than the presets.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipTextConfig {
    /// Token ids are below it.
    pub vocab: i64,
    /// Width W of a token; a multiple of `heads`.
    pub width: i64,
    /// Blocks, at least one.
    pub depth: i64,
    /// Attention heads.
    pub heads: i64,
    /// Hidden width of the MLP.
    pub hidden: i64,
    /// Width D of the joint embedding.
    pub embed: i64,
    /// Positions of the short path; more than 21.
    pub short_positions: i64,
    /// Whether there is a long path (FG-CLIP): stretched positions and a projection of its own.
    pub long: bool,
    /// The token that ends a text, and where it is pooled. CLIP pads with it too.
    pub eot: i64,
}

/// What a stack of blocks is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct StackSizes {
    pub(super) width: i64,
    pub(super) depth: i64,
    pub(super) heads: i64,
    pub(super) hidden: i64,
}

impl ClipVisionConfig {
    /// The tower of a run file; `None` if it is of another kind.
    #[must_use]
    pub fn of(spec: &ModelSpec) -> Option<Self> {
        let sizes = match spec.vision {
            VisionPreset::TinyClip => Self::tiny(),
            VisionPreset::ClipB16 => Self::b16(),
            VisionPreset::ClipL14At336 => Self::l14_at_336(),
            VisionPreset::Tiny | VisionPreset::Eva02B16 | VisionPreset::Eva02L14 | VisionPreset::Eva02L14At336 => {
                return None;
            }
        };
        debug_assert_eq!(sizes.embed, i64::from(spec.vision.embed()));
        Some(Self { alpha_init: spec.alpha_init, last_block: spec.last_block, ..sizes })
    }

    /// CLIP ViT-B/16 at 224 px.
    #[must_use]
    pub fn b16() -> Self {
        Self::vit(224, 16, 768, 12, 512)
    }

    /// CLIP ViT-L/14 at 336 px.
    #[must_use]
    pub fn l14_at_336() -> Self {
        Self::vit(336, 14, 1024, 24, 768)
    }

    /// 1.9 million parameters at 96 px. Two blocks, and positions that start large and alike where they are near: with
    /// four blocks or with CLIP's start a few hundred steps leave no trace of a region's place in its feature (LOG.md,
    /// "Tiny FG-CLIP").
    #[must_use]
    pub fn tiny() -> Self {
        Self { positions: PositionStart::Waves { std: 1.0 }, ..Self::vit(96, 16, 256, 2, 256) }
    }

    /// Heads of 64, an MLP four times as wide as a token, no alpha convolution.
    fn vit(image: i64, patch: i64, width: i64, depth: i64, embed: i64) -> Self {
        Self {
            image,
            patch,
            width,
            depth,
            heads: width / 64,
            hidden: 4 * width,
            embed,
            positions: PositionStart::Normal { std: (width as f64).powf(-0.5) },
            alpha_init: AlphaInit::None,
            last_block: LastBlock::Normal,
        }
    }

    /// Patches along a side.
    #[must_use]
    pub fn grid(&self) -> i64 {
        self.image / self.patch
    }

    /// Patches of an image.
    #[must_use]
    pub fn patches(&self) -> i64 {
        self.grid() * self.grid()
    }

    pub(super) fn stack(&self) -> StackSizes {
        StackSizes { width: self.width, depth: self.depth, heads: self.heads, hidden: self.hidden }
    }
}

impl ClipTextConfig {
    /// The tower of a run file; `long`: whether long captions are read. `None` if it is of another kind.
    #[must_use]
    pub fn of(spec: &ModelSpec, long: bool) -> Option<Self> {
        let sizes = match spec.text {
            TextPreset::Adapter => return None,
            TextPreset::TinyClip => Self::tiny(),
            TextPreset::ClipB16 => Self::b16(),
            TextPreset::ClipL14 => Self::l14(),
        };
        debug_assert_eq!(Some(sizes.embed), spec.text.embed().map(i64::from));
        Some(Self { long, ..sizes })
    }

    /// The text tower of CLIP ViT-B/16.
    #[must_use]
    pub fn b16() -> Self {
        Self::transformer(512, 12, 512)
    }

    /// The text tower of CLIP ViT-L/14, at 224 and at 336 px.
    #[must_use]
    pub fn l14() -> Self {
        Self::transformer(768, 12, 768)
    }

    /// One block, 0.2 million parameters: an image of FG-CLIP's second stage comes with up to 50 texts, and of the last block only
    /// the pooled token's half is computed. The embedding of the whole vocabulary is 6.3 million more, of which a batch reads few
    /// rows.
    #[must_use]
    pub fn tiny() -> Self {
        Self::transformer(128, 1, 256)
    }

    /// Heads of 64, an MLP four times as wide as a token, CLIP's vocabulary, no long path.
    fn transformer(width: i64, depth: i64, embed: i64) -> Self {
        Self {
            vocab: 49408,
            width,
            depth,
            heads: width / 64,
            hidden: 4 * width,
            embed,
            short_positions: 77,
            long: false,
            eot: 49407,
        }
    }

    /// Positions of the long path: 248 for 77 short ones.
    #[must_use]
    pub fn long_positions(&self) -> i64 {
        stretched(self.short_positions, KEPT_POSITIONS)
    }

    pub(super) fn stack(&self) -> StackSizes {
        StackSizes { width: self.width, depth: self.depth, heads: self.heads, hidden: self.hidden }
    }
}

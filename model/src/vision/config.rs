//! Sizes of the EVA02 towers (method.md 1.2).

use pixfleet_cluster::spec::{AlphaInit, LastBlock, ModelSpec, VisionPreset};

/// Sizes of one tower. Presets come from [`VisionConfig::preset`]; tests make smaller ones.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Side of the square image, pixels.
    pub image: i64,
    /// Side of a patch, pixels; divides `image`.
    pub patch: i64,
    /// Width C of a token; a multiple of `4 * heads`.
    pub width: i64,
    /// Blocks.
    pub depth: i64,
    /// Attention heads.
    pub heads: i64,
    /// Hidden width of the SwiGLU.
    pub hidden: i64,
    /// Width D of the joint embedding.
    pub embed: i64,
    /// Side of the grid that the rotary frequencies were made for: positions are scaled to it.
    pub rope_grid: i64,
    /// Standard deviation that the head's weight starts with. EVA's 0.02 x 0.001 is for fine-tuning; the joint embedding
    /// is normalized, so a small start only makes the head's first gradients large, and with clipping by global norm
    /// those would drown all others.
    pub head_std: f64,
    /// Start of the alpha convolution.
    pub alpha_init: AlphaInit,
    /// The last block on the way to the patch map.
    pub last_block: LastBlock,
}

impl VisionConfig {
    /// The sizes of a named tower; `None` if it is of another kind.
    #[must_use]
    pub fn preset(preset: VisionPreset) -> Option<Self> {
        let eva = |image, patch, width, depth, hidden| Self {
            image,
            patch,
            width,
            depth,
            heads: width / 64,
            hidden,
            embed: i64::from(preset.embed()),
            rope_grid: 16,
            head_std: 0.02 * 0.001,
            alpha_init: AlphaInit::Zero,
            last_block: LastBlock::Normal,
        };
        Some(match preset {
            // int(width * 2.6667): 2048 and 2730.
            VisionPreset::Eva02B16 => eva(224, 16, 768, 12, 2048),
            VisionPreset::Eva02L14 => eva(224, 14, 1024, 24, 2730),
            VisionPreset::Eva02L14At336 => eva(336, 14, 1024, 24, 2730),
            // Of several 3.4 M shapes the fastest on a CPU core: 36 patches, wide and shallow.
            VisionPreset::Tiny => Self { head_std: 0.02, ..eva(96, 16, 256, 4, 672) },
            VisionPreset::TinyClip | VisionPreset::ClipB16 | VisionPreset::ClipL14At336 => return None,
        })
    }

    /// The tower of a run file; `None` if it is of another kind.
    #[must_use]
    pub fn of(spec: &ModelSpec) -> Option<Self> {
        let sizes = Self::preset(spec.vision)?;
        Some(Self { alpha_init: spec.alpha_init, last_block: spec.last_block, ..sizes })
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

    /// Width of an attention head.
    #[must_use]
    pub fn head_width(&self) -> i64 {
        self.width / self.heads
    }
}

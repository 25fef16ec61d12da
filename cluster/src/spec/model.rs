//! `[model]`: towers and adapter (method.md 1.2, 1.5, 2.5).

use serde::{Deserialize, Serialize};

/// A vision tower by name. Sizes stand in `pixfleet-model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VisionPreset {
    /// A few million parameters at 96 px: for CPUs, tests and the demo.
    Tiny,
    /// EVA02-CLIP-B-16 at 224 px.
    #[serde(rename = "eva02-b16")]
    Eva02B16,
    /// EVA02-CLIP-L-14 at 224 px.
    #[serde(rename = "eva02-l14")]
    Eva02L14,
    /// EVA02-CLIP-L-14-336.
    #[serde(rename = "eva02-l14-336")]
    Eva02L14At336,
    /// A few million parameters of CLIP's ViT at 96 px.
    TinyClip,
    /// OpenAI's CLIP ViT-B/16 at 224 px.
    #[serde(rename = "clip-b16")]
    ClipB16,
    /// OpenAI's CLIP ViT-L/14 at 336 px.
    #[serde(rename = "clip-l14-336")]
    ClipL14At336,
}

impl VisionPreset {
    /// Numbers of an embedding: the joint width D.
    #[must_use]
    pub fn embed(self) -> u32 {
        match self {
            Self::Tiny | Self::TinyClip => 256,
            Self::Eva02B16 | Self::Eva02L14 | Self::Eva02L14At336 => 1280,
            Self::ClipB16 => 512,
            Self::ClipL14At336 => 768,
        }
    }
}

/// A text tower by name. Sizes stand in `pixfleet-model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextPreset {
    /// The adapter over stored text vectors (`[model.text_proj]`).
    Adapter,
    /// A few million parameters of CLIP's text transformer, over token ids.
    TinyClip,
    /// The text transformer of CLIP ViT-B/16, over token ids.
    #[serde(rename = "clip-b16")]
    ClipB16,
    /// The text transformer of CLIP ViT-L/14, over token ids.
    #[serde(rename = "clip-l14")]
    ClipL14,
}

impl TextPreset {
    /// Whether it reads token ids instead of stored vectors.
    #[must_use]
    pub fn reads_tokens(self) -> bool {
        self != Self::Adapter
    }

    /// Numbers of an embedding; an adapter's are as many as the vision tower's.
    #[must_use]
    pub fn embed(self) -> Option<u32> {
        match self {
            Self::Adapter => None,
            Self::TinyClip => Some(256),
            Self::ClipB16 => Some(512),
            Self::ClipL14 => Some(768),
        }
    }
}

/// How the alpha convolution of the mask-aware patch embedding starts (method.md 1.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlphaInit {
    /// Weight and bias 0: step 0 reproduces the base model.
    Zero,
    /// PyTorch's Conv2d default.
    Random,
    /// There is none: the tower takes no mask.
    None,
}

/// The last block on the way to the patch map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LastBlock {
    /// As in the forward of the class token (PixCLIP).
    Normal,
    /// `x + proj(inner_attn_ln(v_proj(LN1 x)))` and the MLP (CLIPSelf, FG-CLIP).
    AttentionFree,
}

/// Which forward yields the patch map of branch 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatchMapMask {
    /// The forward of branch 1, with the mask: free.
    Shared,
    /// A second forward without a mask.
    Without,
}

/// `[model.text_proj]`: the adapter from text vectors to the joint space (method.md 1.5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextProjSpec {
    /// Width of the text vectors: 4096 for Llama-3-8B, 384 for MiniLM.
    pub width: u32,
    /// Width of each residual MLP's hidden layer.
    pub hidden: u32,
    /// Residual MLPs.
    pub layers: u32,
    /// Frozen (LLM2CLIP's `lock_text_tower`).
    pub frozen: bool,
}

impl Default for TextProjSpec {
    fn default() -> Self {
        Self { width: 4096, hidden: 8192, layers: 4, frozen: false }
    }
}

/// `[model.text_clip]`: CLIP's text transformer, where `model.text` is one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TextClipSpec {
    /// Frozen (AlphaCLIP).
    pub frozen: bool,
}

/// `[model.logit_scale]`: every temperature of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogitScaleSpec {
    /// Initial value of the parameter, ln(1/temperature).
    pub init: f64,
    /// Clamped to [0, max] after each step.
    pub max: f64,
    /// Whether it learns (AlphaCLIP: no).
    pub trainable: bool,
}

impl Default for LogitScaleSpec {
    fn default() -> Self {
        Self { init: (1.0f64 / 0.07).ln(), max: 100.0f64.ln(), trainable: true }
    }
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelSpec {
    /// The vision tower.
    pub vision: VisionPreset,
    /// The text tower.
    pub text: TextPreset,
    /// What to start from: path or URL of a safetensors file; a folder in the Hub's layout, by its path or as
    /// `hf://OWNER/NAME[@REVISION]`; or another run, by its URL or as `run:<name>` in the same store (its newest checkpoint,
    /// or that of a step: `run:<name>@1000`); empty: from scratch.
    pub weights: String,
    /// Start of the alpha convolution.
    pub alpha_init: AlphaInit,
    /// The last block on the way to the patch map.
    pub last_block: LastBlock,
    /// Which forward yields the patch map.
    pub patch_map_mask: PatchMapMask,
    /// `[model.text_proj]`
    pub text_proj: TextProjSpec,
    /// `[model.text_clip]`
    pub text_clip: TextClipSpec,
    /// `[model.logit_scale]`
    pub logit_scale: LogitScaleSpec,
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            vision: VisionPreset::Eva02B16,
            text: TextPreset::Adapter,
            weights: String::new(),
            alpha_init: AlphaInit::Zero,
            last_block: LastBlock::Normal,
            patch_map_mask: PatchMapMask::Shared,
            text_proj: TextProjSpec::default(),
            text_clip: TextClipSpec::default(),
            logit_scale: LogitScaleSpec::default(),
        }
    }
}

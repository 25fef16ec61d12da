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

/// `[model.logit_scale]`
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
    /// URL or path of a safetensors file with the names of method.md 1.6 to start from; empty: from scratch.
    pub weights: String,
    /// Start of the alpha convolution.
    pub alpha_init: AlphaInit,
    /// The last block on the way to the patch map.
    pub last_block: LastBlock,
    /// Which forward yields the patch map.
    pub patch_map_mask: PatchMapMask,
    /// `[model.text_proj]`
    pub text_proj: TextProjSpec,
    /// `[model.logit_scale]`
    pub logit_scale: LogitScaleSpec,
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            vision: VisionPreset::Eva02B16,
            weights: String::new(),
            alpha_init: AlphaInit::Zero,
            last_block: LastBlock::Normal,
            patch_map_mask: PatchMapMask::Shared,
            text_proj: TextProjSpec::default(),
            logit_scale: LogitScaleSpec::default(),
        }
    }
}

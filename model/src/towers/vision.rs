//! The vision towers behind one face. A new one is a folder beside [`crate::vision`], a name in the run file's
//! `model.vision`, and an arm here.

use pixfleet_cluster::spec::{AlphaInit, ModelSpec};
use tch::{Device, Tensor};

use crate::clip::{ClipVision, ClipVisionConfig};
use crate::params::{Builder, Weights};
use crate::vision::{Vision, VisionConfig, VisionOut};

/// A vision tower of any kind: canvas of S x S pixels, with or without a mask, to an image feature and a patch map.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has one, for as long as it lives")]
pub enum VisionTower {
    /// EVA02 (method.md 1.2), names below `visual.`.
    Eva(Vision),
    /// CLIP's ViT (method.md 1.3, 4.1), Hugging Face's names.
    Clip(ClipVision),
}

/// The sizes of a vision tower.
#[derive(Debug, Clone)]
pub enum VisionSizes {
    /// Of EVA02.
    Eva(VisionConfig),
    /// Of CLIP's ViT.
    Clip(ClipVisionConfig),
}

impl VisionSizes {
    /// Those of a run file.
    ///
    /// # Panics
    /// Never: every name belongs to one of the kinds.
    #[must_use]
    pub fn of(spec: &ModelSpec) -> Self {
        match VisionConfig::of(spec) {
            Some(eva) => Self::Eva(eva),
            None => Self::Clip(ClipVisionConfig::of(spec).expect("a tower is one of the kinds")),
        }
    }

    /// Side S of the square input in pixels.
    #[must_use]
    pub fn image(&self) -> i64 {
        match self {
            Self::Eva(c) => c.image,
            Self::Clip(c) => c.image,
        }
    }

    /// Width D of the joint embedding.
    #[must_use]
    pub fn embed(&self) -> i64 {
        match self {
            Self::Eva(c) => c.embed,
            Self::Clip(c) => c.embed,
        }
    }

    fn alpha(&self) -> AlphaInit {
        match self {
            Self::Eva(c) => c.alpha_init,
            Self::Clip(c) => c.alpha_init,
        }
    }
}

impl VisionTower {
    /// Registers the parameters at `root`.
    pub(super) fn new(sizes: &VisionSizes, root: &mut Builder<'_>, device: Device) -> Self {
        match sizes {
            VisionSizes::Eva(config) => Self::Eva(Vision::new(config, &mut root.below("visual"), device)),
            VisionSizes::Clip(config) => Self::Clip(ClipVision::new(config, root)),
        }
    }

    /// Its sizes.
    #[must_use]
    pub fn sizes(&self) -> VisionSizes {
        match self {
            Self::Eva(v) => VisionSizes::Eva(v.config().clone()),
            Self::Clip(v) => VisionSizes::Clip(v.config().clone()),
        }
    }

    /// Side S of the square input in pixels.
    #[must_use]
    pub fn image(&self) -> i64 {
        self.sizes().image()
    }

    /// Whether it looks at a mask.
    #[must_use]
    pub fn takes_mask(&self) -> bool {
        self.sizes().alpha() != AlphaInit::None
    }

    /// `pixels` [B, 3, S, S] and `mask` [B, 1, S, S], normalized fp32 (method.md 1.4). Without a mask the alpha path is left
    /// out. The map costs the last block over all tokens, so ask for it only where it is read.
    #[must_use]
    pub fn forward(&self, w: &Weights<'_>, pixels: &Tensor, mask: Option<&Tensor>, want_map: bool) -> VisionOut {
        match self {
            Self::Eva(v) => v.forward(w, pixels, mask, want_map),
            Self::Clip(v) => v.forward(w, pixels, mask, want_map),
        }
    }

    /// Projects and normalizes raw features: [.., C] -> [.., D], L2-normalized fp32.
    pub fn head_norm(&self, w: &Weights<'_>, raw: &Tensor) -> Tensor {
        match self {
            Self::Eva(v) => v.head_norm(w, raw),
            Self::Clip(v) => v.head_norm(w, raw),
        }
    }
}

//! CLIP's ViT with FG-CLIP's patch map (method.md 1.3, 4.1).

use pixfleet_cluster::spec::LastBlock;
use tch::{Kind, Tensor};

use super::LN_EPS;
use super::attention::Sight;
use super::config::ClipVisionConfig;
use super::embed::Embed;
use super::stack::Stack;
use crate::layers::{LayerNorm, Linear, LinearInit, l2_normalize};
use crate::params::{Builder, ParamGroup, Weights};
use crate::vision::VisionOut;

/// The tower's structure.
#[derive(Debug)]
pub struct ClipVision {
    config: ClipVisionConfig,
    embed: Embed,
    pre_norm: LayerNorm,
    stack: Stack,
    post_norm: LayerNorm,
    projection: Linear,
}

impl ClipVision {
    /// Registers `vision_model.*` and `visual_projection.weight` at `root` (the builder without a prefix).
    pub fn new(config: &ClipVisionConfig, root: &mut Builder<'_>) -> Self {
        let above = |layers: i64| ParamGroup::Vision { above: layers as u32 };
        let mut at = root.below("vision_model");
        let mut bottom = at.of(above(config.depth + 1));
        let embed = Embed::new(config, &mut bottom.below("embeddings"));
        // Hugging Face's spelling.
        let pre_norm = LayerNorm::new(&mut bottom.below("pre_layrnorm"), config.width, LN_EPS);
        let stack = Stack::new(&config.stack(), Sight::All, |i| above(config.depth - i), &mut at.below("encoder"));
        let post_norm = LayerNorm::new(&mut at.below("post_layernorm"), config.width, LN_EPS);
        let scaled = LinearInit::Normal { std: (config.width as f64).powf(-0.5) };
        let sizes = (config.width, config.embed);
        let projection = Linear::new(&mut root.below("visual_projection"), sizes, false, scaled);
        Self { config: config.clone(), embed, pre_norm, stack, post_norm, projection }
    }

    /// Its sizes.
    #[must_use]
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// `pixels` [B, 3, S, S] and `mask` [B, 1, S, S], normalized fp32 (method.md 1.4). Without a mask the alpha path is
    /// left out; a tower without an alpha convolution does not look at a mask. The map, [B, C, h, w], is of the last
    /// block's patch tokens after `post_layernorm`, unprojected: [`Self::head_norm`] of what is pooled from it is
    /// FG-CLIP's projecting and then pooling, since the projection has no bias. It costs the last block over all tokens,
    /// so ask for it only where it is read.
    #[must_use]
    pub fn forward(&self, w: &Weights<'_>, pixels: &Tensor, mask: Option<&Tensor>, want_map: bool) -> VisionOut {
        let x = self.pre_norm.forward(w, &self.embed.forward(w, pixels, mask));
        let (x, last) = self.stack.run(w, x);
        let post = |x: &Tensor| self.post_norm.forward(w, x);
        let class_of = |x: &Tensor| x.narrow(1, 0, 1);
        let patches_of = |x: &Tensor| x.narrow(1, 1, self.config.patches());
        let class_alone = || post(&last.forward_one(w, &x, class_of, None));
        let (class, map) = match (want_map, self.config.last_block) {
            (false, _) => (class_alone(), None),
            (true, LastBlock::Normal) => {
                let all = post(&last.forward(w, &x));
                (class_of(&all), Some(self.to_map(&patches_of(&all))))
            }
            (true, LastBlock::AttentionFree) => {
                let patches = post(&last.forward_values(w, &patches_of(&x)));
                (class_alone(), Some(self.to_map(&patches)))
            }
        };
        VisionOut { image: self.head_norm(w, &class.squeeze_dim(1)), map }
    }

    /// Projects and normalizes raw features: [.., C] -> [.., D], L2-normalized fp32. The class token and pooled regions
    /// share it.
    pub fn head_norm(&self, w: &Weights<'_>, raw: &Tensor) -> Tensor {
        l2_normalize(&self.projection.forward(w, raw))
    }

    /// [B, patches, C] -> [B, C, h, w].
    fn to_map(&self, patches: &Tensor) -> Tensor {
        let (grid, size) = (self.config.grid(), patches.size());
        patches.to_kind(Kind::Float).transpose(1, 2).reshape([size[0], size[2], grid, grid])
    }
}

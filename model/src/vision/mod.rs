//! EVA02 vision tower with a mask-aware patch embedding (method.md 1.2). Parameter names are PixCLIP's (1.6), below
//! `visual.`.
//!
//! The residual stream is fp32 in both precisions: it is the sum of all blocks' outputs, and bf16's 8 bits would lose
//! the small late contributions. Linears and attention run in the step's arithmetic.

pub mod attention;
pub mod block;
pub mod config;
pub mod mlp;
pub mod patch_embed;
pub mod rope;
#[cfg(test)]
mod tests;

use pixfleet_cluster::spec::LastBlock;
use tch::{Device, Kind, Tensor};

pub use config::VisionConfig;

use crate::layers::{LayerNorm, Linear, LinearInit, l2_normalize};
use crate::params::{Builder, ParamGroup, Weights};
use block::Block;
use patch_embed::PatchEmbed;

/// Epsilon of every layer norm in the tower.
pub(crate) const LN_EPS: f64 = 1e-6;

/// The tower's structure.
#[derive(Debug)]
pub struct Vision {
    config: VisionConfig,
    embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    rope: Tensor,
}

/// What a forward yields.
#[derive(Debug)]
pub struct VisionOut {
    /// [B, D], L2-normalized, fp32.
    pub image: Tensor,
    /// [B, C, h, w], fp32, neither projected nor normalized; if it was asked for.
    pub map: Option<Tensor>,
}

impl Vision {
    /// Registers the tower's parameters at `at` (the builder below `visual`).
    pub fn new(config: &VisionConfig, at: &mut Builder<'_>, device: Device) -> Self {
        let embed = PatchEmbed::new(config, at);
        let block = |i: i64| {
            let above = ParamGroup::Vision { above: (config.depth - i) as u32 };
            Block::new(config, i + 1, &mut at.below(&format!("blocks.{i}")).of(above))
        };
        let blocks = (0..config.depth).map(block).collect();
        let norm = LayerNorm::new(&mut at.below("norm"), config.width, LN_EPS);
        let head_init = LinearInit::Normal { std: config.head_std };
        let head = Linear::new(&mut at.below("head"), (config.width, config.embed), true, head_init);
        let rope = rope::factors(config.grid(), config.rope_grid, config.head_width(), device);
        Self { config: config.clone(), embed, blocks, norm, head, rope }
    }

    /// Its sizes.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// `pixels` [B, 3, S, S] and `mask` [B, 1, S, S], normalized fp32 (method.md 1.4). Without a mask the alpha path
    /// (its bias too) is left out. The map costs the last block over all tokens, so ask for it only where it is read.
    #[must_use]
    pub fn forward(&self, w: &Weights<'_>, pixels: &Tensor, mask: Option<&Tensor>, want_map: bool) -> VisionOut {
        let mut x = self.embed.forward(w, pixels, mask);
        let (last, before) = self.blocks.split_last().expect("a tower has at least one block");
        for block in before {
            let (block, rope) = (block.clone(), self.rope.shallow_clone());
            x = w.segment(&x, move |w, x| block.forward(w, x, &rope));
        }
        let (class, map) = match (want_map, self.config.last_block) {
            (false, _) => (self.norm.forward(w, &last.forward_class(w, &x, &self.rope)), None),
            (true, LastBlock::Normal) => {
                let all = self.norm.forward(w, &last.forward(w, &x, &self.rope));
                (all.narrow(1, 0, 1), Some(self.to_map(&all)))
            }
            (true, LastBlock::AttentionFree) => {
                let class = self.norm.forward(w, &last.forward_class(w, &x, &self.rope));
                (class, Some(self.to_map(&self.norm.forward(w, &last.forward_values(w, &x)))))
            }
        };
        VisionOut { image: self.head_norm(w, &class.squeeze_dim(1)), map }
    }

    /// Projects and normalizes raw features: [.., C] -> [.., D], L2-normalized fp32. The class token and pooled regions
    /// share it.
    pub fn head_norm(&self, w: &Weights<'_>, raw: &Tensor) -> Tensor {
        l2_normalize(&self.head.forward(w, raw))
    }

    /// [B, 1 + patches, C] -> [B, C, h, w].
    fn to_map(&self, tokens: &Tensor) -> Tensor {
        let (grid, size) = (self.config.grid(), tokens.size());
        let patches = tokens.narrow(1, 1, size[1] - 1).to_kind(Kind::Float);
        patches.transpose(1, 2).reshape([size[0], size[2], grid, grid])
    }
}

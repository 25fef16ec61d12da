//! A pre-norm block (method.md 1.2.2): `x + Attn(LN1 x)`, then `x + MLP(LN2 x)`.

use tch::Tensor;

use super::LN_EPS;
use super::attention::Attention;
use super::config::VisionConfig;
use super::mlp::SwiGlu;
use crate::layers::LayerNorm;
use crate::params::{Builder, Weights};

/// Parameters of one block.
#[derive(Debug, Clone)]
pub struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    mlp: SwiGlu,
}

impl Block {
    /// `layer` counts from 1.
    pub(super) fn new(config: &VisionConfig, layer: i64, at: &mut Builder<'_>) -> Self {
        Self {
            norm1: LayerNorm::new(&mut at.below("norm1"), config.width, LN_EPS),
            attention: Attention::new(config, layer, &mut at.below("attn")),
            norm2: LayerNorm::new(&mut at.below("norm2"), config.width, LN_EPS),
            mlp: SwiGlu::new(config, layer, &mut at.below("mlp")),
        }
    }

    /// All tokens: [B, 1 + patches, C] -> the same.
    pub(super) fn forward(&self, w: &Weights<'_>, x: &Tensor, rope: &Tensor) -> Tensor {
        let x = x + self.attention.forward(w, &self.norm1.enter(w, x), rope);
        self.then_mlp(w, x)
    }

    /// The class token alone: [B, 1 + patches, C] -> [B, 1, C]. In the last block nothing else is read, and the other
    /// tokens' queries and MLP need not be computed.
    pub(super) fn forward_class(&self, w: &Weights<'_>, x: &Tensor, rope: &Tensor) -> Tensor {
        let x = x.narrow(1, 0, 1) + self.attention.forward_class(w, &self.norm1.enter(w, x), rope);
        self.then_mlp(w, x)
    }

    /// The attention-free form, for the patch map (method.md 2.5).
    pub(super) fn forward_values(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward_values(w, &self.norm1.enter(w, x));
        self.then_mlp(w, x)
    }

    fn then_mlp(&self, w: &Weights<'_>, x: Tensor) -> Tensor {
        let y = self.mlp.forward(w, &self.norm2.enter(w, &x));
        x + y
    }
}

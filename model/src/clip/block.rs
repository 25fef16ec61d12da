//! A pre-norm block of CLIP: `x + Attn(LN1 x)`, then `x + MLP(LN2 x)`, the MLP with quick_gelu.

use tch::Tensor;

use super::LN_EPS;
use super::attention::{Attention, Sight};
use super::config::StackSizes;
use crate::fused;
use crate::layers::{LayerNorm, Linear, LinearInit};
use crate::params::{Builder, Weights};

/// Parameters of one block.
#[derive(Debug, Clone)]
pub(super) struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    /// Registers `self_attn.*`, `layer_norm1`, `layer_norm2`, `mlp.fc1` and `mlp.fc2`. The MLP starts as in OpenAI's
    /// `CLIP.initialize_parameters`: (2 width)^-1/2 and (2 width depth)^-1/2.
    pub(super) fn new(sizes: &StackSizes, sight: Sight, at: &mut Builder<'_>) -> Self {
        let (c, hidden) = (sizes.width, sizes.hidden);
        let up = LinearInit::Normal { std: ((2 * c) as f64).powf(-0.5) };
        let down = LinearInit::Normal { std: ((2 * sizes.depth * c) as f64).powf(-0.5) };
        Self {
            norm1: LayerNorm::new(&mut at.below("layer_norm1"), c, LN_EPS),
            attention: Attention::new(sizes, sight, &mut at.below("self_attn")),
            norm2: LayerNorm::new(&mut at.below("layer_norm2"), c, LN_EPS),
            up: Linear::new(&mut at.below("mlp.fc1"), (c, hidden), true, up),
            down: Linear::new(&mut at.below("mlp.fc2"), (hidden, c), true, down),
        }
    }

    /// All tokens: [B, T, C] -> the same.
    pub(super) fn forward(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward(w, &self.norm1.enter(w, x));
        self.then_mlp(w, &x)
    }

    /// The one token of each row that `pick` takes out of [B, T, C] -> [B, 1, C]; `seen` as in
    /// [`Attention::forward_one`]. In the last block nothing else is read, and the other tokens' queries and MLP need not
    /// be computed.
    pub(super) fn forward_one(
        &self,
        w: &Weights<'_>,
        x: &Tensor,
        pick: impl Fn(&Tensor) -> Tensor,
        seen: Option<&Tensor>,
    ) -> Tensor {
        let normed = self.norm1.enter(w, x);
        let x = pick(x) + self.attention.forward_one(w, &pick(&normed), &normed, seen);
        self.then_mlp(w, &x)
    }

    /// The attention-free form, for the patch map (method.md 4.1).
    pub(super) fn forward_values(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        let x = x + self.attention.forward_values(w, &self.norm1.enter(w, x));
        self.then_mlp(w, &x)
    }

    fn then_mlp(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        let hidden = fused::quick_gelu(w, &self.up.forward(w, &self.norm2.enter(w, x)));
        x + self.down.forward(w, &hidden)
    }
}

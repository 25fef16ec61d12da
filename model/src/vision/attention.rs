//! Self-attention with 2-D rotary positions and a layer norm before the output projection (method.md 1.2.3).

use pixfleet_shim::kernels::Heads;
use tch::Tensor;

use super::LN_EPS;
use super::config::VisionConfig;
use crate::fused;
use crate::layers::{LayerNorm, Linear, LinearInit};
use crate::params::{Builder, Weights};

/// Parameters of one block's attention. `k_proj` has no bias.
#[derive(Debug, Clone)]
pub struct Attention {
    head_width: i64,
    q: Linear,
    k: Linear,
    v: Linear,
    inner_norm: LayerNorm,
    out: Linear,
}

impl Attention {
    /// `layer` counts from 1: the output projection starts smaller by sqrt(2 layer) (method.md 1.2.6).
    pub(super) fn new(config: &VisionConfig, layer: i64, at: &mut Builder<'_>) -> Self {
        let c = config.width;
        let plain = LinearInit::Normal { std: 0.02 };
        let scaled = LinearInit::Normal { std: 0.02 / ((2 * layer) as f64).sqrt() };
        Self {
            head_width: config.head_width(),
            q: Linear::new(&mut at.below("q_proj"), (c, c), true, plain),
            k: Linear::new(&mut at.below("k_proj"), (c, c), false, plain),
            v: Linear::new(&mut at.below("v_proj"), (c, c), true, plain),
            inner_norm: LayerNorm::new(&mut at.below("inner_attn_ln"), c, LN_EPS),
            out: Linear::new(&mut at.below("proj"), (c, c), true, scaled),
        }
    }

    /// `x` [B, 1 + patches, C], already normalized -> the same shape.
    pub(super) fn forward(&self, w: &Weights<'_>, x: &Tensor, rope: &Tensor) -> Tensor {
        let qkv = Linear::forward_joined(w, x, &[&self.q, &self.k, &self.v]);
        let qkv = self.heads(w, &qkv, (3, 2), rope);
        self.attend(w, [&qkv[0], &qkv[1], &qkv[2]])
    }

    /// As [`Attention::forward`], for the class token alone: [B, 1, C]. Its query is not rotated.
    pub(super) fn forward_class(&self, w: &Weights<'_>, x: &Tensor, rope: &Tensor) -> Tensor {
        let q = self.heads(w, &self.q.forward(w, &x.narrow(1, 0, 1)), (1, 0), rope);
        let kv = self.heads(w, &Linear::forward_joined(w, x, &[&self.k, &self.v]), (2, 1), rope);
        self.attend(w, [&q[0], &kv[0], &kv[1]])
    }

    /// The attention-free form: every token takes its own value (CLIPSelf, FG-CLIP).
    pub(super) fn forward_values(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        self.out.forward(w, &self.inner_norm.enter(w, &self.v.forward(w, x)))
    }

    /// Queries [B, heads, T', width] over keys and values [B, heads, T, width] -> [B, T', C].
    fn attend(&self, w: &Weights<'_>, [q, k, v]: [&Tensor; 3]) -> Tensor {
        let a = Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0.0, false, None, false);
        self.out.forward(w, &self.inner_norm.enter(w, &a.transpose(1, 2).flatten(2, 3)))
    }

    /// Parts of the joined outputs `x`, of which the first `turned` are rotated.
    fn heads(&self, w: &Weights<'_>, x: &Tensor, (parts, turned): (usize, usize), rope: &Tensor) -> Vec<Tensor> {
        fused::heads(w, x, Heads { parts, width: self.head_width, turned }, Some(rope))
    }
}

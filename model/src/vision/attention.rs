//! Self-attention with 2-D rotary positions and a layer norm before the output projection (method.md 1.2.3).

use tch::Tensor;

use super::LN_EPS;
use super::config::VisionConfig;
use super::rope;
use crate::layers::{LayerNorm, Linear, LinearInit};
use crate::params::{Builder, Weights};

/// Parameters of one block's attention. `k_proj` has no bias.
#[derive(Debug)]
pub struct Attention {
    heads: i64,
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
            heads: config.heads,
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
        let qkv = self.split(&Linear::forward_joined(w, x, &[&self.q, &self.k, &self.v]));
        let parts = qkv.split_with_sizes([2 * self.heads, self.heads], 2);
        let qk = rope::rotate(&parts[0], rope).split_with_sizes([self.heads, self.heads], 2);
        self.attend(w, &qk[0], &qk[1], &parts[1])
    }

    /// As [`Attention::forward`], for the class token alone: [B, 1, C]. Its query is not rotated.
    pub(super) fn forward_class(&self, w: &Weights<'_>, x: &Tensor, rope: &Tensor) -> Tensor {
        let q = self.split(&self.q.forward(w, &x.narrow(1, 0, 1)));
        let kv = self.split(&Linear::forward_joined(w, x, &[&self.k, &self.v]));
        let parts = kv.split_with_sizes([self.heads, self.heads], 2);
        self.attend(w, &q, &rope::rotate(&parts[0], rope), &parts[1])
    }

    /// The attention-free form: every token takes its own value (CLIPSelf, FG-CLIP).
    pub(super) fn forward_values(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        self.out.forward(w, &self.inner_norm.forward(w, &self.v.forward(w, x)))
    }

    /// Queries [B, T', heads, width] over keys and values [B, T, heads, width] -> [B, T', C].
    fn attend(&self, w: &Weights<'_>, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let [q, k, v] = [q, k, v].map(|t| t.to_kind(w.attention_dtype()).transpose(1, 2));
        let a = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false);
        self.out.forward(w, &self.inner_norm.forward(w, &a.transpose(1, 2).flatten(2, 3)))
    }

    /// [B, T, n * width] -> [B, T, n, width].
    fn split(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        x.view([size[0], size[1], -1, self.head_width])
    }
}

//! Multi-head self-attention of CLIP: queries, keys, values and output all with bias; positions are in the tokens.

use pixfleet_shim::kernels::Heads;
use tch::Tensor;

use super::config::StackSizes;
use crate::fused;
use crate::layers::{Linear, LinearInit};
use crate::params::{Builder, Weights};

/// What a token attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// All tokens of its row (images).
    All,
    /// Itself and the tokens before it (texts).
    Causal,
}

/// Parameters of one block's attention.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    head_width: i64,
    sight: Sight,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

impl Attention {
    /// Registers `{q,k,v,out}_proj`. They start as in OpenAI's `CLIP.initialize_parameters` (openai/CLIP,
    /// clip/model.py): the inputs with width^-1/2, the output smaller by sqrt(2 depth), biases 0.
    pub(super) fn new(sizes: &StackSizes, sight: Sight, at: &mut Builder<'_>) -> Self {
        let c = sizes.width;
        let plain = LinearInit::Normal { std: (c as f64).powf(-0.5) };
        let scaled = LinearInit::Normal { std: ((2 * sizes.depth * c) as f64).powf(-0.5) };
        Self {
            head_width: c / sizes.heads,
            sight,
            q: Linear::new(&mut at.below("q_proj"), (c, c), true, plain),
            k: Linear::new(&mut at.below("k_proj"), (c, c), true, plain),
            v: Linear::new(&mut at.below("v_proj"), (c, c), true, plain),
            out: Linear::new(&mut at.below("out_proj"), (c, c), true, scaled),
        }
    }

    /// `x` [B, T, C], already normalized -> the same shape.
    pub(super) fn forward(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        let qkv = self.heads(w, &Linear::forward_joined(w, x, &[&self.q, &self.k, &self.v]), 3);
        self.attend(w, [&qkv[0], &qkv[1], &qkv[2]], None, self.sight == Sight::Causal)
    }

    /// One token of each row, `one` [B, 1, C], over `all` [B, T, C], both already normalized -> [B, 1, C]. `seen`
    /// [B, 1, 1, T] tells which tokens it attends to; without it to all.
    pub(super) fn forward_one(&self, w: &Weights<'_>, one: &Tensor, all: &Tensor, seen: Option<&Tensor>) -> Tensor {
        let q = self.heads(w, &self.q.forward(w, one), 1);
        let kv = self.heads(w, &Linear::forward_joined(w, all, &[&self.k, &self.v]), 2);
        self.attend(w, [&q[0], &kv[0], &kv[1]], seen, false)
    }

    /// The attention-free form: every token takes its own value (method.md 4.1).
    pub(super) fn forward_values(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        self.out.forward(w, &self.v.forward(w, x))
    }

    /// Queries [B, heads, T', width], keys and values [B, heads, T, width] -> [B, T', C].
    fn attend(&self, w: &Weights<'_>, [q, k, v]: [&Tensor; 3], seen: Option<&Tensor>, causal: bool) -> Tensor {
        let a = Tensor::scaled_dot_product_attention(q, k, v, seen, 0.0, causal, None, false);
        self.out.forward(w, &a.transpose(1, 2).flatten(2, 3))
    }

    fn heads(&self, w: &Weights<'_>, x: &Tensor, parts: usize) -> Vec<Tensor> {
        fused::heads(w, x, Heads { parts, width: self.head_width, turned: 0 }, None)
    }
}

//! A block of a language model: normalization by the root mean square, attention whose heads share keys and values, gated
//! MLP. What the families differ in is whether a part is there.

use tch::{Device, Kind, Tensor};

use super::config::{Family, LlmConfig};
use super::error::LlmError;
use super::files::Files;
use super::rope::rotate;
use crate::params::Compute;

/// Where a block's tensors come from, and where they go.
pub(crate) struct Source<'f> {
    pub(crate) files: &'f Files,
    pub(crate) config: &'f LlmConfig,
    pub(crate) compute: Compute,
    pub(crate) device: Device,
}

impl Source<'_> {
    fn linear(&self, stem: &str, (input, output): (i64, i64), bias: bool) -> Result<Linear, LlmError> {
        let held = |t: Tensor| {
            // A cast to what the tensor is already copies nothing.
            t.to_device(self.device).to_kind(self.compute.dtype).to_kind(self.compute.multiplied_in(self.device))
        };
        let weight = held(self.files.tensor(&format!("{stem}.weight"), &[output, input])?);
        let bias = if bias { Some(held(self.files.tensor(&format!("{stem}.bias"), &[output])?)) } else { None };
        Ok(Linear { weight, bias, dtype: self.compute.dtype })
    }

    /// fp32; Gemma stores what is added to 1.
    pub(crate) fn norm(&self, stem: &str, width: i64) -> Result<RmsNorm, LlmError> {
        let weight = self.files.tensor(&format!("{stem}.weight"), &[width])?;
        let weight = weight.to_device(self.device).to_kind(Kind::Float);
        let weight = if self.config.family == Family::Gemma3 { weight + 1.0 } else { weight };
        Ok(RmsNorm { weight, eps: self.config.eps })
    }
}

/// `y = x W^T + b` over fixed weights.
#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    /// What operands and results are rounded to; the weight may be held wider where a CPU cannot multiply it.
    dtype: Kind,
}

impl Linear {
    /// `x` [.., in] of any float dtype -> [.., out] in the encoder's arithmetic.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(self.dtype).to_kind(self.weight.kind());
        x.linear(&self.weight, self.bias.as_ref()).to_kind(self.dtype)
    }
}

/// `x / rms(x) * weight` over the last dimension, in fp32 (Zhang, Sennrich 2019).
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.to_kind(Kind::Float).rms_norm(self.weight.size(), Some(&self.weight), self.eps)
    }
}

/// What tokens of a batch may see, and how positions turn.
#[derive(Debug)]
pub(crate) struct Visible {
    /// True where a token is seen, broadcast to [n, heads, T, T]; `None` if padding and windows hide nothing.
    pub(crate) mask: Option<Tensor>,
    /// Whether tokens see only those before them, without a mask.
    pub(crate) causal: bool,
    /// Cosines and sines.
    pub(crate) rope: (Tensor, Tensor),
}

#[derive(Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    /// Of queries and keys, over each head.
    norms: Option<(RmsNorm, RmsNorm)>,
    head_dim: i64,
    queries_per_key: i64,
    scale: f64,
}

impl Attention {
    fn load(from: &Source<'_>, stem: &str) -> Result<Self, LlmError> {
        let c = from.config;
        let (width, q, kv) = (c.width, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let linear = |name: &str, sizes| from.linear(&format!("{stem}.{name}_proj"), sizes, c.attention_bias);
        let norm = |name: &str| from.norm(&format!("{stem}.{name}_norm"), c.head_dim);
        let norms = match c.family {
            Family::Llama => None,
            Family::Gemma3 | Family::Qwen3 => Some((norm("q")?, norm("k")?)),
        };
        Ok(Self {
            q: linear("q", (width, q))?,
            k: linear("k", (width, kv))?,
            v: linear("v", (width, kv))?,
            out: linear("o", (q, width))?,
            norms,
            head_dim: c.head_dim,
            queries_per_key: c.queries_per_key(),
            scale: c.scale,
        })
    }

    fn forward(&self, x: &Tensor, visible: &Visible) -> Tensor {
        let (n, length) = (x.size()[0], x.size()[1]);
        let heads = |t: Tensor| t.view([n, length, -1, self.head_dim]).transpose(1, 2);
        let (mut q, mut k) = (heads(self.q.forward(x)), heads(self.k.forward(x)));
        let v = heads(self.v.forward(x));
        if let Some((of_q, of_k)) = &self.norms {
            (q, k) = (of_q.forward(&q), of_k.forward(&k));
        }
        let turned = |t: &Tensor| rotate(&t.to_kind(Kind::Float), &visible.rope);
        // libtorch's CPU kernel is made for fp32.
        let dtype = if x.device().is_cuda() { v.kind() } else { Kind::Float };
        let shared = |t: Tensor| self.share(&t.to_kind(dtype));
        let (q, k, v) = (turned(&q).to_kind(dtype), shared(turned(&k)), shared(v));
        let mask = visible.mask.as_ref();
        let seen = Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, visible.causal, self.scale, false);
        self.out.forward(&seen.transpose(1, 2).flatten(2, 3))
    }

    /// Keys or values [n, kv, T, dim] for every query head: [n, heads, T, dim].
    fn share(&self, t: &Tensor) -> Tensor {
        if self.queries_per_key == 1 {
            return t.shallow_clone();
        }
        t.repeat_interleave_self_int(self.queries_per_key, 1, None)
    }
}

/// `down(act(gate(x)) * up(x))` (Shazeer 2020).
#[derive(Debug)]
struct Gated {
    gate: Linear,
    up: Linear,
    down: Linear,
    family: Family,
}

impl Gated {
    fn load(from: &Source<'_>, stem: &str) -> Result<Self, LlmError> {
        let c = from.config;
        let linear = |name: &str, sizes| from.linear(&format!("{stem}.{name}_proj"), sizes, c.mlp_bias);
        Ok(Self {
            gate: linear("gate", (c.width, c.hidden))?,
            up: linear("up", (c.width, c.hidden))?,
            down: linear("down", (c.hidden, c.width))?,
            family: c.family,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut gate = self.gate.forward(x);
        // In place: nothing learns here, and these are the widest tensors.
        let mut gate = match self.family {
            Family::Llama | Family::Qwen3 => gate.silu_(),
            Family::Gemma3 => gate.gelu_("tanh"),
        };
        self.down.forward(&gate.g_mul_(&self.up.forward(x)))
    }
}

/// See the module. Gemma normalizes what attention and MLP give as well as what they take.
#[derive(Debug)]
pub(crate) struct Block {
    before_attention: RmsNorm,
    attention: Attention,
    after_attention: Option<RmsNorm>,
    before_mlp: RmsNorm,
    mlp: Gated,
    after_mlp: Option<RmsNorm>,
}

impl Block {
    pub(crate) fn load(from: &Source<'_>, i: usize) -> Result<Self, LlmError> {
        let at = |name: &str| format!("layers.{i}.{name}");
        let norm = |name: &str| from.norm(&at(name), from.config.width);
        let (after_attention, before_mlp, after_mlp) = match from.config.family {
            Family::Llama | Family::Qwen3 => (None, norm("post_attention_layernorm")?, None),
            Family::Gemma3 => (
                Some(norm("post_attention_layernorm")?),
                norm("pre_feedforward_layernorm")?,
                Some(norm("post_feedforward_layernorm")?),
            ),
        };
        Ok(Self {
            before_attention: norm("input_layernorm")?,
            attention: Attention::load(from, &at("self_attn"))?,
            after_attention,
            before_mlp,
            mlp: Gated::load(from, &at("mlp"))?,
            after_mlp,
        })
    }

    /// `x` [n, T, width] fp32, the residual stream, which stays fp32.
    pub(crate) fn forward(&self, x: Tensor, visible: &Visible) -> Tensor {
        let normed =
            |norm: &Option<RmsNorm>, t: Tensor| norm.as_ref().map_or_else(|| t.shallow_clone(), |n| n.forward(&t));
        let attended = self.attention.forward(&self.before_attention.forward(&x), visible);
        let x = x + normed(&self.after_attention, attended);
        let fed = self.mlp.forward(&self.before_mlp.forward(&x));
        x + normed(&self.after_mlp, fed)
    }
}

//! SwiGLU with a layer norm before its last linear (method.md 1.2.4): `W3 LN(SiLU(W1 x) * (W2 x))`.

use tch::Tensor;

use super::LN_EPS;
use super::config::VisionConfig;
use crate::layers::{LayerNorm, Linear, LinearInit};
use crate::params::{Builder, Weights};

/// Parameters of one block's MLP.
#[derive(Debug, Clone)]
pub struct SwiGlu {
    w1: Linear,
    w2: Linear,
    norm: LayerNorm,
    w3: Linear,
    /// Zeros behind the hidden width, see [`fill`].
    fill: i64,
}

impl SwiGlu {
    /// `layer` counts from 1, see [`super::attention::Attention::new`].
    pub(super) fn new(config: &VisionConfig, layer: i64, at: &mut Builder<'_>) -> Self {
        let (c, hidden) = (config.width, config.hidden);
        let plain = LinearInit::Normal { std: 0.02 };
        let scaled = LinearInit::Normal { std: 0.02 / ((2 * layer) as f64).sqrt() };
        Self {
            w1: Linear::new(&mut at.below("w1"), (c, hidden), true, plain),
            w2: Linear::new(&mut at.below("w2"), (c, hidden), true, plain),
            norm: LayerNorm::new(&mut at.below("ffn_ln"), hidden, LN_EPS),
            w3: Linear::new(&mut at.below("w3"), (hidden, c), true, scaled),
            fill: fill(hidden),
        }
    }

    /// `x` [B, T, C], already normalized -> the same shape.
    pub(super) fn forward(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        let gated = Linear::forward_filled(w, x, &[&self.w1, &self.w2], self.fill);
        self.w3.forward_from_filled(w, &self.norm.of_swiglu(w, &gated), self.fill)
    }
}

/// What a hidden width needs so that matrix units and vectors are full: L/14's 2730 becomes 2752. Only the step's copies of
/// the weights are filled up; parameters keep their shapes.
fn fill(hidden: i64) -> i64 {
    const VECTOR: i64 = 16;
    const TILE: i64 = 64;
    if hidden % VECTOR == 0 { 0 } else { (TILE - hidden % TILE) % TILE }
}

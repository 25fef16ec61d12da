//! The adapter from text vectors to the joint space (method.md 1.5, LLM2CLIP's TextProj): the vector is L2-normalized,
//! goes through residual MLPs `e + L2(GELU(L1(LN(e))))`, a layer norm and a linear.

use pixfleet_cluster::spec::TextProjSpec;
use tch::{Kind, Tensor};

use crate::layers::{LayerNorm, Linear, LinearInit, l2_normalize};
use crate::params::{Builder, Weights};

const LN_EPS: f64 = 1e-5;

/// Structure of the adapter. Names below `text.text_adaptor.`: `{i}.ln`, `{i}.fn.0`, `{i}.fn.3`, then the norm and the
/// linear under the next two numbers.
#[derive(Debug)]
pub struct TextProj {
    width: i64,
    layers: Vec<(LayerNorm, Linear, Linear)>,
    norm: LayerNorm,
    out: Linear,
}

impl TextProj {
    /// Registers the parameters at `at` (the builder below `text.text_adaptor`); `embed` is the joint width D. All
    /// linears start as PyTorch's do.
    pub fn new(spec: &TextProjSpec, embed: i64, at: &mut Builder<'_>) -> Self {
        let (width, hidden, count) = (i64::from(spec.width), i64::from(spec.hidden), i64::from(spec.layers));
        let layers = (0..count)
            .map(|i| {
                let mut at = at.below(&i.to_string());
                let norm = LayerNorm::new(&mut at.below("ln"), width, LN_EPS);
                let up = Linear::new(&mut at.below("fn.0"), (width, hidden), true, LinearInit::Torch);
                let down = Linear::new(&mut at.below("fn.3"), (hidden, width), true, LinearInit::Torch);
                (norm, up, down)
            })
            .collect();
        let norm = LayerNorm::new(&mut at.below(&count.to_string()), width, LN_EPS);
        let out = Linear::new(&mut at.below(&(count + 1).to_string()), (width, embed), true, LinearInit::Torch);
        Self { width, layers, norm, out }
    }

    /// Width E of the text vectors.
    #[must_use]
    pub fn width(&self) -> i64 {
        self.width
    }

    /// `text` [B, E] -> [B, D], L2-normalized fp32.
    pub fn forward(&self, w: &Weights<'_>, text: &Tensor) -> Tensor {
        let mut e = l2_normalize(text);
        for (norm, up, down) in &self.layers {
            let hidden = up.forward(w, &norm.enter(w, &e)).gelu("none");
            // Not in place: the norm's backward reads this value.
            e = down.forward(w, &hidden).to_kind(Kind::Float) + e;
        }
        l2_normalize(&self.out.forward(w, &self.norm.enter(w, &e)))
    }
}

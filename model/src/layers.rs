//! Layers that all towers share: linear, layer norm, L2 normalization. Structure only; numbers come with each call.

use tch::{Kind, Tensor};

use crate::fused;
use crate::params::{Builder, Init, ParamId, Weights};

/// `y = x W^T + b` in the step's arithmetic.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
}

/// How a linear starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LinearInit {
    /// Weight Normal(0, std), bias 0.
    Normal { std: f64 },
    /// PyTorch's default: both uniform in +-1/sqrt(fan_in).
    Torch,
}

impl Linear {
    /// Registers `weight` [out, in] and, if wanted, `bias` [out] below `at`.
    pub(crate) fn new(at: &mut Builder<'_>, (input, output): (i64, i64), bias: bool, init: LinearInit) -> Self {
        let (weight_init, bias_init) = match init {
            LinearInit::Normal { std } => (Init::Normal { std }, Init::Zeros),
            LinearInit::Torch => {
                let uniform = Init::Uniform { bound: 1.0 / (input as f64).sqrt() };
                (uniform, uniform)
            }
        };
        let weight = at.param("weight", &[output, input], weight_init);
        let bias = bias.then(|| at.param("bias", &[output], bias_init));
        Self { weight, bias }
    }

    /// A linear over parameters that exist already.
    pub(crate) fn of(weight: ParamId, bias: Option<ParamId>) -> Self {
        Self { weight, bias }
    }

    /// `x` [.., in], any float dtype -> [.., out] in the step's dtype.
    pub(crate) fn forward(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        let operands = || (w.operand(w.fp32(self.weight)), self.bias.map(|b| w.operand(w.fp32(b))));
        w.product(x, &w.cached((self.weight, 1), operands))
    }

    /// The outputs of several linears over the same input, one after the other in the last dimension, by one product.
    /// A linear without a bias gets zeros.
    pub(crate) fn forward_joined(w: &Weights<'_>, x: &Tensor, parts: &[&Linear]) -> Tensor {
        Self::forward_filled(w, x, parts, 0)
    }

    /// As [`Self::forward_joined`], each output with `fill` zeros behind it.
    pub(crate) fn forward_filled(w: &Weights<'_>, x: &Tensor, parts: &[&Linear], fill: i64) -> Tensor {
        let operands = || {
            let weights: Vec<Tensor> =
                parts.iter().map(|l| w.fp32(l.weight).constant_pad_nd([0, 0, 0, fill])).collect();
            let biases: Vec<Tensor> = parts
                .iter()
                .map(|l| match l.bias {
                    Some(bias) => w.fp32(bias).constant_pad_nd([0, fill]),
                    None => Tensor::zeros([w.fp32(l.weight).size()[0] + fill], (Kind::Float, w.device())),
                })
                .collect();
            (w.operand(&Tensor::cat(&weights, 0)), Some(w.operand(&Tensor::cat(&biases, 0))))
        };
        w.product(x, &w.cached((parts[0].weight, parts.len()), operands))
    }

    /// As [`Self::forward`], for an input with `fill` numbers behind it that do not count.
    pub(crate) fn forward_from_filled(&self, w: &Weights<'_>, x: &Tensor, fill: i64) -> Tensor {
        let operands = || {
            let weight = w.fp32(self.weight).constant_pad_nd([0, fill]);
            (w.operand(&weight), self.bias.map(|b| w.operand(w.fp32(b))))
        };
        w.product(x, &w.cached((self.weight, 1), operands))
    }
}

/// Layer normalization over the last dimension; statistics, scale and shift in fp32.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    weight: ParamId,
    bias: ParamId,
    eps: f64,
}

impl LayerNorm {
    /// Registers `weight` (ones) and `bias` (zeros), both [width], below `at`.
    pub(crate) fn new(at: &mut Builder<'_>, width: i64, eps: f64) -> Self {
        let weight = at.param("weight", &[width], Init::Ones);
        let bias = at.param("bias", &[width], Init::Zeros);
        Self { weight, bias, eps }
    }

    /// A norm over parameters (weight, bias) that exist already.
    pub(crate) fn of((weight, bias): (ParamId, ParamId), eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// `x` [.., width], any float dtype -> the same shape, fp32.
    pub(crate) fn forward(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        fused::norm(w, x, self.leaves(w), self.eps, Kind::Float)
    }

    /// As [`Self::forward`], in the step's arithmetic: what only products read.
    pub(crate) fn enter(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        fused::norm(w, x, self.leaves(w), self.eps, w.compute().dtype)
    }

    /// The norm of a gated product, as [`fused::swiglu_norm`] takes and gives it.
    pub(crate) fn of_swiglu(&self, w: &Weights<'_>, gated: &Tensor) -> Tensor {
        fused::swiglu_norm(w, gated, self.leaves(w), self.eps)
    }

    fn leaves<'w>(&self, w: &'w Weights<'_>) -> [&'w Tensor; 2] {
        [w.fp32(self.weight), w.fp32(self.bias)]
    }
}

/// `x / max(|x|_2, 1e-12)` over the last dimension, in fp32. A zero row stays zero and gets no NaN gradient.
pub fn l2_normalize(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true).clamp_min(1e-12);
    x / norm
}

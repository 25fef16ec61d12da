//! Layers that all towers share: linear, layer norm, L2 normalization. Structure only; numbers come with each call.

use tch::{Kind, Tensor};

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
        let (weight, bias) =
            w.cached((self.weight, 1), || (w.enter(w.fp32(self.weight)), self.bias.map(|b| w.enter(w.fp32(b)))));
        w.enter(x).linear(&weight, bias.as_ref())
    }

    /// The outputs of several linears over the same input, one after the other in the last dimension, by one product.
    /// A linear without a bias gets zeros.
    pub(crate) fn forward_joined(w: &Weights<'_>, x: &Tensor, parts: &[&Linear]) -> Tensor {
        let (weight, bias) = w.cached((parts[0].weight, parts.len()), || {
            let weights: Vec<Tensor> = parts.iter().map(|l| w.enter(w.fp32(l.weight))).collect();
            let biases: Vec<Tensor> = parts
                .iter()
                .map(|l| match l.bias {
                    Some(bias) => w.enter(w.fp32(bias)),
                    None => {
                        let out = w.fp32(l.weight).size()[0];
                        Tensor::zeros([out], (w.compute().dtype, w.device()))
                    }
                })
                .collect();
            (Tensor::cat(&weights, 0), Some(Tensor::cat(&biases, 0)))
        });
        w.enter(x).linear(&weight, bias.as_ref())
    }
}

/// Layer normalization over the last dimension; statistics, scale and shift in fp32.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    weight: ParamId,
    bias: ParamId,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    /// Registers `weight` (ones) and `bias` (zeros), both [width], below `at`.
    pub(crate) fn new(at: &mut Builder<'_>, width: i64, eps: f64) -> Self {
        let weight = at.param("weight", &[width], Init::Ones);
        let bias = at.param("bias", &[width], Init::Zeros);
        Self { weight, bias, width, eps }
    }

    /// A norm over parameters (weight, bias) that exist already.
    pub(crate) fn of((weight, bias): (ParamId, ParamId), width: i64, eps: f64) -> Self {
        Self { weight, bias, width, eps }
    }

    /// `x` [.., width] -> the same shape in the step's dtype or fp32, whichever costs no extra pass. The CPU kernel
    /// reads and writes bf16 around fp32 statistics and parameters; the CUDA kernel wants one dtype, so there the
    /// input is raised to fp32 first, as PyTorch's autocast does.
    pub(crate) fn forward(&self, w: &Weights<'_>, x: &Tensor) -> Tensor {
        let (weight, bias) = (w.fp32(self.weight), w.fp32(self.bias));
        let raised;
        let x = if x.kind() != Kind::Float && w.device().is_cuda() {
            raised = x.to_kind(Kind::Float);
            &raised
        } else {
            x
        };
        x.layer_norm([self.width], Some(weight), Some(bias), self.eps, true)
    }
}

/// `x / max(|x|_2, 1e-12)` over the last dimension, in fp32. A zero row stays zero and gets no NaN gradient.
pub fn l2_normalize(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2.0, [-1i64].as_slice(), true).clamp_min(1e-12);
    x / norm
}

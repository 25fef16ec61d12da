//! Elementwise chains of the towers: one pass where the shim has a kernel, on CPUs and newer GPUs, and the composition of
//! libtorch's operations that it equals everywhere else. Sums, roots and products within a chain are fp32.

use pixfleet_shim::Failure;
use pixfleet_shim::kernels::{self, Heads};
use tch::{Kind, Tensor};

use crate::params::Weights;
use crate::vision::rope;

/// quick_gelu is `x sigmoid(QUICK x)`.
const QUICK: f64 = 1.702;

/// Weight and bias of a norm, fp32 [width].
pub(crate) type NormLeaves<'a> = [&'a Tensor; 2];

/// Layer norm over the last dimension of `x` [.., width], any float dtype -> the same shape in `dtype`.
pub(crate) fn norm(w: &Weights<'_>, x: &Tensor, leaves: NormLeaves<'_>, eps: f64, dtype: Kind) -> Tensor {
    if kernels::run_on(w.device()) {
        return done(kernels::norm(x, leaves, eps, dtype == Kind::BFloat16));
    }
    composed::norm(x, leaves, eps, dtype)
}

/// `gated` [.., 2 stride] holds gates and values of `width` numbers, filled up to `stride` -> the layer norm of
/// `silu(gate) value` [.., stride], zeros behind `width`.
pub(crate) fn swiglu_norm(w: &Weights<'_>, gated: &Tensor, leaves: NormLeaves<'_>, eps: f64) -> Tensor {
    if kernels::run_on(w.device()) {
        return done(kernels::swiglu_norm(gated, leaves, eps));
    }
    composed::swiglu_norm(gated, leaves, eps)
}

/// `x` [B, T, parts heads width] -> its parts, each [B, heads, T, width] in attention's dtype; the first `turned` of them
/// rotated by `factors` ([`rope::factors`]).
pub(crate) fn heads(w: &Weights<'_>, x: &Tensor, heads: Heads, factors: Option<&Tensor>) -> Vec<Tensor> {
    let dtype = w.attention_dtype();
    let parts = if kernels::run_on(w.device()) {
        done(kernels::split_heads(x, factors, heads, dtype == Kind::BFloat16))
    } else {
        composed::heads(x, heads, factors, dtype)
    };
    parts.iter().map(|part| part.transpose(1, 2)).collect()
}

/// `x sigmoid(1.702 x)`.
pub(crate) fn quick_gelu(w: &Weights<'_>, x: &Tensor) -> Tensor {
    if kernels::run_on(w.device()) { done(kernels::quick_gelu(x)) } else { composed::quick_gelu(x) }
}

/// As tch's own operations do: shapes were checked where tensors came in, and what is left is a device that fails.
fn done<T>(result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

/// The same chains in libtorch's operations.
mod composed {
    use super::{Heads, Kind, NormLeaves, QUICK, Tensor, rope};

    pub(super) fn norm(x: &Tensor, [weight, bias]: NormLeaves<'_>, eps: f64, dtype: Kind) -> Tensor {
        x.to_kind(Kind::Float).layer_norm(weight.size(), Some(weight), Some(bias), eps, true).to_kind(dtype)
    }

    pub(super) fn swiglu_norm(gated: &Tensor, leaves: NormLeaves<'_>, eps: f64) -> Tensor {
        let (width, halves) = (leaves[0].size()[0], gated.chunk(2, -1));
        let stride = halves[0].size().last().copied().unwrap_or(width);
        let [gate, value] = [&halves[0], &halves[1]].map(|half| half.narrow(-1, 0, width).to_kind(Kind::Float));
        norm(&(gate.silu() * value), leaves, eps, gated.kind()).constant_pad_nd([0, stride - width])
    }

    pub(super) fn heads(x: &Tensor, heads: Heads, factors: Option<&Tensor>, dtype: Kind) -> Vec<Tensor> {
        let size = x.size();
        let parts = x.view([size[0], size[1], heads.parts as i64, -1, heads.width]).unbind(2);
        let turn = |(place, part): (usize, Tensor)| match factors {
            Some(factors) if place < heads.turned => rope::rotate(&part, factors).to_kind(dtype),
            _ => part.to_kind(dtype),
        };
        parts.into_iter().enumerate().map(turn).collect()
    }

    /// Written with SiLU, whose backward keeps its input alone: half the memory of the product.
    pub(super) fn quick_gelu(x: &Tensor) -> Tensor {
        (x * QUICK).silu() * (1.0 / QUICK)
    }
}

#[cfg(test)]
mod tests;

//! A parameter set as one forward sees it: the same numbers, cast once to the arithmetic of the step.
//!
//! The cast copy lives as long as the [`Weights`] value and is part of the autograd graph, so a weight that is used in
//! several forwards of a step (image and crop) is cast once and its leaf receives one gradient.

use std::cell::RefCell;
use std::collections::HashMap;

use pixfleet_cluster::spec::Precision;
use tch::{Device, Kind, Tensor};

use super::{ParamId, Params};

/// The arithmetic of linears, convolutions and attention. Normalizations, softmax statistics and everything after the
/// joint embedding are fp32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// [`Kind::Float`] or [`Kind::BFloat16`].
    pub dtype: Kind,
}

impl Compute {
    /// fp32 throughout.
    pub const FP32: Self = Self { dtype: Kind::Float };
    /// Matrix products and attention in bf16.
    pub const BF16: Self = Self { dtype: Kind::BFloat16 };
}

impl From<Precision> for Compute {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Self::FP32,
            Precision::Bf16 => Self::BF16,
        }
    }
}

/// A weight and its bias, as [`Weights::product`] takes them.
pub(crate) type Cast = (Tensor, Option<Tensor>);

/// A view of [`Params`] for one or more forwards. Make a new one after the parameters have changed.
#[derive(Debug)]
pub struct Weights<'p> {
    params: &'p Params,
    compute: Compute,
    /// See [`Self::product`].
    multiplies_in: Kind,
    cast: RefCell<HashMap<(ParamId, usize), Cast>>,
}

impl Params {
    /// The view for forwards in `compute`.
    #[must_use]
    pub fn weights(&self, compute: Compute) -> Weights<'_> {
        let multiplies_in = multiplier(compute.dtype, self.device());
        Weights { params: self, compute, multiplies_in, cast: RefCell::new(HashMap::new()) }
    }
}

/// What products of `dtype` are multiplied in. A CPU without instructions for bf16 has libtorch's plain loops, which took 14
/// times as long as fp32 (Zen 2, AVX2: 4.5 against 65 GFLOP/s a core).
fn multiplier(dtype: Kind, device: Device) -> Kind {
    #[cfg(target_arch = "x86_64")]
    let native = std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    let native = true;
    if device == Device::Cpu && !native { Kind::Float } else { dtype }
}

impl Weights<'_> {
    /// The arithmetic of this view.
    #[must_use]
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// The device of the parameters.
    #[must_use]
    pub fn device(&self) -> Device {
        self.params.device()
    }

    /// The fp32 leaf itself.
    pub fn fp32(&self, id: ParamId) -> &Tensor {
        self.params.tensor(id)
    }

    /// `x` in the step's arithmetic.
    pub(crate) fn enter(&self, x: &Tensor) -> Tensor {
        x.to_kind(self.compute.dtype)
    }

    /// A weight or bias as [`Self::product`] takes it: rounded to the step's arithmetic.
    pub(crate) fn operand(&self, leaf: &Tensor) -> Tensor {
        self.enter(leaf).to_kind(self.multiplies_in)
    }

    /// `x W^T + b` in the step's arithmetic, summed in fp32 and rounded once. Where a CPU cannot multiply bf16, the same
    /// bf16 numbers are multiplied as fp32: their products are exact there, so only the order of the sum differs.
    pub(crate) fn product(&self, x: &Tensor, (weight, bias): &Cast) -> Tensor {
        self.enter(&self.enter(x).to_kind(self.multiplies_in).linear(weight, bias.as_ref()))
    }

    /// The arithmetic of attention. libtorch's CPU kernel is made for fp32: its bf16 backward took eight times as long
    /// here (Zen 4, heads of 64, 37 tokens), so on a CPU attention stays fp32. On CUDA bf16 is the fast one.
    pub(crate) fn attention_dtype(&self) -> Kind {
        if self.device().is_cuda() { self.compute.dtype } else { Kind::Float }
    }

    /// What `make` yields for `key` (the first parameter of a group, and how many are joined), made at most once. `make` runs with gradients enabled even inside a no-grad
    /// section: a copy made there and used outside would silently lose the weight's gradient.
    pub(crate) fn cached(&self, key: (ParamId, usize), make: impl FnOnce() -> Cast) -> Cast {
        let mut cast = self.cast.borrow_mut();
        let (weight, bias) = cast.entry(key).or_insert_with(|| tch::with_grad(make));
        (weight.shallow_clone(), bias.as_ref().map(Tensor::shallow_clone))
    }
}

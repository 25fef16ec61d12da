//! A parameter set as one forward sees it: the same numbers, cast once to the arithmetic of the step.
//!
//! The cast copy lives as long as the [`Weights`] value and is part of the autograd graph, so a weight that is used in
//! several forwards of a step (image and crop) is cast once and its leaf receives one gradient.

use std::cell::RefCell;
use std::collections::HashMap;

use pixfleet_cluster::spec::{Precision, Recompute};
use pixfleet_shim::recompute::recompute;
use tch::{Device, Kind, Tensor, no_grad};

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

impl Compute {
    /// What products are multiplied in on `device`. A CPU without instructions for bf16 has libtorch's plain loops, which took 14
    /// times as long as fp32 (Zen 2, AVX2: 4.5 against 65 GFLOP/s a core).
    #[must_use]
    pub fn multiplied_in(self, device: Device) -> Kind {
        #[cfg(target_arch = "x86_64")]
        let native = std::arch::is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        let native = true;
        if device == Device::Cpu && !native { Kind::Float } else { self.dtype }
    }
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

/// The first parameter of a group, and how many are joined.
type CastKey = (ParamId, usize);

/// A view of [`Params`] for one or more forwards. Make a new one after the parameters have changed.
#[derive(Debug)]
pub struct Weights<'p> {
    leaves: Leaves<'p>,
    compute: Compute,
    /// See [`Self::product`].
    multiplies_in: Kind,
    recompute: Recompute,
    cast: RefCell<HashMap<CastKey, Cast>>,
    /// What the segment that runs now has asked for; `None` outside of [`Self::segment`].
    asked: RefCell<Option<Vec<Asked>>>,
}

/// Where fp32 leaves come from.
#[derive(Debug)]
enum Leaves<'p> {
    Of(&'p Params),
    /// Those that a segment asked for in its forward, for its backward.
    Again(Device, HashMap<ParamId, Tensor>),
}

/// Something that a segment reads.
#[derive(Debug)]
enum Asked {
    Leaf(ParamId, Tensor),
    Cast(CastKey, Cast),
}

impl Params {
    /// The view for forwards in `compute`.
    #[must_use]
    pub fn weights(&self, compute: Compute) -> Weights<'_> {
        Weights::new(Leaves::Of(self), compute, compute.multiplied_in(self.device()))
    }
}

impl<'p> Weights<'p> {
    fn new(leaves: Leaves<'p>, compute: Compute, multiplies_in: Kind) -> Self {
        let (cast, asked) = (RefCell::default(), RefCell::default());
        Self { leaves, compute, multiplies_in, recompute: Recompute::None, cast, asked }
    }

    /// The same view, with [`Self::segment`] as `recompute` says.
    #[must_use]
    pub fn recomputing(self, recompute: Recompute) -> Self {
        Self { recompute, ..self }
    }
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
        match &self.leaves {
            Leaves::Of(params) => params.device(),
            Leaves::Again(device, _) => *device,
        }
    }

    /// The fp32 leaf itself.
    pub fn fp32(&self, id: ParamId) -> &Tensor {
        let leaf = match &self.leaves {
            Leaves::Of(params) => params.tensor(id),
            Leaves::Again(_, leaves) => leaves.get(&id).expect("a segment reads in backward what it read in forward"),
        };
        if let Some(asked) = &mut *self.asked.borrow_mut() {
            asked.push(Asked::Leaf(id, leaf.shallow_clone()));
        }
        leaf
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

    /// What `make` yields for `key`, made at most once. `make` runs with gradients enabled even inside a no-grad section: a
    /// copy made there and used outside would silently lose the weight's gradient.
    pub(crate) fn cached(&self, key: CastKey, make: impl FnOnce() -> Cast) -> Cast {
        // What a copy is made of is read by the copy, not by the segment.
        let asked = self.asked.take();
        let mut cast = self.cast.borrow_mut();
        let (weight, bias) = cast.entry(key).or_insert_with(|| tch::with_grad(make));
        let copy = || (weight.shallow_clone(), bias.as_ref().map(Tensor::shallow_clone));
        *self.asked.borrow_mut() = asked.map(|mut asked| {
            asked.push(Asked::Cast(key, copy()));
            asked
        });
        copy()
    }

    /// `run` of `x`: a block of a tower. With [`Recompute::Blocks`] nothing of it but its input and output lives until
    /// backward, which runs it again: the same operations on the same numbers, so the same bits.
    ///
    /// # Panics
    /// As tch's own operations: a device that fails.
    pub(crate) fn segment(&self, x: &Tensor, run: impl Fn(&Weights<'_>, &Tensor) -> Tensor + Send + 'static) -> Tensor {
        match self.recompute {
            Recompute::None => run(self, x),
            Recompute::Blocks => {
                self.asked.replace(Some(Vec::new()));
                let output = no_grad(|| run(self, x));
                let asked = self.asked.take().unwrap_or_default();
                let inputs: Vec<Tensor> =
                    std::iter::once(x.shallow_clone()).chain(asked.iter().flat_map(Asked::tensors)).collect();
                let shapes: Vec<_> = asked.iter().map(Asked::shape).collect();
                let (compute, multiplies_in) = (self.compute, self.multiplies_in);
                let again =
                    move |inputs: &[Tensor]| run(&Weights::again(compute, multiplies_in, &shapes, inputs), &inputs[0]);
                recompute(&inputs, &output, Box::new(again)).unwrap_or_else(|failure| panic!("{failure}"))
            }
        }
    }

    /// The view that a segment has in backward, of `inputs`: its own, and what it asked for.
    fn again(compute: Compute, multiplies_in: Kind, shapes: &[AskedShape], inputs: &[Tensor]) -> Weights<'static> {
        let mut rest = inputs[1..].iter().map(Tensor::shallow_clone);
        let mut next = || rest.next().expect("as many as the segment asked for");
        let (mut leaves, mut cast) = (HashMap::new(), HashMap::new());
        for shape in shapes {
            match *shape {
                AskedShape::Leaf(id) => drop(leaves.insert(id, next())),
                AskedShape::Cast(key, bias) => drop(cast.insert(key, (next(), bias.then(&mut next)))),
            }
        }
        let view = Weights::new(Leaves::Again(inputs[0].device(), leaves), compute, multiplies_in);
        view.cast.replace(cast);
        view
    }
}

/// What an [`Asked`] is, without its tensors, which would be kept twice.
#[derive(Debug, Clone, Copy)]
enum AskedShape {
    Leaf(ParamId),
    /// With a bias or without.
    Cast(CastKey, bool),
}

impl Asked {
    fn shape(&self) -> AskedShape {
        match self {
            Self::Leaf(id, _) => AskedShape::Leaf(*id),
            Self::Cast(key, (_, bias)) => AskedShape::Cast(*key, bias.is_some()),
        }
    }

    fn tensors(&self) -> Vec<Tensor> {
        match self {
            Self::Leaf(_, leaf) => vec![leaf.shallow_clone()],
            Self::Cast(_, (weight, bias)) => std::iter::once(weight).chain(bias).map(Tensor::shallow_clone).collect(),
        }
    }
}

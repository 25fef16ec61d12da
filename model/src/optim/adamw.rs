//! AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization") as `torch.optim.AdamW` computes it: bias
//! correction of both moments, `eps` outside the root. Elementwise and in a fixed order, so the same gradients give
//! the same bits.

use pixfleet_cluster::spec::OptimizerSpec;
use tch::{Kind, Tensor, no_grad};

use super::groups::Rule;
use crate::{ModelError, Params};

/// Below this a learning rate counts as 0: the update divides by it.
const NO_RATE: f64 = 1e-30;

/// Moments of one trainable parameter.
#[derive(Debug)]
pub struct Slot {
    name: String,
    rule: Rule,
    m: Tensor,
    v: Tensor,
}

impl Slot {
    /// The parameter's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it learns.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// First and second moment, fp32, of the parameter's shape.
    pub fn moments(&self) -> (&Tensor, &Tensor) {
        (&self.m, &self.v)
    }
}

/// The optimizer's state: a slot for each trainable parameter, in the parameters' order.
#[derive(Debug)]
pub struct AdamW {
    slots: Vec<Slot>,
    spec: OptimizerSpec,
    steps: u64,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerStep {
    /// Global L2 norm of the gradients before clipping. In f64 from per-tensor fp32 norms, in the parameters' order.
    pub grad_norm: f64,
    /// What the gradients were multiplied by.
    pub clip: f64,
}

impl AdamW {
    /// Zero moments for every trainable parameter.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn new(spec: &OptimizerSpec, params: &Params) -> Result<Self, ModelError> {
        let slot = |p: &crate::params::Param| -> Result<Slot, ModelError> {
            let zeros = || p.tensor().detach().f_zeros_like();
            let rule = Rule::of(p.role(), spec);
            Ok(Slot { name: p.name().to_owned(), rule, m: zeros()?, v: zeros()? })
        };
        Ok(Self { slots: params.trainable().map(slot).collect::<Result<_, _>>()?, spec: spec.clone(), steps: 0 })
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The slots, in the order of the trainable parameters: what a fused kernel over tensor lists needs beside
    /// [`OptimizerSpec`] (then [`Self::count_step`] takes the place of [`Self::step`]).
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Notes a step that a fused kernel took on [`Self::slots`].
    pub fn count_step(&mut self) {
        self.steps += 1;
    }

    pub(super) fn restore_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Clips the gradients by their global norm and takes one step with every learning rate times `factor`
    /// (`ScheduleSpec::factor(step)`). Gradients are scaled in place and stay.
    ///
    /// # Errors
    /// [`ModelError::NoGradient`] names a trainable parameter that backward did not reach; [`ModelError::SetsDiffer`]
    /// if the trainable parameters are not those of [`Self::new`]; [`ModelError::NormNotFinite`] before anything is
    /// changed; [`ModelError::Torch`].
    pub fn step(&mut self, params: &Params, factor: f64) -> Result<OptimizerStep, ModelError> {
        let pairs = self.pairs(params)?;
        let grad_norm = global_norm(pairs.iter().map(|(_, grad)| grad))?;
        if !grad_norm.is_finite() {
            return Err(ModelError::NormNotFinite { norm: grad_norm });
        }
        let clip = clip_factor(grad_norm, self.spec.clip_norm);
        self.steps += 1;
        no_grad(|| {
            for (slot, (mut param, mut grad)) in self.slots.iter_mut().zip(pairs) {
                if clip < 1.0 {
                    let _ = grad.f_mul_scalar_(clip)?;
                }
                update(slot, &mut param, &grad, &self.spec, (self.steps, factor))?;
            }
            Ok(OptimizerStep { grad_norm, clip })
        })
    }

    /// Trainable parameters with their gradients, in the slots' order.
    fn pairs(&self, params: &Params) -> Result<Vec<(Tensor, Tensor)>, ModelError> {
        let mut pairs = Vec::with_capacity(self.slots.len());
        let mut slots = self.slots.iter();
        for p in params.trainable() {
            let slot = slots.next().map(|s| s.name.as_str());
            if slot != Some(p.name()) {
                let detail = format!("the optimizer has `{}` where the model has `{}`", slot.unwrap_or(""), p.name());
                return Err(ModelError::SetsDiffer { detail });
            }
            let grad = p.tensor().f_grad()?;
            if !grad.defined() {
                return Err(ModelError::NoGradient { name: p.name().to_owned() });
            }
            pairs.push((p.tensor().shallow_clone(), grad));
        }
        if let Some(left) = slots.next() {
            let detail = format!("the optimizer has `{}`, which the model does not train", left.name);
            return Err(ModelError::SetsDiffer { detail });
        }
        Ok(pairs)
    }
}

/// L2 norm over tensors: fp32 norms per tensor, squares summed in f64 in order. One copy to the host.
///
/// # Errors
/// [`ModelError::Torch`].
pub fn global_norm<'t>(tensors: impl Iterator<Item = &'t Tensor>) -> Result<f64, ModelError> {
    let norms = tensors.map(|t| t.f_norm()).collect::<Result<Vec<_>, _>>()?;
    if norms.is_empty() {
        return Ok(0.0);
    }
    let norms = Vec::<f64>::try_from(Tensor::f_stack(&norms, 0)?.f_to_kind(Kind::Double)?)?;
    Ok(norms.iter().map(|n| n * n).sum::<f64>().sqrt())
}

/// As `torch.nn.utils.clip_grad_norm_`, which adds 1e-6 to the norm; `max` 0 never clips.
fn clip_factor(norm: f64, max: f64) -> f64 {
    if max > 0.0 { (max / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

/// One parameter. With `r = lr factor`, `c1 = 1 - beta1^t`, `c2 = 1 - beta2^t`:
/// `p <- p (1 - r wd) - r/c1 m / (sqrt(v/c2) + eps)`, the last term written as one addcdiv by
/// `-(c1/r) (sqrt(v)/sqrt(c2) + eps)`, since libtorch's addcdiv has no factor in this binding.
fn update(
    slot: &mut Slot,
    param: &mut Tensor,
    grad: &Tensor,
    spec: &OptimizerSpec,
    (t, factor): (u64, f64),
) -> Result<(), ModelError> {
    let _ = slot.m.f_lerp_(grad, 1.0 - spec.beta1)?;
    let _ = slot.v.f_lerp_(&grad.f_square()?, 1.0 - spec.beta2)?;
    let rate = slot.rule.lr * factor;
    if rate.abs() < NO_RATE {
        return Ok(());
    }
    let t = i32::try_from(t).unwrap_or(i32::MAX);
    let (c1, c2) = (1.0 - spec.beta1.powi(t), 1.0 - spec.beta2.powi(t));
    let mut divisor = slot.v.f_sqrt()?;
    let _ = divisor.f_mul_scalar_(-c1 / (rate * c2.sqrt()))?;
    let _ = divisor.f_add_scalar_(-c1 * spec.eps / rate)?;
    if slot.rule.weight_decay > 0.0 {
        let _ = param.f_mul_scalar_(1.0 - rate * slot.rule.weight_decay)?;
    }
    let _ = param.f_addcdiv_(&slot.m, &divisor)?;
    Ok(())
}

//! AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization") as `torch.optim.AdamW(fused=True)` computes it:
//! bias correction of both moments, `eps` outside the root. Elementwise, so the same gradients give the same bits.
//!
//! Norm, clip and update are queued on the device without a read: a norm that is not finite makes the update skip itself,
//! and [`AdamW::finish`] tells of it.

use pixfleet_cluster::spec::OptimizerSpec;
use pixfleet_shim::lists::{AdamWLists, AdamWStep, Guard, fused_adamw, norms};
use tch::{Kind, Tensor};

use super::groups::Rule;
use crate::host::read;
use crate::{ModelError, Params};

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

    /// The slots, in the order of the trainable parameters.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn restore_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Clips the gradients by their global norm and takes one step with every learning rate times `factor`
    /// (`ScheduleSpec::factor(step)`). Gradients are scaled in place and stay.
    ///
    /// # Errors
    /// Those of [`Self::launch`] and [`Self::finish`].
    pub fn step(&mut self, params: &Params, factor: f64) -> Result<OptimizerStep, ModelError> {
        let norm = self.launch(params, factor)?;
        self.finish(read(&norm)?[0])
    }

    /// Queues the step and says where the gradients' norm will stand, [] f64; [`Self::finish`] must be told it.
    ///
    /// # Errors
    /// [`ModelError::NoGradient`] names a trainable parameter that backward did not reach; [`ModelError::SetsDiffer`]
    /// if the trainable parameters are not those of [`Self::new`]; [`ModelError::Kernel`], [`ModelError::Torch`].
    pub fn launch(&mut self, params: &Params, factor: f64) -> Result<Tensor, ModelError> {
        let pairs = self.pairs(params)?;
        let grads: Vec<Tensor> = pairs.iter().map(|(_, grad)| grad.shallow_clone()).collect();
        let norm = global_norm(&grads)?;
        let guard = guard(&norm, self.spec.clip_norm)?;
        for (rule, members) in self.by_rule() {
            let of = |pick: fn(&Slot, &(Tensor, Tensor)) -> Tensor| -> Vec<Tensor> {
                members.iter().map(|&i| pick(&self.slots[i], &pairs[i])).collect()
            };
            let params = of(|_, (param, _)| param.shallow_clone());
            let grads = of(|_, (_, grad)| grad.shallow_clone());
            let (m, v) = (of(|slot, _| slot.m.shallow_clone()), of(|slot, _| slot.v.shallow_clone()));
            let lists = AdamWLists { params: &params, grads: &grads, exp_avgs: &m, exp_avg_sqs: &v };
            let step = AdamWStep {
                step: self.steps as i64 + 1,
                lr: rule.lr * factor,
                beta1: self.spec.beta1,
                beta2: self.spec.beta2,
                weight_decay: rule.weight_decay,
                eps: self.spec.eps,
            };
            fused_adamw(lists, &step, &guard)?;
        }
        Ok(norm)
    }

    /// Notes the step that [`Self::launch`] queued, from the norm that it yielded.
    ///
    /// # Errors
    /// [`ModelError::NormNotFinite`]: then nothing was changed.
    pub fn finish(&mut self, grad_norm: f64) -> Result<OptimizerStep, ModelError> {
        if !grad_norm.is_finite() {
            return Err(ModelError::NormNotFinite { norm: grad_norm });
        }
        self.steps += 1;
        Ok(OptimizerStep { grad_norm, clip: clip_factor(grad_norm, self.spec.clip_norm) })
    }

    /// The slots that learn alike, in the order in which their rules first come.
    fn by_rule(&self) -> Vec<(Rule, Vec<usize>)> {
        let mut groups: Vec<(Rule, Vec<usize>)> = Vec::new();
        for (i, slot) in self.slots.iter().enumerate() {
            match groups.iter_mut().find(|(rule, _)| *rule == slot.rule) {
                Some((_, members)) => members.push(i),
                None => groups.push((slot.rule, vec![i])),
            }
        }
        groups
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

/// L2 norm over all tensors, [] f64: fp32 norms per tensor, combined in f64.
///
/// # Errors
/// [`ModelError::Kernel`], [`ModelError::Torch`].
pub fn global_norm(tensors: &[Tensor]) -> Result<Tensor, ModelError> {
    Ok(norms(tensors)?.f_to_kind(Kind::Double)?.f_norm()?)
}

/// As `torch.nn.utils.clip_grad_norm_`, which adds 1e-6 to the norm; `max` 0 never clips.
fn clip_factor(norm: f64, max: f64) -> f64 {
    if max > 0.0 { (max / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

/// The same on the device, as what gradients are divided by; and whether the update skips itself.
fn guard(norm: &Tensor, max: f64) -> Result<Guard, ModelError> {
    let divisor =
        if max > 0.0 { norm.f_add_scalar(1e-6)?.f_div_scalar(max)?.f_clamp_min(1.0)? } else { norm.f_ones_like()? };
    let skip = norm.f_isfinite()?.f_logical_not()?;
    Ok(Guard { divisor: divisor.f_to_kind(Kind::Float)?, skip: skip.f_to_kind(Kind::Float)? })
}

//! Tensor-list kernels of the optimizer: one call over all parameters where tch offers one call a tensor.
//!
//! Invariant: nothing here is recorded by autograd, and nothing here communicates.

use tch::Tensor;

use crate::error::CollectiveError;
use crate::ffi;

/// The numbers of one AdamW step (Loshchilov and Hutter 2019, decoupled weight decay).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// The step, from 1: bias corrections are `1 - beta^step`.
    pub step: i64,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// The four lists of one parameter group, index by index: same shapes, dtypes and device.
#[derive(Debug, Clone, Copy)]
pub struct AdamWLists<'a> {
    /// Parameters, updated in place.
    pub params: &'a [Tensor],
    /// Gradients, read.
    pub grads: &'a [Tensor],
    /// First moments, updated in place.
    pub exp_avgs: &'a [Tensor],
    /// Second moments, updated in place.
    pub exp_avg_sqs: &'a [Tensor],
}

/// One AdamW step over lists, in one fused kernel (`at::_fused_adamw_`, CPU and CUDA).
///
/// # Errors
/// [`CollectiveError::Shape`] for lists that do not fit each other, strided parameters or moments, or a step below 1;
/// [`CollectiveError::Torch`] for what the kernel refuses.
pub fn fused_adamw(lists: AdamWLists<'_>, step: &AdamWStep) -> Result<(), CollectiveError> {
    check(lists, step).map_err(|problem| CollectiveError::Shape { operation: "fused_adamw", problem })?;
    if lists.params.is_empty() {
        return Ok(());
    }
    ffi::fused_adamw(lists, step).map_err(|failure| failure.into_error("fused_adamw", std::time::Duration::ZERO))
}

/// The CPU kernel walks four raw buffers by the parameter's length and checks nothing: what does not fit must not reach
/// it.
fn check(lists: AdamWLists<'_>, step: &AdamWStep) -> Result<(), String> {
    let AdamWLists { params, grads, exp_avgs, exp_avg_sqs } = lists;
    let lengths = [params.len(), grads.len(), exp_avgs.len(), exp_avg_sqs.len()];
    if lengths.iter().any(|length| *length != lengths[0]) || step.step < 1 {
        return Err(format!("lists of {lengths:?} tensors at step {} (from 1)", step.step));
    }
    for (at, param) in params.iter().enumerate() {
        for (name, other) in [("gradient", &grads[at]), ("moment", &exp_avgs[at]), ("moment", &exp_avg_sqs[at])] {
            if (param.size(), param.kind(), param.device()) != (other.size(), other.kind(), other.device()) {
                return Err(format!("parameter {at} is {param:?}, its {name} {other:?}"));
            }
        }
        if ![param, &exp_avgs[at], &exp_avg_sqs[at]].iter().all(|tensor| tensor.is_contiguous()) {
            return Err(format!("parameter {at} or a moment of it is a strided view"));
        }
    }
    Ok(())
}

/// The 2-norm of all tensors together, as a 0-dimensional fp32 tensor on their device (no synchronization).
///
/// # Errors
/// [`CollectiveError::Shape`] for an empty list; [`CollectiveError::Torch`] for mixed devices.
pub fn global_norm(tensors: &[Tensor]) -> Result<Tensor, CollectiveError> {
    if tensors.is_empty() {
        return Err(CollectiveError::Shape { operation: "global_norm", problem: "no tensors".to_owned() });
    }
    ffi::global_norm(tensors).map_err(|failure| failure.into_error("global_norm", std::time::Duration::ZERO))
}

/// Multiplies every tensor by `factor` (0-dimensional, on their device), in place: clipping without synchronization.
///
/// # Errors
/// [`CollectiveError::Torch`] for mixed devices.
pub fn scale_all(tensors: &[Tensor], factor: &Tensor) -> Result<(), CollectiveError> {
    if tensors.is_empty() {
        return Ok(());
    }
    ffi::scale_all(tensors, factor).map_err(|failure| failure.into_error("scale_all", std::time::Duration::ZERO))
}

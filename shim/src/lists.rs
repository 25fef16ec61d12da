//! Kernels over lists of tensors, over `cpp/lists.cpp`: one call over all parameters where tch offers one call a tensor.
//!
//! Invariant: nothing here is recorded by autograd, nothing here communicates, and nothing here reads the device.

use tch::{Kind, Tensor};

use crate::{CxxTensor, Failure, Message, check, own_tensor, tensor_ptr, tensor_ptrs};

unsafe extern "C" {
    fn pf_fused_adamw(
        params: *const *const CxxTensor,
        grads: *const *const CxxTensor,
        exp_avgs: *const *const CxxTensor,
        exp_avg_sqs: *const *const CxxTensor,
        count: usize,
        step: *const AdamWStep,
        divisor: *const CxxTensor,
        skip: *const CxxTensor,
    ) -> Message;
    fn pf_norms(tensors: *const *const CxxTensor, count: usize, out: *mut *mut CxxTensor) -> Message;
    fn pf_zero_all(tensors: *const *const CxxTensor, count: usize) -> Message;
    fn pf_gradients_in(flat: *const CxxTensor, params: *const *const CxxTensor, count: usize) -> Message;
    fn pf_lerp_all(
        targets: *const *const CxxTensor,
        sources: *const *const CxxTensor,
        count: usize,
        weight: f64,
    ) -> Message;
}

/// The numbers of one AdamW step (Loshchilov and Hutter 2019, decoupled weight decay); `pf_adamw_step` of lists.cpp.
#[repr(C)]
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

/// The four lists of one parameter group, all on one device; index by index of the same shape and dtype.
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

/// What the device decides about a step, without the host: both fp32 [] on the parameters' device.
#[derive(Debug)]
pub struct Guard {
    /// Gradients are divided by it, in place: 1, or what clips them.
    pub divisor: Tensor,
    /// 1 where nothing is to be changed, else 0.
    pub skip: Tensor,
}

/// One AdamW step over lists, in one fused kernel (`at::_fused_adamw_`, CPU and CUDA).
///
/// # Errors
/// Lists that do not fit each other, strided parameters or moments, a step below 1; what the kernel refuses.
pub fn fused_adamw(lists: AdamWLists<'_>, step: &AdamWStep, guard: &Guard) -> Result<(), Failure> {
    fit(lists, step, guard).map_err(|problem| Failure::new(format!("fused_adamw: {problem}")))?;
    if lists.params.is_empty() {
        return Ok(());
    }
    let [params, grads, first, second] =
        [lists.params, lists.grads, lists.exp_avgs, lists.exp_avg_sqs].map(tensor_ptrs);
    let (divisor, skip) = (tensor_ptr(&guard.divisor), tensor_ptr(&guard.skip));
    // SAFETY: four arrays of `params.len()` live tensors that fit each other, as was just checked, and two fp32 numbers, all
    // borrowed for the call.
    check(unsafe {
        pf_fused_adamw(
            params.as_ptr(),
            grads.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            params.len(),
            &raw const *step,
            divisor,
            skip,
        )
    })
}

/// The CPU kernel walks four raw buffers by the parameter's length and checks nothing: what does not fit must not reach
/// it.
fn fit(lists: AdamWLists<'_>, step: &AdamWStep, guard: &Guard) -> Result<(), String> {
    let AdamWLists { params, grads, exp_avgs, exp_avg_sqs } = lists;
    let lengths = [params.len(), grads.len(), exp_avgs.len(), exp_avg_sqs.len()];
    if lengths.iter().any(|length| *length != lengths[0]) || step.step < 1 {
        return Err(format!("lists of {lengths:?} tensors at step {} (from 1)", step.step));
    }
    if let Some(odd) = [&guard.divisor, &guard.skip].into_iter().find(|t| t.kind() != Kind::Float || t.numel() != 1) {
        return Err(format!("expected a number in fp32 as divisor and skip, found {odd:?}"));
    }
    for (at, param) in params.iter().enumerate() {
        if param.device() != params[0].device() {
            return Err(format!("parameter {at} is on {:?}, the first on {:?}", param.device(), params[0].device()));
        }
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

/// The 2-norm of each tensor, [tensors] fp32 on their device.
///
/// # Errors
/// An empty list, or mixed devices.
pub fn norms(tensors: &[Tensor]) -> Result<Tensor, Failure> {
    if tensors.is_empty() {
        return Err(Failure::new("norms: no tensors"));
    }
    let list = tensor_ptrs(tensors);
    // SAFETY: live tensors, borrowed for the call, which stores a fresh tensor where it reports no failure.
    own_tensor(|out| unsafe { pf_norms(list.as_ptr(), list.len(), out) })
}

/// Zeros in every tensor, in place.
///
/// # Errors
/// What libtorch refuses.
pub fn zero_all(tensors: &[Tensor]) -> Result<(), Failure> {
    if tensors.is_empty() {
        return Ok(());
    }
    let list = tensor_ptrs(tensors);
    // SAFETY: live tensors, borrowed for the call.
    check(unsafe { pf_zero_all(list.as_ptr(), list.len()) })
}

/// Lets the gradients of `params` live in `flat`, a contiguous vector: each is a view of the next piece of it, with what
/// stands there. Backward adds to them in place.
///
/// # Errors
/// A `flat` that is too short, strided, or of another dtype or device than a parameter.
pub fn gradients_in(flat: &Tensor, params: &[Tensor]) -> Result<(), Failure> {
    let length: usize = params.iter().map(Tensor::numel).sum();
    let odd = params.iter().any(|param| (param.kind(), param.device()) != (flat.kind(), flat.device()));
    if odd || !flat.is_contiguous() || flat.dim() != 1 || flat.numel() < length {
        return Err(Failure::new(format!("gradients_in: {flat:?} for {length} numbers of {} tensors", params.len())));
    }
    let list = tensor_ptrs(params);
    // SAFETY: live tensors, borrowed for the call; a parameter's gradient is a field that its own lock guards.
    check(unsafe { pf_gradients_in(tensor_ptr(flat), list.as_ptr(), list.len()) })
}

/// `target + weight (source - target)` in every target, in place.
///
/// # Errors
/// Lists of different lengths, or what libtorch refuses.
pub fn lerp_all(targets: &[Tensor], sources: &[Tensor], weight: f64) -> Result<(), Failure> {
    if targets.len() != sources.len() {
        return Err(Failure::new(format!("lerp_all: {} targets, {} sources", targets.len(), sources.len())));
    }
    if targets.is_empty() {
        return Ok(());
    }
    let [targets, sources] = [targets, sources].map(tensor_ptrs);
    // SAFETY: two arrays of one length of live tensors, borrowed for the call.
    check(unsafe { pf_lerp_all(targets.as_ptr(), sources.as_ptr(), targets.len(), weight) })
}

#[cfg(test)]
mod tests;

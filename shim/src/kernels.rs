//! Elementwise chains of the towers in one pass each, over `cpp/fused.cpp`, as autograd functions on CPUs and GPUs: fp32 or bf16
//! in and out, sums and roots in fp32. What they compute is stated where they are used, by the composition that they
//! replace and are tested against (`pixfleet_model::fused`).

use std::ffi::c_int;

use tch::{Device, Tensor};

use crate::cuda::gpu_number;
use crate::{CxxTensor, Failure, Message, check, own_tensor, tensor_ptr};

unsafe extern "C" {
    fn pf_norm(
        x: *const CxxTensor,
        weight: *const CxxTensor,
        bias: *const CxxTensor,
        eps: f64,
        bf16: i32,
        out: *mut *mut CxxTensor,
    ) -> Message;
    fn pf_swiglu_norm(
        gated: *const CxxTensor,
        weight: *const CxxTensor,
        bias: *const CxxTensor,
        eps: f64,
        out: *mut *mut CxxTensor,
    ) -> Message;
    fn pf_split_heads(
        x: *const CxxTensor,
        turn: *const CxxTensor,
        parts: i64,
        width: i64,
        turned: i64,
        bf16: i32,
        out: *mut *mut CxxTensor,
    ) -> Message;
    fn pf_has_kernels(device: c_int, has: *mut c_int);
    fn pf_quick_gelu(x: *const CxxTensor, out: *mut *mut CxxTensor) -> Message;
}

/// Whether there are kernels for tensors on `device`: on every CPU, and on GPUs from compute capability 8.0 on.
#[must_use]
pub fn run_on(device: Device) -> bool {
    match device {
        Device::Cpu => true,
        Device::Cuda(index) => {
            let mut has = 0;
            // SAFETY: a number, and an out-pointer that lives for the call.
            gpu_number(index).is_ok_and(|index| unsafe {
                pf_has_kernels(index, &raw mut has);
                has != 0
            })
        }
        _ => false,
    }
}

/// Layer norm of `x` [.., width] by `weight` and `bias`, fp32 [width]: [.., width], bf16 if asked, else fp32.
///
/// # Errors
/// Other shapes, dtypes or devices.
pub fn norm(x: &Tensor, [weight, bias]: [&Tensor; 2], eps: f64, bf16: bool) -> Result<Tensor, Failure> {
    let (x, weight, bias) = (tensor_ptr(x), tensor_ptr(weight), tensor_ptr(bias));
    // SAFETY: live tensors, borrowed for the call, which stores a fresh tensor where it reports no failure.
    own_tensor(|out| unsafe { pf_norm(x, weight, bias, eps, i32::from(bf16), out) })
}

/// `gated` [.., 2 stride] holds gates and values of `width <= stride` numbers: the layer norm of `silu(gate) value` by
/// `weight` and `bias`, fp32 [width], as [.., stride] of gated's dtype, zeros behind the width.
///
/// # Errors
/// As [`norm`].
pub fn swiglu_norm(gated: &Tensor, [weight, bias]: [&Tensor; 2], eps: f64) -> Result<Tensor, Failure> {
    let (gated, weight, bias) = (tensor_ptr(gated), tensor_ptr(weight), tensor_ptr(bias));
    // SAFETY: as in `norm`.
    own_tensor(|out| unsafe { pf_swiglu_norm(gated, weight, bias, eps, out) })
}

/// How [`split_heads`] cuts a token: into `parts` of heads of `width`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Parts (queries, keys, values), at most 3.
    pub parts: usize,
    /// Numbers of a head.
    pub width: i64,
    /// The first so many parts are turned.
    pub turned: usize,
}

/// `x` [B, T, parts heads width] -> parts of [B, T, heads, width], bf16 if asked, else fp32; pairs of numbers side by side in
/// the turned parts are multiplied as complex numbers by `turn`, complex fp32 [T, width / 2].
///
/// # Errors
/// As [`norm`].
pub fn split_heads(x: &Tensor, turn: Option<&Tensor>, heads: Heads, bf16: bool) -> Result<Vec<Tensor>, Failure> {
    const MOST: usize = 3;
    if heads.parts > MOST || heads.turned > heads.parts || (turn.is_none() && heads.turned > 0) {
        return Err(Failure::new(format!("split_heads: {heads:?}, with factors: {}", turn.is_some())));
    }
    let mut out = [std::ptr::null_mut(); MOST];
    let turn = turn.map_or(std::ptr::null(), tensor_ptr);
    let (parts, turned) = (heads.parts as i64, heads.turned as i64);
    // SAFETY: live tensors (or null), borrowed for the call; an array with a place for each part.
    check(unsafe {
        pf_split_heads(tensor_ptr(x), turn, parts, heads.width, turned, i32::from(bf16), out.as_mut_ptr())
    })?;
    // SAFETY: without a failure each of the first `parts` places holds a fresh heap `at::Tensor`, which tch owns from here.
    Ok(out[..heads.parts].iter().map(|raw| unsafe { Tensor::from_ptr(raw.cast()) }).collect())
}

/// `x sigmoid(1.702 x)`, of x's shape and dtype.
///
/// # Errors
/// As [`norm`].
pub fn quick_gelu(x: &Tensor) -> Result<Tensor, Failure> {
    // SAFETY: as in `norm`.
    own_tensor(|out| unsafe { pf_quick_gelu(tensor_ptr(x), out) })
}

//! The border to the C++ shim: declarations of its functions and a safe function over each.
//!
//! Invariants: a pointer from the shim is owned by exactly one Rust value, whose `Drop` frees it; tensors cross as the
//! `at::Tensor*` that tch holds and are only borrowed for the call; every call that may throw returns a message
//! (null = success), which becomes a [`Failure`]; callbacks from C++ catch panics (see `ffi/store.rs`).
#![allow(unsafe_code)] // The one place of the workspace: calling C++ needs it.

mod cuda;
mod group;
mod reducer;
mod sockets;
mod store;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::time::Duration;

use tch::Tensor;

use crate::error::{CollectiveError, StoreError, from_exception};
use crate::optim::{AdamWLists, AdamWStep};

pub(crate) use cuda::{RawEvent, RawStream};
pub(crate) use group::{RawGroup, all_gather, all_gather_rows, all_reduce_sum, barrier, broadcast, reduce_scatter_sum};
pub(crate) use reducer::RawReducer;

/// An `at::Tensor` on the other side.
type CxxTensor = c_void;

/// What the shim's functions return: null, or a message that [`check`] takes over.
type Message = *mut c_char;

/// Bytes lent to the other side for one call.
#[repr(C)]
#[derive(Clone, Copy)]
struct Slice {
    data: *const u8,
    len: usize,
}

impl Slice {
    fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }
}

unsafe extern "C" {
    fn pf_free(message: *mut c_char);
    fn pf_fused_adamw(
        params: *const *const CxxTensor,
        grads: *const *const CxxTensor,
        exp_avgs: *const *const CxxTensor,
        exp_avg_sqs: *const *const CxxTensor,
        count: usize,
        step: *const RawAdamWStep,
    ) -> Message;
    fn pf_global_norm(tensors: *const *const CxxTensor, count: usize, out: *mut *mut CxxTensor) -> Message;
    fn pf_scale_all(tensors: *const *const CxxTensor, count: usize, factor: *const CxxTensor) -> Message;
    fn pf_copy_non_blocking(target: *const CxxTensor, source: *const CxxTensor) -> Message;
    fn pf_pinned_copy(host: *const CxxTensor, out: *mut *mut CxxTensor) -> Message;
    fn pf_autocast_enter(cuda: c_int) -> AutocastState;
    fn pf_autocast_leave(before: AutocastState);
}

/// A call that threw: the exception's text, the lost rank if known, and the store's own error where that was why.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    rank: Option<u32>,
    store: Option<StoreError>,
}

impl Failure {
    /// A failure whose text came by another way: out of tch's own bindings.
    pub(crate) fn from_text(text: String) -> Self {
        Self { text, rank: None, store: None }
    }

    pub(crate) fn into_error(self, operation: &'static str, timeout: Duration) -> CollectiveError {
        match self.store {
            Some(error) => CollectiveError::Store(error),
            None => from_exception(operation, &self.text, timeout, |_| self.rank),
        }
    }
}

/// Takes a message over.
fn check(message: Message) -> Result<(), Failure> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a NUL-terminated malloc'd string that is ours to free, once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        pf_free(message);
        text
    };
    Err(Failure::from_text(text))
}

fn tensor_ptr(tensor: &Tensor) -> *const CxxTensor {
    tensor.as_ptr().cast()
}

fn tensor_ptrs<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*const CxxTensor> {
    tensors.into_iter().map(tensor_ptr).collect()
}

/// Takes over a `new at::Tensor` of the shim's, as tch's own `Drop` frees it.
fn own_tensor(call: impl FnOnce(*mut *mut CxxTensor) -> Message) -> Result<Tensor, Failure> {
    let mut raw: *mut CxxTensor = std::ptr::null_mut();
    check(call(&raw mut raw))?;
    // SAFETY: on success the shim stored a fresh heap `at::Tensor`, the representation that tch owns and deletes.
    Ok(unsafe { Tensor::from_ptr(raw.cast()) })
}

#[repr(C)]
struct RawAdamWStep {
    step: i64,
    lr: f64,
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
    eps: f64,
}

pub(crate) fn fused_adamw(lists: AdamWLists<'_>, step: &AdamWStep) -> Result<(), Failure> {
    let [params, grads, first, second] =
        [lists.params, lists.grads, lists.exp_avgs, lists.exp_avg_sqs].map(tensor_ptrs);
    let AdamWStep { step, lr, beta1, beta2, weight_decay, eps } = *step;
    let raw = RawAdamWStep { step, lr, beta1, beta2, weight_decay, eps };
    // SAFETY: four arrays of `params.len()` live tensors (the caller checked the lengths), borrowed for the call.
    check(unsafe {
        pf_fused_adamw(params.as_ptr(), grads.as_ptr(), first.as_ptr(), second.as_ptr(), params.len(), &raw const raw)
    })
}

pub(crate) fn global_norm(tensors: &[Tensor]) -> Result<Tensor, Failure> {
    let list = tensor_ptrs(tensors);
    // SAFETY: live tensors, borrowed for the call.
    own_tensor(|out| unsafe { pf_global_norm(list.as_ptr(), list.len(), out) })
}

pub(crate) fn scale_all(tensors: &[Tensor], factor: &Tensor) -> Result<(), Failure> {
    let list = tensor_ptrs(tensors);
    // SAFETY: live tensors, borrowed for the call.
    check(unsafe { pf_scale_all(list.as_ptr(), list.len(), tensor_ptr(factor)) })
}

pub(crate) fn copy_non_blocking(target: &mut Tensor, source: &Tensor) -> Result<(), Failure> {
    // SAFETY: live tensors; `target` is borrowed mutably for the call.
    check(unsafe { pf_copy_non_blocking(tensor_ptr(target), tensor_ptr(source)) })
}

pub(crate) fn pinned_copy(host: &Tensor) -> Result<Tensor, Failure> {
    // SAFETY: a live tensor, borrowed for the call.
    own_tensor(|out| unsafe { pf_pinned_copy(tensor_ptr(host), out) })
}

/// What autocast was before a guard.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct AutocastState {
    cuda: c_int,
    enabled: c_int,
    dtype: c_int,
}

pub(crate) fn autocast_enter(cuda: bool) -> AutocastState {
    // SAFETY: sets thread-local state only.
    unsafe { pf_autocast_enter(c_int::from(cuda)) }
}

pub(crate) fn autocast_leave(before: AutocastState) {
    // SAFETY: sets thread-local state only; `before` came from `autocast_enter`.
    unsafe { pf_autocast_leave(before) }
}

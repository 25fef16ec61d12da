//! pixfleet-shim: what tch does not reach of libtorch, over C++ of our own (`cpp/`): c10d's process groups and Reducer,
//! kernels over lists of tensors, CUDA streams, events and pinned copies. And the one thing of the system that safe Rust
//! does not reach: the sockets that gloo opened.
//!
//! Invariants: all C++ and all `unsafe` of the workspace stand here, behind safe functions. This crate knows no other of
//! ours and has no policy. A pointer from C++ is owned by exactly one Rust value, whose `Drop` frees it; tensors cross
//! as the `at::Tensor*` that tch holds and are only borrowed for the call. Every call that may throw returns a message
//! (null = success), which becomes a [`Failure`]; no Rust panic crosses into C++ (see [`store`]).
#![allow(unsafe_code)] // The one place of the workspace: calling C++ needs it.
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod cuda;
pub mod group;
pub mod kernels;
pub mod lists;
pub mod profile;
pub mod recompute;
pub mod reducer;
pub mod settings;
pub mod sockets;
pub mod store;

use std::ffi::{CStr, c_char, c_void};

use tch::{TchError, Tensor};

/// Whether this build drives NCCL and CUDA.
pub const HAS_NCCL: bool = cfg!(feature = "nccl");

/// What a build for CPUs says of NCCL and CUDA.
pub const WITHOUT_NCCL: &str =
    "built without the `nccl` feature; rebuild with `--features nccl` (see scripts/setup-nccl.sh)";

/// A call that was refused: by libtorch, gloo or NCCL, which share no exception type, or by this crate, which then names
/// the call. The text is all there is to know; what it means to a run is the caller's to say.
///
/// Displayed by its first line: libtorch adds where it threw.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", text.lines().next().unwrap_or_default())]
pub struct Failure {
    text: String,
}

impl Failure {
    /// A failure in these words.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// All of the words, those of an exception with every line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<TchError> for Failure {
    /// An exception that came by another way: through tch's own bindings.
    fn from(error: TchError) -> Self {
        Self::new(error.to_string())
    }
}

/// An `at::Tensor` on the other side.
type CxxTensor = c_void;

/// What the functions of `cpp/` return: null, or a message that [`check`] takes over.
type Message = *mut c_char;

unsafe extern "C" {
    fn pf_free(message: *mut c_char);
}

/// Takes a message over.
fn check(message: Message) -> Result<(), Failure> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: `cpp/` returns null or a NUL-terminated malloc'd string that is ours to free, once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        pf_free(message);
        text
    };
    Err(Failure { text })
}

fn tensor_ptr(tensor: &Tensor) -> *const CxxTensor {
    tensor.as_ptr().cast()
}

fn tensor_ptrs<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*const CxxTensor> {
    tensors.into_iter().map(tensor_ptr).collect()
}

/// Takes over a `new at::Tensor` of C++'s, as tch's own `Drop` frees it. `call` stores one wherever it reports no failure.
fn own_tensor(call: impl FnOnce(*mut *mut CxxTensor) -> Message) -> Result<Tensor, Failure> {
    let mut raw: *mut CxxTensor = std::ptr::null_mut();
    check(call(&raw mut raw))?;
    // SAFETY: on success `call` stored a fresh heap `at::Tensor`, the representation that tch owns and deletes.
    Ok(unsafe { Tensor::from_ptr(raw.cast()) })
}

/// `pf_slice` of shim.hpp: bytes lent to the other side for one call.
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

//! c10d's Reducer, over `cpp/reducer.cpp`.
//!
//! Invariant: a reducer holds its group, which C++ needs until the reducer has ended.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use tch::Tensor;

use crate::group::RawGroup;
use crate::{CxxTensor, Failure, Message, Slice, check, tensor_ptrs};

unsafe extern "C" {
    fn pf_reducer_new(
        group: *mut c_void,
        params: *const *const CxxTensor,
        names: *const Slice,
        count: usize,
        out: *mut *mut c_void,
    ) -> Message;
    fn pf_reducer_free(reducer: *mut c_void) -> Message;
    fn pf_reducer_buckets(reducer: *const c_void, out: *mut i64) -> usize;
    fn pf_reducer_prepare(reducer: *mut c_void) -> Message;
    fn pf_reducer_finish(reducer: *mut c_void, group: *mut c_void) -> Message;
    fn pf_reducer_waited_s(reducer: *const c_void) -> f64;
}

/// An owned `Reducer` of reducer.cpp: hooks on parameters, which leave with it.
#[derive(Debug)]
pub struct RawReducer {
    ptr: NonNull<c_void>,
    group: Arc<RawGroup>,
    buckets: Vec<Vec<usize>>,
}

// SAFETY: the C++ object is bound to no thread; `&mut self` on its operations keeps them one at a time.
unsafe impl Send for RawReducer {}

impl RawReducer {
    /// Puts hooks on parameters, each with its name for messages. Buckets: 1 MiB, then 25 MiB each, last parameters first.
    ///
    /// # Errors
    /// What c10d refuses: no parameters, or one that needs no gradient, of another device, or strided unlike a bucket.
    pub fn new(group: &Arc<RawGroup>, named: &[(&str, &Tensor)]) -> Result<Self, Failure> {
        let params = tensor_ptrs(named.iter().map(|(_, param)| *param));
        let names: Vec<Slice> = named.iter().map(|(name, _)| Slice::of(name.as_bytes())).collect();
        let mut out: *mut c_void = std::ptr::null_mut();
        // SAFETY: a live group; two arrays of `named.len()`, borrowed for the call; an out-pointer that lives for it.
        check(unsafe { pf_reducer_new(group.ptr(), params.as_ptr(), names.as_ptr(), named.len(), &raw mut out) })?;
        let ptr = NonNull::new(out).expect("the shim stores a reducer where it reports no failure");
        let mut reducer = Self { ptr, group: Arc::clone(group), buckets: Vec::new() };
        reducer.buckets = reducer.read_buckets();
        Ok(reducer)
    }

    fn read_buckets(&self) -> Vec<Vec<usize>> {
        // SAFETY: a live reducer; null asks for the length only.
        let length = unsafe { pf_reducer_buckets(self.ptr.as_ptr(), std::ptr::null_mut()) };
        let mut flat = vec![0i64; length];
        // SAFETY: a live reducer; `flat` has the length just told, and buckets never change.
        unsafe { pf_reducer_buckets(self.ptr.as_ptr(), flat.as_mut_ptr()) };
        flat.split_inclusive(|index| *index < 0)
            .map(|bucket| bucket.iter().filter_map(|index| usize::try_from(*index).ok()).collect())
            .collect()
    }

    /// The buckets, each a list of indices into the parameters, in the order in which they are reduced.
    #[must_use]
    pub fn buckets(&self) -> &[Vec<usize>] {
        &self.buckets
    }

    /// The next backward reduces.
    ///
    /// # Errors
    /// The backward before left parameters without gradient.
    pub fn prepare(&mut self) -> Result<(), Failure> {
        // SAFETY: a live reducer, borrowed mutably.
        check(unsafe { pf_reducer_prepare(self.ptr.as_ptr()) })
    }

    /// Proves that every bucket was reduced; on CUDA it waits for them, within the group's timeout.
    ///
    /// # Errors
    /// Parameters without gradient; on CUDA whatever befell the group meanwhile.
    pub fn finish(&mut self) -> Result<(), Failure> {
        // SAFETY: a live reducer, borrowed mutably, and the live group it was made with.
        check(unsafe { pf_reducer_finish(self.ptr.as_ptr(), self.group.ptr()) })
    }

    /// Seconds from the start of the last bucket to the last [`finish`](Self::finish); on CUDA by the GPU's clock, its own
    /// backward being over.
    #[must_use]
    pub fn waited_s(&self) -> f64 {
        // SAFETY: a live reducer, read only.
        unsafe { pf_reducer_waited_s(self.ptr.as_ptr()) }
    }
}

impl Drop for RawReducer {
    fn drop(&mut self) {
        // SAFETY: owned, alive, and not used after; its group lives until this value's fields go.
        if let Err(failure) = check(unsafe { pf_reducer_free(self.ptr.as_ptr()) }) {
            tracing::warn!(%failure, "a reducer did not end cleanly");
        }
    }
}

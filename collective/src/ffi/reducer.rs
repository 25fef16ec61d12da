//! c10d's Reducer, over `shim/reducer.cpp`.

use std::ffi::c_void;
use std::ptr::NonNull;

use tch::Tensor;

use super::group::RawGroup;
use super::{CxxTensor, Failure, Message, Slice, check, tensor_ptrs};

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

/// An owned `Reducer` of reducer.cpp.
#[derive(Debug)]
pub(crate) struct RawReducer {
    ptr: NonNull<c_void>,
    buckets: Vec<Vec<usize>>,
}

// SAFETY: the C++ object is bound to no thread; `&mut self` on its operations keeps them one at a time.
unsafe impl Send for RawReducer {}

impl RawReducer {
    pub(crate) fn new(group: &RawGroup, params: &[&Tensor], names: &[&str]) -> Result<Self, Failure> {
        let params = tensor_ptrs(params.iter().copied());
        let names: Vec<Slice> = names.iter().map(|name| Slice::of(name.as_bytes())).collect();
        let mut out: *mut c_void = std::ptr::null_mut();
        // SAFETY: a live group; two arrays of the same length, borrowed for the call.
        check(unsafe { pf_reducer_new(group.ptr(), params.as_ptr(), names.as_ptr(), params.len(), &raw mut out) })?;
        let ptr = NonNull::new(out).expect("the shim stores a reducer where it reports no failure");
        let mut reducer = Self { ptr, buckets: Vec::new() };
        reducer.buckets = reducer.read_buckets();
        Ok(reducer)
    }

    fn read_buckets(&self) -> Vec<Vec<usize>> {
        // SAFETY: a live reducer; null asks for the length only.
        let length = unsafe { pf_reducer_buckets(self.ptr.as_ptr(), std::ptr::null_mut()) };
        let mut flat = vec![0i64; length];
        // SAFETY: `flat` has the length just told.
        unsafe { pf_reducer_buckets(self.ptr.as_ptr(), flat.as_mut_ptr()) };
        flat.split_inclusive(|index| *index < 0)
            .map(|bucket| bucket.iter().filter_map(|index| usize::try_from(*index).ok()).collect())
            .collect()
    }

    pub(crate) fn buckets(&self) -> &[Vec<usize>] {
        &self.buckets
    }

    pub(crate) fn prepare(&mut self) -> Result<(), Failure> {
        // SAFETY: a live reducer, borrowed mutably.
        check(unsafe { pf_reducer_prepare(self.ptr.as_ptr()) })
    }

    pub(crate) fn finish(&mut self, group: &RawGroup) -> Result<(), Failure> {
        // SAFETY: a live reducer, borrowed mutably, and the live group it was made with.
        check(unsafe { pf_reducer_finish(self.ptr.as_ptr(), group.ptr()) })
    }

    pub(crate) fn waited_s(&self) -> f64 {
        // SAFETY: a live reducer, read only.
        unsafe { pf_reducer_waited_s(self.ptr.as_ptr()) }
    }
}

impl Drop for RawReducer {
    fn drop(&mut self) {
        // SAFETY: owned, alive, and not used after.
        if let Err(failure) = check(unsafe { pf_reducer_free(self.ptr.as_ptr()) }) {
            tracing::warn!(?failure, "a reducer did not end cleanly");
        }
    }
}

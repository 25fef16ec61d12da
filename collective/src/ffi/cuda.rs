//! CUDA streams and events, over `shim/cuda.cpp`; empty shells without the `nccl` feature.

#[cfg(feature = "nccl")]
use std::ffi::c_int;
use std::ffi::c_void;

use tch::Device;

use super::Failure;
#[cfg(feature = "nccl")]
use super::{Message, check};

#[cfg(feature = "nccl")]
unsafe extern "C" {
    fn pf_stream_new(device: c_int, out: *mut RawStream) -> Message;
    fn pf_stream_swap(stream: *const RawStream, before: *mut RawStream) -> Message;
    fn pf_event_record(device: c_int, out: *mut *mut c_void) -> Message;
    fn pf_event_block(event: *mut c_void) -> Message;
    fn pf_event_query(event: *mut c_void, done: *mut c_int) -> Message;
    fn pf_event_synchronize(event: *mut c_void) -> Message;
    fn pf_event_free(event: *mut c_void) -> Message;
}

/// A stream by libtorch's own three numbers; streams of the pool are never freed, so this is plain data.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RawStream {
    stream: i64,
    device: i64,
    kind: i64,
}

#[cfg(feature = "nccl")]
fn index(device: Device) -> c_int {
    match device {
        Device::Cuda(index) => c_int::try_from(index).unwrap_or(0),
        _ => -1,
    }
}

#[cfg(feature = "nccl")]
impl RawStream {
    pub(crate) fn new(device: Device) -> Result<Self, Failure> {
        let mut stream = Self::default();
        // SAFETY: an out-pointer that lives for the call.
        check(unsafe { pf_stream_new(index(device), &raw mut stream) })?;
        Ok(stream)
    }

    /// Makes this stream current and returns the one that was.
    pub(crate) fn swap(&self) -> Result<Self, Failure> {
        let mut before = Self::default();
        // SAFETY: plain data in and out, alive for the call.
        check(unsafe { pf_stream_swap(&raw const *self, &raw mut before) })?;
        Ok(before)
    }
}

/// An owned `at::cuda::CUDAEvent`.
#[derive(Debug)]
pub(crate) struct RawEvent {
    #[cfg_attr(not(feature = "nccl"), expect(dead_code, reason = "no event is ever made without CUDA"))]
    ptr: *mut c_void,
}

// SAFETY: CUDA events may be used from any thread.
unsafe impl Send for RawEvent {}

#[cfg(feature = "nccl")]
impl RawEvent {
    pub(crate) fn record(device: Device) -> Result<Self, Failure> {
        let mut ptr = std::ptr::null_mut();
        // SAFETY: an out-pointer that lives for the call.
        check(unsafe { pf_event_record(index(device), &raw mut ptr) })?;
        Ok(Self { ptr })
    }

    pub(crate) fn block(&self) -> Result<(), Failure> {
        // SAFETY: a live event.
        check(unsafe { pf_event_block(self.ptr) })
    }

    pub(crate) fn query(&self) -> Result<bool, Failure> {
        let mut done: c_int = 0;
        // SAFETY: a live event and an out-pointer that lives for the call.
        check(unsafe { pf_event_query(self.ptr, &raw mut done) })?;
        Ok(done != 0)
    }

    pub(crate) fn synchronize(&self) -> Result<(), Failure> {
        // SAFETY: a live event.
        check(unsafe { pf_event_synchronize(self.ptr) })
    }
}

#[cfg(feature = "nccl")]
impl Drop for RawEvent {
    fn drop(&mut self) {
        // SAFETY: owned, alive, and not used after.
        if let Err(failure) = check(unsafe { pf_event_free(self.ptr) }) {
            tracing::warn!(?failure, "a CUDA event did not end cleanly");
        }
    }
}

/// `device::with_nccl` refuses before any of these is reached.
#[cfg(not(feature = "nccl"))]
fn absent<T>() -> Result<T, Failure> {
    Err(Failure::from_text("built without the `nccl` feature".to_owned()))
}

#[cfg(not(feature = "nccl"))]
impl RawStream {
    pub(crate) fn new(_: Device) -> Result<Self, Failure> {
        absent()
    }

    pub(crate) fn swap(&self) -> Result<Self, Failure> {
        absent()
    }
}

#[cfg(not(feature = "nccl"))]
impl RawEvent {
    pub(crate) fn record(_: Device) -> Result<Self, Failure> {
        absent()
    }

    pub(crate) fn block(&self) -> Result<(), Failure> {
        absent()
    }

    pub(crate) fn query(&self) -> Result<bool, Failure> {
        absent()
    }

    pub(crate) fn synchronize(&self) -> Result<(), Failure> {
        absent()
    }
}

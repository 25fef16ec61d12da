//! CUDA helpers that tch lacks, over `cpp/cuda.cpp`: pinned memory, copies that do not block, side streams and events, what a
//! GPU is called and how much of its memory was in use.
//!
//! Invariant: without the `nccl` feature the same names exist and refuse; nothing silently runs on the CPU.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use tch::{Device, Tensor};

use crate::{CxxTensor, Failure, HAS_NCCL, Message, WITHOUT_NCCL, check, own_tensor, tensor_ptr};

unsafe extern "C" {
    fn pf_set_device(device: c_int) -> Message;
    fn pf_device_name(device: c_int, out: *mut c_char, len: usize) -> Message;
    fn pf_take_peak_memory(device: c_int, out: *mut i64) -> Message;
    fn pf_tell_waits() -> Message;
    fn pf_stream_new(device: c_int, out: *mut Packed) -> Message;
    fn pf_stream_swap(stream: *const Packed, before: *mut Packed) -> Message;
    fn pf_event_record(device: c_int, out: *mut *mut c_void) -> Message;
    fn pf_event_block(event: *mut c_void) -> Message;
    fn pf_event_query(event: *mut c_void, done: *mut c_int) -> Message;
    fn pf_event_synchronize(event: *mut c_void) -> Message;
    fn pf_event_free(event: *mut c_void) -> Message;
    fn pf_copy_non_blocking(target: *const CxxTensor, source: *const CxxTensor) -> Message;
    fn pf_pinned_copy(host: *const CxxTensor, out: *mut *mut CxxTensor) -> Message;
}

/// Whether this build drives CUDA and a GPU is there.
#[must_use]
pub fn is_available() -> bool {
    HAS_NCCL && tch::Cuda::is_available()
}

/// Makes a GPU this thread's current one, which is what calls that name none mean.
///
/// # Errors
/// [`WITHOUT_NCCL`], or a device that is no GPU or not there.
pub fn set_current(device: Device) -> Result<(), Failure> {
    let index = index_of(device, "a current GPU")?;
    // SAFETY: a number.
    check(unsafe { pf_set_device(index) })
}

/// What a GPU calls itself.
///
/// # Errors
/// [`WITHOUT_NCCL`], or a device that is no GPU or not there.
pub fn name(device: Device) -> Result<String, Failure> {
    let index = index_of(device, "a GPU's name")?;
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: room for so many characters, which lives for the call; the last one stays NUL.
    check(unsafe { pf_device_name(index, name.as_mut_ptr(), name.len() - 1) })?;
    // SAFETY: NUL-terminated, see above.
    Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// The most bytes that tensors held on a GPU since the last call.
///
/// # Errors
/// [`WITHOUT_NCCL`], or a device that is no GPU or not there.
pub fn take_peak_memory(device: Device) -> Result<u64, Failure> {
    let index = index_of(device, "a GPU's memory")?;
    let mut bytes = 0;
    // SAFETY: an out-pointer that lives for the call.
    check(unsafe { pf_take_peak_memory(index, &raw mut bytes) })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Has libtorch write a warning to standard error whenever the host waits for a GPU: to find out where.
///
/// # Errors
/// [`WITHOUT_NCCL`].
pub fn tell_waits() -> Result<(), Failure> {
    needs_nccl("telling of waits")?;
    // SAFETY: no argument.
    check(unsafe { pf_tell_waits() })
}

/// A copy of `host` in page-locked memory, from which the GPU copies without blocking.
///
/// # Errors
/// [`WITHOUT_NCCL`], or no GPU.
pub fn pinned_copy(host: &Tensor) -> Result<Tensor, Failure> {
    needs_nccl("pinned memory")?;
    // SAFETY: a live tensor, borrowed for the call, which stores a fresh tensor where it reports no failure.
    own_tensor(|out| unsafe { pf_pinned_copy(tensor_ptr(host), out) })
}

/// Copies `source` into `target` in place, not waiting where one side is pinned and the other on a GPU. The caller
/// keeps `source` alive and unchanged until an [`Event`] recorded after it has passed.
///
/// # Errors
/// Shapes that do not broadcast.
pub fn copy_non_blocking(target: &mut Tensor, source: &Tensor) -> Result<(), Failure> {
    // SAFETY: live tensors; `target` is borrowed mutably for the call.
    check(unsafe { pf_copy_non_blocking(tensor_ptr(target), tensor_ptr(source)) })
}

/// `pf_stream` of cuda.cpp: a stream by libtorch's own three numbers. Streams of the pool are never freed, so this is
/// plain data.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Packed {
    stream: i64,
    device: i64,
    kind: i64,
}

impl Packed {
    /// Makes this stream current on this thread and returns the one that was.
    fn swap(&self) -> Result<Self, Failure> {
        let mut before = Self::default();
        // SAFETY: plain data in and out, alive for the call.
        check(unsafe { pf_stream_swap(&raw const *self, &raw mut before) })?;
        Ok(before)
    }
}

/// A side stream from libtorch's pool.
#[derive(Debug)]
pub struct Stream {
    packed: Packed,
}

impl Stream {
    /// A stream of `device`.
    ///
    /// # Errors
    /// [`WITHOUT_NCCL`], or a device that is no GPU or not there.
    pub fn new(device: Device) -> Result<Self, Failure> {
        let index = index_of(device, "a CUDA stream")?;
        let mut packed = Packed::default();
        // SAFETY: an out-pointer that lives for the call.
        check(unsafe { pf_stream_new(index, &raw mut packed) })?;
        Ok(Self { packed })
    }

    /// Makes this stream current on this thread until the guard drops.
    ///
    /// # Errors
    /// CUDA refuses.
    pub fn enter(&self) -> Result<StreamGuard<'_>, Failure> {
        Ok(StreamGuard { before: self.packed.swap()?, stream: PhantomData })
    }
}

/// See [`Stream::enter`].
#[derive(Debug)]
pub struct StreamGuard<'a> {
    before: Packed,
    /// The current stream is thread-local, so the guard must not travel.
    stream: PhantomData<(&'a Stream, *const ())>,
}

impl Drop for StreamGuard<'_> {
    fn drop(&mut self) {
        if let Err(failure) = self.before.swap() {
            tracing::error!(%failure, "the stream before could not be restored");
        }
    }
}

/// A mark in a stream: an owned `c10::Event`.
#[derive(Debug)]
pub struct Event {
    ptr: NonNull<c_void>,
}

// SAFETY: CUDA events may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// Marks the work queued so far on the current stream of `device`.
    ///
    /// # Errors
    /// [`WITHOUT_NCCL`], or a device that is no GPU or not there.
    pub fn record(device: Device) -> Result<Self, Failure> {
        let index = index_of(device, "a CUDA event")?;
        let mut out = std::ptr::null_mut();
        // SAFETY: an out-pointer that lives for the call.
        check(unsafe { pf_event_record(index, &raw mut out) })?;
        Ok(Self { ptr: NonNull::new(out).expect("the shim stores an event where it reports no failure") })
    }

    /// The current stream waits for the mark; the host does not.
    ///
    /// # Errors
    /// CUDA refuses.
    pub fn block_stream(&self) -> Result<(), Failure> {
        // SAFETY: a live event.
        check(unsafe { pf_event_block(self.ptr.as_ptr()) })
    }

    /// Whether the work before the mark is done.
    ///
    /// # Errors
    /// That work's own.
    pub fn is_done(&self) -> Result<bool, Failure> {
        let mut done: c_int = 0;
        // SAFETY: a live event and an out-pointer that lives for the call.
        check(unsafe { pf_event_query(self.ptr.as_ptr(), &raw mut done) })?;
        Ok(done != 0)
    }

    /// Blocks the host until the work before the mark is done.
    ///
    /// # Errors
    /// That work's own.
    pub fn wait(&self) -> Result<(), Failure> {
        // SAFETY: a live event.
        check(unsafe { pf_event_synchronize(self.ptr.as_ptr()) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: owned, alive, and not used after.
        if let Err(failure) = check(unsafe { pf_event_free(self.ptr.as_ptr()) }) {
            tracing::warn!(%failure, "a CUDA event did not end cleanly");
        }
    }
}

fn needs_nccl(what: &str) -> Result<(), Failure> {
    if HAS_NCCL { Ok(()) } else { Err(Failure::new(format!("{what}: {WITHOUT_NCCL}"))) }
}

/// A GPU's number; `what` is asked for on it.
fn index_of(device: Device, what: &str) -> Result<c_int, Failure> {
    needs_nccl(what)?;
    match device {
        Device::Cuda(index) => gpu_number(index),
        other => Err(Failure::new(format!("{what}: {other:?} is no GPU"))),
    }
}

/// c10 numbers devices in eight bits, and takes what is below 0 for the current one.
pub(crate) fn gpu_number(index: usize) -> Result<c_int, Failure> {
    i8::try_from(index).map(c_int::from).map_err(|_| Failure::new(format!("there is no GPU {index}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_becomes_a_failure_with_its_words() {
        let mut target = Tensor::from_slice(&[1f32, 2.0]);
        let failure = copy_non_blocking(&mut target, &Tensor::from_slice(&[1f32, 2.0, 3.0])).unwrap_err();
        assert!(failure.to_string().contains("must match"), "{failure}");
        copy_non_blocking(&mut target, &Tensor::from_slice(&[3f32, 4.0])).unwrap();
        assert_eq!(Vec::<f32>::try_from(target).unwrap(), [3.0, 4.0]);
    }

    #[test]
    fn a_build_for_cpus_refuses_what_needs_a_gpu_and_says_how_to_get_one() {
        if HAS_NCCL {
            return;
        }
        let host = Tensor::from_slice(&[1f32]);
        let refused = [
            pinned_copy(&host).unwrap_err(),
            Stream::new(Device::Cuda(0)).unwrap_err(),
            Event::record(Device::Cuda(0)).unwrap_err(),
        ];
        for (failure, what) in refused.iter().zip(["pinned memory", "a CUDA stream", "a CUDA event"]) {
            assert_eq!(failure.to_string(), format!("{what}: {WITHOUT_NCCL}"));
        }
        assert!(!is_available());
    }
}

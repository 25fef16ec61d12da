//! CUDA helpers that tch lacks: pinned memory, copies that do not block, side streams and events.
//!
//! Invariant: without the `nccl` feature the same names exist and refuse; nothing silently runs on the CPU.

use tch::{Device, Tensor};

use crate::error::CollectiveError;
use crate::ffi;

/// Whether this build can drive CUDA and a GPU is there.
#[must_use]
pub fn cuda_is_available() -> bool {
    cfg!(feature = "nccl") && tch::Cuda::is_available()
}

/// A copy of `host` in page-locked memory, from which the GPU copies without blocking.
///
/// # Errors
/// [`CollectiveError::WithoutNccl`] in a CPU build, [`CollectiveError::Torch`] without a GPU.
pub fn pinned_copy(host: &Tensor) -> Result<Tensor, CollectiveError> {
    with_nccl("pinned memory")?;
    ffi::pinned_copy(host).map_err(|failure| failure.into_error("pinned_copy", std::time::Duration::ZERO))
}

/// Copies `source` into `target` in place, not waiting where one side is pinned and the other on a GPU. The caller
/// keeps `source` alive and unchanged until an [`Event`] recorded after it has passed.
///
/// # Errors
/// [`CollectiveError::Torch`] for shapes that do not broadcast.
pub fn copy_non_blocking(target: &mut Tensor, source: &Tensor) -> Result<(), CollectiveError> {
    ffi::copy_non_blocking(target, source)
        .map_err(|failure| failure.into_error("copy_non_blocking", std::time::Duration::ZERO))
}

/// A side stream from libtorch's pool.
#[derive(Debug)]
pub struct Stream {
    raw: ffi::RawStream,
}

impl Stream {
    /// A stream of `device`.
    ///
    /// # Errors
    /// [`CollectiveError::WithoutNccl`] in a CPU build, [`CollectiveError::Torch`] for a device that is not there.
    pub fn new(device: Device) -> Result<Self, CollectiveError> {
        with_nccl("a CUDA stream")?;
        let raw = ffi::RawStream::new(device)
            .map_err(|failure| failure.into_error("a CUDA stream", std::time::Duration::ZERO))?;
        Ok(Self { raw })
    }

    /// Makes this stream current on this thread until the guard drops.
    ///
    /// # Errors
    /// [`CollectiveError::Torch`] where CUDA refuses.
    pub fn enter(&self) -> Result<StreamGuard<'_>, CollectiveError> {
        let before =
            self.raw.swap().map_err(|failure| failure.into_error("entering a stream", std::time::Duration::ZERO))?;
        Ok(StreamGuard { before, stream: std::marker::PhantomData })
    }
}

/// See [`Stream::enter`].
#[derive(Debug)]
pub struct StreamGuard<'a> {
    before: ffi::RawStream,
    /// The current stream is thread-local, so the guard must not travel.
    stream: std::marker::PhantomData<(&'a Stream, *const ())>,
}

impl Drop for StreamGuard<'_> {
    fn drop(&mut self) {
        if let Err(failure) = self.before.swap() {
            let error = failure.into_error("leaving a stream", std::time::Duration::ZERO);
            tracing::error!(%error, "the stream before could not be restored");
        }
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub struct Event {
    raw: ffi::RawEvent,
}

impl Event {
    /// Marks the work queued so far on the current stream of `device`.
    ///
    /// # Errors
    /// [`CollectiveError::WithoutNccl`] in a CPU build, [`CollectiveError::Torch`] where CUDA refuses.
    pub fn record(device: Device) -> Result<Self, CollectiveError> {
        with_nccl("a CUDA event")?;
        let raw = ffi::RawEvent::record(device)
            .map_err(|failure| failure.into_error("recording an event", std::time::Duration::ZERO))?;
        Ok(Self { raw })
    }

    /// The current stream waits for the mark; the host does not.
    ///
    /// # Errors
    /// [`CollectiveError::Torch`] where CUDA refuses.
    pub fn block_stream(&self) -> Result<(), CollectiveError> {
        self.raw.block().map_err(|failure| failure.into_error("waiting for an event", std::time::Duration::ZERO))
    }

    /// Whether the work before the mark is done.
    ///
    /// # Errors
    /// [`CollectiveError::Torch`] with the error of that work.
    pub fn is_done(&self) -> Result<bool, CollectiveError> {
        self.raw.query().map_err(|failure| failure.into_error("asking an event", std::time::Duration::ZERO))
    }

    /// Blocks the host until the work before the mark is done.
    ///
    /// # Errors
    /// [`CollectiveError::Torch`] with the error of that work.
    pub fn wait(&self) -> Result<(), CollectiveError> {
        self.raw.synchronize().map_err(|failure| failure.into_error("waiting for an event", std::time::Duration::ZERO))
    }
}

fn with_nccl(what: &'static str) -> Result<(), CollectiveError> {
    if cfg!(feature = "nccl") { Ok(()) } else { Err(CollectiveError::WithoutNccl { what }) }
}

//! Numbers between a device and the host during a step. A read waits for all work that was given to the device before it, so
//! every one goes through [`read`], which counts; what goes there goes through [`put`], which waits for nothing.

use std::cell::Cell;

use pixfleet_shim::cuda::{copy_non_blocking, pinned_copy};
use tch::{Device, Kind, Tensor};

use crate::ModelError;

thread_local! {
    static READS: Cell<u64> = const { Cell::new(0) };
}

/// The numbers of `tensor`, row-major.
///
/// # Errors
/// [`ModelError::Torch`], also for work before it that failed on the device.
pub fn read(tensor: &Tensor) -> Result<Vec<f64>, ModelError> {
    READS.set(READS.get() + 1);
    Ok(Vec::<f64>::try_from(tensor.f_detach()?.f_to_kind(Kind::Double)?.f_reshape([-1])?)?)
}

/// `host` on `device`. A plain copy from pageable memory would wait until the device has done all that came before.
///
/// # Errors
/// [`ModelError::Torch`], [`ModelError::Kernel`]: no memory on the device, or none to be pinned.
pub fn put(host: &Tensor, device: Device) -> Result<Tensor, ModelError> {
    if device == Device::Cpu || host.numel() == 0 {
        return Ok(host.f_to_device(device)?);
    }
    // libtorch's cache of pinned memory remembers the copy, and gives the memory to nobody before it is done.
    let mut there = Tensor::f_empty(host.size(), (host.kind(), device))?;
    copy_non_blocking(&mut there, &pinned_copy(host)?)?;
    Ok(there)
}

/// How often this thread has called [`read`].
#[must_use]
pub fn reads() -> u64 {
    READS.get()
}

//! Numbers from a device to the host during a step. Such a read waits for all work that was given to the device before it,
//! so every one goes through [`read`], which counts.

use std::cell::Cell;

use tch::{Kind, Tensor};

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

/// How often this thread has called [`read`].
#[must_use]
pub fn reads() -> u64 {
    READS.get()
}

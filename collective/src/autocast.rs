//! bf16 autocast on CPU and CUDA. tch switches autocast for CUDA only and cannot name the dtype.
//!
//! Invariant: the guard restores what it found, on the thread that made it, also on panic.

use tch::Device;

use crate::ffi;

/// While it lives, matrix products and convolutions on its device type run in bf16 on this thread; weights stay fp32.
#[derive(Debug)]
pub struct Autocast {
    state: ffi::AutocastState,
    /// Autocast is thread-local state: the guard must not travel.
    one_thread: std::marker::PhantomData<*const ()>,
}

impl Autocast {
    /// bf16 on the device type of `device`.
    #[must_use]
    pub fn bf16(device: Device) -> Self {
        Self { state: ffi::autocast_enter(device.is_cuda()), one_thread: std::marker::PhantomData }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        ffi::autocast_leave(self.state);
    }
}

/// Runs `work` under bf16 autocast if `on`.
pub fn bf16_if<T>(on: bool, device: Device, work: impl FnOnce() -> T) -> T {
    let _guard = on.then(|| Autocast::bf16(device));
    work()
}

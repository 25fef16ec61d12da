//! libtorch's profiler, over `cpp/profile.cpp`.

use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::path::Path;

use tch::Device;

use crate::{Failure, Message, check};

unsafe extern "C" {
    fn pf_profile_start(cuda: c_int) -> Message;
    fn pf_profile_stop(path: *const c_char) -> Message;
}

/// Records every operation that this thread calls, backward's too, and on a GPU every kernel.
#[derive(Debug)]
pub struct Profile {
    /// The profiler is the thread's.
    thread: PhantomData<*const ()>,
}

impl Profile {
    /// Starts recording. One at a time in a process.
    ///
    /// # Errors
    /// libtorch's.
    pub fn start(device: Device) -> Result<Self, Failure> {
        // SAFETY: a number.
        check(unsafe { pf_profile_start(c_int::from(device.is_cuda())) })?;
        Ok(Self { thread: PhantomData })
    }

    /// Ends it, and writes Chrome's trace format, JSON, to `path`.
    ///
    /// # Errors
    /// A path with a NUL, or libtorch's.
    pub fn finish(self, path: &Path) -> Result<(), Failure> {
        let path = CString::new(path.to_string_lossy().into_owned());
        let path = path.map_err(|_| Failure::new("the path of a trace holds a NUL"))?;
        // SAFETY: a NUL-terminated path that lives for the call.
        check(unsafe { pf_profile_stop(path.as_ptr()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn a_trace_names_the_operations_between_its_start_and_end() {
        let path = std::env::temp_dir().join(format!("pixfleet-profile-{}.json", std::process::id()));
        let one = Tensor::ones([8, 8], (Kind::Float, Device::Cpu));
        let profile = Profile::start(Device::Cpu).unwrap();
        let _ = one.matmul(&one);
        profile.finish(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.contains("aten::matmul") && text.contains("traceEvents"), "{}", &text[..text.len().min(400)]);
    }
}

//! A process group and its collectives, over `cpp/group.cpp`.
//!
//! Invariants: operations block the calling thread until their result is there (on CUDA: until it is ordered on the
//! current stream and healthy), within the group's timeout. After [`RawGroup::end`] all of them fail, those in flight
//! too. Dropping a group takes [`SOUND`] at most.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use tch::Tensor;

use crate::cuda::gpu_number;
use crate::store::{C10dStore, Calls};
use crate::{CxxTensor, Failure, Message, check, tensor_ptr};

/// As long as a sound group needs to be freed.
const SOUND: Duration = Duration::from_millis(200);

/// Who moves the bytes, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport<'a> {
    /// Gloo over TCP, between CPUs: the address or host name under which peers reach this process.
    Tcp(&'a str),
    /// NCCL, on the GPU of this index, which becomes the calling thread's current one.
    Gpu(usize),
}

/// The place of this rank, of `0..world`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawConfig<'a> {
    /// This rank.
    pub rank: u32,
    /// The number of ranks.
    pub world: u32,
    /// The longest an operation, or the forming of the group, may block.
    pub timeout: Duration,
    /// Who moves the bytes.
    pub transport: Transport<'a>,
}

/// `pf_group_config` of group.cpp.
#[repr(C)]
struct Plain {
    rank: c_int,
    world: c_int,
    timeout_ms: i64,
    nccl: c_int,
    device: c_int,
    hostname: *const c_char,
}

unsafe extern "C" {
    fn pf_group_new(calls: *const Calls, config: *const Plain, out: *mut *mut c_void) -> Message;
    fn pf_group_free(group: *mut c_void) -> Message;
    fn pf_group_connect(group: *mut c_void) -> Message;
    fn pf_group_waited_s(group: *const c_void) -> f64;
    fn pf_group_abort(group: *mut c_void) -> Message;
    fn pf_group_end(group: *mut c_void, why: *const c_char) -> Message;
    fn pf_all_gather(group: *mut c_void, output: *const CxxTensor, own: *const CxxTensor) -> Message;
    fn pf_all_to_all(
        group: *mut c_void,
        output: *const CxxTensor,
        own: *const CxxTensor,
        from: *const i64,
        to: *const i64,
        world: usize,
    ) -> Message;
    fn pf_all_reduce_sum(group: *mut c_void, tensor: *const CxxTensor) -> Message;
    fn pf_reduce_scatter_sum(group: *mut c_void, output: *const CxxTensor, input: *const CxxTensor) -> Message;
    fn pf_broadcast(group: *mut c_void, tensor: *const CxxTensor, source: c_int) -> Message;
    fn pf_barrier(group: *mut c_void) -> Message;
}

/// An owned `pf::Group`. All ranks call the same operations in the same order with the same shapes and dtypes, each rank
/// from one thread at a time.
#[derive(Debug)]
pub struct RawGroup {
    ptr: NonNull<c_void>,
    world: i64,
}

// SAFETY: the C++ object is bound to no thread.
unsafe impl Send for RawGroup {}
// SAFETY: c10d's backends and `pf::Group` lock their own state; `end` is meant for other threads.
unsafe impl Sync for RawGroup {}

impl RawGroup {
    /// Joins the ranks that meet in `store`. Gloo connects them here and may take five timeouts where one came and went;
    /// NCCL does so in [`connect`](Self::connect).
    ///
    /// # Errors
    /// A peer or the store failed; or [`Transport::Gpu`] in a build without the `nccl` feature.
    pub fn new(store: Arc<dyn C10dStore>, config: &RawConfig<'_>) -> Result<Self, Failure> {
        let (hostname, nccl, device) = match config.transport {
            Transport::Tcp(hostname) => (hostname, false, 0),
            Transport::Gpu(index) => ("", true, gpu_number(index)?),
        };
        let hostname = CString::new(hostname).unwrap_or_default();
        let plain = Plain {
            rank: config.rank.cast_signed(),
            world: config.world.cast_signed(),
            timeout_ms: i64::try_from(config.timeout.as_millis()).unwrap_or(i64::MAX),
            nccl: c_int::from(nccl),
            device,
            hostname: hostname.as_ptr(),
        };
        let calls = Calls::of(store);
        let mut out: *mut c_void = std::ptr::null_mut();
        // SAFETY: both structs live for the call and match shim.hpp and group.cpp; the shim takes `calls.user` over.
        check(unsafe { pf_group_new(&raw const calls, &raw const plain, &raw mut out) })?;
        let ptr = NonNull::new(out).expect("the shim stores a group where it reports no failure");
        Ok(Self { ptr, world: i64::from(config.world) })
    }

    /// Connects the ranks, and proves it by an operation. NCCL's part, which [`end`](Self::end) ends from another thread;
    /// Gloo's ranks are connected already.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn connect(&self) -> Result<(), Failure> {
        // SAFETY: a live group.
        check(unsafe { pf_group_connect(self.ptr()) })
    }

    /// Fails every operation, in flight or to come, with the words `why`, from any thread, and waits for nobody. The first
    /// end counts. The connections stay open, and peers learn nothing: see [`abort`](Self::abort).
    ///
    /// # Errors
    /// None is known.
    pub fn end(&self, why: &str) -> Result<(), Failure> {
        let why = CString::new(why).unwrap_or_default();
        // SAFETY: a live group and a string that lives for the call.
        check(unsafe { pf_group_end(self.ptr(), why.as_ptr()) })
    }

    /// NCCL: takes the communicators down, which ends their kernels and what peers wait for. That may take as long as the
    /// group's timeout: not for a thread that others count on. Nothing for Gloo.
    ///
    /// # Errors
    /// The backend's abort threw.
    pub fn abort(&self) -> Result<(), Failure> {
        // SAFETY: a live group.
        check(unsafe { pf_group_abort(self.ptr()) })
    }

    /// Seconds that operations have taken from their start to their result, all added up. On a GPU by its own clock, and
    /// without the work that was ahead of them in its queue. For the thread that runs the operations.
    #[must_use]
    pub fn waited_s(&self) -> f64 {
        // SAFETY: a live group, read only.
        unsafe { pf_group_waited_s(self.ptr()) }
    }

    /// Every rank's `own`, stacked: `[W, ...own's shape]`.
    ///
    /// # Errors
    /// As all operations: what gloo, NCCL or libtorch threw, a peer's loss and the timeout among it, or the words of
    /// [`end`](Self::end).
    pub fn all_gather(&self, own: &Tensor) -> Result<Tensor, Failure> {
        let shape: Vec<i64> = std::iter::once(self.world).chain(own.size()).collect();
        // Gloo and NCCL both know flat tensors; the shape is ours.
        let flat = own.f_detach()?.f_reshape(-1)?;
        let output = flat_like(self.world * flat.size()[0], own)?;
        if flat.numel() > 0 {
            // SAFETY: a live group; live tensors, of which `output` is ours alone.
            check(unsafe { pf_all_gather(self.ptr(), tensor_ptr(&output), tensor_ptr(&flat)) })?;
        }
        Ok(output.f_view(shape.as_slice())?)
    }

    /// As [`all_gather`](Self::all_gather) of flat tensors, into `output` `[W * own's length]`, contiguous and of `own`'s
    /// dtype. `own` may not be part of it.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather), and an `output` that does not fit.
    pub fn all_gather_into(&self, output: &mut Tensor, own: &Tensor) -> Result<(), Failure> {
        let fits = output.is_contiguous() && output.kind() == own.kind() && output.device() == own.device();
        if !fits || output.size() != [self.world * own.numel() as i64] {
            return Err(Failure::new(format!("all_gather_into: {own:?} of {} ranks into {output:?}", self.world)));
        }
        if own.numel() == 0 {
            return Ok(());
        }
        let flat = own.f_detach()?.f_reshape(-1)?;
        // SAFETY: a live group; live tensors, `output` borrowed mutably.
        check(unsafe { pf_all_gather(self.ptr(), tensor_ptr(output), tensor_ptr(&flat)) })
    }

    /// What every rank has for this one, in rank order: of `own`, flat, the first `to[0]` numbers go to rank 0, the next
    /// `to[1]` to rank 1; `from[r]` numbers come from rank r.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather), and counts that do not fit `own` or the world.
    pub fn all_to_all(&self, own: &Tensor, from: &[i64], to: &[i64]) -> Result<Tensor, Failure> {
        let world = usize::try_from(self.world).unwrap_or_default();
        let negative = from.iter().chain(to).any(|count| *count < 0);
        if negative || [from.len(), to.len()] != [world; 2] || own.size() != [to.iter().sum::<i64>()] {
            return Err(Failure::new(format!("all_to_all: {own:?} cut into {to:?}, and {from:?} from {world} ranks")));
        }
        let flat = own.f_detach()?;
        let output = flat_like(from.iter().sum(), own)?;
        // SAFETY: a live group; live tensors, of which `output` is ours alone; two arrays of `world` numbers.
        check(unsafe {
            let (from, to) = (from.as_ptr(), to.as_ptr());
            pf_all_to_all(self.ptr(), tensor_ptr(&output), tensor_ptr(&flat), from, to, world)
        })?;
        Ok(output)
    }

    /// The sum over ranks, in place. Every rank ends with the same bits.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<(), Failure> {
        if tensor.numel() == 0 {
            return Ok(());
        }
        // SAFETY: a live group; a live tensor, borrowed mutably.
        check(unsafe { pf_all_reduce_sum(self.ptr(), tensor_ptr(tensor)) })
    }

    /// The sum over ranks of `input` `[W, ...]`, of which this rank receives its own slice `[...]`.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn reduce_scatter_sum(&self, input: &Tensor) -> Result<Tensor, Failure> {
        let flat = input.f_detach()?.f_reshape(-1)?;
        let output = flat_like(flat.size()[0] / self.world, input)?;
        if flat.numel() > 0 {
            // SAFETY: a live group; live tensors, of which `output` is ours alone.
            check(unsafe { pf_reduce_scatter_sum(self.ptr(), tensor_ptr(&output), tensor_ptr(&flat)) })?;
        }
        Ok(output.f_view(input.size().get(1..).unwrap_or_default())?)
    }

    /// Copies rank `source`'s tensor into everybody's, in place.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn broadcast(&self, tensor: &mut Tensor, source: u32) -> Result<(), Failure> {
        if tensor.numel() == 0 {
            return Ok(());
        }
        // SAFETY: a live group; a live tensor, borrowed mutably.
        check(unsafe { pf_broadcast(self.ptr(), tensor_ptr(tensor), source.cast_signed()) })
    }

    /// Returns when every rank has come here.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn barrier(&self) -> Result<(), Failure> {
        // SAFETY: a live group.
        check(unsafe { pf_barrier(self.ptr()) })
    }

    pub(crate) fn ptr(&self) -> *mut c_void {
        self.ptr.as_ptr()
    }
}

impl Drop for RawGroup {
    /// Gloo's destructor waits for its threads, and one of them may have forgotten a send (see `pf::Group::track`) and
    /// sit there until the timeout. A thread of its own waits with it, this one only as long as a sound group needs.
    fn drop(&mut self) {
        let address = self.ptr().expose_provenance();
        let (freed, done) = channel();
        let body = move || {
            // SAFETY: the pointer is owned by the group that is being dropped: nobody else has it any more.
            let result = check(unsafe { pf_group_free(std::ptr::with_exposed_provenance_mut(address)) });
            if let Err(failure) = result {
                tracing::warn!(%failure, "a process group did not end cleanly");
            }
            // Nobody waits for a slow one.
            let _ = freed.send(());
        };
        match std::thread::Builder::new().name("pf-free".to_owned()).spawn(body) {
            // Slow or done: both are well.
            Ok(_detached) => drop(done.recv_timeout(SOUND)),
            Err(error) => tracing::warn!(%error, "no thread to free a process group: it stays"),
        }
    }
}

/// A flat tensor of `length`, otherwise like `like`.
fn flat_like(length: i64, like: &Tensor) -> Result<Tensor, Failure> {
    Ok(Tensor::f_empty([length], (like.kind(), like.device()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that panics at every question, and when it goes.
    struct Broken;

    impl C10dStore for Broken {
        fn set(&self, key: &str, _: &[u8]) -> Option<()> {
            panic!("on purpose, at {key}")
        }

        fn get(&self, key: &str, _: Duration) -> Option<Vec<u8>> {
            panic!("on purpose, at {key}")
        }

        fn add(&self, key: &str, _: i64) -> Option<i64> {
            panic!("on purpose, at {key}")
        }

        fn check(&self, _: &[String]) -> Option<bool> {
            panic!("on purpose")
        }

        fn wait(&self, _: &[String], _: Duration) -> Option<()> {
            panic!("on purpose")
        }

        fn compare_set(&self, key: &str, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
            panic!("on purpose, at {key}")
        }

        fn delete(&self, key: &str) -> Option<bool> {
            panic!("on purpose, at {key}")
        }
    }

    impl Drop for Broken {
        fn drop(&mut self) {
            panic!("on purpose, at the end")
        }
    }

    #[test]
    fn a_panic_in_the_store_is_a_failure_and_not_the_end_of_the_process() {
        let transport = Transport::Tcp("127.0.0.1");
        let config = RawConfig { rank: 0, world: 2, timeout: Duration::from_secs(5), transport };
        let failure = RawGroup::new(Arc::new(Broken), &config).unwrap_err();
        assert!(failure.text().contains("rendezvous store: set"), "{}", failure.text());
    }
}

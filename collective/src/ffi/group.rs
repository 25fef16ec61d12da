//! The process group and its collectives, over `shim/group.cpp`.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tch::{Device, Tensor};

use super::store::{Bridge, StoreCalls};
use super::{CxxTensor, Failure, Message, check, tensor_ptr};
use crate::error::{Kind, kind_of};
use crate::group::{Backend, GroupConfig};
use crate::store::RendezvousStore;

/// `pf_group_config` of group.cpp.
#[repr(C)]
struct RawConfig {
    rank: c_int,
    world: c_int,
    timeout_ms: i64,
    nccl: c_int,
    device: c_int,
    hostname: *const c_char,
}

unsafe extern "C" {
    fn pf_group_new(calls: *const StoreCalls, config: *const RawConfig, out: *mut *mut c_void) -> Message;
    fn pf_group_free(group: *mut c_void) -> Message;
    fn pf_group_abort(group: *mut c_void) -> Message;
    fn pf_all_gather(group: *mut c_void, output: *const CxxTensor, own: *const CxxTensor) -> Message;
    fn pf_all_reduce_sum(group: *mut c_void, tensor: *const CxxTensor) -> Message;
    fn pf_reduce_scatter_sum(group: *mut c_void, output: *const CxxTensor, input: *const CxxTensor) -> Message;
    fn pf_broadcast(group: *mut c_void, tensor: *const CxxTensor, source: c_int) -> Message;
    fn pf_barrier(group: *mut c_void) -> Message;
}

/// An owned `pf::Group`.
pub(crate) struct RawGroup {
    ptr: NonNull<c_void>,
    bridge: Arc<Bridge>,
    aborted: AtomicBool,
}

// SAFETY: c10d's backends lock their own state; abort is meant for other threads; the order of operations is the
// caller's care (`Group` is not Sync).
unsafe impl Send for RawGroup {}
// SAFETY: as above.
unsafe impl Sync for RawGroup {}

impl std::fmt::Debug for RawGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawGroup").field("aborted", &self.is_aborted()).finish_non_exhaustive()
    }
}

impl RawGroup {
    pub(crate) fn new(
        backend: Backend,
        store: Arc<dyn RendezvousStore>,
        config: &GroupConfig,
    ) -> Result<Self, Failure> {
        let bridge = Bridge::new(store, config);
        let calls = bridge.calls();
        let hostname = CString::new(config.hostname.as_str()).unwrap_or_default();
        let raw_config = RawConfig {
            rank: config.rank.cast_signed(),
            world: config.world.cast_signed(),
            timeout_ms: i64::try_from(config.timeout.as_millis()).unwrap_or(i64::MAX),
            nccl: c_int::from(backend == Backend::Nccl),
            device: match config.device {
                Device::Cuda(index) => c_int::try_from(index).unwrap_or(0),
                _ => 0,
            },
            hostname: hostname.as_ptr(),
        };
        let mut out: *mut c_void = std::ptr::null_mut();
        // SAFETY: both structs live for the call and match shim.hpp and group.cpp; the shim takes `calls.user` over.
        let message = unsafe { pf_group_new(&raw const calls, &raw const raw_config, &raw mut out) };
        check(message).map_err(|failure| Failure { store: bridge.take_error(), ..failure })?;
        let ptr = NonNull::new(out).expect("the shim stores a group where it reports no failure");
        let group = Self { ptr, bridge, aborted: AtomicBool::new(false) };
        if backend == Backend::Gloo && config.world > 1 {
            group.exchange_ports(config)?;
        }
        Ok(group)
    }

    /// Lets every rank know the ports of all connections (see [`super::sockets`]), and proves that the group works.
    fn exchange_ports(&self, config: &GroupConfig) -> Result<(), Failure> {
        let ports = self.bridge.addresses.own_ports(config.world);
        let all = all_gather(self, &Tensor::from_slice(&ports))?;
        let toward_us = all.select(1, i64::from(config.rank));
        for rank in 0..config.world {
            self.bridge.addresses.note_port(rank, toward_us.int64_value(&[i64::from(rank)]));
        }
        Ok(())
    }

    /// Ends all operations, now and later. Quiet about failures: the group is over in any case.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::SeqCst);
        self.disconnect();
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    /// Names the peer that a failure speaks of, and, where the failure ends the generation, disconnects: nothing of
    /// it may be assumed any more, and peers that wait for this rank shall learn it now.
    pub(crate) fn over(&self, failure: Failure) -> Failure {
        let rank = failure.rank.or_else(|| self.bridge.addresses.rank_of(&failure.text));
        if kind_of(&failure.text) != Kind::Other {
            self.disconnect();
        }
        Failure { rank, ..failure }
    }

    fn disconnect(&self) {
        self.bridge.addresses.shut_down();
        // SAFETY: the pointer is owned by self and alive.
        if let Err(failure) = check(unsafe { pf_group_abort(self.ptr.as_ptr()) }) {
            tracing::debug!(?failure, "the backend's abort failed");
        }
    }

    /// Counts the ranks that need no connection any more and waits for all of them.
    pub(crate) fn leave(&self, world: u32, timeout: Duration) -> Result<(), Failure> {
        let store = self.bridge.store();
        let all = self.bridge.key("left/all");
        store
            .add(&self.bridge.key("left/count"), 1)
            .and_then(|count| if count == i64::from(world) { store.set(&all, b"1") } else { Ok(()) })
            .and_then(|()| store.wait(&[all], timeout))
            .map_err(|error| Failure { text: String::new(), rank: None, store: Some(error) })
    }

    pub(super) fn ptr(&self) -> *mut c_void {
        self.ptr.as_ptr()
    }

    fn done(&self, message: Message) -> Result<(), Failure> {
        check(message).map_err(|failure| self.over(failure))
    }
}

impl Drop for RawGroup {
    fn drop(&mut self) {
        // Buckets may still be in flight towards peers that wait for us in their own destructors: without the
        // connections all of them end at once instead of at the timeout.
        self.disconnect();
        // SAFETY: owned, alive, and not used after.
        if let Err(failure) = check(unsafe { pf_group_free(self.ptr.as_ptr()) }) {
            tracing::warn!(?failure, "a process group did not end cleanly");
        }
    }
}

/// A tensor of `shape` like `like`.
fn empty(shape: &[i64], like: &Tensor) -> Result<Tensor, Failure> {
    Tensor::f_empty(shape, (like.kind(), like.device())).map_err(|error| Failure::from_text(error.to_string()))
}

pub(crate) fn all_gather(group: &RawGroup, own: &Tensor) -> Result<Tensor, Failure> {
    let world = group.bridge.world();
    let shape: Vec<i64> = std::iter::once(world).chain(own.size()).collect();
    // Gloo and NCCL both know flat tensors; the shape is ours.
    let flat = own.detach().reshape(-1);
    let output = empty(&[world * flat.size()[0]], own)?;
    if flat.numel() > 0 {
        // SAFETY: a live group; live tensors, of which `output` is ours alone.
        group.done(unsafe { pf_all_gather(group.ptr(), tensor_ptr(&output), tensor_ptr(&flat)) })?;
    }
    Ok(output.view(shape.as_slice()))
}

pub(crate) fn all_gather_rows(group: &RawGroup, own: &Tensor, rows: &[i64], longest: i64) -> Result<Tensor, Failure> {
    let mut shape = own.size();
    let missing = longest - shape[0];
    shape[0] = missing;
    let _no_grad = tch::no_grad_guard();
    let padded = if missing == 0 { own.detach() } else { Tensor::cat(&[own.detach(), zeros(&shape, own)?], 0) };
    let all = all_gather(group, &padded)?;
    let parts: Vec<Tensor> = (0i64..).zip(rows).map(|(rank, rows)| all.get(rank).narrow(0, 0, *rows)).collect();
    Ok(Tensor::cat(&parts, 0))
}

fn zeros(shape: &[i64], like: &Tensor) -> Result<Tensor, Failure> {
    empty(shape, like).map(|mut tensor| tensor.zero_())
}

pub(crate) fn all_reduce_sum(group: &RawGroup, tensor: &mut Tensor) -> Result<(), Failure> {
    if tensor.numel() == 0 {
        return Ok(());
    }
    // SAFETY: a live group; a live tensor, borrowed mutably.
    group.done(unsafe { pf_all_reduce_sum(group.ptr(), tensor_ptr(tensor)) })
}

pub(crate) fn reduce_scatter_sum(group: &RawGroup, input: &Tensor) -> Result<Tensor, Failure> {
    let flat = input.detach().reshape(-1);
    let output = empty(&[flat.size()[0] / group.bridge.world()], input)?;
    if flat.numel() > 0 {
        // SAFETY: a live group; live tensors, of which `output` is ours alone.
        group.done(unsafe { pf_reduce_scatter_sum(group.ptr(), tensor_ptr(&output), tensor_ptr(&flat)) })?;
    }
    Ok(output.view(&input.size()[1..]))
}

pub(crate) fn broadcast(group: &RawGroup, tensor: &mut Tensor, source: u32) -> Result<(), Failure> {
    if tensor.numel() == 0 {
        return Ok(());
    }
    // SAFETY: a live group; a live tensor, borrowed mutably.
    group.done(unsafe { pf_broadcast(group.ptr(), tensor_ptr(tensor), source.cast_signed()) })
}

pub(crate) fn barrier(group: &RawGroup) -> Result<(), Failure> {
    // SAFETY: a live group.
    group.done(unsafe { pf_barrier(group.ptr()) })
}

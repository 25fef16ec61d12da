//! The process group and its collectives, over `shim/group.cpp`.

use std::ffi::{CString, c_char, c_int, c_void};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
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
    fn pf_group_end(group: *mut c_void, why: *const c_char) -> Message;
    fn pf_poll_closed(sockets: *const c_int, count: usize, timeout_ms: c_int) -> usize;
    fn pf_all_gather(group: *mut c_void, output: *const CxxTensor, own: *const CxxTensor) -> Message;
    fn pf_all_reduce_sum(group: *mut c_void, tensor: *const CxxTensor) -> Message;
    fn pf_reduce_scatter_sum(group: *mut c_void, output: *const CxxTensor, input: *const CxxTensor) -> Message;
    fn pf_broadcast(group: *mut c_void, tensor: *const CxxTensor, source: c_int) -> Message;
    fn pf_barrier(group: *mut c_void) -> Message;
}

/// An owned `pf::Group`, with the thread that watches its connections.
pub(crate) struct RawGroup {
    inner: Arc<Inner>,
    /// Writing (or closing) wakes the watcher, which then leaves.
    stop: Option<UnixStream>,
    watcher: Option<JoinHandle<()>>,
}

/// Between a closed connection and the end of the group: what the peer sent before it left may still complete an
/// operation, and gloo's own message may come first. Gloo forgets few sends, so few losses take this long to be told.
const GRACE_MS: c_int = 20;

/// What the watcher shares.
struct Inner {
    ptr: NonNull<c_void>,
    bridge: Arc<Bridge>,
    aborted: AtomicBool,
    /// The first peer whose connection closed.
    lost: OnceLock<u32>,
    /// Gloo: duplicates of the connections, by rank.
    connections: OnceLock<Vec<(u32, TcpStream)>>,
}

// SAFETY: c10d's backends and `pf::Group` lock their own state; ending a group is meant for other threads; the order
// of operations is the caller's care (`Group` is not Sync).
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

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
        let inner =
            Inner { ptr, bridge, aborted: AtomicBool::new(false), lost: OnceLock::new(), connections: OnceLock::new() };
        let mut group = Self { inner: Arc::new(inner), stop: None, watcher: None };
        if backend == Backend::Gloo && config.world > 1 {
            group.exchange_ports(config)?;
            group.watch().map_err(|error| Failure::from_text(format!("cannot watch the connections: {error}")))?;
        }
        Ok(group)
    }

    /// Lets every rank know the ports of all connections (see [`super::sockets`]), and proves that the group works.
    fn exchange_ports(&self, config: &GroupConfig) -> Result<(), Failure> {
        let addresses = &self.inner.bridge.addresses;
        let all = all_gather(self, &Tensor::from_slice(&addresses.own_ports(config.world)))?;
        let toward_us = all.select(1, i64::from(config.rank));
        for rank in 0..config.world {
            addresses.note_port(rank, toward_us.int64_value(&[i64::from(rank)]));
        }
        Ok(())
    }

    /// Starts the thread that turns a closed connection into the end of the group, at once and with a name.
    fn watch(&mut self) -> std::io::Result<()> {
        let connections = self.inner.bridge.addresses.connections();
        let (stop, stopped) = UnixStream::pair()?;
        let mut sockets: Vec<RawFd> = connections.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        sockets.push(stopped.as_raw_fd());
        let ranks: Vec<u32> = connections.iter().map(|(rank, _)| *rank).collect();
        // The descriptors stay open while `inner` lives, and the watcher holds it.
        self.inner.connections.get_or_init(|| connections);
        let inner = Arc::clone(&self.inner);
        let body = move || {
            // SAFETY: an array of open descriptors: `inner` and `stopped` own them and live in this closure.
            let closed = unsafe { pf_poll_closed(sockets.as_ptr(), sockets.len(), -1) };
            if let Some(rank) = ranks.get(closed) {
                inner.lost.get_or_init(|| *rank);
                // SAFETY: as above, for the last of them.
                if unsafe { pf_poll_closed(sockets.as_ptr().add(ranks.len()), 1, GRACE_MS) } == 1 {
                    inner.end("Connection closed by peer");
                }
            }
            drop(stopped);
        };
        self.watcher = Some(std::thread::Builder::new().name("pf-watch".to_owned()).spawn(body)?);
        self.stop = Some(stop);
        Ok(())
    }

    /// Ends all operations, now and later.
    pub(crate) fn abort(&self) {
        self.inner.aborted.store(true, Ordering::SeqCst);
        self.inner.end("aborted");
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.inner.aborted.load(Ordering::SeqCst)
    }

    /// Names the peer that a failure speaks of, and, where the failure ends the generation, ends the group: nothing of
    /// it may be assumed any more, and peers that wait for this rank shall learn it now.
    pub(crate) fn over(&self, failure: Failure) -> Failure {
        let named = failure.rank.or_else(|| self.inner.lost.get().copied());
        let rank = named.or_else(|| self.inner.bridge.addresses.rank_of(&failure.text));
        if kind_of(&failure.text) != Kind::Other {
            self.inner.end(&failure.text);
        }
        Failure { rank, ..failure }
    }

    /// Counts the ranks that need no connection any more and waits for all of them.
    pub(crate) fn leave(&self, world: u32, timeout: Duration) -> Result<(), Failure> {
        let bridge = &self.inner.bridge;
        let store = bridge.store();
        let all = bridge.key("left/all");
        store
            .add(&bridge.key("left/count"), 1)
            .and_then(|count| if count == i64::from(world) { store.set(&all, b"1") } else { Ok(()) })
            .and_then(|()| store.wait(&[all], timeout))
            .map_err(|error| Failure { text: String::new(), rank: None, store: Some(error) })
    }

    pub(super) fn ptr(&self) -> *mut c_void {
        self.inner.ptr.as_ptr()
    }

    fn world(&self) -> i64 {
        self.inner.bridge.world()
    }

    fn done(&self, message: Message) -> Result<(), Failure> {
        check(message).map_err(|failure| self.over(failure))
    }
}

impl Inner {
    /// Shuts the connections down, which gloo reads as closed here and at the peers, and fails all operations. Quiet
    /// about failures: the group is over in any case.
    fn end(&self, why: &str) {
        let why = CString::new(why).unwrap_or_default();
        // SAFETY: a live group and a string that lives for the call.
        if let Err(failure) = check(unsafe { pf_group_end(self.ptr.as_ptr(), why.as_ptr()) }) {
            tracing::debug!(?failure, "the backend's abort failed");
        }
        for (_, socket) in self.connections.get().into_iter().flatten() {
            // A socket that is closed already needs nothing.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for RawGroup {
    fn drop(&mut self) {
        // Buckets may still be in flight towards peers that wait for us in their own destructors: without the
        // connections all of them end at once instead of at the timeout.
        self.stop = None;
        if let Some(watcher) = self.watcher.take() {
            // It leaves at once; its panic would be a bug told by the panic hook.
            let _ = watcher.join();
        }
        self.inner.end("the group is dropped");
    }
}

impl Drop for Inner {
    /// Gloo's destructor waits for its threads, and one of them may have forgotten a send (see `pf::Group::track`) and
    /// sit there until the timeout. A thread of its own waits with it, this one only as long as a sound group needs.
    fn drop(&mut self) {
        const SOUND: Duration = Duration::from_millis(200);
        let address = self.ptr.as_ptr().expose_provenance();
        let (freed, done) = channel();
        let body = move || {
            // SAFETY: the pointer is owned by `Inner`, which is being dropped: nobody else has it any more.
            let result = check(unsafe { pf_group_free(std::ptr::with_exposed_provenance_mut(address)) });
            if let Err(failure) = result {
                tracing::warn!(?failure, "a process group did not end cleanly");
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

/// A tensor of `shape` like `like`.
fn empty(shape: &[i64], like: &Tensor) -> Result<Tensor, Failure> {
    Tensor::f_empty(shape, (like.kind(), like.device())).map_err(|error| Failure::from_text(error.to_string()))
}

pub(crate) fn all_gather(group: &RawGroup, own: &Tensor) -> Result<Tensor, Failure> {
    let world = group.world();
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
    let output = empty(&[flat.size()[0] / group.world()], input)?;
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

//! A process group that lives: libtorch's, the thread that watches its connections, and what its failures mean.
//!
//! Invariants: a failure that ends the generation ends the group, here and at its peers; and so does dropping it. Every
//! failure below a group becomes its error in one place, [`LiveGroup::typed`].

use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use pixfleet_cluster::fault::Class;
use pixfleet_shim::Failure;
use pixfleet_shim::group::{RawConfig, RawGroup, Transport};
use pixfleet_shim::store::C10dStore;
use rustix::event::Timespec;
use tch::{Device, Tensor};

use crate::bridge::Bridge;
use crate::error::CollectiveError;
use crate::forming::OPERATION;
use crate::group::{Backend, GroupConfig};
use crate::store::RendezvousStore;
use crate::watch;

/// Between a closed connection and the end of the group: what the peer sent before it left may still complete an
/// operation, and gloo's own message may come first. Gloo forgets few sends, so few losses take this long to be told.
const GRACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

pub(crate) struct LiveGroup {
    links: Arc<Links>,
    /// Closing wakes the watcher, which then leaves.
    stop: Option<UnixStream>,
    watcher: Option<JoinHandle<()>>,
}

/// What the watcher shares.
struct Links {
    raw: Arc<RawGroup>,
    bridge: Arc<Bridge>,
    timeout: Duration,
    aborted: AtomicBool,
    /// The first peer whose connection closed.
    lost: OnceLock<u32>,
    /// Gloo: duplicates of the connections, by rank.
    connections: Vec<(u32, TcpStream)>,
}

impl std::fmt::Debug for LiveGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveGroup").field("aborted", &self.links.is_aborted()).finish_non_exhaustive()
    }
}

impl LiveGroup {
    /// Joins the generation and watches its connections. Gloo may take five timeouts (see [`crate::forming`]).
    pub(crate) fn new(
        backend: Backend,
        store: Arc<dyn RendezvousStore>,
        config: &GroupConfig,
    ) -> Result<Self, CollectiveError> {
        let bridge = Arc::new(Bridge::new(store, config));
        let raw = join(backend, &bridge, config)?;
        let mut links = Links {
            raw: Arc::new(raw),
            bridge,
            timeout: config.timeout,
            aborted: AtomicBool::new(false),
            lost: OnceLock::new(),
            connections: Vec::new(),
        };
        if backend != Backend::Gloo || config.world == 1 {
            return Ok(Self { links: Arc::new(links), stop: None, watcher: None });
        }
        links.exchange_ports(config).map_err(|failure| links.typed(OPERATION, failure))?;
        links.connections = links.bridge.addresses.connections();
        let links = Arc::new(links);
        let (stop, watcher) = watch(&links)
            .map_err(|error| links.typed(OPERATION, Failure::new(format!("cannot watch the connections: {error}"))))?;
        Ok(Self { links, stop: Some(stop), watcher: Some(watcher) })
    }

    /// Runs an operation and types its failure.
    pub(crate) fn run<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Arc<RawGroup>) -> Result<T, Failure>,
    ) -> Result<T, CollectiveError> {
        work(&self.links.raw).map_err(|failure| self.typed(operation, failure))
    }

    /// What a failure of `operation` means. Where it ends the generation, it ends the group.
    pub(crate) fn typed(&self, operation: &'static str, failure: Failure) -> CollectiveError {
        self.links.typed(operation, failure)
    }

    /// Ends all operations, now and later.
    pub(crate) fn abort(&self) {
        self.links.aborted.store(true, Ordering::SeqCst);
        self.links.end("aborted");
    }

    /// Returns once no rank needs this one's connections any more.
    pub(crate) fn leave(&self, world: u32) -> Result<(), CollectiveError> {
        self.links.bridge.leave(world, self.links.timeout).map_err(|error| {
            if self.links.is_aborted() {
                CollectiveError::Aborted { operation: "finish" }
            } else {
                CollectiveError::Store(error)
            }
        })
    }
}

impl Drop for LiveGroup {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(watcher) = self.watcher.take() {
            // It leaves at once; its panic would be a bug told by the panic hook.
            let _ = watcher.join();
        }
    }
}

fn join(backend: Backend, bridge: &Arc<Bridge>, config: &GroupConfig) -> Result<RawGroup, CollectiveError> {
    let transport = match (backend, config.device) {
        (Backend::Gloo, _) => Transport::Tcp(&config.hostname),
        (Backend::Nccl, Device::Cuda(index)) => Transport::Gpu(index),
        (Backend::Nccl, _) => Transport::Gpu(0),
    };
    let config = RawConfig { rank: config.rank, world: config.world, timeout: config.timeout, transport };
    RawGroup::new(Arc::<Bridge>::clone(bridge) as Arc<dyn C10dStore>, &config).map_err(|failure| {
        match bridge.take_error() {
            Some(error) => CollectiveError::Store(error),
            None => CollectiveError::of(OPERATION, failure, config.timeout, None),
        }
    })
}

/// Starts the thread that turns a closed connection into the end of the group, at once and with a name.
fn watch(links: &Arc<Links>) -> std::io::Result<(UnixStream, JoinHandle<()>)> {
    let (stop, stopped) = UnixStream::pair()?;
    let links = Arc::clone(links);
    let body = move || {
        if let Some(rank) = watch::first_closed(&links.connections, &stopped) {
            links.lost.get_or_init(|| rank);
            if watch::is_quiet(&stopped, GRACE) {
                links.end("Connection closed by peer");
            }
        }
    };
    Ok((stop, std::thread::Builder::new().name("pf-watch".to_owned()).spawn(body)?))
}

impl Links {
    /// Lets every rank know the ports of all connections (see [`crate::addresses`]), and proves that the group works.
    fn exchange_ports(&self, config: &GroupConfig) -> Result<(), Failure> {
        let addresses = &self.bridge.addresses;
        let all = self.raw.all_gather(&Tensor::from_slice(&addresses.own_ports(config.world)))?;
        let toward_us = all.select(1, i64::from(config.rank));
        for rank in 0..config.world {
            addresses.note_port(rank, toward_us.int64_value(&[i64::from(rank)]));
        }
        Ok(())
    }

    /// See [`LiveGroup::typed`]. Nothing of a group that failed may be assumed any more, and peers that wait for this rank
    /// shall learn it now.
    fn typed(&self, operation: &'static str, failure: Failure) -> CollectiveError {
        let rank = self.lost.get().copied().or_else(|| self.bridge.addresses.rank_of(failure.text()));
        let text = failure.text().to_owned();
        let error = CollectiveError::of(operation, failure, self.timeout, rank);
        if error.class() == Class::Reform {
            self.end(&text);
        }
        if self.is_aborted() { CollectiveError::Aborted { operation } } else { error }
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    /// Fails all operations and shuts the connections down, which gloo reads as closed here and at the peers. Quiet about
    /// failures: the group is over in any case.
    fn end(&self, why: &str) {
        if let Err(failure) = self.raw.end(why) {
            tracing::debug!(%failure, "the backend's abort failed");
        }
        for (_, socket) in &self.connections {
            // A socket that is closed already needs nothing.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Links {
    /// Buckets may still be in flight towards peers that wait for us in their own destructors: without the connections all
    /// of them end at once instead of at the timeout.
    fn drop(&mut self) {
        self.end("the group is dropped");
    }
}

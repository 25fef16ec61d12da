//! A process group that lives: libtorch's, the thread that watches its connections, and what its failures mean.
//!
//! Invariants: a failure that ends the generation ends the group, here and at its peers; and so does dropping it. Every
//! failure below a group becomes its error in one place, [`LiveGroup::typed`]. Ending a group waits for nobody: what may
//! take its time does so on a thread of its own.

use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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

/// How long dropping a group waits for NCCL to take its communicators down, so that the next group finds the GPU free.
const TAKEN_DOWN: Duration = Duration::from_secs(1);

pub(crate) struct LiveGroup {
    links: Arc<Links>,
    /// Closing wakes the watcher, which then leaves.
    stop: Option<UnixStream>,
    watcher: Option<JoinHandle<()>>,
}

/// What the watcher and whoever may abort share.
pub(crate) struct Links {
    raw: Arc<RawGroup>,
    backend: Backend,
    bridge: Arc<Bridge>,
    timeout: Duration,
    aborted: AtomicBool,
    /// The first peer whose connection closed.
    lost: OnceLock<u32>,
    /// Gloo: duplicates of the connections, by rank.
    connections: OnceLock<Vec<(u32, TcpStream)>>,
    /// NCCL: its communicators are being taken down; says so when they are.
    taken_down: Mutex<Option<Receiver<()>>>,
}

impl std::fmt::Debug for LiveGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveGroup").field("aborted", &self.links.is_aborted()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("aborted", &self.is_aborted()).finish_non_exhaustive()
    }
}

impl LiveGroup {
    /// Joins the generation, not [connected](Self::connect) yet. Gloo may take five timeouts (see [`crate::forming`]).
    pub(crate) fn join(
        backend: Backend,
        store: Arc<dyn RendezvousStore>,
        config: &GroupConfig,
    ) -> Result<Self, CollectiveError> {
        let bridge = Arc::new(Bridge::new(store, config));
        let raw = join(backend, &bridge, config)?;
        let links = Links {
            raw: Arc::new(raw),
            backend,
            bridge,
            timeout: config.timeout,
            aborted: AtomicBool::new(false),
            lost: OnceLock::new(),
            connections: OnceLock::new(),
            taken_down: Mutex::new(None),
        };
        Ok(Self { links: Arc::new(links), stop: None, watcher: None })
    }

    /// Proves that the ranks reach each other, and watches their connections. An abort of [`links`](Self::links) ends it.
    pub(crate) fn connect(&mut self, config: &GroupConfig) -> Result<(), CollectiveError> {
        let links = &self.links;
        links.raw.connect().map_err(|failure| links.typed(OPERATION, failure))?;
        if links.backend != Backend::Gloo || config.world == 1 {
            return Ok(());
        }
        links.exchange_ports(config).map_err(|failure| links.typed(OPERATION, failure))?;
        // The descriptors stay open while `links` lives, and the watcher holds it.
        links.connections.get_or_init(|| links.bridge.addresses.connections());
        let (stop, watcher) = watch(links)
            .map_err(|error| links.typed(OPERATION, Failure::new(format!("cannot watch the connections: {error}"))))?;
        (self.stop, self.watcher) = (Some(stop), Some(watcher));
        Ok(())
    }

    /// What an abort needs of the group.
    pub(crate) fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// See [`RawGroup::waited_s`].
    pub(crate) fn waited_s(&self) -> f64 {
        self.links.raw.waited_s()
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
        if let Some(rank) = watch::first_closed(links.connections(), &stopped) {
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

    /// Ends all operations, now and later, and waits for nobody: the last of the group may go with this, and has to wait.
    pub(crate) fn abort(self: Arc<Self>) {
        self.aborted.store(true, Ordering::SeqCst);
        self.fail("aborted");
        let _on_its_own = aside("pf-abort", move || self.end("aborted"));
    }

    fn fail(&self, why: &str) {
        if let Err(failure) = self.raw.end(why) {
            tracing::debug!(%failure, "operations could not be ended");
        }
    }

    fn connections(&self) -> &[(u32, TcpStream)] {
        self.connections.get().map_or(&[], Vec::as_slice)
    }

    /// Fails all operations and shuts the connections down, which gloo reads as closed here and at the peers; NCCL's are
    /// taken down aside. Quiet about failures: the group is over in any case.
    fn end(&self, why: &str) {
        self.fail(why);
        for (_, socket) in self.connections() {
            // A socket that is closed already needs nothing.
            let _ = socket.shutdown(Shutdown::Both);
        }
        if self.backend == Backend::Nccl {
            let raw = Arc::clone(&self.raw);
            let mut taken_down = self.taken_down.lock().unwrap_or_else(PoisonError::into_inner);
            taken_down.get_or_insert_with(|| {
                aside("pf-nccl-abort", move || {
                    if let Err(failure) = raw.abort() {
                        tracing::debug!(%failure, "NCCL's abort failed");
                    }
                })
            });
        }
    }
}

/// Does `work` on a thread of its own; says when it is through, or could not be begun.
fn aside(name: &str, work: impl FnOnce() + Send + 'static) -> Receiver<()> {
    let (through, said) = channel();
    let body = move || {
        work();
        // Nobody may be waiting.
        let _ = through.send(());
    };
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(body) {
        tracing::warn!(%error, name, "no thread: a group ends when it is dropped");
    }
    said
}

impl Drop for Links {
    /// Buckets may still be in flight towards peers that wait for us in their own destructors: without the connections all
    /// of them end at once instead of at the timeout.
    fn drop(&mut self) {
        self.end("the group is dropped");
        let taken_down = self.taken_down.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(through) = taken_down.take() {
            // Slow or done: both are well.
            let _ = through.recv_timeout(TAKEN_DOWN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_sets_slow_work_aside_does_not_wait_for_it() {
        let (release, released) = channel();
        let said = aside("pf-test", move || released.recv().expect("the test releases it"));
        // The work is under way or yet to begin, and cannot be through.
        assert!(said.recv_timeout(Duration::from_millis(50)).is_err());
        release.send(()).expect("it waits");
        said.recv_timeout(Duration::from_secs(20)).expect("it is through");
    }
}

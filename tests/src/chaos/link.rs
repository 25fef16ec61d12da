//! A TCP proxy in front of one coordinator: it cuts, delays, or falls silent without closing anything. What it does to a
//! connection is counted, so that a fault that met no connection is seen.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a proxy does to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// Nothing.
    Open,
    /// Ends them, and new ones too.
    Cut,
    /// Holds back each piece for so long.
    Slow(Duration),
    /// Holds back everything, ends of connections too, until this is over.
    Silent,
}

#[derive(Debug)]
struct ProxyState {
    upstream: OnceLock<SocketAddr>,
    state: watch::Receiver<Passage>,
    /// Connections that were ended, and pieces that were held back.
    hurt: AtomicU64,
}

/// A running proxy; dropping it ends its connections.
#[derive(Debug)]
pub(super) struct LinkProxy {
    address: SocketAddr,
    state: watch::Sender<Passage>,
    shared: Arc<ProxyState>,
    accepting: JoinHandle<()>,
}

impl LinkProxy {
    /// Listens on a free port of `host`, and sends connections away until [`LinkProxy::lead_to`].
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn open(runtime: &Handle, host: Ipv4Addr) -> Result<Self> {
        let listener = std::net::TcpListener::bind((host, 0)).context("no free port for a proxy")?;
        listener.set_nonblocking(true).context("a proxy's socket")?;
        let address = listener.local_addr().context("a proxy's address")?;
        let (state, watched) = watch::channel(Passage::Open);
        let shared = Arc::new(ProxyState { upstream: OnceLock::new(), state: watched, hurt: AtomicU64::new(0) });
        let accepting = runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, state, shared, accepting })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its connections go from now on.
    pub(super) fn lead_to(&self, upstream: SocketAddr) {
        self.shared.upstream.get_or_init(|| upstream);
    }

    /// What it does from now on.
    pub(super) fn set(&self, passage: Passage) {
        self.state.send_replace(passage);
    }

    /// How often it has ended a connection or held something back.
    pub(super) fn hurt(&self) -> u64 {
        self.shared.hurt.load(Ordering::Relaxed)
    }
}

impl Drop for LinkProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl ProxyState {
    fn passage(&self) -> Passage {
        *self.state.borrow()
    }

    fn count(&self) {
        self.hurt.fetch_add(1, Ordering::Relaxed);
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<ProxyState>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((near, _)) = listener.accept().await {
        match (shared.passage(), shared.upstream.get()) {
            (Passage::Cut, _) => shared.count(),
            (_, Some(&upstream)) => drop(tokio::spawn(connection(near, upstream, Arc::clone(&shared)))),
            // Nobody is there yet.
            (_, None) => {}
        }
    }
}

/// Until either side has ended it, or this proxy has.
async fn connection(near: TcpStream, upstream: SocketAddr, shared: Arc<ProxyState>) {
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    // Without this, small messages would wait for each other.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let both = async { tokio::join!(carry(near_read, far_write, &shared), carry(far_read, near_write, &shared)) };
    let mut state = shared.state.clone();
    tokio::select! {
        _ = both => {}
        // Cut, or the proxy is gone.
        found = state.wait_for(|passage| *passage == Passage::Cut) => {
            if found.is_ok() {
                shared.count();
            }
        }
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &ProxyState) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        // A connection that broke has ended.
        let length = from.read(&mut piece).await.unwrap_or(0);
        hold_back(shared).await;
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

async fn hold_back(shared: &ProxyState) {
    match shared.passage() {
        Passage::Open | Passage::Cut => {}
        Passage::Slow(by) => {
            shared.count();
            tokio::time::sleep(by).await;
        }
        Passage::Silent => {
            shared.count();
            let mut state = shared.state.clone();
            // An error says that the proxy is gone, and the connection with it.
            let _ = state.wait_for(|passage| *passage != Passage::Silent).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A server that sends back what it hears, behind a proxy, and a connection through it.
    async fn echo() -> (LinkProxy, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let link = LinkProxy::open(&Handle::current(), Ipv4Addr::LOCALHOST).expect("loopback");
        link.lead_to(server.local_addr().expect("bound"));
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let mut client = TcpStream::connect(link.address()).await.expect("the proxy listens");
        say(&mut client).await.expect("nothing is hurt yet");
        assert_eq!(link.hurt(), 0);
        (link, client)
    }

    async fn say(client: &mut TcpStream) -> std::io::Result<u8> {
        client.write_all(b"x").await?;
        client.read_u8().await
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_new_ones_until_it_is_over() {
        let (link, mut client) = echo().await;
        link.set(Passage::Cut);
        assert!(tokio::time::timeout(LIMIT, client.read_u8()).await.expect("it ends").is_err());
        let mut another = TcpStream::connect(link.address()).await.expect("the proxy listens");
        assert!(tokio::time::timeout(LIMIT, say(&mut another)).await.expect("it ends").is_err());
        assert_eq!(link.hurt(), 2);
        link.set(Passage::Open);
        let mut third = TcpStream::connect(link.address()).await.expect("the proxy listens");
        say(&mut third).await.expect("it is over");
    }

    #[tokio::test]
    async fn silence_closes_nothing_and_loses_nothing() {
        let (link, mut client) = echo().await;
        link.set(Passage::Silent);
        let said = tokio::time::timeout(Duration::from_millis(200), say(&mut client)).await;
        assert!(said.is_err(), "nothing comes back: {said:?}");
        assert_eq!(link.hurt(), 1);
        link.set(Passage::Open);
        let heard = tokio::time::timeout(LIMIT, client.read_u8()).await.expect("it is over");
        assert_eq!(heard.expect("open still"), b'x');
    }

    #[tokio::test]
    async fn a_slow_link_is_late() {
        let (link, mut client) = echo().await;
        link.set(Passage::Slow(Duration::from_millis(100)));
        let since = Instant::now();
        say(&mut client).await.expect("open still");
        assert!(since.elapsed() >= Duration::from_millis(200), "there and back: {:?}", since.elapsed());
        assert_eq!(link.hurt(), 2);
    }
}

//! A store that is far away: a TCP proxy that delays, and in [`feed`] how fast rows are fed from behind it.

pub mod feed;

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;
/// Pieces of one connection that may be on their way: 16 MiB, so that a delay takes no bandwidth.
const ON_THEIR_WAY: usize = 256;

/// A TCP proxy in front of a server: each piece that the server sends arrives `delay` later, in order, however many there
/// are; what the client sends arrives at once. So each answer takes `delay` longer, as if the way there and back were that
/// long. Connecting takes no longer. Dropping it ends its connections.
#[derive(Debug)]
pub struct FarProxy {
    address: SocketAddr,
    held: Arc<Held>,
    accepting: JoinHandle<()>,
}

/// What was held back.
#[derive(Debug)]
struct Held {
    delay: Duration,
    pieces: AtomicU64,
    shortest_us: AtomicU64,
}

impl FarProxy {
    /// Listens on a free port of loopback, in front of the server at `upstream`.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(runtime: &Handle, upstream: SocketAddr, delay: Duration) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port for a proxy")?;
        listener.set_nonblocking(true).context("a proxy's socket")?;
        let address = listener.local_addr().context("a proxy's address")?;
        let held = Arc::new(Held { delay, pieces: AtomicU64::new(0), shortest_us: AtomicU64::new(u64::MAX) });
        let accepting = runtime.spawn(accept(listener, upstream, Arc::clone(&held)));
        Ok(Self { address, held, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pieces that it has delayed.
    pub fn delayed(&self) -> u64 {
        self.held.pieces.load(Ordering::Relaxed)
    }

    /// The shortest time that it held one back.
    pub fn shortest(&self) -> Duration {
        Duration::from_micros(self.held.shortest_us.load(Ordering::Relaxed))
    }
}

impl Drop for FarProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: std::net::TcpListener, upstream: SocketAddr, held: Arc<Held>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        connections.spawn(connection(near, upstream, Arc::clone(&held)));
        while connections.try_join_next().is_some() {}
    }
}

/// Until both sides have ended it.
async fn connection(near: TcpStream, upstream: SocketAddr, held: Arc<Held>) {
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    // Without this, small messages would wait for each other.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((mut near_read, near_write), (far_read, mut far_write)) = (near.into_split(), far.into_split());
    let (on_their_way, arriving) = mpsc::channel(ON_THEIR_WAY);
    let there = async {
        // A connection that broke has ended.
        let _ = tokio::io::copy(&mut near_read, &mut far_write).await;
        let _ = far_write.shutdown().await;
    };
    tokio::join!(there, receive(far_read, on_their_way), deliver(arriving, near_write, &held));
}

async fn receive(mut from: OwnedReadHalf, on_their_way: mpsc::Sender<(Instant, Vec<u8>)>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let length = from.read_buf(&mut piece).await.unwrap_or(0);
        if length == 0 || on_their_way.send((Instant::now(), piece)).await.is_err() {
            return;
        }
    }
}

async fn deliver(mut arriving: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf, held: &Held) {
    while let Some((since, piece)) = arriving.recv().await {
        tokio::time::sleep_until(since + held.delay).await;
        let us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        held.pieces.fetch_add(1, Ordering::Relaxed);
        held.shortest_us.fetch_min(us, Ordering::Relaxed);
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_piece_is_late_and_none_waits_for_another() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let upstream = server.local_addr().expect("bound");
        const DELAY: Duration = Duration::from_millis(60);
        const PIECES: usize = 20;
        let proxy = FarProxy::open(&Handle::current(), upstream, DELAY).expect("loopback");
        // Answers each byte with a large piece.
        tokio::spawn(async move {
            let (stream, _) = server.accept().await.expect("the proxy connects");
            let (mut from, mut to) = stream.into_split();
            while from.read_u8().await.is_ok() {
                to.write_all(&[7; PIECE]).await.expect("open");
            }
        });
        let mut client = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        let since = Instant::now();
        client.write_all(&[1; PIECES]).await.expect("open");
        let mut answers = vec![0; PIECES * PIECE];
        client.read_exact(&mut answers).await.expect("all of it");
        let took = since.elapsed();
        assert!(took >= DELAY, "{took:?}");
        assert!(took < DELAY * PIECES as u32 / 2, "{took:?}: they were delayed one after the other");
        assert!(proxy.delayed() >= PIECES as u64 && proxy.shortest() >= DELAY, "{proxy:?}");
    }
}

//! An HTTP proxy in front of a real S3 server: it refuses with 503 SlowDown, does what it is asked without ever saying
//! so, or is slow. What it does to a request is counted, so that a fault that met no request is seen.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// As S3 says it.
const SLOW_DOWN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
    <Message>Please reduce your request rate.</Message></Error>";

/// How a store treats requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    /// Well.
    Fair,
    /// 503 SlowDown; nothing is done.
    Busy,
    /// All is done, and the connection ends without an answer.
    NoAnswer,
    /// Each request waits first.
    Slow(Duration),
}

#[derive(Debug)]
struct ProxyState {
    upstream: SocketAddr,
    temper: watch::Receiver<Temper>,
    hurt: AtomicU64,
}

/// A running proxy.
#[derive(Debug)]
pub(super) struct StoreProxy {
    address: SocketAddr,
    temper: watch::Sender<Temper>,
    shared: Arc<ProxyState>,
    accepting: JoinHandle<()>,
}

/// Why a request gets no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("on purpose")]
    OnPurpose,
    #[error("the store")]
    Store(#[from] hyper::Error),
    #[error("no connection to the store")]
    Connection(#[from] std::io::Error),
}

impl StoreProxy {
    /// Listens on a free port of `host`, in front of the S3 server at `upstream`.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn open(runtime: &Handle, host: Ipv4Addr, upstream: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind((host, 0)).context("no free port for a proxy")?;
        listener.set_nonblocking(true).context("a proxy's socket")?;
        let address = listener.local_addr().context("a proxy's address")?;
        let (temper, watched) = watch::channel(Temper::Fair);
        let shared = Arc::new(ProxyState { upstream, temper: watched, hurt: AtomicU64::new(0) });
        let accepting = runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, temper, shared, accepting })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it treats requests from now on.
    pub(super) fn set(&self, temper: Temper) {
        self.temper.send_replace(temper);
    }

    /// Requests that it has treated badly.
    pub(super) fn hurt(&self) -> u64 {
        self.shared.hurt.load(Ordering::Relaxed)
    }
}

impl Drop for StoreProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<ProxyState>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&shared)));
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Ends with an error whenever no answer is given, on purpose or because a client was killed.
            if let Err(error) = served.await {
                tracing::trace!(%error, "connection to the store's proxy");
            }
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<ProxyState>) -> Result<Response<Full<Bytes>>, Unanswered> {
    let temper = *shared.temper.borrow();
    if temper != Temper::Fair {
        shared.hurt.fetch_add(1, Ordering::Relaxed);
    }
    match temper {
        Temper::Busy => {
            let mut refusal = Response::new(Full::from(SLOW_DOWN));
            *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(refusal);
        }
        Temper::Slow(by) => tokio::time::sleep(by).await,
        Temper::Fair | Temper::NoAnswer => {}
    }
    let done = forward(request, shared.upstream).await?;
    if temper == Temper::NoAnswer { Err(Unanswered::OnPurpose) } else { Ok(done) }
}

/// Asks the server; the signature covers the headers, so they go as they came.
async fn forward(request: Request<Incoming>, upstream: SocketAddr) -> Result<Response<Full<Bytes>>, Unanswered> {
    let head = request.method() == Method::HEAD;
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let stream = TcpStream::connect(upstream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (mut parts, body) = sender.send_request(Request::from_parts(parts, Full::new(body))).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    if !head {
        parts.headers.remove(CONTENT_LENGTH);
    }
    Ok(Response::from_parts(parts, Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A server that answers every request with 200 and counts them.
    async fn server() -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let (address, done) = (listener.local_addr().expect("bound"), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&done);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let count = Arc::clone(&count);
                        async move {
                            let body = request.into_body().collect().await?.to_bytes();
                            count.fetch_add(1, Ordering::Relaxed);
                            Ok::<_, hyper::Error>(Response::new(Full::new(body)))
                        }
                    });
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                });
            }
        });
        (address, done)
    }

    /// What comes back for one request with the body `abc`; empty if nothing does.
    async fn ask(proxy: &StoreProxy) -> String {
        let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy listens");
        let request = "PUT /k HTTP/1.1\r\nHost: store\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        stream.write_all(request.as_bytes()).await.expect("open");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_or(String::new(), |_| text)
    }

    #[tokio::test]
    async fn each_temper_does_what_it_says() {
        let (upstream, done) = server().await;
        let proxy = StoreProxy::open(&Handle::current(), Ipv4Addr::LOCALHOST, upstream).expect("loopback");
        let done = || done.load(Ordering::Relaxed);

        let fair = ask(&proxy).await;
        assert!(fair.starts_with("HTTP/1.1 200") && fair.ends_with("abc"), "{fair}");
        assert_eq!((done(), proxy.hurt()), (1, 0));

        proxy.set(Temper::Busy);
        let busy = ask(&proxy).await;
        assert!(busy.starts_with("HTTP/1.1 503") && busy.contains("SlowDown"), "{busy}");
        assert_eq!((done(), proxy.hurt()), (1, 1), "nothing was done");

        proxy.set(Temper::NoAnswer);
        assert_eq!(ask(&proxy).await, "");
        assert_eq!((done(), proxy.hurt()), (2, 2), "it was done all the same");

        proxy.set(Temper::Slow(Duration::from_millis(50)));
        let since = std::time::Instant::now();
        assert!(ask(&proxy).await.ends_with("abc"));
        assert!(since.elapsed() >= Duration::from_millis(50));
        assert_eq!((done(), proxy.hurt()), (3, 3));
    }
}

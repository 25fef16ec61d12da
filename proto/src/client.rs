//! The worker's and the front door's side: connecting with patience, a session that speaks `cluster`'s types, and the
//! rendezvous store.

use crate::error::FleetError;
use crate::limits;
use crate::pb;
use pb::fleet_client::FleetClient;
use pb::store_request::Op;
use pixfleet_cluster::Generation;
use pixfleet_cluster::run::{Join, Order, Report};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Reports that may wait for the wire; a healthy session holds none or one.
const REPORTS_QUEUED_MAX: usize = 256;
/// First pause between attempts; each further one is twice as long, up to a second.
const RETRY_PAUSE_MS: u64 = 20;

/// How long to look for a coordinator.
#[derive(Debug, Clone, Copy)]
pub struct Patience(pub Duration);

impl Default for Patience {
    /// Ten seconds.
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

/// Connects to the coordinator at `address` (`http://host:port`, or `host:port`), trying again until patience ends.
///
/// # Errors
/// [`FleetError::NoCoordinator`] names the address and what the last attempt met.
pub async fn connect(address: &str, patience: Patience) -> Result<FleetClient<Channel>, FleetError> {
    let gone = |cause: String| FleetError::NoCoordinator { address: address.into(), cause };
    let url = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|e| gone(innermost(&e)))?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let deadline = Instant::now() + patience.0;
    let mut pause = Duration::from_millis(RETRY_PAUSE_MS);
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(limits::client(channel)),
            Err(e) if Instant::now() + pause >= deadline => return Err(gone(innermost(&e))),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// The root of a chain of errors: "Connection refused" rather than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The sending half of a session. Cheap to clone; the session ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Reports(mpsc::Sender<pb::Report>);

impl Reports {
    /// Queues a report; waits while the queue is full.
    ///
    /// # Errors
    /// [`FleetError::Disconnected`] if the session is over.
    pub async fn send(&self, report: Report) -> Result<(), FleetError> {
        self.0.send(report.into()).await.map_err(|_| closed())
    }

    /// As [`Reports::send`], from a thread outside the runtime (the trainer's).
    ///
    /// # Errors
    /// [`FleetError::Disconnected`] if the session is over.
    pub fn blocking_send(&self, report: Report) -> Result<(), FleetError> {
        self.0.blocking_send(report.into()).map_err(|_| closed())
    }
}

fn closed() -> FleetError {
    FleetError::Disconnected { cause: "the session is closed".into() }
}

/// One worker's session: reports up, orders down.
#[derive(Debug)]
pub struct Session {
    reports: Reports,
    orders: Streaming<pb::Order>,
}

impl Session {
    /// Opens a session and joins. The first order is [`Order::Welcome`].
    ///
    /// # Errors
    /// What the coordinator refuses with, or [`FleetError::Disconnected`].
    pub async fn open(client: &mut FleetClient<Channel>, join: Join) -> Result<Self, FleetError> {
        let (sender, receiver) = mpsc::channel(REPORTS_QUEUED_MAX);
        let reports = Reports(sender);
        reports.send(Report::Join(join)).await?;
        let orders = client.session(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self { reports, orders })
    }

    /// The sending half.
    #[must_use]
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// The next order; `None` when the coordinator closed the session. Cancel-safe.
    ///
    /// # Errors
    /// [`FleetError::Disconnected`] if the connection broke, or what the coordinator closed with.
    pub async fn next(&mut self) -> Result<Option<Order>, FleetError> {
        let order = self.orders.message().await?;
        Ok(order.map(Order::try_from).transpose()?)
    }
}

/// One generation's rendezvous store: what c10d's store asks, answered by the coordinator.
#[derive(Debug, Clone)]
pub struct StoreClient {
    client: FleetClient<Channel>,
    generation: Generation,
}

impl StoreClient {
    /// The store of `generation`. All calls fail with [`FleetError::StaleGeneration`] once it is over.
    #[must_use]
    pub fn new(client: FleetClient<Channel>, generation: Generation) -> Self {
        Self { client, generation }
    }

    async fn ask(&self, op: Op) -> Result<pb::StoreReply, FleetError> {
        let request = pb::StoreRequest { generation: self.generation.0, op: Some(op) };
        Ok(self.client.clone().rendezvous(request).await?.into_inner())
    }

    /// Sets `key`.
    ///
    /// # Errors
    /// [`FleetError::StaleGeneration`], [`FleetError::TooLarge`], [`FleetError::Disconnected`].
    pub async fn set(&self, key: &str, value: &[u8]) -> Result<(), FleetError> {
        self.ask(Op::Set(pb::KeyValue { key: key.into(), value: value.into() })).await.map(drop)
    }

    /// The value of `key`, waiting for it.
    ///
    /// # Errors
    /// [`FleetError::KeyTimeout`] after `timeout`; else as [`StoreClient::set`].
    pub async fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, FleetError> {
        let op = Op::Get(pb::KeyWait { key: key.into(), timeout_ms: millis(timeout) });
        self.ask(op).await.map(|r| r.value)
    }

    /// Adds to the decimal number in `key` (0 if absent) and returns the sum.
    ///
    /// # Errors
    /// As [`StoreClient::set`]; [`FleetError::Malformed`] if the value is no number.
    pub async fn add(&self, key: &str, amount: i64) -> Result<i64, FleetError> {
        self.ask(Op::Add(pb::KeyAdd { key: key.into(), amount })).await.map(|r| r.number)
    }

    /// Whether all keys are there.
    ///
    /// # Errors
    /// As [`StoreClient::set`].
    pub async fn check(&self, keys: &[String]) -> Result<bool, FleetError> {
        self.ask(Op::Check(pb::Keys { keys: keys.to_vec() })).await.map(|r| r.flag)
    }

    /// Waits for all keys.
    ///
    /// # Errors
    /// As [`StoreClient::get`].
    pub async fn wait(&self, keys: &[String], timeout: Duration) -> Result<(), FleetError> {
        let op = Op::Wait(pb::KeysWait { keys: keys.to_vec(), timeout_ms: millis(timeout) });
        self.ask(op).await.map(drop)
    }

    /// Sets `key` to `desired` if its value is `expected` (or if it is absent and `expected` is empty); returns the
    /// value afterwards, or `expected` if the key is absent still. This is c10d's contract.
    ///
    /// # Errors
    /// As [`StoreClient::set`].
    pub async fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, FleetError> {
        let op = Op::CompareSet(pb::CompareSet { key: key.into(), expected: expected.into(), desired: desired.into() });
        self.ask(op).await.map(|r| r.value)
    }

    /// Deletes `key`; whether it was there.
    ///
    /// # Errors
    /// As [`StoreClient::set`].
    pub async fn delete(&self, key: &str) -> Result<bool, FleetError> {
        self.ask(Op::Delete(key.into())).await.map(|r| r.flag)
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

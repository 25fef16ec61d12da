//! The worker's and the front door's side: connecting with patience, a session that speaks `cluster`'s types, and the
//! rendezvous store, which is wherever the coordinator is.

use crate::error::FleetError;
use crate::limits;
use crate::pb;
use pb::fleet_client::FleetClient;
use pb::store_request::Op;
use pixfleet_cluster::Generation;
use pixfleet_cluster::run::{Join, Order, Report};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Reports that may wait for the wire beside those that a worker owes from before. A healthy session holds none or one; a
/// coordinator that reads nothing for ten minutes of a hundred steps a second is given up. Memory is taken as it fills.
const REPORTS_QUEUED_MAX: usize = 1 << 16;
/// First pause between attempts; each further one is twice as long, up to a second.
const RETRY_PAUSE_MS: u64 = 20;

/// A connection to a coordinator. Cheap to clone.
pub type Client = FleetClient<Channel>;

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
pub async fn connect(address: &str, patience: Patience) -> Result<Client, FleetError> {
    let gone = |cause: String| FleetError::NoCoordinator { address: address.into(), cause };
    let url = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|e| gone(innermost(&e)))?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
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
        self.0.send(report.into()).await.map_err(|_| closed("the session is closed"))
    }

    /// Queues a report; never waits.
    ///
    /// # Errors
    /// [`FleetError::Disconnected`] if the session is over, or its coordinator has read nothing for so long that the
    /// queue is full.
    pub fn try_send(&self, report: Report) -> Result<(), FleetError> {
        self.0.try_send(report.into()).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => closed("the coordinator reads nothing"),
            mpsc::error::TrySendError::Closed(_) => closed("the session is closed"),
        })
    }
}

fn closed(cause: &str) -> FleetError {
    FleetError::Disconnected { cause: cause.into() }
}

/// One worker's session: reports up, orders down.
#[derive(Debug)]
pub struct Session {
    reports: Reports,
    orders: Streaming<pb::Order>,
}

impl Session {
    /// Opens a session and joins. The first order is [`Order::Welcome`]; the `owed` reports that follow it are queued at once.
    ///
    /// # Errors
    /// What the coordinator refuses with, or [`FleetError::Disconnected`].
    pub async fn open(client: &mut Client, join: Join, owed: usize) -> Result<Self, FleetError> {
        let (sender, receiver) = mpsc::channel(REPORTS_QUEUED_MAX + owed);
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

    /// Queues a report, as [`Reports::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, report: Report) -> Result<(), FleetError> {
        self.reports.try_send(report)
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

/// The way to the coordinator that a worker has a session with, while it has one. All clones are the same way.
#[derive(Debug, Clone, Default)]
pub struct Way(Arc<Mutex<Option<Client>>>);

impl From<Client> for Way {
    fn from(client: Client) -> Self {
        Self(Arc::new(Mutex::new(Some(client))))
    }
}

impl Way {
    /// From now on it leads there, or nowhere.
    pub fn lead(&self, client: Option<Client>) {
        *self.lock() = client;
    }

    fn client(&self) -> Result<Client, FleetError> {
        self.lock()
            .clone()
            .ok_or_else(|| FleetError::Disconnected { cause: "there is no coordinator at present".into() })
    }

    /// Only ever replaced as a whole, so a poisoned lock holds a whole value.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One generation's rendezvous store: what c10d's store asks, answered by the coordinator.
#[derive(Debug, Clone)]
pub struct StoreClient {
    way: Way,
    generation: Generation,
}

impl StoreClient {
    /// The store of `generation`. All calls fail with [`FleetError::StaleGeneration`] once it is over, and with
    /// [`FleetError::Disconnected`] while there is no coordinator.
    #[must_use]
    pub fn new(way: impl Into<Way>, generation: Generation) -> Self {
        Self { way: way.into(), generation }
    }

    async fn ask(&self, op: Op) -> Result<pb::StoreReply, FleetError> {
        let request = pb::StoreRequest { generation: self.generation.0, op: Some(op) };
        Ok(self.way.client()?.rendezvous(request).await?.into_inner())
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

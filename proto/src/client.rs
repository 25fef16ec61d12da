//! The worker's and the front door's side: connecting with patience, and a session that speaks `cluster`'s types.

use crate::error::FleetError;
use crate::limits;
use crate::pb;
use pb::fleet_client::FleetClient;
use pixfleet_cluster::run::{Join, Order, Report};
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

/// How soon the silence of the other end is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// A sign of life is asked for this often,
    pub interval: Duration,
    /// and must come within this time.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: limits::KEEPALIVE_INTERVAL, timeout: limits::KEEPALIVE_TIMEOUT }
    }
}

/// Connects to the coordinator at `address` (`http://host:port`, or `host:port`), trying again until patience ends.
///
/// # Errors
/// [`FleetError::NoCoordinator`] names the address and what the last attempt met.
pub async fn connect(address: &str, patience: Patience) -> Result<Client, FleetError> {
    connect_watchful(address, patience, Keepalive::default()).await
}

/// The same, and notices by this measure when the coordinator is silent.
///
/// # Errors
/// As [`connect`].
pub async fn connect_watchful(address: &str, patience: Patience, keepalive: Keepalive) -> Result<Client, FleetError> {
    let gone = |cause: String| FleetError::NoCoordinator { address: address.into(), cause };
    let endpoint = endpoint(address, keepalive).map_err(|e| gone(innermost(&e)))?;
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

/// How `address` is called on.
pub(crate) fn endpoint(address: &str, keepalive: Keepalive) -> Result<Endpoint, tonic::transport::Error> {
    let url = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
    Ok(Endpoint::from_shared(url)?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(keepalive.interval)
        .keep_alive_timeout(keepalive.timeout)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

/// The root of a chain of errors: "Connection refused" rather than "transport error".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
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

//! A coordinator from start to end: listen, open the run, lead it until it is over, make its records durable. Calls are
//! answered from the start, if only with "not ready".

use crate::driver::{Input, LeadDriver, LeadEnd};
use crate::error::CoordinatorError;
use crate::fault::Faults;
use crate::metrics;
use crate::open::{Opened, open};
use crate::service::Service;
use crate::setup::{self, Shared};
use crate::stage::{Stage, stage};
use crate::standby::{Follower, Stood};
use crate::view::Frame;
use futures::FutureExt;
use pixfleet_checkpoint::leaders;
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::run::{Outcome, RunEvent};
use pixfleet_cluster::spec::{Ladder, Rung};
use pixfleet_proto::pb;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// Inputs that may wait for the driver; senders wait beyond that, so a flood of reports slows its senders down.
/// Each of ten thousand members may say something at once.
const INPUTS_QUEUED_MAX: usize = 1 << 14;
/// Notices that a watcher may lag behind.
const NOTICES_MAX: usize = 8192;
/// How long sessions and watchers have to read their last words.
const FAREWELL: Duration = Duration::from_secs(3);
/// Attempts to take the lead: an older leader that still writes may be quicker.
const OPENINGS_MAX: u32 = 20;
/// How long to wait for the address of whoever leads now.
const RIVAL_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// What a coordinator is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The run.
    pub spec: RunSpec,
    /// Members to wait for before the first generation.
    pub expect: u32,
    /// Once one is there, how long to wait for the others.
    pub join_window: Duration,
    /// Refuse a run that exists.
    pub fresh: bool,
    /// Stand by while another coordinator leads the run, instead of taking it over.
    pub standby: bool,
    /// Where workers reach this coordinator, `host:port`.
    pub advertise: String,
}

/// Where a coordinator listens.
#[derive(Debug)]
pub struct Doors {
    /// For workers and front doors.
    pub fleet: TcpListener,
    /// For Prometheus.
    pub metrics: Option<TcpListener>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Done, drained or at fault.
    pub outcome: Outcome,
    /// The first cause of a fault, else empty.
    pub message: String,
}

/// Listens on `address`; port 0 takes any free one.
///
/// # Errors
/// [`CoordinatorError::NotLoopback`] without `insecure`, [`CoordinatorError::PortTaken`], [`CoordinatorError::Listen`].
pub async fn bind(address: SocketAddr, insecure: bool) -> Result<TcpListener, CoordinatorError> {
    if !address.ip().is_loopback() && !insecure {
        return Err(CoordinatorError::NotLoopback { address });
    }
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => CoordinatorError::PortTaken { address, source },
        _ => CoordinatorError::Listen { address, source },
    })
}

/// Watchers' streams end with this, however the run's service ends.
struct Watched(Arc<Mutex<Option<broadcast::Sender<pb::Notice>>>>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Serves one run until it is over, or until another coordinator leads it. `shutdown` drains it first.
///
/// # Errors
/// What keeps the run from starting, a ledger that cannot be written, a broken server, or
/// [`CoordinatorError::Deposed`].
pub async fn serve(
    doors: Doors,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Ended, CoordinatorError> {
    let (inputs, mut from_service) = mpsc::channel(INPUTS_QUEUED_MAX);
    let (notices, _) = broadcast::channel(NOTICES_MAX);
    let (stage, gate) = stage();
    let watched = Watched(Arc::new(Mutex::new(Some(notices.clone()))));
    let faults = Faults::from_env().map_err(|words| CoordinatorError::Fault { words })?;
    let shared = Shared { notices, stage: Arc::new(stage), faults };
    let service = Service { inputs: inputs.clone(), notices: Arc::clone(&watched.0), gate };
    let (stop_serving, server) = start_server(doors.fleet, service, &config.spec.ladder());
    let metrics = doors.metrics.map(|listener| tokio::spawn(metrics::serve(listener, inputs.clone())));
    let drainer = tokio::spawn(async move {
        shutdown.await;
        // The driver is gone only when this coordinator is about to end.
        let _ = inputs.send(Input::Event(RunEvent::Drain)).await;
    });
    let ended = lead(&config, &shared, &mut from_service).boxed().await;
    drainer.abort();
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    drop(from_service);
    let last_words = match &ended {
        Ok(e) => Some(Frame::finished(e.outcome, &e.message)),
        // The run goes on elsewhere.
        Err(CoordinatorError::Deposed { .. }) => None,
        Err(error) => Some(Frame::finished(Outcome::Fault, &error.sentence())),
    };
    if let Some(notice) = last_words {
        // Nobody may be watching.
        let _ = shared.notices.send(notice);
    }
    drop(shared);
    drop(watched);
    // The receiver is gone only if the server ended by itself.
    let _ = stop_serving.send(());
    match tokio::time::timeout(FAREWELL, server).await {
        Ok(Ok(served)) => served.map_err(CoordinatorError::Serve)?,
        Ok(Err(_)) => return Err(CoordinatorError::Internal { task: "server" }),
        Err(_) => tracing::debug!("somebody did not hang up in time"),
    }
    ended
}

/// Takes the lead and keeps it to the run's end; one that stands by takes it when nobody has it, as often as that
/// happens.
async fn lead(config: &Config, shared: &Shared, inputs: &mut mpsc::Receiver<Input>) -> Result<Ended, CoordinatorError> {
    let spec = &config.spec;
    let mut opened = open(spec, config.fresh).boxed().await?;
    let mut follower = config.standby.then(|| Follower::new(&spec.ladder()));
    let mut openings = 0;
    while openings < OPENINGS_MAX {
        if let Some(follower) = &mut follower {
            let message = String::new();
            match follower.stand_by(spec, &mut opened, &shared.stage, inputs).boxed().await? {
                Stood::Lead => {}
                Stood::Over(outcome) => {
                    shared.stage.enter(Stage::Over);
                    return Ok(Ended { outcome, message });
                }
                Stood::Told => return Ok(Ended { outcome: Outcome::Done, message }),
            }
        }
        let glance = opened.look(spec).boxed().await?;
        let number = glance.takeover.leader;
        if let Some(follower) = follower.as_mut().filter(|follower| follower.leader() + 1 != number) {
            // Another one was quicker, and has led since that look.
            follower.stand_aside();
            continue;
        }
        let parts = setup::parts(config, &opened, &glance, shared.clone());
        let driver = LeadDriver::new(parts, setup::opening(config, &opened, &glance));
        match (driver.run(inputs).boxed().await, &mut follower) {
            (LeadEnd::Over(outcome, message), _) => {
                shared.stage.enter(Stage::Over);
                close(&opened, number, outcome).await;
                return Ok(Ended { outcome, message });
            }
            (LeadEnd::Deposed { led }, Some(follower)) => {
                shared.stage.enter(Stage::Aside { what: "another coordinator leads the run" });
                tracing::info!(number, led, "another coordinator leads the run, standing by");
                follower.stand_aside();
            }
            (LeadEnd::Deposed { led: true }, None) => {
                shared.stage.enter(Stage::Aside { what: "another coordinator leads the run" });
                return Err(deposed(&opened, number).await);
            }
            (LeadEnd::Deposed { led: false }, None) => {
                tracing::info!("another coordinator was quicker, opening the run again");
                openings += 1;
            }
            (LeadEnd::Broken(cause), _) => {
                shared.stage.enter(Stage::Aside { what: "its store does not take the run's ledger" });
                return Err(CoordinatorError::Unwritable { cause });
            }
        }
    }
    Err(CoordinatorError::Contended { run: spec.run.name.clone(), times: OPENINGS_MAX })
}

/// Tells workers that have lost this coordinator that there is nothing to come back to.
async fn close(opened: &Opened, number: u64, outcome: Outcome) {
    if let Err(error) = leaders::close(&opened.location, number, outcome).await {
        tracing::warn!(%error, "workers without a session will not learn that the run is over");
    }
}

/// Who leads now: it says so a moment after it took the ledger.
async fn deposed(opened: &Opened, number: u64) -> CoordinatorError {
    let limit = tokio::time::Instant::now() + RIVAL_PATIENCE;
    let newer = loop {
        let newest = leaders::newest(&opened.location).await.ok().flatten();
        let newer = newest.filter(|leader| leader.number > number);
        if newer.is_some() || tokio::time::Instant::now() >= limit {
            break newer;
        }
        tokio::time::sleep(LOOK).await;
    };
    let by = newer.map_or("a coordinator that has not said where it is".into(), |leader| {
        format!("leader {} at {}", leader.number, leader.address)
    });
    CoordinatorError::Deposed { number, by }
}

fn start_server(
    listener: TcpListener,
    service: Service,
    ladder: &Ladder,
) -> (oneshot::Sender<()>, JoinHandle<Result<(), tonic::transport::Error>>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(ladder[Rung::KeepaliveInterval]))
        .http2_keepalive_timeout(Some(ladder[Rung::KeepaliveTimeout]))
        .add_service(pixfleet_proto::server(service))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
            // Told or forgotten: either way it is time to stop.
            let _ = stopped.await;
        });
    (stop, tokio::spawn(server))
}

//! A coordinator from start to end: open the run, serve until it is over or told to stop, make its records durable.

use crate::driver::{Driver, Input, Parts};
use crate::error::CoordinatorError;
use crate::ledger_writer::{self, LedgerHandle};
use crate::manifests::Manifests;
use crate::open::{Opened, open};
use crate::rendezvous::Rendezvous;
use crate::service::Service;
use crate::view::Frame;
use futures::FutureExt;
use pixfleet_cluster::ledger::Record;
use pixfleet_cluster::run::{Event, Outcome, Run, RunConfig, Welcome};
use pixfleet_cluster::{MemberId, RunSpec};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// Inputs that may wait for the driver; senders wait beyond that, so a flood of reports slows its senders down.
const INPUTS_QUEUED_MAX: usize = 1024;
/// Notices that a watcher may lag behind.
const NOTICES_MAX: usize = 8192;
/// How long sessions and watchers have to read their last words.
const FAREWELL: Duration = Duration::from_secs(3);
/// Generations in a row without a step, after which the run is at fault.
const FRUITLESS_MAX: u32 = 20;
/// Members that may stand by beyond those that train.
const STANDBY_MAX: u32 = 64;

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
/// [`CoordinatorError::PortTaken`]; [`CoordinatorError::NotLoopback`] for an address that others can reach, unless
/// `insecure`.
pub async fn bind(address: SocketAddr, insecure: bool) -> Result<TcpListener, CoordinatorError> {
    if !address.ip().is_loopback() && !insecure {
        return Err(CoordinatorError::NotLoopback { address });
    }
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => CoordinatorError::PortTaken { address, source },
        _ => CoordinatorError::Listen { address, source },
    })
}

/// Serves one run on `listener` until it is over. `shutdown` drains it first.
///
/// # Errors
/// What keeps the run from starting, a ledger that cannot be written, or a broken server.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Ended, CoordinatorError> {
    let opened = open(config.spec.clone(), config.fresh).boxed().await?;
    let (ledger, writer) =
        ledger_writer::start(opened.location.clone(), opened.next_segment, opened.last_digest.clone());
    let spec = &config.spec;
    ledger.push(Record::Opened {
        run: spec.run.name.clone(),
        spec_digest: spec.digest(),
        dataset_digest: opened.dataset.digest.clone(),
        seed: spec.run.seed,
        global_batch: spec.train.global_batch,
    })?;
    if !ledger.flush().await {
        return Err(writer_end(writer.await).err().unwrap_or(CoordinatorError::Internal { task: "ledger" }));
    }
    let (inputs, from_service) = mpsc::channel(INPUTS_QUEUED_MAX);
    let (notices, _) = broadcast::channel(NOTICES_MAX);
    let rendezvous = Arc::new(Rendezvous::default());
    let watched = Arc::new(Mutex::new(Some(notices.clone())));
    let service =
        Service { inputs: inputs.clone(), rendezvous: Arc::clone(&rendezvous), notices: Arc::clone(&watched) };
    let driver = Driver::new(Parts {
        run: Run::new(run_config(&config, &opened)),
        frame: frame(spec, &opened),
        welcome: welcome(spec, &opened),
        first_member: opened.first_member,
        ledger: ledger.clone(),
        manifests: manifests(spec, &opened),
        rendezvous,
        notices: notices.clone(),
        inputs: from_service,
        back: inputs.clone(),
    });
    let (stop_serving, server) = start_server(listener, service);
    let drainer = tokio::spawn(async move {
        shutdown.await;
        // The driver is gone only when the run is over.
        let _ = inputs.send(Input::Event(Event::Drain)).await;
    });
    let ended = drive(driver, ledger, writer).boxed().await;
    drainer.abort();
    let last_words = match &ended {
        Ok(e) => Frame::finished(e.outcome, &e.message),
        Err(error) => Frame::finished(Outcome::Fault, &error.sentence()),
    };
    // Nobody may be watching.
    let _ = notices.send(last_words);
    drop(notices);
    watched.lock().unwrap_or_else(PoisonError::into_inner).take();
    // The receiver is gone only if the server ended by itself.
    let _ = stop_serving.send(());
    match tokio::time::timeout(FAREWELL, server).await {
        Ok(Ok(served)) => served.map_err(CoordinatorError::Serve)?,
        Ok(Err(_)) => return Err(CoordinatorError::Internal { task: "server" }),
        Err(_) => tracing::debug!("somebody did not hang up in time"),
    }
    ended
}

type Writing = JoinHandle<Result<(), CoordinatorError>>;

/// Until the run is over and its ledger durable, or the ledger cannot be written any more.
async fn drive(driver: Driver, ledger: LedgerHandle, mut writer: Writing) -> Result<Ended, CoordinatorError> {
    let mut driver = tokio::spawn(driver.run());
    tokio::select! {
        ended = &mut driver => {
            ledger.close();
            writer_end(writer.await)?;
            let (outcome, message) = ended.map_err(|_| CoordinatorError::Internal { task: "driver" })?;
            Ok(Ended { outcome, message })
        }
        written = &mut writer => {
            driver.abort();
            writer_end(written)?;
            Err(CoordinatorError::Internal { task: "ledger" })
        }
    }
}

fn writer_end(joined: Result<Result<(), CoordinatorError>, JoinError>) -> Result<(), CoordinatorError> {
    joined.unwrap_or(Err(CoordinatorError::Internal { task: "ledger" }))
}

fn start_server(
    listener: TcpListener,
    service: Service,
) -> (oneshot::Sender<()>, JoinHandle<Result<(), tonic::transport::Error>>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(pixfleet_proto::server(service))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
            // Told or forgotten: either way it is time to stop.
            let _ = stopped.await;
        });
    (stop, tokio::spawn(server))
}

fn run_config(config: &Config, opened: &Opened) -> RunConfig {
    let train = &config.spec.train;
    RunConfig {
        expect: config.expect,
        join_window: config.join_window,
        min_workers: train.min_workers,
        lanes: train.lanes,
        global_batch: train.global_batch,
        steps: config.spec.schedule.steps,
        heartbeat_timeout: Duration::from_millis(train.heartbeat_timeout_ms),
        reform_grace: Duration::from_millis(train.collective_timeout_ms),
        fruitless_max: FRUITLESS_MAX,
        members_max: members_max(&config.spec),
        first_generation: opened.first_generation,
        resume: opened.resume.clone(),
    }
}

fn members_max(spec: &RunSpec) -> u32 {
    spec.train.lanes.saturating_add(STANDBY_MAX)
}

fn frame(spec: &RunSpec, opened: &Opened) -> Frame {
    Frame {
        run: spec.run.name.clone(),
        steps: spec.schedule.steps,
        global_batch: spec.train.global_batch,
        members_max: members_max(spec),
        epoch_len: opened.dataset.shape.total(),
    }
}

fn welcome(spec: &RunSpec, opened: &Opened) -> Welcome {
    Welcome {
        member: MemberId(0), // the driver fills it in
        run: spec.run.name.clone(),
        spec_toml: spec.to_toml(),
        spec_digest: spec.digest(),
        dataset_digest: opened.dataset.digest.clone(),
        // Four beats in a timeout: three may be late.
        heartbeat_ms: (spec.train.heartbeat_timeout_ms / 4).max(1),
    }
}

fn manifests(spec: &RunSpec, opened: &Opened) -> Manifests {
    Manifests {
        location: opened.location.clone(),
        run: spec.run.name.clone(),
        spec_digest: spec.digest(),
        dataset_digest: opened.dataset.digest.clone(),
        keep: spec.checkpoint.keep,
    }
}

//! `pixfleet-worker worker`: one member of a run.
//!
//! Two halves. The tokio runtime carries the session (orders, reports, heartbeats), the feed and uploads. One OS thread,
//! the trainer, owns every tensor. They meet at two bounded queues and a few atomics; neither waits for the other but
//! where the river of samples does.

mod error;
mod events;
mod exchange;
mod fault;
mod feed;
mod rendezvous;
mod session;
mod snapshot;
mod start;
mod state;
mod step;
mod trainer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use pixfleet_cluster::run::{Join, Order, Outcome, Report, Welcome};
use pixfleet_proto::{Patience, Session, connect};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use error::TrainError;
use session::{Stopped, Switches};

/// Orders that wait for the trainer; a healthy one reads them at once.
const ORDERS_QUEUED_MAX: usize = 64;
/// How long the last words may take to reach the coordinator, and a stopped trainer to come back.
const FAREWELL: Duration = Duration::from_secs(5);

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address of the coordinator, host:port.
    #[arg(long)]
    coordinator: String,
    /// Name of this worker in messages.
    #[arg(long, default_value = "w0")]
    name: String,
    /// Where to compute: cpu, cuda, cuda:1; auto takes a GPU if this build can drive one.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of libtorch on the CPU; 0: one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Threads that decode images; 0: half the cores.
    #[arg(long, default_value_t = 0)]
    decode_threads: usize,
    /// Address under which other workers reach this one.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Write the averaged gradients of step 0, before clipping, to this safetensors file (rank 0 only).
    #[arg(long)]
    dump_gradients: Option<PathBuf>,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let stopped = runtime.block_on(work(args, runtime.handle().clone()));
    // A decode or an upload of a run that is over needs no end.
    runtime.shutdown_background();
    let stopped = stopped?;
    if stopped.outcome == Outcome::Fault {
        bail!("the run was stopped: {}", stopped.message);
    }
    Ok(ExitCode::from(stopped.outcome.exit_code()))
}

async fn work(args: Args, runtime: Handle) -> Result<Stopped> {
    let device = start::device(&args.device)?;
    let mut client = connect(&args.coordinator, Patience::default()).await?;
    let join = Join {
        name: args.name.clone(),
        host: args.host.clone(),
        pid: std::process::id(),
        device: start::device_name(device),
        next_step: None,
    };
    let mut session = Session::open(&mut client, join).await?;
    let welcome = match session.next().await? {
        Some(Order::Welcome(welcome)) => welcome,
        Some(Order::Stop { outcome, message }) => return Ok(Stopped { outcome, message }),
        Some(other) => bail!("the coordinator's first order was {other:?}, expected a welcome"),
        None => bail!("the coordinator closed the session"),
    };
    let switches = Arc::new(Switches::new());
    let (sender, orders) = mpsc::channel(ORDERS_QUEUED_MAX);
    let setting = start::Setting {
        args,
        device,
        welcome: welcome.clone(),
        runtime,
        orders,
        reports: session.reports(),
        switches: Arc::clone(&switches),
        client,
    };
    let mut trainer = spawn_trainer(setting)?;
    let beat = heartbeat(&welcome);
    let ended = tokio::select! {
        stopped = session::run(&mut session, beat, Arc::clone(&switches), sender) => Ended::Session(stopped),
        result = &mut trainer => Ended::Trainer(result),
    };
    match ended {
        Ended::Session(stopped) => {
            // Nobody can answer the trainer any more, or it has been told to stop: either way it comes back soon.
            let back = tokio::time::timeout(FAREWELL, trainer).await;
            tracing::debug!(in_time = back.is_ok(), "trainer back");
            Ok(stopped?)
        }
        Ended::Trainer(Ok(Ok(stopped))) => Ok(stopped),
        Ended::Trainer(Ok(Err(error))) => {
            farewell(session, error.sentence()).await;
            Err(error.into())
        }
        Ended::Trainer(Err(_)) => {
            let message = "the trainer thread panicked";
            farewell(session, message.into()).await;
            Err(anyhow!(message))
        }
    }
}

/// Who ended first.
enum Ended {
    Session(Result<Stopped, pixfleet_proto::FleetError>),
    Trainer(Result<Result<Stopped, TrainError>, oneshot::error::RecvError>),
}

/// Half of the interval that the coordinator asked for, so that one late beat is no loss.
fn heartbeat(welcome: &Welcome) -> Duration {
    Duration::from_millis((welcome.heartbeat_ms / 2).max(10))
}

/// The thread that owns every tensor. Its result comes through the channel; a panic drops the sender.
fn spawn_trainer(setting: start::Setting) -> Result<oneshot::Receiver<Result<Stopped, TrainError>>> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("trainer".into())
        .spawn(move || {
            let stopped = start::trainer(setting).and_then(|mut trainer| trainer.run());
            // The receiver is gone only when the process is about to exit.
            let _ = done.send(stopped);
        })
        .context("cannot start the trainer thread")?;
    Ok(result)
}

/// Tells the coordinator why this worker leaves, and waits until it has heard.
async fn farewell(mut session: Session, message: String) {
    if session.reports().send(Report::Fault { message }).await.is_err() {
        return;
    }
    let closed = async { while let Ok(Some(_)) = session.next().await {} };
    if tokio::time::timeout(FAREWELL, closed).await.is_err() {
        tracing::debug!("the coordinator did not close the session");
    }
}

//! `pixfleet-worker worker`: one member of a run.
//!
//! Two halves. The tokio runtime carries the session (orders, reports, heartbeats), the feed and uploads. One OS thread,
//! the trainer, owns every tensor. They meet at two bounded queues and a few switches; neither waits for the other but
//! where the river of samples does.

pub(crate) mod ahead;
mod cut_log;
mod dial;
mod digest;
pub(crate) mod error;
mod events;
pub(crate) mod exact;
mod exchange;
mod fault;
mod fed_log;
pub(crate) mod feed;
pub(crate) mod gauges;
pub(crate) mod gpu;
mod graph_cache;
mod initial;
pub(crate) mod inputs;
mod lane_tree;
mod meeting;
pub(crate) mod reduce;
mod session;
mod snapshot;
mod spot;
pub(crate) mod start;
mod state;
pub(crate) mod step;
mod step_log;
pub(crate) mod switches;
mod trace;
mod trainer;
mod worker_log;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pixfleet_cluster::peer::Word;
use pixfleet_cluster::run::{Join, Outcome};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use error::TrainError;
use meeting::KeyStore;
use session::{PeerDriver, TrainerEnd};
use start::{Contract, Setting};
use switches::Stopped;

/// What was typed.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet worker --coordinator 10.0.0.1:7000 --name $(hostname) --host $(hostname -i)
  pixfleet worker --coordinator node-a:7000,node-b:7000 --device cuda:3      # whichever of them leads
  pixfleet worker --coordinator s3://bucket/runs/base                        # whoever leads that run

Exit code 0: the run is done. 75: this worker was drained and may be started again. Else: a fault that the last line names.")]
pub(crate) struct Args {
    /// Addresses of the coordinator, host:port, comma-separated, or the run's folder (<run.store>/<run.name>), whose store
    /// says which coordinator leads. Once the run is known its store is always asked first.
    #[arg(long, value_delimiter = ',', required = true)]
    coordinator: Vec<String>,
    /// Name of this worker in messages.
    #[arg(long, default_value = "w0")]
    name: String,
    /// Where to compute: cpu, cuda, cuda:1; auto takes a GPU if this build can drive one. Which one: that of LOCAL_RANK or
    /// SLURM_LOCALID, else the lowest that no other worker of this machine holds.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of libtorch on the CPU; 0: one per core. With `train.reduce = "exact"` it is always one.
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
    // While this process has one thread: others might read the environment meanwhile.
    pixfleet_shim::settings::settle_environment().context("cannot settle the environment of libtorch")?;
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
    // Held until this process ends.
    let (device, _gpu) = gpu::place(&args.device)?;
    tracing::info!("computes on {}", start::device_name(device));
    let keys = Arc::new(KeyStore::default());
    let meets_at = meeting::serve(&args.host, Arc::clone(&keys)).await;
    let meets_at = meets_at.with_context(|| {
        format!("cannot listen on {}, where other workers are to reach this one (--host)", args.host)
    })?;
    let join = Join {
        name: args.name.clone(),
        host: args.host.clone(),
        pid: std::process::id(),
        device: start::device_name(device),
        member: None,
        meets_at,
    };
    let told = dial::Told::new(&args.coordinator)?;
    let hire = move |contract| spawn_trainer(Setting { args, device, runtime, contract });
    Ok(PeerDriver::new(told, join, keys, Box::new(hire))?.run().await?)
}

/// The thread that owns every tensor. Its end comes through the channel; a panic drops the sender.
fn spawn_trainer(setting: Setting) -> Result<TrainerEnd, TrainError> {
    let (done, end) = oneshot::channel();
    let work = move || {
        let Contract { words, .. } = &setting.contract;
        let words = words.clone();
        let mut trainer = start::trainer(setting)?;
        words.blocking_send(Word::Warm).map_err(|_| TrainError::Dismissed)?;
        trainer.run()
    };
    let body = move || {
        // The receiver is gone only when the process is about to exit.
        let _ = done.send(work());
    };
    std::thread::Builder::new().name("trainer".into()).spawn(body).map_err(TrainError::Thread)?;
    Ok(end)
}

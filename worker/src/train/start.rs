//! From what was typed and the coordinator's welcome to a trainer that waits for orders. The model is built on the
//! trainer thread, while heartbeats already go out.

use std::path::PathBuf;
use std::sync::Arc;

use pixfleet_checkpoint::Folder;
use pixfleet_cluster::peer::Word;
use pixfleet_cluster::run::Welcome;
use pixfleet_cluster::spec::{Precision, Reduce, RunSpec};
use pixfleet_model::Compute;
use pixfleet_model::objective::Objective;
use tch::Device;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Args;
use super::error::TrainError;
use super::exact;
use super::fault::Faults;
use super::fed_log::FedLog;
use super::feed::FeedSource;
use super::initial::initial_weights;
use super::state::Numbers;
use super::step::Core;
use super::step_log::StepLog;
use super::switches::{Command, Switches};
use super::trace::Trace;
use super::trainer::{Channels, Trainer};

/// The variable that stands in for `--dump-gradients`.
const DUMP_VARIABLE: &str = "PIXFLEET_DUMP_GRADIENTS";

/// What the first welcome says, once and for all.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) spec: RunSpec,
    pub(crate) spec_digest: String,
    pub(crate) dataset_digest: String,
    /// The run's folder in its store.
    pub(crate) folder: Folder,
}

impl Known {
    /// The run file, as the coordinator's digest vouches for it.
    ///
    /// # Errors
    /// [`TrainError::Spec`], [`TrainError::SpecDigest`]; a store that cannot be opened.
    pub(crate) fn from_welcome(welcome: &Welcome) -> Result<Self, TrainError> {
        let spec = RunSpec::parse(&welcome.spec_toml, &[]).map_err(TrainError::Spec)?;
        let (found, expected) = (spec.digest(), welcome.spec_digest.clone());
        if found != expected {
            return Err(TrainError::SpecDigest { found, expected });
        }
        let folder = Folder::parse(&spec.run.store)?.join(&spec.run.name);
        Ok(Self { spec, spec_digest: expected, dataset_digest: welcome.dataset_digest.clone(), folder })
    }
}

/// What the control side and a trainer have between them.
pub(crate) struct Contract {
    pub(crate) known: Known,
    pub(crate) orders: mpsc::Receiver<Command>,
    pub(crate) words: mpsc::Sender<Word>,
    pub(crate) switches: Arc<Switches>,
}

/// All that a trainer is made from.
pub(crate) struct Setting {
    pub(crate) args: Args,
    pub(crate) device: Device,
    pub(crate) runtime: Handle,
    pub(crate) contract: Contract,
}

/// As reports and logs call it.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

/// Threads of libtorch on the CPU. It cuts its sums by their number, and how many cores a worker gets depends on how many
/// workers there are: so where that must not show in the bits, there is one.
fn threads(asked: usize, reduce: Reduce) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    match (reduce, asked) {
        (Reduce::Exact, _) => 1,
        (Reduce::Fast, 0) => cores(),
        (Reduce::Fast, threads) => threads,
    }
}

/// Readies this thread and `device` for computing, with `threads` as [`Args::threads`].
///
/// # Errors
/// [`TrainError::Device`].
pub(crate) fn prepare(device: Device, threads: usize, reduce: Reduce) -> Result<(), TrainError> {
    tch::set_num_threads(i32::try_from(self::threads(threads, reduce)).unwrap_or(i32::MAX));
    exact::prepare(device, reduce)
}

/// Opens the dataset, builds the model, and stands ready.
///
/// # Errors
/// What keeps this worker from taking part, in words for a person.
pub(crate) fn trainer(setting: Setting) -> Result<Trainer, TrainError> {
    prepare(setting.device, setting.args.threads, setting.contract.known.spec.train.reduce)?;
    let known = setting.contract.known.clone();
    let source = FeedSource::open(&known.spec, Some(&known.dataset_digest), setting.args.decode_threads);
    let source = Arc::new(setting.runtime.block_on(source)?);
    let weights = setting.runtime.block_on(initial_weights(&known.spec))?;
    let core = core(known.spec, setting.device, &setting.args.name, weights)?;
    let dump = setting.args.dump_gradients.or_else(|| std::env::var_os(DUMP_VARIABLE).map(PathBuf::from));
    let core = Core { dump_gradients: dump, ..core };
    let Contract { orders, words, switches, .. } = setting.contract;
    let step_log = StepLog::from_env(&setting.args.name)?;
    let fed_log = FedLog::from_env(&setting.args.name)?;
    let trace = Trace::from_env(&setting.args.name)?;
    let channels =
        Channels { runtime: setting.runtime, orders, words, switches, run: known.folder, host: setting.args.host };
    Ok(Trainer::new(core, source, channels, (step_log, fed_log, trace)))
}

/// bf16 on a processor that must emulate it was ten times slower than fp32.
fn warn_of_slow_bf16(spec: &RunSpec, device: Device) {
    #[cfg(target_arch = "x86_64")]
    if device == Device::Cpu
        && spec.train.precision == Precision::Bf16
        && !std::arch::is_x86_feature_detected!("avx512bf16")
    {
        tracing::warn!("this processor has no bf16 arithmetic; train.precision = \"fp32\" is many times faster here");
    }
}

/// What the worker `name` computes with.
///
/// # Errors
/// Weights of another model, a device that fails.
pub(crate) fn core(spec: RunSpec, device: Device, name: &str, weights: Option<Vec<u8>>) -> Result<Core, TrainError> {
    warn_of_slow_bf16(&spec, device);
    let faults = Faults::from_env()?;
    let numbers = Numbers::initial(&spec, device, weights.as_deref())?;
    Ok(Core {
        objective: Objective::new(&spec.needs(), &spec.loss).with_gathered(Compute::from(spec.train.gather).dtype),
        scales: None,
        needs: spec.needs(),
        spec,
        model: numbers.model,
        optimizer: numbers.optimizer,
        weights,
        device,
        name: name.into(),
        faults,
        clock_waits: false,
        dump_gradients: None,
    })
}

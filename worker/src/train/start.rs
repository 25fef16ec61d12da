//! From what was typed and the coordinator's welcome to a trainer that waits for orders. Runs on the trainer thread,
//! while heartbeats already go out.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use object_store::ObjectStoreExt;
use pixfleet_checkpoint::Location;
use pixfleet_cluster::run::Welcome;
use pixfleet_cluster::spec::RunSpec;
use pixfleet_cluster::{Generation, Order};
use pixfleet_model::objective::ThreeBranch;
use pixfleet_model::vision::VisionConfig;
use pixfleet_proto::pb::fleet_client::FleetClient;
use pixfleet_proto::{Reports, StoreClient};
use pixfleet_shards::reader::RowGroupReader;
use pixfleet_shards::sample::SampleConfig;
use tch::Device;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::Args;
use super::error::TrainError;
use super::fault::Fault;
use super::feed::{FeedError, Source};
use super::session::{Command, Switches};
use super::state::Numbers;
use super::step::Core;
use super::trainer::{Link, Trainer};

/// The variable that stands in for `--dump-gradients`.
const DUMP_VARIABLE: &str = "PIXFLEET_DUMP_GRADIENTS";

/// All that a trainer is made from.
pub(crate) struct Setting {
    pub(crate) args: Args,
    pub(crate) device: Device,
    pub(crate) welcome: Welcome,
    pub(crate) runtime: Handle,
    pub(crate) orders: mpsc::Receiver<Command>,
    pub(crate) reports: Reports,
    pub(crate) switches: Arc<Switches>,
    pub(crate) client: FleetClient<Channel>,
}

/// The device by name.
///
/// # Errors
/// A name that means nothing, or a GPU that this build cannot drive.
pub(crate) fn device(name: &str) -> Result<Device> {
    let gpu = pixfleet_collective::device::cuda_is_available();
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" if !gpu => return Ok(Device::Cpu),
        "auto" | "cuda" => 0,
        other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(index) => index,
            None => bail!("--device `{other}` is none of auto, cpu, cuda, cuda:N"),
        },
    };
    if !gpu {
        bail!("--device {name}: this build cannot drive a GPU, or there is none; build with `--features nccl`");
    }
    Ok(Device::Cuda(index))
}

/// As reports and logs call it.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

/// Opens the dataset, builds the model, and stands ready.
///
/// # Errors
/// What keeps this worker from taking part, in words for a person.
pub(crate) fn trainer(setting: Setting) -> Result<Trainer, TrainError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if setting.args.threads == 0 { cores } else { setting.args.threads };
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));

    let spec = checked_spec(&setting.welcome)?;
    let source = Arc::new(setting.runtime.block_on(source(&spec, &setting))?);
    let run = Location::parse(&spec.run.store)?.join(&spec.run.name);
    let weights = setting.runtime.block_on(initial_weights(&spec))?;
    let core = core(spec, &setting, weights)?;
    let client = setting.client;
    let link = Link {
        runtime: setting.runtime,
        orders: setting.orders,
        reports: setting.reports,
        switches: setting.switches,
        store: Box::new(move |generation: Generation| StoreClient::new(client.clone(), generation)),
        run,
        host: setting.args.host,
    };
    Ok(Trainer::new(core, source, link))
}

/// The run file, as the coordinator's digest vouches for it.
fn checked_spec(welcome: &Welcome) -> Result<RunSpec, TrainError> {
    let spec = RunSpec::parse(&welcome.spec_toml, &[]).map_err(TrainError::Spec)?;
    let found = spec.digest();
    if found == welcome.spec_digest {
        return Ok(spec);
    }
    Err(TrainError::SpecDigest { found, expected: welcome.spec_digest.clone() })
}

async fn source(spec: &RunSpec, setting: &Setting) -> Result<Source, TrainError> {
    let location = pixfleet_shards::store::Location::parse(&spec.data.url).map_err(FeedError::from)?;
    let index = pixfleet_shards::index::open(&location).await.map_err(FeedError::from)?;
    let expected = &setting.welcome.dataset_digest;
    if index.digest != *expected {
        return Err(TrainError::Dataset { expected: expected.clone(), found: index.digest });
    }
    let reader = RowGroupReader::new(location, &index, &spec.data.split, Some(&spec.data.vectors));
    let reader = reader.map_err(FeedError::from)?;
    let shape = reader.split().shape();
    let order = Order::new(spec.run.seed, shape, spec.data.window_row_groups)
        .ok_or_else(|| TrainError::NoRows { split: spec.data.split.clone() })?;
    let config = SampleConfig {
        data: spec.data.clone(),
        size: VisionConfig::of(&spec.model).image as u32,
        crop: spec.loss.needs_crop(),
        text_dim: Some(spec.model.text_proj.width as usize),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if setting.args.decode_threads == 0 { cores.div_ceil(2) } else { setting.args.decode_threads };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("decode-{i}"));
    let pool = pool.build().map_err(TrainError::Threads)?;
    Ok(Source { reader, order, config, seed: spec.run.seed, pool })
}

async fn initial_weights(spec: &RunSpec) -> Result<Option<Vec<u8>>, TrainError> {
    let at = spec.model.weights.as_str();
    if at.is_empty() {
        return Ok(None);
    }
    if !at.contains("://") {
        return std::fs::read(at)
            .map(Some)
            .map_err(|source| TrainError::Weights { at: at.into(), source: source.into() });
    }
    let file = Location::parse(at)?;
    let failed = |source: object_store::Error| TrainError::Weights { at: at.into(), source: source.into() };
    let bytes = file.store().get(&file.path("")).await.map_err(failed)?.bytes().await.map_err(failed)?;
    Ok(Some(bytes.to_vec()))
}

fn core(spec: RunSpec, setting: &Setting, weights: Option<Vec<u8>>) -> Result<Core, TrainError> {
    let fault = Fault::from_env()?;
    let dump = setting.args.dump_gradients.clone().or_else(|| std::env::var_os(DUMP_VARIABLE).map(PathBuf::from));
    let numbers = Numbers::initial(&spec, setting.device, weights.as_deref())?;
    Ok(Core {
        objective: ThreeBranch::new(&spec.loss),
        spec,
        model: numbers.model,
        optimizer: numbers.optimizer,
        weights,
        device: setting.device,
        name: setting.args.name.clone(),
        fault,
        dump_gradients: dump,
    })
}

//! A model as a folder in the Hugging Face Hub's layout, on disk or on the Hub.
//!
//! | file | what it says |
//! |---|---|
//! | `config.json` | architecture and sizes, for people and tools |
//! | `run.toml` | the run file that the model was trained by, without its URLs: what the model is built from |
//! | `model.safetensors`; above a size its pieces and `model.safetensors.index.json` | weights under the official names |
//! | `preprocessor_config.json` | how a picture becomes numbers, in transformers' words |
//! | `README.md`, `loss.svg` | the model card |

pub(crate) mod config;
mod index;
#[cfg(test)]
mod tests;

pub(crate) use index::WeightIndex;

use anyhow::{Context, Result, bail, ensure};
use config::{Config, MODEL_TYPE};
use pixfleet_checkpoint::{HostTensor, decode, encode};
use pixfleet_cluster::spec::RunSpec;
use pixfleet_model::Model;
use pixfleet_model::params::LoadOptions;
use pixfleet_shards::{Location, ShardError};
use std::path::Path;
use tch::Device;

/// See the module.
pub(crate) const CONFIG: &str = "config.json";
/// See the module.
pub(crate) const PREPROCESSOR: &str = "preprocessor_config.json";
/// See the module.
pub(crate) const RUN_TOML: &str = "run.toml";
/// See the module.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// See the module.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Places on the Hub begin so.
const SCHEME: &str = "hf://";
/// Stands in a published run file for a place that is nobody's business.
const HIDDEN: &str = "hidden:///";

/// A folder that `pixfleet export hub` wrote, open.
#[derive(Debug)]
pub(crate) struct HubFolder {
    /// The run file. Places in it may be hidden.
    pub(crate) spec: RunSpec,
    /// Optimizer steps that the weights have seen.
    pub(crate) step: u64,
    origin: String,
    tensors: Vec<HostTensor>,
}

/// Whether `at` is a place on the Hub, or a folder of its layout on disk.
pub(crate) fn is_hub_folder(at: &str) -> bool {
    let path = Path::new(at.strip_prefix("file://").unwrap_or(at));
    at.starts_with(SCHEME) || [WEIGHTS, INDEX].iter().any(|file| path.join(file).is_file())
}

/// Whether a place of a published run file is hidden.
pub(crate) fn is_hidden(url: &str) -> bool {
    url.starts_with(HIDDEN)
}

/// `spec` as everybody may read it: of places only the last part is told, and `dataset` (`OWNER/NAME`) stands for the dataset.
pub(crate) fn published(spec: &RunSpec, dataset: Option<&str>) -> RunSpec {
    let hidden = |at: &str| format!("{HIDDEN}{}", at.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
    let mut spec = spec.clone();
    spec.run.store = hidden(&spec.run.store);
    spec.data.url = match dataset {
        Some(dataset) => format!("{SCHEME}datasets/{dataset}"),
        None if spec.data.url.starts_with(SCHEME) => spec.data.url,
        None => hidden(&spec.data.url),
    };
    if spec.model.weights.contains('/') && !spec.model.weights.starts_with(SCHEME) {
        spec.model.weights = hidden(&spec.model.weights);
    }
    spec.spot = Default::default();
    spec
}

impl HubFolder {
    /// Opens the folder `at`: a path, a URL, or `hf://OWNER/NAME[@REVISION]`.
    ///
    /// # Errors
    /// If it cannot be read, or is no folder of `pixfleet export hub`.
    pub(crate) async fn open(at: &str) -> Result<Self> {
        let location = Location::parse(at)?;
        let origin = location.url().to_owned();
        let foreign = || {
            format!(
                "{at} is no model that `pixfleet export hub` wrote; published weights of others go through `pixfleet import`"
            )
        };
        let read = async |name| match location.get(name).await {
            Err(error @ ShardError::NotFound { .. }) => Err(anyhow::Error::from(error).context(foreign())),
            // Of a store that failed nobody knows what it holds.
            got => Ok(got?),
        };
        let config = read(CONFIG).await?;
        let config: Config = serde_json::from_slice(&config).with_context(foreign)?;
        ensure!(config.model_type == MODEL_TYPE, "{}: its {CONFIG} tells of a `{}`", foreign(), config.model_type);
        let text = read(RUN_TOML).await?;
        let text = std::str::from_utf8(&text).with_context(|| format!("{origin}/{RUN_TOML} is no text"))?;
        let spec = RunSpec::parse(text, &[]).with_context(|| format!("{origin}/{RUN_TOML}"))?;
        let tensors = weights(&location).await?;
        Ok(Self { spec, step: config.step, origin, tensors })
    }

    /// The model with the folder's weights, on `device`.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub(crate) fn model(&self, device: Device) -> Result<Model> {
        let mut model = Model::build(&self.spec.model, &self.spec.needs(), self.spec.run.seed, device);
        let file = encode(&self.origin, &self.tensors)?;
        let report = model.params.load_bytes(&file.bytes, &self.origin, &LoadOptions::default())?;
        for (what, names) in [("lacks", &report.missing), ("holds beyond the model", &report.unexpected)] {
            if let Some(first) = names.first() {
                bail!("{} {what} {} tensors, the first is `{first}`", self.origin, names.len());
            }
        }
        Ok(model)
    }
}

/// The tensors of the weights in the folder at `at`, whoever wrote them.
///
/// # Errors
/// If there are none, or a file of them cannot be read.
pub(crate) async fn weights_at(at: &str) -> Result<Vec<HostTensor>> {
    weights(&Location::parse(at)?).await
}

async fn weights(location: &Location) -> Result<Vec<HostTensor>> {
    let index = match location.get(INDEX).await {
        Ok(bytes) => Some(WeightIndex::parse(&location.url_of(INDEX), &bytes)?),
        Err(ShardError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let files = index.as_ref().map_or_else(|| vec![WEIGHTS], |index| index.files().collect());
    let mut tensors = Vec::new();
    for file in files {
        let bytes = location.get(file).await?;
        tensors.extend(decode(&location.url_of(file), &bytes)?);
    }
    if let Some(index) = index {
        index.holds(|name| tensors.iter().any(|t| t.name == name))?;
    }
    Ok(tensors)
}

//! A run's newest good checkpoint, for whoever wants its model: `export`, `eval`, `encode`.

use anyhow::{Context, Result, bail};
use object_store::ObjectStoreExt;
use pixfleet_checkpoint::{Folder, HostTensor, load, newest_good_where};
use pixfleet_cluster::commit::RUN_FILE;
use pixfleet_cluster::spec::RunSpec;
use pixfleet_cluster::{Manifest, Step};
use pixfleet_model::Model;
use tch::{Device, Kind, Tensor};

/// Parameters stand in a checkpoint under this prefix.
const PARAM: &str = "param/";
/// The EMA teacher's parameters stand under this one.
const EMA: &str = "ema/";

/// Which of a checkpoint's parameter sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    /// The trained parameters.
    Trained,
    /// Their moving average, of runs whose teacher is `ema`.
    Ema,
}

/// A checkpoint in host memory.
#[derive(Debug)]
pub(crate) struct StoredRun {
    /// The run file.
    pub(crate) spec: RunSpec,
    /// The checkpoint's manifest.
    pub(crate) manifest: Manifest,
    tensors: Vec<HostTensor>,
}

impl StoredRun {
    /// Opens the run at `url` (`<store>/<name>`) at its newest good checkpoint.
    ///
    /// # Errors
    /// If there is no run or no checkpoint, with what to do about it.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        Self::open_at(url, None).await
    }

    /// The same, at the checkpoint after `step` steps where that is told.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_at(url: &str, step: Option<u64>) -> Result<Self> {
        let run = Folder::parse(url)?;
        let found = newest_good_where(&run, |at, _| step.is_none_or(|step| at == Step(step))).await;
        let found = match (found.with_context(|| format!("looking for checkpoints in {url}"))?, step) {
            (Some(found), _) => found,
            (None, Some(step)) => {
                bail!("{url} holds no good checkpoint after {step} steps; leave out --step for its newest")
            }
            (None, None) => {
                bail!("{url} holds no checkpoint; expected the folder <store>/<name> of a run that has reached one")
            }
        };
        let failed = || format!("cannot read {RUN_FILE} of the run {url}");
        let text =
            run.store().get(&run.path(RUN_FILE)).await.with_context(failed)?.bytes().await.with_context(failed)?;
        let spec = RunSpec::parse(std::str::from_utf8(&text).with_context(failed)?, &[])?;
        let tensors = load(&run, &found.manifest).await.with_context(|| format!("loading {}", found.key))?;
        Ok(Self { spec, manifest: found.manifest, tensors })
    }

    /// Optimizer steps that the checkpoint has seen.
    pub(crate) fn step(&self) -> Step {
        self.manifest.step
    }

    /// The parameters under the names of PixCLIP's checkpoints (method.md 1.6).
    ///
    /// # Errors
    /// If the run keeps no such set.
    pub(crate) fn params(&self, weights: Weights) -> Result<Vec<HostTensor>> {
        let prefix = match weights {
            Weights::Trained => PARAM,
            Weights::Ema => EMA,
        };
        let named = self.tensors.iter().filter_map(|t| {
            let name = t.name.strip_prefix(prefix)?.to_string();
            Some(HostTensor { name, ..t.clone() })
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            bail!(
                "the checkpoint of step {} holds no `{prefix}` tensors; only runs with loss.teacher = \"ema\" keep an average",
                self.step()
            );
        }
        Ok(named)
    }

    /// The model with the checkpoint's parameters, on `device`.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub(crate) fn model(&self, weights: Weights, device: Device) -> Result<Model> {
        let mut model = Model::build(&self.spec.model, &self.spec.needs(), self.spec.run.seed, device);
        let params = self.params(weights)?;
        let expected = model.params.len();
        if params.len() != expected {
            bail!("the checkpoint of step {} holds {} parameters, the model has {expected}", self.step(), params.len());
        }
        for host in params {
            let shape: Vec<i64> = host.shape.iter().map(|&s| s as i64).collect();
            let values = Tensor::f_from_data_size(&host.bytes, &shape, Kind::Float)?;
            model.params.set(&host.name, &values)?;
        }
        Ok(model)
    }
}

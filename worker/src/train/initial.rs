//! What a run starts from: a file of weights, a folder in the Hub's layout, or another run's checkpoint (`model.weights`).

use object_store::ObjectStoreExt;
use pixfleet_checkpoint::{Folder, HostTensor, encode, load, newest_good_where};
use pixfleet_cluster::spec::terms::Temperature;
use pixfleet_cluster::spec::{ModelSpec, Needs, RunSpec};
use pixfleet_model::Model;
use pixfleet_model::params::{LoadOptions, LoadReport};

use super::error::TrainError;
use crate::hub::{is_hub_folder, weights_at};

/// Stands for the store of the run itself.
const SAME_STORE: &str = "run:";
/// Parameters stand in a checkpoint under this prefix.
const PARAM: &str = "param/";

/// The bytes of a safetensors file with what `model.weights` names; `None` for a start from scratch.
///
/// # Errors
/// [`TrainError::Weights`] and the store's if there is no such file, [`TrainError::NoCheckpoint`] if there is no such run or
/// it has not reached the step.
pub(crate) async fn initial_weights(spec: &RunSpec) -> Result<Option<Vec<u8>>, TrainError> {
    let at = spec.model.weights.as_str();
    if at.is_empty() {
        return Ok(None);
    }
    if let Some(name) = at.strip_prefix(SAME_STORE) {
        return of_run(&format!("{}/{name}", spec.run.store)).await.map(Some);
    }
    if is_hub_folder(at) {
        let tensors =
            weights_at(at).await.map_err(|source| TrainError::Weights { at: at.into(), source: source.into() })?;
        return Ok(Some(encode(at, &tensors)?.bytes.to_vec()));
    }
    if !at.contains("://") {
        return std::fs::read(at)
            .map(Some)
            .map_err(|source| TrainError::Weights { at: at.into(), source: source.into() });
    }
    if !at.ends_with(".safetensors") {
        return of_run(at).await.map(Some);
    }
    let file = Folder::parse(at)?;
    let failed = |source: object_store::Error| TrainError::Weights { at: at.into(), source: source.into() };
    let bytes = file.store().get(&file.path("")).await.map_err(failed)?.bytes().await.map_err(failed)?;
    Ok(Some(bytes.to_vec()))
}

/// `<store>/<name>`, its newest good checkpoint, or `<store>/<name>@<step>`.
fn run_and_step(at: &str) -> (&str, Option<u64>) {
    match at.rsplit_once('@').map(|(run, step)| (run, step.parse())) {
        Some((run, Ok(step))) => (run, Some(step)),
        Some((_, Err(_))) | None => (at, None),
    }
}

async fn of_run(at: &str) -> Result<Vec<u8>, TrainError> {
    let (url, wanted) = run_and_step(at);
    let run = Folder::parse(url)?;
    let found = newest_good_where(&run, |step, _| wanted.is_none_or(|w| step.0 == w)).await?;
    let found = found.ok_or_else(|| TrainError::NoCheckpoint { at: at.into() })?;
    let tensors = load(&run, &found.manifest).await?;
    let params = tensors.into_iter().filter_map(|t| {
        let name = t.name.strip_prefix(PARAM)?.to_string();
        Some(HostTensor { name, ..t })
    });
    tracing::info!(run = url, step = found.manifest.step.0, "starting from another run's checkpoint");
    Ok(encode(at, &params.collect::<Vec<_>>())?.bytes.to_vec())
}

/// Puts the weights into the model. A temperature that they lack starts at the first one's value, as FG-CLIP's second stage
/// does (method.md 4.1).
///
/// # Errors
/// If the weights do not fit the model.
pub(crate) fn load_weights(
    model: &mut Model,
    bytes: &[u8],
    spec: &ModelSpec,
    needs: &Needs,
) -> Result<LoadReport, TrainError> {
    let report = model.params.load_bytes(bytes, &spec.weights, &LoadOptions::default())?;
    let given = |t: &Temperature| !report.missing.iter().any(|name| name == t.parameter());
    let first =
        needs.temperatures().find(given).and_then(|t| model.params.get(t.parameter())).map(|t| t.detach().copy());
    if let Some(first) = first {
        for temperature in needs.temperatures().filter(|t| !given(t)) {
            model.params.set(temperature.parameter(), &first)?;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_may_be_named_with_its_step() {
        assert_eq!(run_and_step("s3://b/runs/one@1200"), ("s3://b/runs/one", Some(1200)));
        assert_eq!(run_and_step("s3://b/runs/one"), ("s3://b/runs/one", None));
        assert_eq!(run_and_step("s3://me@host/runs/one"), ("s3://me@host/runs/one", None));
    }
}

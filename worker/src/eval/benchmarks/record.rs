//! Results beside their run: `evaluations/<benchmark>-<split>-<setting>-<step>.json` in its folder, so that a report can draw how
//! a number grew. The setting is a hash of all that makes two results comparable.

use super::result::BenchmarkResult;
use crate::eval::captions::measure::rounded;
use anyhow::{Context, Result};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_checkpoint::Folder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where they lie in a run's folder.
const FOLDER: &str = "evaluations";

/// What is kept of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PastScores {
    /// Optimizer steps that the weights had seen.
    pub(crate) steps: u64,
    /// Shares by key.
    pub(crate) scores: BTreeMap<String, f64>,
}

/// Keeps `result` of the run at `url` after `steps` steps, and returns all that were taken alike, this one among them, by step.
///
/// # Errors
/// A store that refuses, an object that is no result.
pub(super) async fn keep(url: &str, steps: u64, result: &BenchmarkResult) -> Result<Vec<PastScores>> {
    let run = Folder::parse(url)?;
    let own = PastScores {
        steps,
        scores: result.scores.iter().map(|s| (s.key.to_owned(), rounded(s.value).as_f64().unwrap_or(0.0))).collect(),
    };
    let series = series(result);
    let key = format!("{FOLDER}/{series}-{steps:010}.json");
    let failed = || format!("cannot keep {url}/{key}");
    let bytes = serde_json::to_vec_pretty(&own).with_context(failed)?;
    run.store().put(&run.path(&key), bytes.into()).await.with_context(failed)?;
    read(&run, &series).await.with_context(|| format!("reading {url}/{FOLDER}"))
}

async fn read(run: &Folder, series: &str) -> Result<Vec<PastScores>> {
    let listed: Vec<_> = run.store().list(Some(&run.path(FOLDER))).try_collect().await?;
    let mut found = Vec::new();
    for object in listed {
        if object.location.filename().is_some_and(|name| name.starts_with(&format!("{series}-"))) {
            let bytes = run.store().get(&object.location).await?.bytes().await?;
            let past = serde_json::from_slice::<PastScores>(&bytes);
            found.push(past.with_context(|| format!("{} is no result; delete it", object.location))?);
        }
    }
    found.sort_by_key(|past| past.steps);
    Ok(found)
}

/// The name that all results have which are comparable: benchmark, split, and a hash of data, protocol and counts.
fn series(result: &BenchmarkResult) -> String {
    let words: Map<String, Value> =
        result.chosen.words.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect();
    let counts: Map<String, Value> =
        result.counts.named().into_iter().map(|(name, n)| (name.to_owned(), Value::from(n))).collect();
    let setting = Value::from(vec![Value::from(result.data.as_str()), Value::Object(words), Value::Object(counts)]);
    let hash = blake3::hash(setting.to_string().as_bytes()).to_hex();
    format!("{}-{}-{}", result.benchmark.name, result.split, &hash[..8])
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::made_up;
    use super::*;

    #[test]
    fn results_that_were_taken_alike_are_a_history() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("file://{}/run", folder.path().display());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut result = made_up("coco-box");
        let kept = |steps, result: &BenchmarkResult| runtime.block_on(keep(&url, steps, result)).expect("kept");
        kept(200, &result);
        result.scores[0].value = 0.125;
        let history = kept(100, &result);
        let top1: Vec<_> = history.iter().map(|past| (past.steps, past.scores["top1"])).collect();
        assert_eq!(top1, [(100, 0.125), (200, 0.25)]);
        // Another number of regions is another history, and so is another benchmark.
        result.counts.regions += 1;
        assert_eq!(kept(300, &result).len(), 1);
        assert_eq!(kept(300, &made_up("lvis-box")).len(), 1);
        assert_eq!(kept(200, &made_up("coco-box")).len(), 2, "a step that is measured again has one result");
    }
}

//! Which checkpoints go. The choice is a pure function; `sweep` performs it.

use crate::error::CheckpointError;
use crate::read::manifest_keys;
use crate::store::Folder;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use pixfleet_cluster::{Generation, Manifest, Step};
use std::collections::BTreeSet;

/// A checkpoint, by what stands in its keys.
pub type Doomed = (Step, Generation);

/// Of the committed checkpoints, those that go when the newest `keep` (at least one) stay. Order does not matter.
#[must_use]
pub fn doomed(committed: &[Doomed], keep: usize) -> Vec<Doomed> {
    let newest_first: BTreeSet<_> = committed.iter().copied().collect();
    newest_first.into_iter().rev().skip(keep.max(1)).collect()
}

/// Removes all but the newest `keep` checkpoints, manifest before parts, so that a half-done removal leaves orphaned
/// parts and never a manifest without them. Orphans older than the oldest kept checkpoint go as well; newer ones may be
/// parts whose manifest is yet to come.
///
/// # Errors
/// [`CheckpointError::Store`] if the store refuses; the run can go on, nothing that is needed was touched.
pub async fn sweep(run: &Folder, keep: usize) -> Result<Vec<Doomed>, CheckpointError> {
    let keys = manifest_keys(run).await?;
    let committed: Vec<Doomed> = keys.iter().filter_map(|key| Manifest::parse_key(key)).collect();
    let gone = doomed(&committed, keep);
    let Some(&oldest_kept) = committed.iter().filter(|c| !gone.contains(c)).min() else { return Ok(Vec::new()) };
    delete(run, gone.iter().map(|&(step, generation)| run.path(&Manifest::key(step, generation))).collect()).await?;
    let listed: Vec<_> = run
        .store()
        .list(Some(&run.path("checkpoints")))
        .try_collect()
        .await
        .map_err(CheckpointError::store("list", "checkpoints"))?;
    let parts = listed.into_iter().map(|object| object.location);
    delete(run, parts.filter(|path| part_of(path).is_some_and(|at| at < oldest_kept)).collect()).await?;
    Ok(gone)
}

/// (step, generation) of the folder `<step>-g<generation>` that holds the part.
fn part_of(path: &object_store::path::Path) -> Option<Doomed> {
    let parts: Vec<_> = path.parts().collect();
    let (step, generation) = parts.iter().rev().nth(1)?.as_ref().split_once("-g")?;
    Some((Step(step.parse().ok()?), Generation(generation.parse().ok()?)))
}

async fn delete(run: &Folder, paths: Vec<object_store::path::Path>) -> Result<(), CheckpointError> {
    let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
    let mut done = run.store().delete_stream(paths);
    while let Some(result) = done.next().await {
        match result {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(CheckpointError::Store { verb: "delete", key: run.url().into(), source }),
        }
    }
    Ok(())
}

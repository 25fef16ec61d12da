//! The dataset as the coordinator sees it: version and shape, from the index. No row is ever read here.

use crate::error::CoordinatorError;
use object_store::ObjectStoreExt;
use pixfleet_checkpoint::Folder;
use pixfleet_cluster::DatasetShape;
use pixfleet_cluster::index::{DatasetIndex, LATEST, Latest};
use serde::de::DeserializeOwned;

/// What the order of samples is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its version.
    pub digest: String,
    /// Rows of each row group of the split.
    pub shape: DatasetShape,
}

/// Reads the newest index of the dataset at `url` and looks up `split`.
///
/// # Errors
/// [`CoordinatorError::NoIndex`], [`CoordinatorError::NoSplit`] and their kin say what to do.
pub async fn open_dataset(url: &str, split: &str) -> Result<Dataset, CoordinatorError> {
    let location = Folder::parse(url).map_err(CoordinatorError::Checkpoint)?;
    let latest: Latest = read(&location, url, LATEST).await?;
    let index: DatasetIndex = read(&location, url, &latest.path).await?;
    let Some(found) = index.split(split) else {
        let has: Vec<&str> = index.splits.keys().map(String::as_str).collect();
        let has = if has.is_empty() { "none".into() } else { has.join(", ") };
        return Err(CoordinatorError::NoSplit { url: url.into(), split: split.into(), has });
    };
    let shape = found.shape();
    if shape.total() == 0 {
        return Err(CoordinatorError::EmptySplit { url: url.into(), split: split.into() });
    }
    Ok(Dataset { digest: index.digest, shape })
}

async fn read<T: DeserializeOwned>(location: &Folder, url: &str, path: &str) -> Result<T, CoordinatorError> {
    let failed = |source| match source {
        object_store::Error::NotFound { .. } => CoordinatorError::NoIndex { url: url.into() },
        source => CoordinatorError::store("read", format!("{url}/{path}"), source),
    };
    let object = location.store().get(&location.path(path)).await.map_err(failed)?;
    let bytes = object.bytes().await.map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(|source| CoordinatorError::BadIndex {
        url: url.into(),
        path: path.into(),
        source,
    })
}

//! Finds the newest checkpoint that is whole, and reads checkpoints of any world size.
//!
//! Invariant: no tensor leaves this file before the digest of its part agreed with the manifest.

use crate::chunk::{CHUNKS_IN_FLIGHT, chunks};
use crate::error::CheckpointError;
use crate::part::{HostTensor, decode};
use crate::store::Folder;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_cluster::{Generation, Manifest, PartEntry, Step};

/// Parts that are fetched at a time.
const PARTS_IN_FLIGHT: usize = 4;

/// A checkpoint whose every part verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Key of the manifest, relative to the run's folder.
    pub key: String,
    /// The manifest.
    pub manifest: Manifest,
}

/// Keys of all manifests of the run, relative to its folder, newest first (by step, then generation).
pub(crate) async fn manifest_keys(run: &Folder) -> Result<Vec<String>, CheckpointError> {
    let folder = run.path("manifests");
    let listed: Vec<_> =
        run.store().list(Some(&folder)).try_collect().await.map_err(CheckpointError::store("list", "manifests"))?;
    let mut keys: Vec<_> = listed
        .iter()
        .filter_map(|object| object.location.filename())
        .filter_map(|name| Some((Manifest::parse_key(name)?, format!("manifests/{name}"))))
        .collect();
    keys.sort_unstable_by_key(|key| std::cmp::Reverse(key.0));
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// Reads a manifest; its parts are not looked at.
///
/// # Errors
/// [`CheckpointError::Manifest`] or [`CheckpointError::Version`] if it is not one of ours, [`CheckpointError::Store`] if
/// the store refuses.
pub async fn read_manifest(run: &Folder, key: &str) -> Result<Manifest, CheckpointError> {
    let bytes = get(run, key).await?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|source| CheckpointError::Manifest { key: key.into(), source })?;
    if manifest.version != Manifest::VERSION {
        return Err(CheckpointError::Version { key: key.into(), found: manifest.version, expected: Manifest::VERSION });
    }
    Ok(manifest)
}

/// Reads every part of `manifest` and compares its digest. Holds a few parts in memory at a time.
///
/// # Errors
/// [`CheckpointError::Damaged`] names the first bad part; [`CheckpointError::Store`] if the store refuses.
pub async fn verify(run: &Folder, manifest: &Manifest) -> Result<(), CheckpointError> {
    futures::stream::iter(manifest.parts.clone())
        .map(|part| async move { fetch(run, &part).await.map(drop) })
        .buffered(PARTS_IN_FLIGHT)
        .try_collect()
        .await
}

/// The newest checkpoint whose every part verifies, or `None` if there is none. A damaged one is passed over with a
/// warning that names what is wrong with it.
///
/// # Errors
/// [`CheckpointError::Store`] if the store itself fails: that is no reason to go back to an older checkpoint.
pub async fn newest_good(run: &Folder) -> Result<Option<Found>, CheckpointError> {
    newest_good_where(run, |_, _| true).await
}

/// As [`newest_good`], of those checkpoints that `counts` accepts by step and generation: whoever knows the ledger
/// passes over those that lie on no surviving history.
///
/// # Errors
/// As [`newest_good`].
pub async fn newest_good_where(
    run: &Folder,
    counts: impl Fn(Step, Generation) -> bool,
) -> Result<Option<Found>, CheckpointError> {
    let mut keys = manifest_keys(run).await?;
    keys.retain(|key| Manifest::parse_key(key).is_some_and(|(step, generation)| counts(step, generation)));
    for key in keys {
        let checked = async {
            let manifest = read_manifest(run, &key).await?;
            verify(run, &manifest).await?;
            Ok::<_, CheckpointError>(manifest)
        };
        match checked.await {
            Ok(manifest) => return Ok(Some(Found { key, manifest })),
            Err(error) if error.is_damage() => {
                tracing::warn!(%key, %error, "checkpoint passed over, trying an older one");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// All tensors of a checkpoint, sorted by name, whatever world size wrote it.
///
/// # Errors
/// As [`verify`]; [`CheckpointError::Part`] if a part is not safetensors.
pub async fn load(run: &Folder, manifest: &Manifest) -> Result<Vec<HostTensor>, CheckpointError> {
    let parts: Vec<Vec<HostTensor>> = futures::stream::iter(manifest.parts.clone())
        .map(|part| async move { decode(&part.path, &fetch(run, &part).await?) })
        .buffered(PARTS_IN_FLIGHT)
        .try_collect()
        .await?;
    let mut tensors: Vec<HostTensor> = parts.into_iter().flatten().collect();
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// [`read_manifest`] and [`load`] of the manifest at `key`.
///
/// # Errors
/// As those two.
pub async fn load_at(run: &Folder, key: &str) -> Result<(Manifest, Vec<HostTensor>), CheckpointError> {
    let manifest = read_manifest(run, key).await?;
    let tensors = load(run, &manifest).await?;
    Ok((manifest, tensors))
}

async fn fetch(run: &Folder, part: &PartEntry) -> Result<Bytes, CheckpointError> {
    let damaged =
        |expected: String, found: String| CheckpointError::Damaged { key: part.path.clone(), expected, found };
    let bytes = gather(run, part).await?;
    if bytes.len() as u64 != part.bytes {
        return Err(damaged(format!("{} bytes", part.bytes), format!("{} bytes", bytes.len())));
    }
    let digest = blake3::hash(&bytes).to_hex();
    if digest.as_str() != part.blake3 {
        return Err(damaged(format!("blake3 {}", part.blake3), format!("blake3 {digest}")));
    }
    Ok(bytes)
}

/// A part's bytes, out of its objects.
async fn gather(run: &Folder, part: &PartEntry) -> Result<Bytes, CheckpointError> {
    let mut pieces: Vec<Bytes> = futures::stream::iter(chunks(&part.path, part.bytes))
        .map(|(key, _)| async move { get(run, &key).await })
        .buffered(CHUNKS_IN_FLIGHT)
        .try_collect()
        .await?;
    match pieces.pop() {
        Some(whole) if pieces.is_empty() => Ok(whole),
        last => Ok(pieces.into_iter().chain(last).collect::<Vec<_>>().concat().into()),
    }
}

pub(crate) async fn get(run: &Folder, key: &str) -> Result<Bytes, CheckpointError> {
    let failed = || CheckpointError::store("read", key);
    run.store().get(&run.path(key)).await.map_err(failed())?.bytes().await.map_err(failed())
}

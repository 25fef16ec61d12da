//! Puts parts and commits manifests. Parts may be written again; a manifest is created once.

use crate::error::CheckpointError;
use crate::part::{HostTensor, encode};
use crate::read::read_manifest;
use crate::store::Location;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, WriteMultipart};
use pixfleet_cluster::{Generation, Manifest, PartEntry, Rank, Step};

/// Larger parts go up in chunks of this many bytes.
const CHUNK_BYTES: usize = 16 << 20;
/// Chunks in flight at a time.
const CHUNKS_MAX: usize = 4;

/// Which part of which checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartKey {
    /// Committed optimizer steps.
    pub step: Step,
    /// The generation that writes.
    pub generation: Generation,
    /// The rank that writes.
    pub rank: Rank,
    /// Ranks of that generation.
    pub world: u32,
}

impl PartKey {
    /// The object's key, relative to the run's folder.
    #[must_use]
    pub fn path(&self) -> String {
        Manifest::part_key(self.step, self.generation, self.rank, self.world)
    }
}

/// Packs and puts one rank's share; returns what the manifest says of it. Packing and hashing run on a thread of the
/// runtime's blocking pool, so no other future waits for them.
///
/// # Errors
/// [`CheckpointError::Store`] if the store refuses, [`CheckpointError::Part`] if a tensor contradicts its own shape.
pub async fn write_part(run: &Location, key: PartKey, tensors: Vec<HostTensor>) -> Result<PartEntry, CheckpointError> {
    let path = key.path();
    let name = path.clone();
    let part = tokio::task::spawn_blocking(move || encode(&name, &tensors))
        .await
        .map_err(|source| CheckpointError::Cancelled { key: path.clone(), source })??;
    let entry = PartEntry {
        path: path.clone(),
        rank: key.rank,
        bytes: part.bytes.len() as u64,
        blake3: part.blake3,
        tensors: part.tensors,
    };
    let (store, at) = (run.store(), run.path(&path));
    let failed = || CheckpointError::store("write", &path);
    if part.bytes.len() <= CHUNK_BYTES {
        store.put(&at, part.bytes.into()).await.map_err(failed())?;
        return Ok(entry);
    }
    let mut upload =
        WriteMultipart::new_with_chunk_size(store.put_multipart(&at).await.map_err(failed())?, CHUNK_BYTES);
    let mut rest = part.bytes;
    while !rest.is_empty() {
        upload.wait_for_capacity(CHUNKS_MAX).await.map_err(failed())?;
        upload.put(rest.split_to(CHUNK_BYTES.min(rest.len())));
    }
    upload.finish().await.map_err(failed())?;
    Ok(entry)
}

/// Creates the manifest: from here on the checkpoint exists. Repeating a commit of one's own (same nonce) succeeds, so a
/// lost answer can simply be tried again.
///
/// # Errors
/// [`CheckpointError::Conflict`] if the key is taken with another nonce, [`CheckpointError::Store`] if the store refuses.
pub async fn commit_manifest(run: &Location, manifest: &Manifest) -> Result<(), CheckpointError> {
    let key = Manifest::key(manifest.step, manifest.generation);
    let json = serde_json::to_vec_pretty(manifest).expect("a manifest has only JSON types");
    match run.store().put_opts(&run.path(&key), json.into(), PutMode::Create.into()).await {
        Ok(_) => Ok(()),
        Err(object_store::Error::AlreadyExists { .. }) => {
            let there = read_manifest(run, &key).await?;
            if there.nonce == manifest.nonce {
                return Ok(());
            }
            Err(CheckpointError::Conflict { key, ours: manifest.nonce.clone(), theirs: there.nonce })
        }
        Err(source) => Err(CheckpointError::Store { verb: "create", key, source }),
    }
}

//! Puts parts. Manifests are created by the coordinator (`pixfleet_cluster::create`).
//!
//! Invariant: every object is created, none is ever written over. What a manifest names stays what it was, whoever wakes
//! up late and writes what he was about to write.

use crate::attempts::Attempts;
use crate::chunk::{CHUNKS_IN_FLIGHT, chunks};
use crate::error::CheckpointError;
use crate::part::{HostTensor, encode};
use crate::read::get;
use crate::store::Folder;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectStore, PutMode};
use pixfleet_cluster::{Generation, Manifest, PartEntry, Rank, Step};
use std::time::Duration;

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
/// runtime's blocking pool, so no other future waits for them. Writing the same share again succeeds. A store that fails is
/// asked again for as long as `patience`, for each object.
///
/// # Errors
/// [`CheckpointError::Taken`] if other bytes lie there, [`CheckpointError::Store`] if the store refuses or goes on
/// failing, [`CheckpointError::Part`] if a tensor contradicts its own shape.
pub async fn write_part(
    run: &Folder,
    key: PartKey,
    tensors: Vec<HostTensor>,
    patience: Duration,
) -> Result<PartEntry, CheckpointError> {
    let path = key.path();
    let name = path.clone();
    let part = tokio::task::spawn_blocking(move || encode(&name, &tensors))
        .await
        .map_err(|source| CheckpointError::Cancelled { key: path.clone(), source })??;
    let length = part.bytes.len() as u64;
    futures::stream::iter(chunks(&path, length))
        .map(|(key, range)| {
            let bytes = part.bytes.slice(range.start as usize..range.end as usize);
            async move { create(run, &key, bytes, Attempts::lasting(patience)).await }
        })
        .buffer_unordered(CHUNKS_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(PartEntry { path, rank: key.rank, bytes: length, blake3: part.blake3, tensors: part.tensors })
}

/// Creates an object, trying again for a while if the store fails.
pub(crate) async fn create(
    run: &Folder,
    key: &str,
    bytes: Bytes,
    mut attempts: Attempts,
) -> Result<(), CheckpointError> {
    loop {
        match create_once(run, key, &bytes).await {
            Err(error) if attempts.outlasts(&error, error.class()).await => {}
            answer => return answer,
        }
    }
}

/// An object that lies there with the same bytes is as good as created: it is what an attempt left whose answer got
/// lost.
async fn create_once(run: &Folder, key: &str, bytes: &Bytes) -> Result<(), CheckpointError> {
    let failed = |source| CheckpointError::Store { verb: "create", key: key.into(), source };
    let exists = match run.store().put_opts(&run.path(key), bytes.clone().into(), PutMode::Create.into()).await {
        Ok(_) => return Ok(()),
        Err(exists @ Error::AlreadyExists { .. }) => exists,
        Err(source) => return Err(failed(source)),
    };
    match get(run, key).await {
        Ok(there) if there == *bytes => Ok(()),
        Ok(there) => {
            let hex = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
            Err(CheckpointError::Taken { key: key.into(), ours: hex(bytes), theirs: hex(&there) })
        }
        // It was removed in between, or is still being made: the next attempt will see.
        Err(CheckpointError::Store { source: Error::NotFound { .. }, .. }) => Err(failed(exists)),
        Err(error) => Err(error),
    }
}

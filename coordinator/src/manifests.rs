//! Committing checkpoints: manifest, retries, and the removal of old ones.

use crate::error::CoordinatorError;
use crate::ledger_writer::LedgerHandle;
use pixfleet_checkpoint::{CheckpointError, Location, commit_manifest, sweep};
use pixfleet_cluster::run::Event;
use pixfleet_cluster::{Class, Generation, Manifest, PartEntry, RunId, Step};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Attempts to create a manifest; the pauses between them add up to some ten seconds.
const ATTEMPTS: u32 = 8;

/// A number that nobody else draws. `RandomState` is seeded by the operating system.
pub(crate) fn nonce() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// What all manifests of one run share.
#[derive(Debug, Clone)]
pub(crate) struct Manifests {
    pub(crate) location: Location,
    pub(crate) run: String,
    pub(crate) spec_digest: String,
    pub(crate) dataset_digest: String,
    pub(crate) keep: u32,
}

impl Manifests {
    /// Makes the ledger durable, then creates the manifest. Says how it went as an event of the run.
    pub(crate) async fn commit(
        &self,
        ledger: &LedgerHandle,
        (generation, step): (Generation, Step),
        parts: Vec<PartEntry>,
    ) -> Event {
        let failed = |message: String| Event::ManifestFailed { generation, step, message };
        if !ledger.flush().await {
            return failed("the ledger could not be written".into());
        }
        let manifest = Manifest {
            version: Manifest::VERSION,
            run: RunId(self.run.clone()),
            step,
            generation,
            world: u32::try_from(parts.len()).expect("one part a rank, and ranks are u32"),
            nonce: nonce(),
            spec_digest: self.spec_digest.clone(),
            dataset_digest: self.dataset_digest.clone(),
            parts,
        };
        match self.create(&manifest).await {
            Ok(()) => Event::ManifestStored { generation, step, key: Manifest::key(step, generation) },
            Err(error) => failed(CoordinatorError::Checkpoint(error).sentence()),
        }
    }

    async fn create(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let mut pause = Duration::from_millis(50);
        for _ in 1..ATTEMPTS {
            match commit_manifest(&self.location, manifest).await {
                Err(error) if error.class() == Class::Retry => {
                    tracing::warn!(step = %manifest.step, %error, "manifest not created, trying again");
                }
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        commit_manifest(&self.location, manifest).await
    }

    /// Removes checkpoints beyond those to keep. A failure costs space and nothing else.
    pub(crate) async fn sweep(&self) {
        match sweep(&self.location, self.keep as usize).await {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => tracing::debug!(gone = gone.len(), "old checkpoints removed"),
            Err(error) => tracing::warn!(%error, "old checkpoints could not be removed"),
        }
    }
}

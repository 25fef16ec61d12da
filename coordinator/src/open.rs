//! Taking a run over from its store: the same run file, the same dataset, the ledger so far, the newest good
//! checkpoint, and numbers of generations and members that were never used.

use crate::dataset::{Dataset, open_dataset};
use crate::error::CoordinatorError;
use crate::identity;
use futures::{FutureExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_checkpoint::{Ledger, Location, newest_good, read_ledger};
use pixfleet_cluster::ledger::{History, Record};
use pixfleet_cluster::run::Resume;
use pixfleet_cluster::{Generation, Manifest, MemberId, RunSpec};

/// A run that is ready to be driven.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) location: Location,
    pub(crate) dataset: Dataset,
    pub(crate) next_segment: u64,
    pub(crate) last_digest: String,
    pub(crate) first_generation: Generation,
    pub(crate) first_member: MemberId,
    pub(crate) resume: Option<Resume>,
}

/// Opens the run that `spec` names, or begins it.
///
/// # Errors
/// Each says what to do; nothing has been written but a new run's `run.toml`.
pub(crate) async fn open(spec: RunSpec, fresh: bool) -> Result<Opened, CoordinatorError> {
    let dataset = open_dataset(&spec.data.url, &spec.data.split).await?;
    let store = Location::parse(&spec.run.store).map_err(CoordinatorError::Checkpoint)?;
    let location = store.join(&spec.run.name);
    let exists = exists(&location).await?;
    if fresh && exists {
        return Err(CoordinatorError::RunExists { run: spec.run.name.clone(), store: spec.run.store.clone() });
    }
    identity::claim(&location, &spec).await?;
    let ledger = read_ledger(&location).boxed().await.map_err(CoordinatorError::Ledger)?;
    same_dataset(&spec, &ledger, &dataset)?;
    let history = History::replay(&ledger.records);
    let found = newest_good(&location).boxed().await.map_err(CoordinatorError::Checkpoint)?;
    let resume = found.map(|f| Resume { step: f.manifest.step, key: f.key });
    let highest = history.generation.max(newest_generation(&location).await?);
    let opened = Opened {
        first_generation: highest.map_or(Generation(1), Generation::next),
        first_member: history.member.map_or(MemberId(1), MemberId::next),
        next_segment: ledger.next_segment,
        last_digest: ledger.last_digest,
        location,
        dataset,
        resume,
    };
    Ok(opened)
}

async fn exists(location: &Location) -> Result<bool, CoordinatorError> {
    match location.store().head(&location.path("run.toml")).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(source) => Err(CoordinatorError::store("read", location.url().to_string(), source)),
    }
}

/// The highest generation among the manifests: the last segment of a ledger may never have been written.
async fn newest_generation(location: &Location) -> Result<Option<Generation>, CoordinatorError> {
    let failed = |source| CoordinatorError::store("read", format!("{}/manifests", location.url()), source);
    let listed: Vec<_> =
        location.store().list(Some(&location.path("manifests"))).try_collect().await.map_err(failed)?;
    Ok(listed.iter().filter_map(|o| Manifest::parse_key(o.location.filename()?)).map(|(_, g)| g).max())
}

fn same_dataset(spec: &RunSpec, ledger: &Ledger, dataset: &Dataset) -> Result<(), CoordinatorError> {
    for record in &ledger.records {
        if let Record::Opened { dataset_digest, .. } = record
            && *dataset_digest != dataset.digest
        {
            return Err(CoordinatorError::OtherDataset {
                run: spec.run.name.clone(),
                then: dataset_digest.clone(),
                now: dataset.digest.clone(),
            });
        }
    }
    Ok(())
}

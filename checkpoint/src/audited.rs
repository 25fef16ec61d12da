//! What an audit compares: a run's ledger, and what its run file and its dataset's index say should have been done.

use crate::error::CheckpointError;
use crate::ledger::{LedgerError, each_segment};
use crate::store::Folder;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use pixfleet_cluster::audit::{AuditPlan, Trail};
use pixfleet_cluster::commit::RUN_FILE;
use pixfleet_cluster::index::{DatasetIndex, SplitIndex};
use pixfleet_cluster::spec::SpecError;
use pixfleet_cluster::{RunSpec, SampleOrder};

/// A run cannot be audited.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// No run file.
    #[error("there is no run at {url}")]
    NoRun {
        /// The run.
        url: String,
        /// The store's own words.
        source: object_store::Error,
    },
    /// A run file that does not parse.
    #[error("{url}/run.toml")]
    Spec {
        /// The run.
        url: String,
        /// What is wrong with it.
        source: SpecError,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A ledger without a record.
    #[error("the ledger of {url} is empty")]
    Empty {
        /// The run.
        url: String,
    },
    /// The dataset's URL.
    #[error(transparent)]
    Place(#[from] CheckpointError),
    /// The index that the run was started on.
    #[error("cannot read {at}, the index of the dataset's version that the run was started on")]
    NoIndex {
        /// Its URL.
        at: String,
        /// The store's own words.
        source: object_store::Error,
    },
    /// An index that does not parse.
    #[error("{at} is not an index")]
    Index {
        /// Its URL.
        at: String,
        /// The parser's own words.
        source: serde_json::Error,
    },
    /// Nothing to train on.
    #[error("{url} has no split `{split}` with rows")]
    NoRows {
        /// The dataset.
        url: String,
        /// The run's split.
        split: String,
    },
}

/// What the ledger of a run says was done, and what its run file and dataset say should have been.
#[derive(Debug)]
pub struct Audited {
    /// What was done.
    pub trail: Trail,
    /// What should have been.
    pub plan: AuditPlan,
    /// The run file.
    pub spec: RunSpec,
    /// The index of the dataset that the run was started on.
    pub index: DatasetIndex,
}

impl Audited {
    /// The split that was trained on.
    #[must_use]
    pub fn split(&self) -> &SplitIndex {
        self.index.split(&self.spec.data.split).expect("`audited` has found it")
    }
}

/// Reads what an audit of `run` compares; `seen` hears of segments of the ledger that were read, of how many.
///
/// # Errors
/// [`AuditError`] names what could not be read.
pub async fn audited(run: &Folder, seen: &mut dyn FnMut(u64, u64)) -> Result<Audited, AuditError> {
    let url = || run.url().to_owned();
    let file = read(run, RUN_FILE).await.map_err(|source| AuditError::NoRun { url: url(), source })?;
    let spec = RunSpec::parse(&String::from_utf8_lossy(&file), &[])
        .map_err(|source| AuditError::Spec { url: url(), source })?;
    let mut trail = Trail::default();
    each_segment(run, |segment| {
        segment.records.iter().for_each(|record| trail.apply(record));
        seen(segment.number + 1, segment.of);
    })
    .await?;
    // The version that the run was started on, not the newest: an index is never rewritten.
    let digest = trail.dataset_digest().ok_or_else(|| AuditError::Empty { url: url() })?.to_owned();
    let (dataset, path) = (Folder::parse(&spec.data.url)?, format!("index/{digest}.json"));
    let at = || format!("{}/{path}", spec.data.url);
    let index = read(&dataset, &path).await.map_err(|source| AuditError::NoIndex { at: at(), source })?;
    let index: DatasetIndex =
        serde_json::from_slice(&index).map_err(|source| AuditError::Index { at: at(), source })?;
    let split = index.split(&spec.data.split);
    let order = split.and_then(|s| SampleOrder::new(spec.run.seed, s.shape(), spec.data.window_row_groups));
    let (Some(split), Some(order)) = (split, order) else {
        return Err(AuditError::NoRows { url: spec.data.url, split: spec.data.split });
    };
    let (seed, steps, global_batch) = (spec.run.seed, spec.schedule.steps, spec.train.global_batch);
    let plan = AuditPlan { order, steps, global_batch, seed, dataset_digest: digest, origins: split.origins() };
    Ok(Audited { trail, plan, spec, index })
}

async fn read(folder: &Folder, path: &str) -> Result<Bytes, object_store::Error> {
    folder.store().get(&folder.path(path)).await?.bytes().await
}

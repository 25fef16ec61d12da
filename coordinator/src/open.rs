//! Taking a run over from its store: the same run file, the same dataset, the ledger so far, and the newest good
//! checkpoint on its history. What is slow comes first and is kept, so that the ledger is fresh when it counts: an
//! older leader may still write to it every second.

use crate::dataset::{Dataset, open_dataset};
use crate::error::CoordinatorError;
use crate::identity;
use futures::{FutureExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_checkpoint::{Attempts, Folder, Found, Ledger, newest_good_where};
use pixfleet_cluster::ledger::{History, Record};
use pixfleet_cluster::run::{Outcome, Resume};
use pixfleet_cluster::spec::Rung;
use pixfleet_cluster::standby::Sighting;
use pixfleet_cluster::takeover::Takeover;
use pixfleet_cluster::{Generation, Manifest, RunSpec, Step};
use std::future::Future;

/// Checkpoints that may appear, one after the other, while one is verified.
const LOOKS_MAX: u32 = 20;

/// A run that is ready to be led.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) location: Folder,
    pub(crate) dataset: Dataset,
    ledger: Ledger,
    /// Keys of the manifests among which `found` was chosen; `None`: not looked yet.
    manifests: Option<Vec<(Step, Generation)>>,
    found: Option<Found>,
}

/// What the run's store says now.
#[derive(Debug)]
pub(crate) struct Glance {
    pub(crate) takeover: Takeover,
    pub(crate) resume: Option<Resume>,
    pub(crate) next_segment: u64,
    pub(crate) last_digest: String,
}

/// Who leads the run by its ledger.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) sighting: Sighting,
    /// Where that leader is.
    pub(crate) address: String,
}

/// Opens the run that `spec` names, or begins it.
///
/// # Errors
/// Each says what to do; nothing has been written but a new run's `run.toml`.
pub(crate) async fn open(spec: &RunSpec, fresh: bool) -> Result<Opened, CoordinatorError> {
    let dataset = patiently(spec, || open_dataset(&spec.data.url, &spec.data.split)).await?;
    let store = Folder::parse(&spec.run.store).map_err(CoordinatorError::Checkpoint)?;
    let location = store.join(&spec.run.name);
    let exists = patiently(spec, || exists(&location)).await?;
    if fresh && exists {
        return Err(CoordinatorError::RunExists { run: spec.run.name.clone(), store: spec.run.store.clone() });
    }
    patiently(spec, || identity::claim(&location, spec)).await?;
    Ok(Opened { location, dataset, ledger: Ledger::default(), manifests: None, found: None })
}

/// Tries again while the store fails, for as long as the run file says.
async fn patiently<T, F: Future<Output = Result<T, CoordinatorError>>>(
    spec: &RunSpec,
    attempt: impl Fn() -> F,
) -> Result<T, CoordinatorError> {
    let mut attempts = attempts(spec);
    loop {
        match attempt().await {
            Err(error) if attempts.outlasts(&error, error.class()).await => {}
            answer => return answer,
        }
    }
}

fn attempts(spec: &RunSpec) -> Attempts {
    Attempts::lasting(spec.ladder()[Rung::StorePatience])
}

impl Opened {
    /// Reads what was written since the last look, and judges the run by it.
    ///
    /// # Errors
    /// A ledger that cannot be read, another dataset, a store that goes on failing.
    pub(crate) async fn look(&mut self, spec: &RunSpec) -> Result<Glance, CoordinatorError> {
        let mut attempts = attempts(spec);
        loop {
            match self.look_once(spec).await {
                Err(error) if attempts.outlasts(&error, error.class()).await => {}
                answer => return answer,
            }
        }
    }

    /// Reads what was written since the last look, as one that stands by does: no checkpoint is verified.
    ///
    /// # Errors
    /// As [`Self::look`], and a store that fails.
    pub(crate) async fn follow(&mut self, spec: &RunSpec) -> Result<Looked, CoordinatorError> {
        self.ledger.catch_up(&self.location).boxed().await.map_err(CoordinatorError::Ledger)?;
        same_dataset(spec, &self.ledger, &self.dataset)?;
        let mut closed = None;
        let opened = self.ledger.records.iter().rev().find_map(|record| match record {
            Record::Closed { outcome, .. } => {
                // A word that this version does not know is an end that it must not undo.
                closed = closed.or(Some(Outcome::of_word(outcome).unwrap_or(Outcome::Fault)));
                None
            }
            Record::Opened { leader, address, .. } => Some((*leader, address.clone())),
            Record::Segment { .. }
            | Record::Left { .. }
            | Record::Formed { .. }
            | Record::Prepared { .. }
            | Record::Step(_)
            | Record::Lost { .. }
            | Record::Checkpoint { .. } => None,
        });
        let (leader, address) = opened.unwrap_or_default();
        Ok(Looked { sighting: Sighting { leader, segments: self.ledger.next_segment, closed }, address })
    }

    async fn look_once(&mut self, spec: &RunSpec) -> Result<Glance, CoordinatorError> {
        for _ in 0..LOOKS_MAX {
            self.ledger.catch_up(&self.location).boxed().await.map_err(CoordinatorError::Ledger)?;
            let history = History::replay(&self.ledger.records);
            let manifests = manifests(&self.location).await?;
            let counts = |step, generation| history.survives(generation, step);
            let holds = self.found.as_ref().is_none_or(|f| counts(f.manifest.step, f.manifest.generation));
            if self.manifests.as_ref() == Some(&manifests) && holds {
                same_dataset(spec, &self.ledger, &self.dataset)?;
                return Ok(self.glance(&history, &manifests));
            }
            let found = newest_good_where(&self.location, counts).boxed().await;
            self.found = found.map_err(CoordinatorError::Checkpoint)?;
            self.manifests = Some(manifests);
        }
        Err(CoordinatorError::Contended { run: spec.run.name.clone(), times: LOOKS_MAX })
    }

    fn glance(&self, history: &History, manifests: &[(Step, Generation)]) -> Glance {
        let resume = |found: &Found| Resume { step: found.manifest.step, key: found.key.clone() };
        Glance {
            takeover: Takeover::assess(history, manifests),
            resume: self.found.as_ref().map(resume),
            next_segment: self.ledger.next_segment,
            last_digest: self.ledger.last_digest.clone(),
        }
    }
}

async fn exists(location: &Folder) -> Result<bool, CoordinatorError> {
    match location.store().head(&location.path("run.toml")).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(source) => Err(CoordinatorError::store("read", location.url().to_string(), source)),
    }
}

/// All manifests, of whatever leader: the last segment of a ledger may never have been written.
async fn manifests(location: &Folder) -> Result<Vec<(Step, Generation)>, CoordinatorError> {
    let failed = |source| CoordinatorError::store("read", format!("{}/manifests", location.url()), source);
    let listed: Vec<_> =
        location.store().list(Some(&location.path("manifests"))).try_collect().await.map_err(failed)?;
    let mut keys: Vec<_> = listed.iter().filter_map(|o| Manifest::parse_key(o.location.filename()?)).collect();
    keys.sort_unstable();
    Ok(keys)
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

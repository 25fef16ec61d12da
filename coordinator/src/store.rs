//! What the journal and the manifests ask of the run's store, asked.

use crate::error::CoordinatorError;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use pixfleet_checkpoint::{Attempts, Folder, leaders, sweep};
use pixfleet_cluster::Class;
use pixfleet_cluster::create::{Answer, Ask};
use std::time::Duration;

/// How long to go on trying to say where this coordinator is.
const ANNOUNCING: Duration = Duration::from_secs(600);

/// Asks the store once. Whether to ask again is for the machine to say.
pub(crate) async fn ask(run: Folder, ask: Ask) -> Answer {
    match ask {
        Ask::Create { key, body } => {
            let put = run.store().put_opts(&run.path(&key), body.into(), PutMode::Create.into()).await;
            match put {
                Ok(_) => Answer::Created,
                Err(object_store::Error::AlreadyExists { .. }) => Answer::Exists,
                Err(source) => failed(&run, "write", &key, source),
            }
        }
        Ask::Read { key } => {
            let there = async { run.store().get(&run.path(&key)).await?.bytes().await };
            match there.await {
                Ok(body) => Answer::Body(body.into()),
                // It was there when it was to be created: some stores say so of a create that lost against another one
                // which did not succeed either. The next create will tell.
                Err(source @ object_store::Error::NotFound { .. }) => {
                    Answer::Failed { retry: true, message: source.to_string() }
                }
                Err(source) => failed(&run, "read", &key, source),
            }
        }
    }
}

fn failed(run: &Folder, verb: &'static str, key: &str, source: object_store::Error) -> Answer {
    let error = CoordinatorError::store(verb, format!("{}/{key}", run.url()), source);
    let retry = error.class() == Class::Retry;
    tracing::warn!(key, retry, error = error.sentence(), "the store failed");
    Answer::Failed { retry, message: error.sentence() }
}

/// Removes checkpoints beyond the newest `keep`. A failure costs space and nothing else.
pub(crate) async fn clean(run: Folder, keep: usize) {
    match sweep(&run, keep).await {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => tracing::debug!(gone = gone.len(), "old checkpoints removed"),
        Err(error) => tracing::warn!(%error, "old checkpoints could not be removed"),
    }
}

/// Says where leader `number` is. Without that nobody who lost its coordinator finds this one, so it is tried again.
pub(crate) async fn announce(run: Folder, number: u64, address: String) {
    let mut attempts = Attempts::lasting(ANNOUNCING);
    while let Err(error) = leaders::announce(&run, number, &address).await {
        if !attempts.outlasts(&error, error.class()).await {
            tracing::warn!(%error, "workers that lose their coordinator will not learn of this one");
            return;
        }
    }
}

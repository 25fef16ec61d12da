//! Where the coordinator of a run is: `leaders/<number>.json`, created once by each coordinator when it has become the
//! leader (which the ledger decides, not this), and `leaders/<number>-closed.json` when the run is over. Workers that
//! lost their coordinator look here.

use crate::error::CheckpointError;
use crate::store::Folder;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_cluster::run::Outcome;
use serde::{Deserialize, Serialize};

/// What a leader says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its number; the highest leads.
    pub number: u64,
    /// Where workers reach it, `host:port`.
    pub address: String,
    /// How the run ended, if it did: a word of [`Outcome`].
    #[serde(skip)]
    pub closed: Option<Outcome>,
}

#[derive(Serialize, Deserialize)]
struct Closed {
    outcome: String,
}

/// Says where leader `number` is.
///
/// # Errors
/// [`CheckpointError::Store`] if the store refuses.
pub async fn announce(run: &Folder, number: u64, address: &str) -> Result<(), CheckpointError> {
    let leader = Leader { number, address: address.into(), closed: None };
    put(run, &format!("leaders/{number:020}.json"), &leader).await
}

/// Says that leader `number` has ended the run.
///
/// # Errors
/// [`CheckpointError::Store`] if the store refuses.
pub async fn close(run: &Folder, number: u64, outcome: Outcome) -> Result<(), CheckpointError> {
    put(run, &format!("leaders/{number:020}-closed.json"), &Closed { outcome: outcome.word().into() }).await
}

async fn put(run: &Folder, key: &str, value: &impl Serialize) -> Result<(), CheckpointError> {
    let json = serde_json::to_vec(value).expect("only JSON types");
    // Only this leader writes this key, and it would write the same again.
    run.store().put(&run.path(key), json.into()).await.map_err(CheckpointError::store("write", key))?;
    Ok(())
}

/// The newest leader, if there ever was one.
///
/// # Errors
/// [`CheckpointError::Store`] if the store fails, [`CheckpointError::Manifest`] if the object is not one of ours.
pub async fn newest(run: &Folder) -> Result<Option<Leader>, CheckpointError> {
    let listed: Vec<_> = run
        .store()
        .list(Some(&run.path("leaders")))
        .try_collect()
        .await
        .map_err(CheckpointError::store("list", "leaders"))?;
    let number = |name: &str| name.split(['.', '-']).next()?.parse::<u64>().ok();
    let newest = listed.iter().filter_map(|o| number(o.location.filename()?)).max();
    let Some(newest) = newest else { return Ok(None) };
    let has = |suffix: &str| {
        let name = format!("{newest:020}{suffix}");
        listed.iter().any(|o| o.location.filename() == Some(&name))
    };
    let closed = if has("-closed.json") {
        let closed: Closed = get(run, &format!("leaders/{newest:020}-closed.json")).await?;
        Outcome::of_word(&closed.outcome)
    } else {
        None
    };
    let leader: Leader = get(run, &format!("leaders/{newest:020}.json")).await?;
    Ok(Some(Leader { closed, ..leader }))
}

async fn get<T: for<'de> Deserialize<'de>>(run: &Folder, key: &str) -> Result<T, CheckpointError> {
    let failed = || CheckpointError::store("read", key);
    let bytes = run.store().get(&run.path(key)).await.map_err(failed())?.bytes().await.map_err(failed())?;
    serde_json::from_slice(&bytes).map_err(|source| CheckpointError::Manifest { key: key.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_leader_is_found_and_says_whether_the_run_is_over() {
        let run = Folder::in_memory().join("r");
        assert_eq!(newest(&run).await.expect("readable"), None);
        announce(&run, 1, "a:1").await.expect("writable");
        close(&run, 1, Outcome::Drained).await.expect("writable");
        let first = newest(&run).await.expect("readable").expect("announced");
        assert_eq!((first.number, first.address.as_str(), first.closed), (1, "a:1", Some(Outcome::Drained)));
        announce(&run, 2, "b:2").await.expect("writable");
        let second = newest(&run).await.expect("readable").expect("announced");
        assert_eq!((second.number, second.address.as_str(), second.closed), (2, "b:2", None));
    }
}

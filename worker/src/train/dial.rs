//! Finding the coordinator that leads: where the run's store says that it is, else where this worker was told to look.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use pixfleet_checkpoint::{CheckpointError, Folder, leaders};
use pixfleet_cluster::run::Outcome;
use pixfleet_proto::{Client, FleetError, Patience, connect};

/// A store that does not say where the leader is for so long is not waited for.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// An attempt under way.
pub(crate) type Dialling = Pin<Box<dyn Future<Output = Result<Client, Missed>> + Send>>;

/// Where a worker was told to look for its coordinator.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// `host:port`, or with `http://` before it.
    addresses: Vec<String>,
    /// The run's folder, whose store says where its leader is.
    run: Option<Folder>,
}

impl Told {
    /// Sorts what was typed: a URL of a store is a run's folder, all else an address.
    ///
    /// # Errors
    /// [`CheckpointError`] for a folder that no store has.
    pub(crate) fn new(typed: &[String]) -> Result<Self, CheckpointError> {
        let mut told = Self::default();
        for place in typed {
            match place.split_once("://") {
                None | Some(("http" | "https", _)) => told.addresses.push(place.clone()),
                Some(_) => told.run = Some(Folder::parse(place)?),
            }
        }
        Ok(told)
    }
}

/// Why nobody was reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The store says that the run is over, and nobody answers who could say otherwise.
    Closed(Outcome),
    /// Nobody answers: where, and why.
    Nobody(FleetError),
}

/// Tries each place once. `run` is the run's folder, once that is known.
pub(crate) fn dial(told: Told, run: Option<Folder>) -> Dialling {
    Box::pin(async move {
        let known = run.is_some();
        let newest = match run.or(told.run) {
            Some(run) => newest(&run).await,
            None => None,
        };
        let mut addresses: Vec<String> = newest.iter().map(|leader| leader.address.clone()).collect();
        addresses
            .extend(told.addresses.into_iter().filter(|t| newest.as_ref().is_none_or(|leader| leader.address != *t)));
        let mut causes = Vec::new();
        for address in &addresses {
            match connect(address, Patience(Duration::ZERO)).await {
                Ok(client) => return Ok(client),
                Err(FleetError::NoCoordinator { cause, .. }) => causes.push(cause),
                Err(other) => causes.push(other.to_string()),
            }
        }
        // Whoever is to begin may come before the coordinator that is to lead again.
        Err(match newest.and_then(|leader| leader.closed).filter(|_| known) {
            Some(outcome) => Missed::Closed(outcome),
            None => {
                if addresses.is_empty() {
                    causes.push("its store names no leader yet".into());
                }
                let (address, cause) = (addresses.join(", "), causes.join(", "));
                Missed::Nobody(FleetError::NoCoordinator { address, cause })
            }
        })
    })
}

async fn newest(run: &Folder) -> Option<leaders::Leader> {
    match tokio::time::timeout(STORE_PATIENCE, leaders::newest(run)).await {
        Ok(Ok(newest)) => newest,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the store does not say where the coordinator is");
            None
        }
        Err(_) => {
            tracing::warn!("the store does not answer where the coordinator is");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        (listener, address)
    }

    fn at(address: &str) -> Told {
        Told { addresses: vec![address.into()], run: None }
    }

    #[tokio::test]
    async fn a_worker_that_was_told_of_a_run_finds_its_leader() {
        let folder = tempfile::tempdir().expect("temporary");
        let url = format!("file://{}", folder.path().display());
        let told = Told::new(std::slice::from_ref(&url)).expect("a folder");
        let Err(Missed::Nobody(error)) = dial(told.clone(), None).await else { panic!("nobody leads") };
        assert!(error.to_string().contains("names no leader yet"), "{error}");
        let (leading, leads_at) = listener().await;
        leaders::announce(&Folder::parse(&url).expect("a folder"), 1, &leads_at).await.expect("writable");
        assert!(dial(told, None).await.is_ok());
        leading.accept().await.expect("the leader was dialled");

        let told = Told::new(&["node-a:7000".into(), "http://node-b:7000".into()]).expect("addresses");
        assert_eq!((told.addresses.len(), told.run.is_none()), (2, true));
        assert!(Told::new(&["gopher://x/y".into()]).is_err());
    }

    #[tokio::test]
    async fn the_leader_that_the_store_names_is_tried_before_the_places_that_were_told() {
        let (told, told_at) = listener().await;
        let (leading, leads_at) = listener().await;
        let run = Folder::in_memory().join("r");
        leaders::announce(&run, 1, &leads_at).await.expect("writable");
        let dialled = dial(at(&told_at), Some(run.clone())).await;
        assert!(dialled.is_ok());
        leading.accept().await.expect("the leader was dialled");

        // It is gone, and the run is not over: whoever was told is tried.
        drop(leading);
        assert!(dial(at(&told_at), Some(run.clone())).await.is_ok());
        told.accept().await.expect("it was dialled");

        // The run is over: that counts only if nobody answers.
        leaders::close(&run, 1, Outcome::Drained).await.expect("writable");
        assert!(dial(at(&told_at), Some(run.clone())).await.is_ok());
        drop(told);
        assert_eq!(dial(at(&told_at), Some(run)).await.err(), Some(Missed::Closed(Outcome::Drained)));
        let Err(Missed::Nobody(error)) = dial(at(&told_at), None).await else { panic!("nobody listens") };
        assert!(error.to_string().contains(&told_at), "{error}");
    }
}

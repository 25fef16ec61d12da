//! Finding the coordinator that leads: where the run's store says that it is, else where this worker was told to look.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use pixfleet_checkpoint::{Folder, leaders};
use pixfleet_cluster::run::Outcome;
use pixfleet_proto::{Client, FleetError, Patience, connect};

/// A store that does not say where the leader is for so long is not waited for.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// An attempt under way.
pub(crate) type Dialling = Pin<Box<dyn Future<Output = Result<Client, Missed>> + Send>>;

/// Why nobody was reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The store says that the run is over, and nobody answers who could say otherwise.
    Closed(Outcome),
    /// Nobody answers: where, and why.
    Nobody(FleetError),
}

/// Tries each place once. `run` is the run's folder, once that is known.
pub(crate) fn dial(told: Vec<String>, run: Option<Folder>) -> Dialling {
    Box::pin(async move {
        let newest = match run {
            Some(run) => newest(&run).await,
            None => None,
        };
        let mut addresses: Vec<String> = newest.iter().map(|leader| leader.address.clone()).collect();
        addresses.extend(told.into_iter().filter(|t| newest.as_ref().is_none_or(|leader| leader.address != *t)));
        let mut causes = Vec::new();
        for address in &addresses {
            match connect(address, Patience(Duration::ZERO)).await {
                Ok(client) => return Ok(client),
                Err(FleetError::NoCoordinator { cause, .. }) => causes.push(cause),
                Err(other) => causes.push(other.to_string()),
            }
        }
        Err(match newest.and_then(|leader| leader.closed) {
            Some(outcome) => Missed::Closed(outcome),
            None => {
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

    #[tokio::test]
    async fn the_leader_that_the_store_names_is_tried_before_the_places_that_were_told() {
        let (told, told_at) = listener().await;
        let (leading, leads_at) = listener().await;
        let run = Folder::in_memory().join("r");
        leaders::announce(&run, 1, &leads_at).await.expect("writable");
        let dialled = dial(vec![told_at.clone()], Some(run.clone())).await;
        assert!(dialled.is_ok());
        leading.accept().await.expect("the leader was dialled");

        // It is gone, and the run is not over: whoever was told is tried.
        drop(leading);
        assert!(dial(vec![told_at.clone()], Some(run.clone())).await.is_ok());
        told.accept().await.expect("it was dialled");

        // The run is over: that counts only if nobody answers.
        leaders::close(&run, 1, Outcome::Drained).await.expect("writable");
        assert!(dial(vec![told_at.clone()], Some(run.clone())).await.is_ok());
        drop(told);
        assert_eq!(dial(vec![told_at.clone()], Some(run)).await.err(), Some(Missed::Closed(Outcome::Drained)));
        let Err(Missed::Nobody(error)) = dial(vec![told_at.clone()], None).await else { panic!("nobody listens") };
        assert!(error.to_string().contains(&told_at), "{error}");
    }
}

//! c10d's store, answered by the coordinator: the trainer's blocking calls become gRPC calls on the runtime.
//!
//! Invariant: called from the trainer thread and from c10d's own threads, never from a thread of the runtime.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pixfleet_cluster::Generation;
use pixfleet_collective::{RendezvousStore, StoreError};
use pixfleet_proto::{FleetError, StoreClient, Way};
use tokio::runtime::Handle;

use super::switches::Switches;

/// The store of one generation. It is closed once that is over, whatever the coordinator does.
pub(crate) struct FleetStore {
    client: StoreClient,
    generation: Generation,
    switches: Arc<Switches>,
    runtime: Handle,
}

impl FleetStore {
    /// Asks whoever is at the end of `way`, waits on `runtime`.
    pub(crate) fn new(way: Way, generation: Generation, switches: Arc<Switches>, runtime: Handle) -> Self {
        Self { client: StoreClient::new(way, generation), generation, switches, runtime }
    }

    fn wait_for<T>(&self, call: impl Future<Output = Result<T, FleetError>>) -> Result<T, StoreError> {
        self.runtime.block_on(async {
            tokio::select! {
                answer = call => answer.map_err(store_error),
                () = self.switches.until_over(self.generation) => Err(StoreError::Closed),
            }
        })
    }
}

/// What c10d may do about it: nothing but fail; the class tells the trainer.
fn store_error(error: FleetError) -> StoreError {
    match error {
        FleetError::KeyTimeout { key, waited_ms, .. } => {
            StoreError::Timeout { keys: key, after: Duration::from_millis(waited_ms) }
        }
        FleetError::StaleGeneration { .. } | FleetError::RunOver { .. } => StoreError::Closed,
        other => StoreError::Unreachable { source: Box::new(other) },
    }
}

impl RendezvousStore for FleetStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.wait_for(self.client.set(key, value))
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError> {
        self.wait_for(self.client.get(key, timeout))
    }

    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        self.wait_for(self.client.add(key, amount))
    }

    fn check(&self, keys: &[String]) -> Result<bool, StoreError> {
        self.wait_for(self.client.check(keys))
    }

    fn wait(&self, keys: &[String], timeout: Duration) -> Result<(), StoreError> {
        self.wait_for(self.client.wait(keys, timeout))
    }

    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.wait_for(self.client.compare_set(key, expected, desired))
    }

    fn delete(&self, key: &str) -> Result<bool, StoreError> {
        self.wait_for(self.client.delete(key))
    }
}

//! c10d's store, answered where the generation meets: the trainer's blocking calls become gRPC calls on the runtime.
//!
//! Invariant: called from the trainer thread and from c10d's own threads, never from a thread of the runtime.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use pixfleet_cluster::run::Form;
use pixfleet_cluster::{Generation, Step};
use pixfleet_collective::{RendezvousStore, StoreError};
use pixfleet_proto::{FleetError, StoreClient};
use tokio::runtime::Handle;

use crate::train::switches::Switches;

/// Where rank 0 says with which step a generation begins.
const START: &str = "pixfleet/start";
/// How long one question for it waits.
const START_WAIT: Duration = Duration::from_secs(60);

/// The store of one generation. It is closed once that is over.
pub(crate) struct FleetStore {
    client: StoreClient,
    generation: Generation,
    switches: Arc<Switches>,
    runtime: Handle,
}

impl FleetStore {
    /// Asks at the meeting point of `form`, waits on `runtime`.
    ///
    /// # Errors
    /// If that is no address.
    pub(crate) fn new(form: &Form, switches: Arc<Switches>, runtime: Handle) -> Result<Self, StoreError> {
        let generation = form.generation;
        // The way there is a task.
        let _context = runtime.enter();
        let client = StoreClient::new(&form.meets_at, generation).map_err(store_error)?;
        Ok(Self { client, generation, switches, runtime })
    }

    /// Says with which step the generation begins.
    ///
    /// # Errors
    /// As any of the store's.
    pub(crate) fn tell_start(&self, step: Step) -> Result<(), StoreError> {
        self.set(START, &step.0.to_le_bytes())
    }

    /// Waits until rank 0 has said it, for as long as the generation is not over.
    ///
    /// # Errors
    /// As any of the store's.
    pub(crate) fn hear_start(&self) -> Result<Step, StoreError> {
        loop {
            match self.get(START, START_WAIT) {
                Err(StoreError::Timeout { .. }) => {}
                told => {
                    let bytes = told?
                        .try_into()
                        .map_err(|_| StoreError::Unsupported { what: "say with which step to begin" })?;
                    return Ok(Step(u64::from_le_bytes(bytes)));
                }
            }
        }
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

//! A store that counts how often it is asked: what is said to need nobody must not ask it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pixfleet_collective::{HashStore, RendezvousStore, StoreError};

/// See the module.
#[derive(Default)]
pub(crate) struct CountingStore {
    inner: HashStore,
    asked: AtomicU64,
}

impl CountingStore {
    /// Questions so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn count(&self) -> &HashStore {
        self.asked.fetch_add(1, Ordering::SeqCst);
        &self.inner
    }
}

/// Of one test: every handle counts together.
pub(crate) fn counting() -> Arc<CountingStore> {
    Arc::default()
}

impl RendezvousStore for CountingStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.count().set(key, value)
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError> {
        self.count().get(key, timeout)
    }

    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        self.count().add(key, amount)
    }

    fn check(&self, keys: &[String]) -> Result<bool, StoreError> {
        self.count().check(keys)
    }

    fn wait(&self, keys: &[String], timeout: Duration) -> Result<(), StoreError> {
        self.count().wait(keys, timeout)
    }

    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.count().compare_set(key, expected, desired)
    }

    fn delete(&self, key: &str) -> Result<bool, StoreError> {
        self.count().delete(key)
    }
}

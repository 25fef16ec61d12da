//! One group's view of the rendezvous store: its keys prefixed, its last error kept, its peers' addresses noted.
//!
//! Invariant: c10d sees the store through here alone, and a failed call leaves its typed error here, where the group finds
//! it. Keys of different generations never meet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pixfleet_shim::store::C10dStore;

use crate::addresses::Addresses;
use crate::error::StoreError;
use crate::group::GroupConfig;
use crate::store::RendezvousStore;

pub(crate) struct Bridge {
    store: Arc<dyn RendezvousStore>,
    prefix: String,
    last: Mutex<Option<StoreError>>,
    pub(crate) addresses: Addresses,
}

impl Bridge {
    pub(crate) fn new(store: Arc<dyn RendezvousStore>, config: &GroupConfig) -> Self {
        let prefix = format!("g{}/", config.generation);
        Self { store, prefix, last: Mutex::new(None), addresses: Addresses::new(config.rank) }
    }

    pub(crate) fn take_error(&self) -> Option<StoreError> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Counts the ranks that need no connection any more and waits for all of them.
    pub(crate) fn leave(&self, world: u32, timeout: Duration) -> Result<(), StoreError> {
        let all = self.key("left/all");
        if self.store.add(&self.key("left/count"), 1)? == i64::from(world) {
            self.store.set(&all, b"1")?;
        }
        self.store.wait(&[all], timeout)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn keys(&self, names: &[String]) -> Vec<String> {
        names.iter().map(|name| self.key(name)).collect()
    }

    fn kept<T>(&self, answer: Result<T, StoreError>) -> Option<T> {
        answer.map_err(|error| *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error)).ok()
    }
}

impl C10dStore for Bridge {
    fn set(&self, key: &str, value: &[u8]) -> Option<()> {
        self.addresses.note(key, value);
        self.kept(self.store.set(&self.key(key), value))
    }

    fn get(&self, key: &str, timeout: Duration) -> Option<Vec<u8>> {
        let value = self.kept(self.store.get(&self.key(key), timeout))?;
        self.addresses.note(key, &value);
        Some(value)
    }

    fn add(&self, key: &str, amount: i64) -> Option<i64> {
        self.kept(self.store.add(&self.key(key), amount))
    }

    fn check(&self, keys: &[String]) -> Option<bool> {
        self.kept(self.store.check(&self.keys(keys)))
    }

    fn wait(&self, keys: &[String], timeout: Duration) -> Option<()> {
        self.kept(self.store.wait(&self.keys(keys), timeout))
    }

    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Option<Vec<u8>> {
        self.kept(self.store.compare_set(&self.key(key), expected, desired))
    }

    fn delete(&self, key: &str) -> Option<bool> {
        self.kept(self.store.delete(&self.key(key)))
    }
}

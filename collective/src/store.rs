//! The rendezvous store: where ranks of one generation find each other.
//!
//! Invariant: the store never lives in a worker, since its death would end the run. Workers hand in an answer of the
//! coordinator's; tests hand in a [`HashStore`]. Keys of different generations never meet: a group prefixes its own.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::StoreError;

/// What c10d asks of its store. Calls come from several threads at once (gloo's and NCCL's own among them).
pub trait RendezvousStore: Send + Sync {
    /// Writes a value, over any older one.
    ///
    /// # Errors
    /// [`StoreError`] where the store did not take it.
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Reads a value, blocking until it is there.
    ///
    /// # Errors
    /// [`StoreError::Timeout`] after `timeout`; otherwise where the store did not answer.
    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError>;

    /// Adds to a counter (absent = 0) and returns its new value. Its bytes, as [`get`](Self::get) shows them, are the
    /// decimal digits: c10d relies on that.
    ///
    /// # Errors
    /// [`StoreError`] where the store did not answer, or the value is no number.
    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError>;

    /// Whether every key is there, without blocking.
    ///
    /// # Errors
    /// [`StoreError`] where the store did not answer.
    fn check(&self, keys: &[String]) -> Result<bool, StoreError>;

    /// Blocks until every key is there.
    ///
    /// # Errors
    /// [`StoreError::Timeout`] after `timeout`; otherwise where the store did not answer.
    fn wait(&self, keys: &[String], timeout: Duration) -> Result<(), StoreError>;

    /// Writes `desired` if the value is `expected` (empty `expected`: also if absent), and returns the value that
    /// then stands (`expected` itself where the key is absent and `expected` is not empty).
    ///
    /// # Errors
    /// [`StoreError`] where the store did not answer.
    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, StoreError>;

    /// Removes a key and says whether it was there.
    ///
    /// # Errors
    /// [`StoreError`] where the store did not answer.
    fn delete(&self, key: &str) -> Result<bool, StoreError>;
}

/// A store in this process: for groups of one rank, for threads, and as the heart of a served store.
#[derive(Debug, Default)]
pub struct HashStore {
    map: Mutex<HashMap<String, Vec<u8>>>,
    changed: Condvar,
}

impl HashStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The keys that start with `prefix`, sorted.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.lock().keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.sort();
        keys
    }

    /// Removes every key that starts with `prefix`: a generation that is over.
    pub fn clear(&self, prefix: &str) {
        self.lock().retain(|key, _| !key.starts_with(prefix));
    }

    /// A panic of another thread cannot leave the map half-written, so its poison is no news.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until<T>(
        &self,
        keys: &dyn Fn() -> String,
        timeout: Duration,
        found: impl Fn(&HashMap<String, Vec<u8>>) -> Option<T>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + timeout;
        let mut map = self.lock();
        loop {
            if let Some(value) = found(&map) {
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Timeout { keys: keys(), after: timeout });
            }
            map = self.changed.wait_timeout(map, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl RendezvousStore for HashStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.lock().insert(key.to_owned(), value.to_vec());
        self.changed.notify_all();
        Ok(())
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, StoreError> {
        self.until(&|| key.to_owned(), timeout, |map| map.get(key).cloned())
    }

    fn add(&self, key: &str, amount: i64) -> Result<i64, StoreError> {
        let mut map = self.lock();
        let old = match map.get(key) {
            None => 0,
            Some(bytes) => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .ok_or(StoreError::Unsupported { what: "add to a value that is no number" })?,
        };
        let new = old.wrapping_add(amount);
        map.insert(key.to_owned(), new.to_string().into_bytes());
        self.changed.notify_all();
        Ok(new)
    }

    fn check(&self, keys: &[String]) -> Result<bool, StoreError> {
        let map = self.lock();
        Ok(keys.iter().all(|key| map.contains_key(key)))
    }

    fn wait(&self, keys: &[String], timeout: Duration) -> Result<(), StoreError> {
        self.until(&|| keys.join(", "), timeout, |map| keys.iter().all(|key| map.contains_key(key)).then_some(()))
    }

    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut map = self.lock();
        let stands = match map.get(key) {
            Some(old) if old == expected => desired.to_vec(),
            Some(old) => return Ok(old.clone()),
            None if expected.is_empty() => desired.to_vec(),
            None => return Ok(expected.to_vec()),
        };
        map.insert(key.to_owned(), stands.clone());
        self.changed.notify_all();
        Ok(stands)
    }

    fn delete(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.lock().remove(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_read_as_decimal_digits() {
        let store = HashStore::new();
        assert_eq!(store.add("n", 3).unwrap(), 3);
        assert_eq!(store.add("n", -5).unwrap(), -2);
        assert_eq!(store.get("n", Duration::ZERO).unwrap(), b"-2");
        store.set("n", b"x").unwrap();
        assert!(matches!(store.add("n", 1), Err(StoreError::Unsupported { .. })));
    }

    #[test]
    fn get_blocks_until_another_thread_sets() {
        let store = HashStore::new();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| store.get("k", Duration::from_secs(20)).unwrap());
            store.set("k", b"v").unwrap();
            assert_eq!(reader.join().unwrap(), b"v");
        });
    }

    #[test]
    fn an_absent_key_is_a_timeout_that_names_it() {
        let error = HashStore::new().wait(&["a".to_owned(), "b".to_owned()], Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.to_string(), "waited 1 ms for a, b in the rendezvous store: a peer did not come");
    }

    #[test]
    fn compare_set_follows_c10d() {
        let store = HashStore::new();
        assert_eq!(store.compare_set("k", b"old", b"new").unwrap(), b"old");
        assert_eq!(store.compare_set("k", b"", b"one").unwrap(), b"one");
        assert_eq!(store.compare_set("k", b"zero", b"two").unwrap(), b"one");
        assert_eq!(store.compare_set("k", b"one", b"two").unwrap(), b"two");
        assert!(store.delete("k").unwrap());
        assert!(!store.delete("k").unwrap());
    }

    #[test]
    fn clearing_a_prefix_leaves_other_generations() {
        let store = HashStore::new();
        store.set("g1/a", b"").unwrap();
        store.set("g2/a", b"").unwrap();
        store.clear("g1/");
        assert_eq!(store.keys(""), ["g2/a"]);
    }
}

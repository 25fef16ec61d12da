//! The store behind c10d's rendezvous. It holds the keys of exactly one generation, the one that stands; a request of
//! any other is refused, and waiters of a generation that ends are woken with that refusal. So no key of an old group
//! can ever be met by a new one.

use pixfleet_cluster::Generation;
use pixfleet_proto::pb::store_request::Op;
use pixfleet_proto::pb::{StoreReply, StoreRequest};
use pixfleet_proto::{FleetError, Malformed, STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of keys and values that one generation may hold.
const TOTAL_BYTES_MAX: usize = 64 << 20;
/// The longest that one request may wait.
const WAIT_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
struct Keys {
    /// The generation that is served; none between two.
    open: Option<Generation>,
    /// The newest one that ever was.
    newest: Generation,
    values: HashMap<String, Vec<u8>>,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rendezvous {
    keys: Mutex<Keys>,
    changed: Notify,
}

/// What one look at the keys yields.
enum Lookup {
    Done(StoreReply),
    /// This key is not there yet.
    Wait(String),
}

impl Rendezvous {
    /// Serves `generation`, with no keys, and no other.
    pub(crate) fn open(&self, generation: Generation) {
        *self.lock() = Keys { open: Some(generation), newest: generation, ..Keys::default() };
        self.changed.notify_waiters();
    }

    /// Serves nobody.
    pub(crate) fn close(&self) {
        let mut keys = self.lock();
        *keys = Keys { newest: keys.newest, ..Keys::default() };
        drop(keys);
        self.changed.notify_waiters();
    }

    /// Answers one request, waiting where the request says so.
    pub(crate) async fn answer(&self, request: StoreRequest) -> Result<StoreReply, FleetError> {
        let generation = Generation(request.generation);
        let op = request.op.ok_or(Malformed { field: "store_request.op", problem: "is missing" })?;
        let asked = Duration::from_millis(match &op {
            Op::Get(get) => get.timeout_ms,
            Op::Wait(wait) => wait.timeout_ms,
            Op::Set(_) | Op::Add(_) | Op::Check(_) | Op::CompareSet(_) | Op::Delete(_) => 0,
        });
        let started = Instant::now();
        let deadline = started + asked.min(WAIT_MAX);
        let mut notified = Box::pin(self.changed.notified());
        loop {
            // Registered before the look, so that a change in between is not missed.
            notified.as_mut().enable();
            let key = match self.look(generation, &op)? {
                Lookup::Done(reply) => return Ok(reply),
                Lookup::Wait(key) => key,
            };
            if tokio::time::timeout_at(deadline, notified.as_mut()).await.is_err() {
                let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Err(FleetError::KeyTimeout { generation, key, waited_ms });
            }
            notified.set(self.changed.notified());
        }
    }

    fn look(&self, generation: Generation, op: &Op) -> Result<Lookup, FleetError> {
        let mut keys = self.lock();
        if keys.open != Some(generation) {
            return Err(FleetError::StaleGeneration { got: generation, current: keys.newest });
        }
        let (reply, changed) = match op {
            Op::Set(kv) => (keys.set(&kv.key, kv.value.clone()).map(|()| StoreReply::default())?, true),
            Op::Get(get) => match keys.values.get(&get.key) {
                Some(value) => (StoreReply { value: value.clone(), ..StoreReply::default() }, false),
                None => return Ok(Lookup::Wait(get.key.clone())),
            },
            Op::Add(add) => (keys.add(&add.key, add.amount)?, true),
            Op::Check(check) => {
                let flag = check.keys.iter().all(|k| keys.values.contains_key(k));
                (StoreReply { flag, ..StoreReply::default() }, false)
            }
            Op::Wait(wait) => match wait.keys.iter().find(|k| !keys.values.contains_key(*k)) {
                None => (StoreReply::default(), false),
                Some(missing) => return Ok(Lookup::Wait(missing.clone())),
            },
            Op::CompareSet(cs) => {
                let value = keys.compare_set(&cs.key, &cs.expected, &cs.desired)?;
                (StoreReply { value, ..StoreReply::default() }, true)
            }
            Op::Delete(key) => {
                let old = keys.values.remove(key);
                keys.bytes -= old.as_ref().map_or(0, |v| v.len() + key.len());
                (StoreReply { flag: old.is_some(), ..StoreReply::default() }, false)
            }
        };
        drop(keys);
        if changed {
            self.changed.notify_waiters();
        }
        Ok(Lookup::Done(reply))
    }

    /// A poisoned lock is taken as it is: the next generation clears it anyway.
    fn lock(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), FleetError> {
        let bound = |what: &str, bytes: usize, bytes_max: usize| {
            if bytes <= bytes_max {
                return Ok(());
            }
            Err(FleetError::TooLarge { what: what.into(), bytes: bytes as u64, bytes_max: bytes_max as u64 })
        };
        bound("the rendezvous key", key.len(), STORE_KEY_BYTES_MAX)?;
        bound("the rendezvous value", value.len(), STORE_VALUE_BYTES_MAX)?;
        let before = self.values.get(key).map_or(0, |v| v.len() + key.len());
        let after = self.bytes - before + value.len() + key.len();
        bound("the rendezvous store", after, TOTAL_BYTES_MAX)?;
        self.bytes = after;
        self.values.insert(key.into(), value);
        Ok(())
    }

    fn add(&mut self, key: &str, amount: i64) -> Result<StoreReply, FleetError> {
        let not_a_number = || Malformed { field: "store_request.add", problem: "the key holds no decimal number" };
        let old = match self.values.get(key) {
            None => 0,
            Some(v) => std::str::from_utf8(v).ok().and_then(|t| t.parse::<i64>().ok()).ok_or_else(not_a_number)?,
        };
        let number = old.wrapping_add(amount);
        self.set(key, number.to_string().into_bytes())?;
        Ok(StoreReply { number, ..StoreReply::default() })
    }

    /// c10d's contract: an absent key counts as equal to an empty `expected`; otherwise `expected` comes back.
    fn compare_set(&mut self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, FleetError> {
        match self.values.get(key) {
            Some(current) if current != expected => Ok(current.clone()),
            None if !expected.is_empty() => Ok(expected.to_vec()),
            _ => {
                self.set(key, desired.to_vec())?;
                Ok(desired.to_vec())
            }
        }
    }
}

#[cfg(test)]
mod tests;

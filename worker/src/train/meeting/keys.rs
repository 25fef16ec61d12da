//! The store of keys behind c10d's rendezvous, generation by generation: those that this process is rank 0 of. A request that
//! comes before the order of its generation has, waits; one of a generation that is over is refused, and waiters are woken
//! with that refusal. So no key of an old group can ever be met by a new one.

use pixfleet_cluster::Generation;
use pixfleet_proto::pb::store_request::Op;
use pixfleet_proto::pb::{StoreReply, StoreRequest};
use pixfleet_proto::{FleetError, Malformed, STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of keys and values that one generation may hold.
const TOTAL_BYTES_MAX: usize = 64 << 20;
/// Generations that are served at once: the one that trains, the one that it goes over into, and one whose ranks may be late.
const OPEN_MAX: usize = 3;
/// The longest that one request may wait.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// How long a request waits for the order of its generation: others may have had theirs a moment before.
const ORDER_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Keys {
    values: HashMap<String, Vec<u8>>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Generations {
    open: BTreeMap<Generation, Keys>,
    /// This one, and all before it, are over.
    over: Option<Generation>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct KeyStore {
    generations: Mutex<Generations>,
    changed: Notify,
}

/// What one look at the keys yields.
enum Lookup {
    Done(StoreReply),
    /// This key is not there yet.
    Wait(String),
    /// Nor is the order of its generation.
    Early,
}

impl KeyStore {
    /// Serves `generation`, with no keys at first.
    pub(crate) fn open(&self, generation: Generation) {
        let mut generations = self.lock();
        if generations.over < Some(generation) {
            generations.open.entry(generation).or_default();
            while generations.open.len() > OPEN_MAX {
                generations.open.pop_first();
            }
        }
        drop(generations);
        self.changed.notify_waiters();
    }

    /// Serves `generation`, and those before it, no more.
    pub(crate) fn close(&self, generation: Generation) {
        let mut generations = self.lock();
        generations.over = generations.over.max(Some(generation));
        generations.open.retain(|&open, _| open > generation);
        drop(generations);
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
        let mut notified = Box::pin(self.changed.notified());
        loop {
            // Registered before the look, so that a change in between is not missed.
            notified.as_mut().enable();
            let (key, patience) = match self.look(generation, &op)? {
                Lookup::Done(reply) => return Ok(reply),
                Lookup::Wait(key) => (key, asked),
                Lookup::Early => (String::new(), asked.max(ORDER_PATIENCE)),
            };
            let deadline = started + patience.min(WAIT_MAX);
            if tokio::time::timeout_at(deadline, notified.as_mut()).await.is_err() {
                let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Err(FleetError::KeyTimeout { generation, key, waited_ms });
            }
            notified.set(self.changed.notified());
        }
    }

    fn look(&self, generation: Generation, op: &Op) -> Result<Lookup, FleetError> {
        let mut generations = self.lock();
        if let Some(over) = generations.over.filter(|&over| generation <= over) {
            let current = generations.open.keys().next_back().copied().unwrap_or(over);
            return Err(FleetError::StaleGeneration { got: generation, current });
        }
        let Some(keys) = generations.open.get_mut(&generation) else { return Ok(Lookup::Early) };
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
        drop(generations);
        if changed {
            self.changed.notify_waiters();
        }
        Ok(Lookup::Done(reply))
    }

    /// A poisoned lock is taken as it is: what stands behind it is whole after every line.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
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

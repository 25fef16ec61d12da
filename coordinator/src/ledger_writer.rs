//! Records -> numbered create-only segments, committed in groups: one object about every second, and at once when
//! somebody waits for durability (at a checkpoint, at a re-forming, at the end).
//!
//! Invariant: segment n exists only if segment n-1 does, and names its digest; nothing is ever rewritten.

use crate::error::CoordinatorError;
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use pixfleet_checkpoint::Location;
use pixfleet_cluster::ledger::{LEDGER_SCHEMA, Record};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Records of this long are committed together.
const GROUP: Duration = Duration::from_secs(1);
/// Records that may wait for the store: hours of steps, some hundred megabytes at worst.
const WAITING_MAX: usize = 100_000;
/// A store that fails for this long ends the run.
const STORE_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    waiters: Vec<oneshot::Sender<()>>,
    /// No further records will come.
    closed: bool,
    /// The writer is gone: nobody will ever answer a waiter.
    dead: bool,
}

/// Where records are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LedgerHandle {
    queue: Arc<Mutex<Queue>>,
    wake: Arc<Notify>,
}

impl LedgerHandle {
    /// Queues a record.
    ///
    /// # Errors
    /// [`CoordinatorError::LedgerFull`] if the store has not taken any for too long.
    pub(crate) fn push(&self, record: Record) -> Result<(), CoordinatorError> {
        let mut queue = self.lock();
        let records = queue.records.len();
        if records >= WAITING_MAX {
            return Err(CoordinatorError::LedgerFull { records });
        }
        queue.records.push_back(record);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits until all records handed in so far are in the store; false if the writer gave up.
    pub(crate) async fn flush(&self) -> bool {
        let (sender, receiver) = oneshot::channel();
        {
            let mut queue = self.lock();
            if queue.dead {
                return false;
            }
            queue.waiters.push(sender);
        }
        self.wake.notify_one();
        receiver.await.is_ok()
    }

    /// Ends the current group now, without waiting for the store.
    pub(crate) fn hurry(&self) {
        let (sender, _) = oneshot::channel();
        self.lock().waiters.push(sender);
        self.wake.notify_one();
    }

    /// Lets the writer end once everything is written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// A poisoned lock holds whole records all the same: nothing panics between two of its changes.
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the writer behind segment `next`, whose predecessor has `digest`.
pub(crate) fn start(
    location: Location,
    next: u64,
    digest: String,
) -> (LedgerHandle, JoinHandle<Result<(), CoordinatorError>>) {
    let handle = LedgerHandle { queue: Arc::default(), wake: Arc::default() };
    let writer = Writer { location, next, digest, handle: handle.clone() };
    (handle, tokio::spawn(writer.run()))
}

struct Writer {
    location: Location,
    next: u64,
    digest: String,
    handle: LedgerHandle,
}

impl Writer {
    async fn run(mut self) -> Result<(), CoordinatorError> {
        let result = self.write_all().await;
        let mut queue = self.handle.lock();
        queue.dead = true;
        queue.waiters.clear();
        result
    }

    async fn write_all(&mut self) -> Result<(), CoordinatorError> {
        loop {
            self.group().await;
            let (records, waiters, closed) = {
                let mut queue = self.handle.lock();
                (std::mem::take(&mut queue.records), std::mem::take(&mut queue.waiters), queue.closed)
            };
            if !records.is_empty() {
                self.commit(&records).await?;
            }
            for waiter in waiters {
                // Whoever waited may have given up.
                let _ = waiter.send(());
            }
            if closed && self.handle.lock().records.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits for a first record, then for the group's time to pass or for somebody who cannot wait.
    async fn group(&self) {
        let mut until: Option<Instant> = None;
        loop {
            {
                let queue = self.handle.lock();
                if queue.closed || !queue.waiters.is_empty() {
                    return;
                }
                if until.is_none() && !queue.records.is_empty() {
                    until = Some(Instant::now() + GROUP);
                }
            }
            match until {
                None => self.handle.wake.notified().await,
                Some(at) => {
                    if tokio::time::timeout_at(at, self.handle.wake.notified()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn commit(&mut self, records: &VecDeque<Record>) -> Result<(), CoordinatorError> {
        let header = Record::Segment {
            schema: LEDGER_SCHEMA,
            number: self.next,
            previous: self.digest.clone(),
            nonce: crate::manifests::nonce(),
        };
        let text: String = std::iter::once(&header).chain(records).map(Record::to_line).collect();
        let bytes = Bytes::from(text);
        let key = Record::segment_key(self.next);
        create(&self.location, &key, &bytes).await?;
        self.next += 1;
        self.digest = blake3::hash(&bytes).to_hex().to_string();
        Ok(())
    }
}

/// Creates an object, trying again while the store fails; finding one's own bytes there is success (the answer to an
/// earlier attempt got lost).
///
/// # Errors
/// [`CoordinatorError::Rival`] if somebody else's lie there; what the store says otherwise.
pub(crate) async fn create(location: &Location, key: &str, bytes: &Bytes) -> Result<(), CoordinatorError> {
    let path = location.path(key);
    let url = format!("{}/{key}", location.url());
    let give_up = Instant::now() + STORE_PATIENCE;
    let mut pause = Duration::from_millis(50);
    loop {
        let put = location.store().put_opts(&path, bytes.clone().into(), PutMode::Create.into()).await;
        let source = match put {
            Ok(_) => return Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let there = async { location.store().get(&path).await?.bytes().await };
                match there.await {
                    Ok(there) if there == *bytes => return Ok(()),
                    Ok(_) => return Err(CoordinatorError::Rival { key: key.into() }),
                    Err(source) => source,
                }
            }
            Err(source) => source,
        };
        let error = CoordinatorError::store("write", url.clone(), source);
        if error.class() != pixfleet_cluster::Class::Retry || Instant::now() + pause >= give_up {
            return Err(error);
        }
        tracing::warn!(key, error = error.sentence(), "store failed, trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

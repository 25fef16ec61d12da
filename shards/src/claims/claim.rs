//! A unit in hand.

use super::{Mark, create};
use crate::error::ShardError;
use crate::patience::patiently;
use crate::store::Location;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A unit that this process took. It beats until it is dropped; dropped without [`Claim::finish`] or [`Claim::leave`],
/// its unit is taken over by another process once a lease has passed.
#[derive(Debug)]
pub struct Claim {
    folder: Location,
    unit: String,
    turn: u32,
    signature: Bytes,
    overtaken: Arc<AtomicBool>,
    pub(super) beats: JoinHandle<()>,
}

impl Claim {
    pub(super) fn new(folder: Location, unit: &str, turn: u32, signature: Bytes, pause: Duration) -> Self {
        let overtaken = Arc::new(AtomicBool::new(false));
        let beats = tokio::spawn(beat(folder.clone(), unit.to_owned(), turn, pause, Arc::clone(&overtaken)));
        Self { folder, unit: unit.to_owned(), turn, signature, overtaken, beats }
    }

    /// What to work on.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// How often the unit was taken, this time included: 1 unless holders were lost or gave it back.
    #[must_use]
    pub fn turn(&self) -> u32 {
        self.turn
    }

    /// Whether the last beat found that another process has taken the unit over, which was silent for too long then.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        self.overtaken.load(Ordering::Relaxed)
    }

    /// Asks the store whether the unit is still this claim's: to be asked before a result is published.
    ///
    /// # Errors
    /// Those of the store that outlast two minutes.
    pub async fn still_held(&self) -> Result<bool, ShardError> {
        let next = Mark::Turn(self.turn + 1).key(&self.unit);
        Ok(!patiently(|| self.folder.exists(&next)).await?)
    }

    /// Says that all is done, unless the unit was taken over; whether it is this claim's work that counts.
    ///
    /// # Errors
    /// Those of the store that outlast two minutes.
    pub async fn finish(self) -> Result<bool, ShardError> {
        let done = Mark::Done.key(&self.unit);
        Ok(self.still_held().await? && create(&self.folder, &done, self.signature.clone()).await?)
    }

    /// Gives the unit back, so that nobody need wait for the lease.
    ///
    /// # Errors
    /// Those of the store that outlast two minutes.
    pub async fn leave(self) -> Result<(), ShardError> {
        let left = Mark::Left(self.turn).key(&self.unit);
        patiently(|| self.folder.put(&left, Bytes::new())).await
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

/// Counts on, until the unit is somebody else's. A beat that the store refuses is made up for by the next one.
async fn beat(folder: Location, unit: String, turn: u32, pause: Duration, overtaken: Arc<AtomicBool>) {
    let (key, next) = (Mark::Beat(turn).key(&unit), Mark::Turn(turn + 1).key(&unit));
    for count in 1_u64.. {
        tokio::time::sleep(pause).await;
        if matches!(folder.exists(&next).await, Ok(true)) {
            tracing::warn!(unit, turn, "this process was silent for too long; another one has its unit");
            overtaken.store(true, Ordering::Relaxed);
            return;
        }
        if let Err(error) = folder.put(&key, count.to_string()).await {
            tracing::warn!(%error, unit, "a beat did not reach the store");
        }
    }
}

//! Claims on units of work, over a store: any number of processes on any machines share a job and may be killed at will.
//!
//! ```text
//! claims/<job>/<unit>/<turn>        whoever made it holds the unit
//!                    /<turn>-beat   a counter, every quarter of a lease
//!                    /<turn>-left   its holder gave it back
//!                    /done
//! ```
//! What the marks mean is in [`pixfleet_cluster::claims`]. A worker's loop:
//!
//! ```no_run
//! # async fn work(_: &str) -> Result<(), pixfleet_shards::ShardError> { Ok(()) }
//! # async fn run(location: pixfleet_shards::Location, units: Vec<String>) -> Result<(), pixfleet_shards::ShardError> {
//! use pixfleet_shards::claims::{Claims, LEASE, whoami};
//! let claims = Claims::new(&location, "embed-minilm", &whoami(), LEASE);
//! while let Some(claim) = claims.next(&units).await? {
//!     work(claim.unit()).await?;   // up to what it would publish
//!     if claim.still_held().await? {
//!         // publish: create-only, or such that doing it twice does no harm
//!     }
//!     claim.finish().await?;
//! }
//! # Ok(())
//! # }
//! ```
//! Beats are a task of the runtime that a claim was made on: nothing may block it for a good part of a lease.

mod claim;
#[cfg(test)]
mod tests;

pub use claim::Claim;
pub use pixfleet_cluster::claims::{Mark, Tally, UnitState};

use crate::error::ShardError;
use crate::patience::patiently;
use crate::store::Location;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore};
use pixfleet_cluster::claims::{Sight, Watch, to_try};
use pixfleet_cluster::journal::Nonces;
use serde::Serialize;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A lease that suits a store far away: one that fails for a while robs nobody.
pub const LEASE: Duration = Duration::from_secs(60);

/// Looks at the store in a lease: how often a holder beats, and how often those who wait for it look.
const LOOKS_PER_LEASE: u32 = 4;

/// The host and the process, for people who read a claim.
#[must_use]
pub fn whoami() -> String {
    format!("{}/{}", rustix::system::uname().nodename().to_string_lossy(), std::process::id())
}

/// What is to be had.
#[derive(Debug)]
pub enum Dealt {
    /// This unit.
    Unit(Claim),
    /// Nothing now, but others hold units that may yet come free.
    Held,
    /// Nothing any more: all units are done.
    Done,
}

/// The body of a turn and of `done`. The nonce tells one's own object from a rival's where a put's answer got lost.
#[derive(Serialize)]
struct Signature<'a> {
    who: &'a str,
    nonce: String,
}

/// One process's view of a job.
#[derive(Debug)]
pub struct Claims {
    folder: Location,
    who: String,
    lease: Duration,
    /// Nobody else's.
    seed: u64,
    nonces: Mutex<Nonces>,
    watch: Mutex<Watch>,
    began: Instant,
}

impl Claims {
    /// The job named `job` of the dataset at `location`; `who` is what others read of this process ([`whoami`]). All
    /// processes of a job should have one `lease`: how long a holder may be silent before its unit is taken from it.
    #[must_use]
    pub fn new(location: &Location, job: &str, who: &str, lease: Duration) -> Self {
        // `RandomState` has a seed of its own from the operating system.
        let seed = RandomState::new().build_hasher().finish();
        Self {
            folder: location.folder(&format!("claims/{job}")),
            who: who.to_owned(),
            lease,
            seed,
            nonces: Mutex::new(Nonces::new(seed)),
            watch: Mutex::new(Watch::new(lease)),
            began: Instant::now(),
        }
    }

    /// The next unit to work on; `None` once all are done. While others hold all that is left, it waits for them. It may
    /// be dropped at any time.
    ///
    /// # Errors
    /// Those of the store that outlast two minutes.
    pub async fn next<S: AsRef<str>>(&self, units: &[S]) -> Result<Option<Claim>, ShardError> {
        loop {
            match self.try_next(units).await? {
                Dealt::Unit(claim) => return Ok(Some(claim)),
                Dealt::Done => return Ok(None),
                Dealt::Held => tokio::time::sleep(self.pause()).await,
            }
        }
    }

    /// As [`Claims::next`], without waiting.
    ///
    /// # Errors
    /// Those of the store that outlast two minutes.
    pub async fn try_next<S: AsRef<str>>(&self, units: &[S]) -> Result<Dealt, ShardError> {
        let states = self.states(units).await?;
        for (place, turn) in to_try(&states, self.seed) {
            let unit = units[place].as_ref();
            let done = Mark::Done.key(unit);
            if !create(&self.folder, &Mark::Turn(turn).key(unit), self.signature()).await? {
                continue;
            }
            // Its last holder may have ended after the look.
            if turn > 1 && patiently(|| self.folder.exists(&done)).await? {
                continue;
            }
            return Ok(Dealt::Unit(Claim::new(self.folder.clone(), unit, turn, self.signature(), self.pause())));
        }
        let all_done = states.iter().all(|state| matches!(state, UnitState::Done));
        Ok(if all_done { Dealt::Done } else { Dealt::Held })
    }

    /// How far all processes together are.
    ///
    /// # Errors
    /// Those of the store that outlast two minutes.
    pub async fn progress<S: AsRef<str>>(&self, units: &[S]) -> Result<Tally, ShardError> {
        Ok(Tally::of(&self.states(units).await?))
    }

    /// Makes a unit that is done free again: what came of it is gone, or was made from something else.
    ///
    /// # Errors
    /// Those of the store that outlast two minutes.
    pub async fn reopen(&self, unit: &str) -> Result<(), ShardError> {
        let sight = self.sights().await?.remove(&self.name(unit)).unwrap_or_default();
        let (left, done) = (Mark::Left(sight.turn).key(unit), Mark::Done.key(unit));
        patiently(|| self.folder.put(&left, Bytes::new())).await?;
        patiently(|| self.folder.delete(&done)).await
    }

    /// What each unit is, by one listing.
    ///
    /// # Errors
    /// Those of the store that outlast two minutes.
    pub async fn states<S: AsRef<str>>(&self, units: &[S]) -> Result<Vec<UnitState>, ShardError> {
        let sights = self.sights().await?;
        let (now, none) = (self.began.elapsed(), Sight::default());
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut judge = |unit: &str| watch.judge(now, unit, sights.get(&self.name(unit)).unwrap_or(&none));
        Ok(units.iter().map(|unit| judge(unit.as_ref())).collect())
    }

    async fn sights(&self) -> Result<BTreeMap<String, Sight>, ShardError> {
        let (store, root) = (self.folder.store(), self.folder.path(""));
        let failed = |source| ShardError::store(self.folder.url().into(), "list", source);
        let list = || async { store.list(Some(&root)).try_collect::<Vec<_>>().await.map_err(failed) };
        let found: Vec<ObjectMeta> = patiently(list).await?;
        let keys: Vec<_> =
            found.iter().filter_map(|meta| Some((self.folder.relative(&meta.location)?, version(meta)))).collect();
        Ok(Sight::all(keys.iter().map(|(key, version)| (key.as_str(), version.clone()))))
    }

    /// A unit's name as a listing gives it back.
    fn name(&self, unit: &str) -> String {
        self.folder.relative(&self.folder.path(unit)).unwrap_or_default()
    }

    /// What this process signs with: never the same twice.
    fn signature(&self) -> Bytes {
        let nonce = self.nonces.lock().unwrap_or_else(PoisonError::into_inner).draw();
        serde_json::to_vec(&Signature { who: &self.who, nonce }).expect("two strings are JSON").into()
    }

    fn pause(&self) -> Duration {
        self.lease / LOOKS_PER_LEASE
    }
}

/// Puts a create-only object that nobody else would write; whether the one that lies there now is this one.
async fn create(folder: &Location, key: &str, body: Bytes) -> Result<bool, ShardError> {
    patiently(|| async { Ok(folder.create(key, body.clone()).await? || folder.get(key).await? == body) }).await
}

/// What differs whenever an object was written anew: never a time to reckon with.
fn version(meta: &ObjectMeta) -> String {
    meta.e_tag.clone().unwrap_or_else(|| format!("{} {}", meta.last_modified, meta.size))
}

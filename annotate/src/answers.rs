//! Answers that were given, in the store, by the hash of all that they depend on: model, template and what was filled in and
//! shown. An answer is there before it is used, so neither a kill nor a second process asks for it again.

use pixfleet_shards::{Location, ShardError};
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) model: String,
    pub(crate) template: String,
    /// Seconds of Unix time.
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) outcome: KeptOutcome,
}

/// What was answered, or why nothing usable was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeptOutcome {
    Answer(String),
    Rejected(String),
}

/// Tells a question from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 16]);

impl Key {
    /// Of parts that no two questions share unless they are the same.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = blake3::Hasher::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Self(key)
    }

    fn path(self) -> String {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("annotate/answers/{}/{hex}.json", &hex[..2])
    }
}

/// The answers beside a dataset.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    location: Location,
}

impl Answers {
    pub(crate) fn new(location: Location) -> Self {
        Self { location }
    }

    /// What is kept under `key`.
    pub(crate) async fn get(&self, key: Key) -> Result<Option<Kept>, ShardError> {
        match self.location.get(&key.path()).await {
            // What does not read is asked anew; a torn object can only be one that a dying store half wrote.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(ShardError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps an answer; what counts is what was kept first, and that comes back.
    pub(crate) async fn keep(&self, key: Key, kept: Kept) -> Result<Kept, ShardError> {
        let json = serde_json::to_vec(&kept).expect("an answer is JSON");
        if self.location.create(&key.path(), json.clone()).await? {
            return Ok(kept);
        }
        match self.get(key).await? {
            Some(first) => Ok(first),
            None => self.location.put(&key.path(), json).await.map(|()| kept),
        }
    }
}

/// Seconds of Unix time.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

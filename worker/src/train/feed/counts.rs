//! What a feed counts while it runs: for whoever wants to know what holds it back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of one running feed.
#[derive(Debug, Default)]
pub(crate) struct FeedCounts {
    waited: AtomicU64,
    ahead_bytes_max: AtomicU64,
    limit_max: AtomicU64,
}

impl FeedCounts {
    /// How long decoding had nothing to do because rows were still being read.
    pub(crate) fn decode_waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// The most bytes of rows that had been read and were not being decoded.
    pub(crate) fn ahead_bytes_max(&self) -> u64 {
        self.ahead_bytes_max.load(Ordering::Relaxed)
    }

    /// The most requests that were allowed to be under way at a time.
    pub(crate) fn limit_max(&self) -> u64 {
        self.limit_max.load(Ordering::Relaxed)
    }

    pub(super) fn waited(&self, time: Duration) {
        self.waited.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn ahead(&self, bytes: usize, limit: usize) {
        self.ahead_bytes_max.fetch_max(bytes as u64, Ordering::Relaxed);
        self.limit_max.fetch_max(limit as u64, Ordering::Relaxed);
    }
}

//! How a reader reaches its store: through a gate that lets so many requests be under way at a time, and with counts of
//! what came back.

use crate::store::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests under way at a time unless somebody sets another limit.
const REQUESTS: usize = 16;

/// What was fetched from the store.
#[derive(Debug, Default)]
pub struct Fetched {
    bytes: AtomicU64,
    used: AtomicU64,
    requests: AtomicU64,
    answered: AtomicU64,
    nanoseconds: AtomicU64,
    recent_nanoseconds: AtomicU64,
    under_way: AtomicU64,
    most_under_way: AtomicU64,
}

impl Fetched {
    /// Bytes, footers included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes on the store of the rows that were handed out, as often as they were: of each row its share of the pages that
    /// hold its columns, headers of pages included; footers and dictionaries are nobody's.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Ranged GETs.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// From the sending of a request to its last byte, on average; zero before the first answer.
    #[must_use]
    pub fn mean_latency(&self) -> Duration {
        let answered = self.answered.load(Ordering::Relaxed).max(1);
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed) / answered)
    }

    /// As [`Fetched::mean_latency`], of the last requests: each one counts an eighth more than the one before it.
    #[must_use]
    pub fn recent_latency(&self) -> Duration {
        Duration::from_nanos(self.recent_nanoseconds.load(Ordering::Relaxed))
    }

    /// All requests' times from sending to last byte, one after the other; over the time that went by, how many were
    /// under way on average (Little's law).
    #[must_use]
    pub fn total_latency(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// The most requests that were under way at a time.
    #[must_use]
    pub fn most_under_way(&self) -> u64 {
        self.most_under_way.load(Ordering::Relaxed)
    }

    /// Rows were handed out that account for so many bytes.
    pub(crate) fn use_bytes(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Lets so many requests be under way at a time; the others wait in line, first come, first served.
#[derive(Debug)]
pub struct Gate {
    permits: Semaphore,
    limit: Mutex<Limit>,
}

#[derive(Debug)]
struct Limit {
    requests: usize,
    /// Permits beyond the limit that are still out; they do not come back.
    debt: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self { permits: Semaphore::new(REQUESTS), limit: Mutex::new(Limit { requests: REQUESTS, debt: 0 }) }
    }
}

impl Gate {
    /// Requests that may be under way at a time.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.state().requests
    }

    /// From now on so many, at least one; requests under way beyond that go on.
    pub fn set_limit(&self, requests: usize) {
        let requests = requests.max(1);
        let mut limit = self.state();
        if requests > limit.requests {
            let more = requests - limit.requests;
            let forgiven = more.min(limit.debt);
            limit.debt -= forgiven;
            self.permits.add_permits(more - forgiven);
        } else {
            let fewer = limit.requests - requests;
            limit.debt += fewer - self.permits.forget_permits(fewer);
        }
        limit.requests = requests;
    }

    fn state(&self) -> MutexGuard<'_, Limit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self) -> Entered<'_> {
        let permit = self.permits.acquire().await.expect("the gate's semaphore is never closed");
        Entered { gate: self, permit: Some(permit) }
    }
}

/// One request under way.
struct Entered<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut limit = self.gate.state();
        if limit.debt > 0 {
            limit.debt -= 1;
            permit.forget();
        }
    }
}

/// A dataset's folder as one reader reaches it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) location: Location,
    pub(crate) fetched: Arc<Fetched>,
    pub(crate) gate: Arc<Gate>,
}

impl Access {
    pub(crate) fn new(location: Location) -> Self {
        Self { location, fetched: Arc::default(), gate: Arc::default() }
    }

    /// A request has its turn; it is under way until what comes back is dropped.
    pub(crate) async fn request(&self) -> Request<'_> {
        let entered = self.gate.enter().await;
        let counts = &self.fetched;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let now = counts.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        counts.most_under_way.fetch_max(now, Ordering::Relaxed);
        Request { counts, since: Instant::now(), _entered: entered }
    }
}

/// A request under way, counted.
pub(crate) struct Request<'a> {
    counts: &'a Fetched,
    since: Instant,
    _entered: Entered<'a>,
}

impl Request<'_> {
    /// So many bytes came back.
    pub(crate) fn answered(&self, bytes: u64) {
        let took = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counts.nanoseconds.fetch_add(took, Ordering::Relaxed);
        let first = self.counts.answered.fetch_add(1, Ordering::Relaxed) == 0;
        let recent = self.counts.recent_nanoseconds.load(Ordering::Relaxed);
        // Of two that come at the same moment one may be lost: it is an average.
        let recent = if first { took } else { recent - recent / 8 + took / 8 };
        self.counts.recent_nanoseconds.store(recent, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.counts.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_limit_holds_from_now_on_also_for_those_that_are_out() {
        let gate = Gate::default();
        gate.set_limit(3);
        let mut inside: Vec<Entered<'_>> =
            (0..3).map(|_| gate.enter().now_or_never().expect("three may enter")).collect();
        assert!(gate.enter().now_or_never().is_none());
        gate.set_limit(1);
        inside.truncate(1);
        assert!(gate.enter().now_or_never().is_none(), "one is inside, and one is the limit");
        inside.clear();
        let one = gate.enter().now_or_never().expect("nobody is inside");
        assert!(gate.enter().now_or_never().is_none());
        gate.set_limit(2);
        let two = gate.enter().now_or_never();
        assert!(two.is_some() && gate.enter().now_or_never().is_none());
        drop((one, two));
        assert_eq!((gate.limit(), gate.permits.available_permits()), (2, 2));
    }

    #[test]
    fn a_limit_that_rises_again_forgives_what_is_owed() {
        let gate = Gate::default();
        gate.set_limit(4);
        let inside: Vec<_> = (0..4).map(|_| gate.enter().now_or_never().expect("four may enter")).collect();
        gate.set_limit(1);
        gate.set_limit(4);
        drop(inside);
        assert_eq!(gate.permits.available_permits(), 4);
    }

    #[tokio::test]
    async fn requests_are_counted_and_timed() {
        let access = Access::new(Location::parse("/nowhere").expect("a path"));
        let (one, two) = (access.request().await, access.request().await);
        one.answered(5);
        drop((one, two));
        access.request().await.answered(7);
        let counts = &access.fetched;
        assert_eq!((counts.requests(), counts.bytes(), counts.most_under_way()), (3, 12, 2));
        assert!(counts.mean_latency() * 2 <= counts.total_latency());
        assert_eq!(counts.under_way.load(Ordering::Relaxed), 0);
    }
}

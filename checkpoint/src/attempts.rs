//! How long, and how often, a store that fails is asked again.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use pixfleet_cluster::Class;
use std::error::Error;
use std::time::{Duration, Instant};

/// The first pause; each further one is about twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One piece of work that may be tried again for a while. The pauses between attempts are drawn at random around twice
/// the last one, so that many processes that met the same failure do not come back in step.
#[derive(Debug)]
pub struct Attempts {
    pauses: ExponentialBackoff,
    until: Instant,
}

impl Attempts {
    /// For so long from now.
    #[must_use]
    pub fn lasting(limit: Duration) -> Self {
        let pauses = ExponentialBuilder::new().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX);
        Self { pauses: pauses.with_jitter().without_max_times().build(), until: Instant::now() + limit }
    }

    /// Whether to try again after `error`, which is of `class`; if so, a pause has passed.
    pub async fn outlasts(&mut self, error: &(dyn Error + Send + Sync + 'static), class: Class) -> bool {
        if class != Class::Retry || Instant::now() >= self.until {
            return false;
        }
        let Some(pause) = self.pauses.next() else { return false };
        tracing::warn!(error, pause_ms = pause.as_millis(), "the store failed, trying again");
        tokio::time::sleep(pause).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_lasts_as_long_as_it_says_and_only_for_what_may_pass() {
        let error = std::io::Error::other("503");
        assert!(!Attempts::lasting(Duration::from_secs(9)).outlasts(&error, Class::Fatal).await);
        assert!(!Attempts::lasting(Duration::ZERO).outlasts(&error, Class::Retry).await);
        let (mut attempts, since) = (Attempts::lasting(PAUSE_MIN * 3), Instant::now());
        let mut tries = 0;
        while attempts.outlasts(&error, Class::Retry).await {
            tries += 1;
        }
        assert!((1..=4).contains(&tries), "{tries}");
        assert!(since.elapsed() >= PAUSE_MIN * 3);
    }
}

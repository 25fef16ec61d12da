//! How long, and how often, a store that fails is asked again.

use crate::error::ShardError;
use backon::{ExponentialBuilder, Retryable};
use pixfleet_cluster::Class;
use std::future::Future;
use std::time::Duration;

/// For so long in all.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first pause; each further one is about twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Asks until the store answers: what may pass is waited for, anything else is the answer. `ask` must bear to be done
/// twice, for an answer may be lost on its way back. Pauses are drawn at random, so that processes do not come in step.
pub(crate) async fn patiently<T, F>(ask: impl FnMut() -> F) -> Result<T, ShardError>
where
    F: Future<Output = Result<T, ShardError>>,
{
    let pauses = ExponentialBuilder::new().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX).with_jitter();
    ask.retry(pauses.without_max_times().with_total_delay(Some(PATIENCE)))
        .when(|error| error.class() == Class::Retry)
        .notify(|error, pause| tracing::warn!(%error, pause_ms = pause.as_millis(), "the store failed, trying again"))
        .await
}

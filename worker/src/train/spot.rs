//! Notices of spot reclamation: the machine's metadata service is asked again and again whether the machine is about
//! to be taken back. An advice to move (EC2's rebalance recommendation) is no notice.

mod metadata;

use std::future::pending;
use std::time::Duration;

use pixfleet_cluster::spec::{SpotProvider, SpotSpec};
use tokio::time::MissedTickBehavior;

use metadata::{Metadata, Trouble};

/// A metadata service is on the machine itself: no answer after this long is none.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The machine is about to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpotNotice {
    /// Who says so.
    pub(crate) provider: SpotProvider,
    /// What will happen, in the provider's word: `terminate`, `preempted`, `Preempt`.
    pub(crate) what: String,
    /// When, as the provider writes it; `None`: at any moment.
    pub(crate) when: Option<String>,
}

impl std::fmt::Display for SpotNotice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let when = self.when.as_deref().unwrap_or("at any moment");
        write!(f, "spot notice of {:?}: {}, {when}", self.provider, self.what)
    }
}

/// Waits for a notice. Never ends without one: a metadata service that fails is asked again, and with
/// [`SpotProvider::None`] nobody is asked.
pub(crate) async fn watch(spot: &SpotSpec) -> SpotNotice {
    watch_within(spot, ANSWER_WITHIN).await
}

async fn watch_within(spot: &SpotSpec, answer_within: Duration) -> SpotNotice {
    let Some(mut metadata) = Metadata::of(spot, answer_within) else {
        return pending().await;
    };
    let mut questions = tokio::time::interval(Duration::from_millis(spot.poll_ms));
    questions.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hearing = Hearing::default();
    loop {
        questions.tick().await;
        let answer = metadata.ask().await;
        hearing.hear(&answer).log(spot, &answer);
        if let Ok(Some(notice)) = answer {
            return notice;
        }
    }
}

/// What the last question came to, so that the log hears of changes alone.
#[derive(Debug, Default)]
struct Hearing {
    trouble: Option<metadata::TroubleKind>,
}

/// What an answer has to tell the log.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Nothing,
    Trouble,
    Recovered,
    Notice,
}

impl Hearing {
    fn hear(&mut self, answer: &Result<Option<SpotNotice>, Trouble>) -> News {
        let before = self.trouble;
        self.trouble = answer.as_ref().err().map(Trouble::kind);
        match (answer, before) {
            (Ok(Some(_)), _) => News::Notice,
            (Err(_), _) if self.trouble != before => News::Trouble,
            (Ok(None), Some(_)) => News::Recovered,
            (Err(_), _) | (Ok(None), None) => News::Nothing,
        }
    }
}

impl News {
    fn log(&self, spot: &SpotSpec, answer: &Result<Option<SpotNotice>, Trouble>) {
        let provider = spot.provider;
        match (self, answer) {
            (Self::Notice, Ok(Some(SpotNotice { what, when, .. }))) => {
                tracing::warn!(?provider, what, when, "this machine is about to be taken back");
            }
            (Self::Trouble, Err(error)) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(?provider, error, "spot notices cannot be read, asking on; see spot.provider, spot.url");
            }
            (Self::Recovered, _) => tracing::info!(?provider, "spot notices can be read again"),
            (Self::Notice | Self::Trouble | Self::Nothing, _) => {}
        }
    }
}

#[cfg(test)]
mod tests;

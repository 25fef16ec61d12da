//! The feed: positions -> rows -> decoded samples -> one batch per lane of this rank, ahead of the trainer. A pipeline of
//! two stages that overlap across steps: [`fetch`] reads rows ahead up to a bound in bytes, [`decode`] makes batches of them
//! on threads of its own, and a few steps lie ready.
//!
//! Invariant: the batch of a (step, lane) is a pure function of (seed, dataset, step, lane); neither rank nor world size
//! nor an earlier generation changes it, nor how far ahead was read. Bad rows are replaced by the order's deterministic
//! substitutes and recorded.

mod counts;
mod decode;
mod fetch;
mod pace;
mod plan;
mod source;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pixfleet_cluster::{Class, LaneMap, SampleOrder, Step};
use pixfleet_shards::batch::{Batch, BatchError};
use pixfleet_shards::error::ShardError;
use pixfleet_shards::row::ImageRow;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(crate) use counts::FeedCounts;
pub(crate) use source::FeedSource;

/// Stand-ins that are tried for one bad row before the run gives up.
const SUBSTITUTES_MAX: u32 = SampleOrder::SUBSTITUTES_MAX;

/// A row, or in words what is wrong with it.
type RowRead = Result<ImageRow, String>;

/// Why a step has no samples.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// The store, or the dataset as a whole.
    #[error(transparent)]
    Shards(#[from] ShardError),
    /// Samples do not fit together: a bug.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A bad row for which no stand-in was found.
    #[error(
        "position {position}: {reason}; {SUBSTITUTES_MAX} stand-ins were tried and none can be decoded: the split is damaged, run `pixfleet shards verify`"
    )]
    NoSubstitute {
        /// Place in the stream of samples.
        position: u64,
        /// What is wrong with the row that was dealt.
        reason: String,
    },
    /// The decoding thread went away.
    #[error("the feed stopped before step {step}")]
    Stopped {
        /// The step that was waited for.
        step: u64,
    },
}

impl FeedError {
    /// What the trainer does about it.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Shards(e) => e.class(),
            Self::Batch(_) | Self::NoSubstitute { .. } | Self::Stopped { .. } => Class::Fatal,
        }
    }
}

/// One step's batches of this rank, by lane.
#[derive(Debug)]
pub(crate) struct StepBatches {
    pub(crate) step: Step,
    pub(crate) lanes: Vec<Batch>,
}

/// Which steps and lanes a feed is for.
#[derive(Debug, Clone)]
pub(crate) struct FeedRange {
    pub(crate) map: LaneMap,
    pub(crate) lanes: Range<u32>,
    pub(crate) steps: Range<u64>,
    /// Steps that lie ready at most.
    pub(crate) ahead: usize,
    /// Bytes of rows that are read ahead of decoding at most, about; always those of one step.
    pub(crate) ahead_bytes: usize,
}

/// A running feed of one generation. It stops when it is dropped.
pub(crate) struct Feed {
    ready: mpsc::Receiver<Result<StepBatches, FeedError>>,
    counts: Arc<FeedCounts>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Starts reading ahead.
    pub(crate) fn start(runtime: &Handle, source: Arc<FeedSource>, range: FeedRange) -> Self {
        let counts = Arc::new(FeedCounts::default());
        let (ready_out, ready) = mpsc::channel(range.ahead.max(1));
        let (rows_out, rows) = mpsc::channel(1);
        let fetching = fetch::Fetcher::new(Arc::clone(&source), range.clone(), Arc::clone(&counts)).run(rows_out);
        let decoding = decode::run(source, range, rows, ready_out, Arc::clone(&counts));
        let task = runtime.spawn(async move {
            tokio::join!(fetching, decoding);
        });
        Self { ready, counts, task }
    }

    /// What it has counted so far.
    pub(crate) fn counts(&self) -> &FeedCounts {
        &self.counts
    }

    /// The batches of `step`, which must be the one after the last. Cancel-safe. Also says how long they were waited for.
    ///
    /// # Errors
    /// What kept the step from being read.
    pub(crate) async fn next(&mut self, step: Step) -> Result<(StepBatches, Duration), FeedError> {
        let started = Instant::now();
        let batches = self.ready.recv().await.ok_or(FeedError::Stopped { step: step.0 })??;
        assert_eq!(batches.step, step, "the feed deals steps in order");
        Ok((batches, started.elapsed()))
    }

    /// What [`Self::next`] would yield, if it need not be waited for. `None` is no end: `next` tells.
    pub(crate) fn ready(&mut self) -> Option<Result<StepBatches, FeedError>> {
        self.ready.try_recv().ok()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;

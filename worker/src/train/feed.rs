//! The feed: positions -> rows -> decoded samples -> one batch per lane of this rank, a few steps ahead of the trainer.
//!
//! Invariant: the batch of a (step, lane) is a pure function of (seed, dataset, step, lane); neither rank nor world size
//! nor an earlier generation changes it. Bad rows are replaced by the order's deterministic substitutes and recorded.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use pixfleet_checkpoint::Attempts;
use pixfleet_cluster::ledger::Substitution;
use pixfleet_cluster::{Class, Lane, LaneMap, SampleId, SampleOrder, Step};
use pixfleet_shards::batch::{Batch, BatchError, assemble};
use pixfleet_shards::error::ShardError;
use pixfleet_shards::reader::RowGroupReader;
use pixfleet_shards::row::ImageRow;
use pixfleet_shards::sample::{Sample, SampleConfig, SampleKey, make_sample};
use rayon::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::cut_log::CutLog;

/// Row groups that are fetched at a time.
const READS_IN_FLIGHT: usize = 4;
/// Stand-ins that are tried for one bad row before the run gives up.
const SUBSTITUTES_MAX: u32 = 16;

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

/// Where samples come from; outlives generations, and with it the reader's cache.
pub(crate) struct FeedSource {
    /// Rows by row group.
    pub(crate) reader: RowGroupReader,
    /// The run's order of samples.
    pub(crate) order: SampleOrder,
    /// How rows become samples.
    pub(crate) config: SampleConfig,
    /// The run's seed.
    pub(crate) seed: u64,
    /// How long a store that fails is asked for a row group.
    pub(crate) patience: Duration,
    /// Threads that decode.
    pub(crate) pool: rayon::ThreadPool,
    /// Texts that were cut.
    pub(crate) cuts: CutLog,
}

/// Which steps and lanes a feed is for.
#[derive(Debug, Clone)]
pub(crate) struct FeedRange {
    pub(crate) map: LaneMap,
    pub(crate) lanes: Range<u32>,
    pub(crate) steps: Range<u64>,
    /// Steps that lie ready at most.
    pub(crate) ahead: usize,
}

/// A running feed of one generation. It stops when it is dropped.
pub(crate) struct Feed {
    ready: mpsc::Receiver<Result<StepBatches, FeedError>>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Starts reading ahead.
    pub(crate) fn start(runtime: &Handle, source: Arc<FeedSource>, range: FeedRange) -> Self {
        let (sender, ready) = mpsc::channel(range.ahead.max(1));
        let task = runtime.spawn(async move {
            let mut order = source.order.clone();
            for step in range.steps.clone().map(Step) {
                let batches = step_batches(&source, &mut order, &range, step).await;
                let failed = batches.is_err();
                if sender.send(batches).await.is_err() || failed {
                    return;
                }
            }
            source.cuts.finish();
        });
        Self { ready, task }
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

/// One dealt place of the stream.
#[derive(Debug, Clone, Copy)]
struct Dealt {
    position: u64,
    id: SampleId,
}

async fn step_batches(
    source: &Arc<FeedSource>,
    order: &mut SampleOrder,
    range: &FeedRange,
    step: Step,
) -> Result<StepBatches, FeedError> {
    let positions = range.lanes.clone().flat_map(|lane| range.map.positions(step, Lane(lane)));
    let dealt: Vec<Dealt> = positions.map(|position| Dealt { position, id: order.locate(position) }).collect();
    let rows = fetch(source, dealt.iter().map(|d| d.id)).await?;
    let first = decode(source, dealt.iter().map(|d| d.id).zip(rows).collect(), order).await?;
    let mut samples = Vec::with_capacity(dealt.len());
    let mut substitutions = Vec::new();
    for (dealt, sample) in dealt.iter().zip(first) {
        let (id, sample) = match sample {
            Ok(sample) => (dealt.id, sample),
            Err(reason) => {
                let (used, sample) = substitute(source, order, *dealt, &reason).await?;
                tracing::warn!(position = dealt.position, reason, ?used, "bad row replaced");
                let position = dealt.position;
                substitutions.push(Substitution { position, wanted: dealt.id, used, reason });
                (used, sample)
            }
        };
        samples.push((id, sample));
    }
    let size = range.map.lane_size() as usize;
    let lanes = samples.chunks(size).zip(range.lanes.clone()).map(|(part, lane)| {
        let places = range.map.positions(step, Lane(lane));
        let own = substitutions.iter().filter(|s| places.contains(&s.position)).cloned().collect();
        assemble(part, &source.config.needs, own)
    });
    let lanes: Vec<Batch> = lanes.collect::<Result<_, _>>()?;
    for batch in &lanes {
        source.cuts.add(batch.samples.first().map_or(0, |sample| sample.epoch), &batch.cuts);
    }
    Ok(StepBatches { step, lanes })
}

/// A row, or what is wrong with it.
type RowRead = Result<ImageRow, String>;

/// The rows of `ids`, in their order. A row that cannot be read as such is an `Err` of its own; only the store and the
/// dataset as a whole fail the call.
async fn fetch(source: &FeedSource, ids: impl Iterator<Item = SampleId>) -> Result<Vec<RowRead>, FeedError> {
    let mut groups: BTreeMap<u32, Vec<(usize, u32)>> = BTreeMap::new();
    let mut count = 0;
    for (place, id) in ids.enumerate() {
        groups.entry(id.row_group).or_default().push((place, id.row));
        count += 1;
    }
    let read = futures::stream::iter(groups)
        .map(|(group, wanted)| async move {
            let rows: Vec<u32> = wanted.iter().map(|&(_, row)| row).collect();
            let mut attempts = Attempts::lasting(source.patience);
            let read = loop {
                match source.reader.read_each(group, &rows, source.config.columns()).await {
                    Ok(read) => break read.into_iter().map(|row| row.map_err(|e| e.to_string())).collect(),
                    // A damaged row group is so many bad rows; a store in trouble is not.
                    Err(damage) if damage.is_bad_data() => break vec![Err(damage.to_string()); rows.len()],
                    Err(trouble) if attempts.outlasts(&trouble, trouble.class()).await => {}
                    Err(trouble) => return Err(trouble),
                }
            };
            Ok((wanted, read))
        })
        .buffer_unordered(READS_IN_FLIGHT)
        .try_collect::<Vec<_>>()
        .await?;
    let mut rows: Vec<Option<RowRead>> = (0..count).map(|_| None).collect();
    for (wanted, read) in read {
        for ((place, _), row) in wanted.into_iter().zip(read) {
            rows[place] = Some(row);
        }
    }
    Ok(rows.into_iter().map(|row| row.expect("every place was asked for")).collect())
}

/// Samples of rows, on the decoding threads; `Err` says what is wrong with a row.
async fn decode(
    source: &Arc<FeedSource>,
    rows: Vec<(SampleId, RowRead)>,
    order: &SampleOrder,
) -> Result<Vec<Result<Sample, String>>, FeedError> {
    let (done, samples) = tokio::sync::oneshot::channel();
    let keyed: Vec<_> = rows
        .into_iter()
        .map(|(id, row)| (SampleKey { seed: source.seed, epoch: id.epoch, row_number: order.row_number(id) }, id, row))
        .collect();
    let shared = Arc::clone(source);
    source.pool.spawn(move || {
        let samples = keyed.into_par_iter().map(|(key, id, row)| {
            let named = |e: &dyn std::fmt::Display| format!("{}: {e}", shared.reader.place(id.row_group, id.row));
            make_sample(&row?, key, &shared.config).map_err(|e| named(&e))
        });
        // Nobody waits any more when the generation ended meanwhile.
        let _ = done.send(samples.collect());
    });
    samples.await.map_err(|_| FeedError::Stopped { step: 0 })
}

/// The first of the order's stand-ins that can be decoded.
async fn substitute(
    source: &Arc<FeedSource>,
    order: &SampleOrder,
    dealt: Dealt,
    reason: &str,
) -> Result<(SampleId, Sample), FeedError> {
    for attempt in 1..=SUBSTITUTES_MAX {
        let id = order.substitute(dealt.id, attempt);
        let rows = fetch(source, std::iter::once(id)).await?;
        let samples = decode(source, std::iter::once(id).zip(rows).collect(), order).await?;
        if let Some(Ok(sample)) = samples.into_iter().next() {
            return Ok((id, sample));
        }
    }
    Err(FeedError::NoSubstitute { position: dealt.position, reason: reason.into() })
}

#[cfg(test)]
mod tests;

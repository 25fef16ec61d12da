//! Decoding: the rows of a step become one batch per lane, on the decoding threads. A lane's samples are jobs of their own,
//! in the order of steps, and whoever makes the last one puts the batch together; so the threads never wait for each other,
//! and samples of the next step follow at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::future::{Future, try_join_all};
use futures::stream::{FuturesOrdered, StreamExt};
use pixfleet_cluster::ledger::Substitution;
use pixfleet_cluster::{SampleId, Step};
use pixfleet_shards::batch::{Batch, assemble};
use pixfleet_shards::sample::{Sample, SampleKey, make_sample};
use tokio::sync::{mpsc, oneshot};

use super::counts::FeedCounts;
use super::fetch::read_rows;
use super::plan::{Dealt, StepRows};
use super::{FeedError, FeedRange, FeedSource, RowRead, SUBSTITUTES_MAX, StepBatches};

/// Steps whose samples are made at a time: the threads go on with the next one while the last samples of one are made.
const STEPS_AT_ONCE: usize = 2;

/// A sample, or in words what is wrong with its row.
type Made = Result<Sample, String>;

/// What became of a lane.
enum LaneMade {
    /// All of its rows were good.
    Whole(Box<Result<Batch, FeedError>>),
    /// Some were not.
    Holes(Vec<Made>),
}

/// Makes batches of every step's rows, in order, until there are no more, one fails, or nobody wants them.
pub(super) async fn run(
    source: Arc<FeedSource>,
    range: FeedRange,
    mut rows: mpsc::Receiver<Result<StepRows, FeedError>>,
    ready: mpsc::Sender<Result<StepBatches, FeedError>>,
    counts: Arc<FeedCounts>,
) {
    let mut making = FuturesOrdered::new();
    let (mut failed, mut more) = (None, true);
    while more || !making.is_empty() {
        let idle = making.is_empty().then(Instant::now);
        tokio::select! {
            next = rows.recv(), if more && making.len() < STEPS_AT_ONCE => match next {
                Some(Ok(step)) => {
                    idle.iter().for_each(|since| counts.waited(since.elapsed()));
                    making.push_back(step_batches(&source, &range, step));
                }
                Some(Err(error)) => (failed, more) = (Some(error), false),
                None => more = false,
            },
            Some(step) = making.next() => {
                if let Ok(StepBatches { lanes, .. }) = &step {
                    for batch in lanes {
                        source.cuts.add(batch.samples.first().map_or(0, |sample| sample.epoch), &batch.cuts);
                    }
                }
                let last = step.is_err();
                if ready.send(step).await.is_err() || last {
                    return;
                }
            }
        }
    }
    match failed {
        // Nobody waits any more when the generation ended meanwhile.
        Some(error) => drop(ready.send(Err(error)).await),
        None => source.cuts.finish(),
    }
}

/// The batches of a step; its samples are on their way to the decoding threads when this returns.
fn step_batches(
    source: &Arc<FeedSource>,
    range: &FeedRange,
    rows: StepRows,
) -> impl Future<Output = Result<StepBatches, FeedError>> + use<> {
    let (step, size) = (rows.step, range.map.lane_size() as usize);
    let mut rows = rows.into_rows();
    let lanes: Vec<_> = range
        .lanes
        .clone()
        .map(|_| {
            let lane: Vec<(Dealt, RowRead)> = rows.by_ref().take(size).collect();
            let dealt: Vec<Dealt> = lane.iter().map(|(dealt, _)| *dealt).collect();
            let made = make(source, lane.into_iter().map(|(dealt, row)| (dealt.id, row)).collect());
            let source = Arc::clone(source);
            async move {
                match made.await.map_err(|_| FeedError::Stopped { step: step.0 })? {
                    LaneMade::Whole(batch) => *batch,
                    LaneMade::Holes(samples) => mend(&source, step, &dealt, samples).await,
                }
            }
        })
        .collect();
    async move { Ok(StepBatches { step, lanes: try_join_all(lanes).await? }) }
}

/// One lane on the decoding threads.
struct LaneWork {
    source: Arc<FeedSource>,
    ids: Vec<SampleId>,
    state: Mutex<LaneState>,
}

struct LaneState {
    samples: Vec<Option<Made>>,
    left: usize,
    done: Option<oneshot::Sender<LaneMade>>,
}

/// Has the samples of a lane's rows made, and its batch where all are good.
fn make(source: &Arc<FeedSource>, rows: Vec<(SampleId, RowRead)>) -> oneshot::Receiver<LaneMade> {
    let (done, made) = oneshot::channel();
    let samples = rows.iter().map(|_| None).collect();
    let state = Mutex::new(LaneState { samples, left: rows.len(), done: Some(done) });
    let ids = rows.iter().map(|(id, _)| *id).collect();
    let work = Arc::new(LaneWork { source: Arc::clone(source), ids, state });
    for (place, (_, row)) in rows.into_iter().enumerate() {
        let work = Arc::clone(&work);
        source.pool.spawn_fifo(move || work.sample(place, row));
    }
    made
}

impl LaneWork {
    fn sample(&self, place: usize, row: RowRead) {
        // Nobody waits any more when the generation ended meanwhile.
        let wanted = |state: &LaneState| state.done.as_ref().is_some_and(|done| !done.is_closed());
        if !self.with(|state| wanted(state)) {
            return;
        }
        let made = sample_of(&self.source, self.ids[place], row);
        let last = self.with(|state| {
            state.samples[place] = Some(made);
            state.left -= 1;
            (state.left == 0).then(|| (std::mem::take(&mut state.samples), state.done.take()))
        });
        if let Some((samples, Some(done))) = last {
            // The receiver is gone only if nobody waits.
            let _ = done.send(self.together(samples.into_iter().flatten().collect()));
        }
    }

    fn together(&self, samples: Vec<Made>) -> LaneMade {
        if samples.iter().any(Result::is_err) {
            return LaneMade::Holes(samples);
        }
        let pairs: Vec<(SampleId, Sample)> = self.ids.iter().copied().zip(samples.into_iter().flatten()).collect();
        let batch = assemble(&pairs, &self.source.config.needs, Vec::new());
        LaneMade::Whole(Box::new(batch.map_err(FeedError::from)))
    }

    fn with<T>(&self, look: impl FnOnce(&mut LaneState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The sample of a row.
fn sample_of(source: &FeedSource, id: SampleId, row: RowRead) -> Made {
    let key = SampleKey { seed: source.seed, epoch: id.epoch, row_number: source.order.row_number(id) };
    let named = |e| format!("{}: {e}", source.reader.place(id.row_group, id.row));
    row.and_then(|row| make_sample(&row, key, &source.config).map_err(named))
}

/// What `work` makes on a decoding thread; `None` if they are gone.
async fn on_a_thread<T: Send + 'static>(source: &FeedSource, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, made) = oneshot::channel();
    // The receiver is gone only if nobody waits.
    source.pool.spawn_fifo(move || drop(done.send(work())));
    made.await.ok()
}

/// Puts stand-ins where rows are bad.
async fn mend(source: &Arc<FeedSource>, step: Step, dealt: &[Dealt], samples: Vec<Made>) -> Result<Batch, FeedError> {
    let mut pairs = Vec::with_capacity(samples.len());
    let mut substitutions = Vec::new();
    for (dealt, sample) in dealt.iter().zip(samples) {
        let (id, sample) = match sample {
            Ok(sample) => (dealt.id, sample),
            Err(reason) => {
                let (used, sample) = substitute(source, step, *dealt, &reason).await?;
                let position = dealt.position;
                tracing::warn!(position, reason, ?used, "bad row replaced");
                substitutions.push(Substitution { position, wanted: dealt.id, used, reason });
                (used, sample)
            }
        };
        pairs.push((id, sample));
    }
    let needs = source.config.needs.clone();
    let batch = on_a_thread(source, move || assemble(&pairs, &needs, substitutions)).await;
    Ok(batch.ok_or(FeedError::Stopped { step: step.0 })??)
}

/// The first of the order's stand-ins that can be decoded.
async fn substitute(
    source: &Arc<FeedSource>,
    step: Step,
    dealt: Dealt,
    reason: &str,
) -> Result<(SampleId, Sample), FeedError> {
    for attempt in 1..=SUBSTITUTES_MAX {
        let id = source.order.substitute(dealt.id, attempt);
        let (rows, _) = read_rows(source, id.row_group, &[id.row]).await;
        let Some((row, _)) = rows?.pop() else { continue };
        let shared = Arc::clone(source);
        let made = on_a_thread(source, move || sample_of(&shared, id, row)).await;
        if let Ok(sample) = made.ok_or(FeedError::Stopped { step: step.0 })? {
            return Ok((id, sample));
        }
    }
    Err(FeedError::NoSubstitute { position: dealt.position, reason: reason.into() })
}

//! The feed alone: rows are read, decoded and put together as for training, and dropped.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use pixfleet_cluster::spec::RunSpec;
use pixfleet_cluster::{LaneMap, Rank, Step};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::Args;
use super::figures::Figures;
use crate::train::feed::{Feed, FeedRange, FeedSource};

/// What one worker's feed did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct FeedFigures {
    /// Steps, and samples of the measured worker.
    steps: u64,
    samples: u64,
    /// From the start of the feed to its last batch.
    seconds: f64,
    pub(super) samples_per_s: f64,
    /// From the start of the feed to its first batch.
    first_step_s: f64,
    /// Rows that were no good and were replaced.
    substituted: u64,
    /// Bytes that came from the store, and bytes that the rows account for there, page headers included.
    bytes_fetched: u64,
    bytes_used: u64,
    fetched_per_used: f64,
    megabytes_per_s: f64,
    /// Ranged GETs, from sending to last byte.
    requests: u64,
    mean_latency_ms: f64,
    /// Requests under way: on average over the whole time, the most, and the most that were allowed.
    mean_under_way: f64,
    most_under_way: u64,
    most_allowed: u64,
    /// The most bytes of rows that lay read and not decoded, in MiB.
    ahead_mib: f64,
    decode_threads: usize,
    /// Part of the time in which decoding had nothing to do because rows were still being read.
    decode_waited: f64,
}

/// Feeds the steps of the first of `args.workers` workers.
///
/// # Errors
/// What keeps the dataset from being opened, or a step from being read.
pub(super) fn measure(args: &Args, spec: &RunSpec, runtime: &Runtime) -> Result<FeedFigures> {
    let mut source = runtime.block_on(FeedSource::open(spec, None, args.decode_threads))?;
    source.reader = source.reader.with_cache_bytes(args.cache_mib << 20);
    let source = Arc::new(source);
    let train = &spec.train;
    let map = LaneMap::new(train.lanes, train.global_batch / train.lanes, args.workers)
        .context("the number of workers was checked against the lanes")?;
    let epoch = (source.order.epoch_len() / u64::from(train.global_batch)).max(1);
    let steps = args.steps.unwrap_or(epoch.min(spec.schedule.steps));
    let range = FeedRange {
        map,
        lanes: map.lanes_of(Rank(0)),
        steps: 0..steps,
        ahead: train.prefetch_steps as usize,
        ahead_bytes: (train.prefetch_mib as usize) << 20,
    };
    let started = Instant::now();
    let mut feed = Feed::start(runtime.handle(), Arc::clone(&source), range);
    let (mut samples, mut substituted, mut first_step_s) = (0, 0, 0.0);
    for step in 0..steps {
        let (batches, _) = runtime.block_on(feed.next(Step(step)))?;
        if step == 0 {
            first_step_s = started.elapsed().as_secs_f64();
        }
        samples += batches.lanes.iter().map(|batch| batch.n as u64).sum::<u64>();
        substituted += batches.lanes.iter().map(|batch| batch.substitutions.len() as u64).sum::<u64>();
    }
    let seconds = started.elapsed().as_secs_f64();
    let (fetched, counts) = (source.reader.fetched(), feed.counts());
    Ok(FeedFigures {
        steps,
        samples,
        seconds,
        samples_per_s: samples as f64 / seconds,
        first_step_s,
        substituted,
        bytes_fetched: fetched.bytes(),
        bytes_used: fetched.used(),
        fetched_per_used: fetched.bytes() as f64 / fetched.used().max(1) as f64,
        megabytes_per_s: fetched.bytes() as f64 / 1e6 / seconds,
        requests: fetched.requests(),
        mean_latency_ms: fetched.mean_latency().as_secs_f64() * 1e3,
        mean_under_way: fetched.total_latency().as_secs_f64() / seconds,
        most_under_way: fetched.most_under_way(),
        most_allowed: counts.limit_max(),
        ahead_mib: counts.ahead_bytes_max() as f64 / f64::from(1 << 20),
        decode_threads: source.pool.current_num_threads(),
        decode_waited: counts.decode_waited().as_secs_f64() / seconds,
    })
}

impl Figures for FeedFigures {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let f = self;
        vec![
            ("samples", format!("{} in {} steps, {} replaced", f.samples, f.steps, f.substituted)),
            ("rate", format!("{:.1} samples/s, {:.1} MB/s", f.samples_per_s, f.megabytes_per_s)),
            ("first step after", format!("{:.3} s", f.first_step_s)),
            ("fetched", format!("{:.1} MB", f.bytes_fetched as f64 / 1e6)),
            ("fetched per byte used", format!("{:.4}", f.fetched_per_used)),
            ("requests", format!("{}, {:.1} ms each", f.requests, f.mean_latency_ms)),
            (
                "under way",
                format!("{:.1} on average, {} at most, {} allowed", f.mean_under_way, f.most_under_way, f.most_allowed),
            ),
            ("read ahead", format!("{:.1} MiB at most", f.ahead_mib)),
            (
                "decoding",
                format!("{} threads, {:.1} % of the time without rows", f.decode_threads, 100.0 * f.decode_waited),
            ),
        ]
    }

    fn sentence(&self) -> String {
        let waited = 100.0 * self.decode_waited;
        if self.decode_waited < 0.1 {
            format!("Decoding holds the feed back: it had rows {:.0} % of the time.", 100.0 - waited)
        } else {
            format!("The store holds the feed back: decoding waited for rows {waited:.0} % of the time.")
        }
    }
}

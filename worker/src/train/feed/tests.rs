use super::*;
use crate::train::cut_log::CutLog;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use pixfleet_cluster::SampleOrder;
use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, Needs};
use pixfleet_shards::embed::{EmbedJob, embed_splits};
use pixfleet_shards::index::{self, DatasetIndex};
use pixfleet_shards::reader::RowGroupReader;
use pixfleet_shards::row::{ImageSource, Region};
use pixfleet_shards::sample::{SampleConfig, TextSource};
use pixfleet_shards::store::Location;
use pixfleet_shards::writer::{PartWriter, WriterOptions};
use std::collections::BTreeMap;

const ROWS: u32 = 40;
const ROWS_PER_GROUP: u32 = 8;
const TEXT_DIM: usize = 6;
const KEY: &str = "toy-none-16";
/// Row in index order whose picture is cut off.
const BAD_ROW: u32 = 13;

fn picture(row: u32) -> bytes::Bytes {
    let colour = image::Rgb([(row * 6) as u8, 200 - (row * 3) as u8, 90]);
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(24, 16, colour).write_to(&mut png, image::ImageFormat::Png).expect("encodes");
    let mut png = png.into_inner();
    if row == BAD_ROW {
        png.truncate(40);
    }
    png.into()
}

fn row(number: u32) -> ImageRow {
    let region = |n: u32| Region {
        bbox: [0.1, 0.1, 0.4 + 0.1 * n as f32, 0.6],
        caption_object: Some(format!("thing {n} of {number}")),
        caption_merged: Some(format!("thing {n} of {number}, at length")),
        ..Region::default()
    };
    ImageRow {
        image_id: format!("row-{number}"),
        source: "custom".into(),
        image: ImageSource { bytes: Some(picture(number)), ..ImageSource::default() },
        width: 24,
        height: 16,
        regions: vec![region(0), region(1)],
        ..ImageRow::default()
    }
}

/// A small split in memory with one bad picture, indexed and embedded, behind a store that answers after `latency`.
async fn dataset(latency: Duration) -> (Location, DatasetIndex) {
    let inner = Arc::new(InMemory::new());
    let location = Location::with_store("memory:///set", inner.clone(), Path::from("set"));
    let options = WriterOptions { rows_per_group: ROWS_PER_GROUP, ..WriterOptions::default() };
    let mut part = PartWriter::new("train/part-00000.parquet", options).expect("a writer");
    for number in 0..ROWS {
        part.push(row(number)).expect("a good row, its picture aside");
    }
    location.put("train/part-00000.parquet", part.finish().expect("bytes")).await.expect("put");
    let index = index::build(&location, &mut |_, _| {}).await.expect("indexed");
    let train = ["train".to_owned()];
    let job = EmbedJob::new(&location, &index, &train, KEY);
    let mut encode = |texts: &[String]| {
        let vector = |t: &String| (0..TEXT_DIM).map(|i| (t.len() * (i + 1) % 7) as f32).collect();
        Ok::<_, std::io::Error>(texts.iter().map(vector).collect())
    };
    embed_splits(job, &mut encode, &mut |_| {}).await.expect("embedded");
    let wait = ThrottleConfig { wait_get_per_call: latency, ..ThrottleConfig::default() };
    let store = Arc::new(ThrottledStore::new(inner, wait));
    (Location::with_store("memory:///set", store, Path::from("set")), index)
}

fn source_of(location: Location, index: &DatasetIndex) -> Arc<FeedSource> {
    let reader = RowGroupReader::new(location, index, "train", Some(KEY)).expect("a split");
    let order = SampleOrder::new(5, reader.split().shape(), 2).expect("rows");
    let data = DataSpec { common_pair: 0.0, ..DataSpec::default() };
    let needs = Needs::of(&LossSpec::preset(LossPreset::Default), &data);
    let config = SampleConfig { data, size: 8, needs, texts: TextSource::Vectors(TEXT_DIM) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    Arc::new(FeedSource {
        reader,
        order,
        config,
        seed: 5,
        patience: Duration::from_secs(60),
        pool,
        cuts: CutLog::default(),
    })
}

/// Samples of a store that answers after `latency`.
async fn source(latency: Duration) -> Arc<FeedSource> {
    let (location, index) = dataset(latency).await;
    source_of(location, &index)
}

/// What one rank reads, at first two steps ahead, up to `ahead_bytes`.
fn range((rank, world): (u32, u32), steps: Range<u64>, ahead_bytes: usize) -> FeedRange {
    let map = LaneMap::new(4, 3, world).expect("fewer ranks than lanes");
    FeedRange { map, lanes: map.lanes_of(pixfleet_cluster::Rank(rank)), steps, ahead: 2, ahead_bytes }
}

/// The batches of `steps` on `rank` of `world`, by (step, lane).
fn dealt(
    runtime: &Handle,
    source: &Arc<FeedSource>,
    (rank, world): (u32, u32),
    steps: Range<u64>,
) -> BTreeMap<(u64, u32), Batch> {
    let range = range((rank, world), steps.clone(), 1 << 20);
    let lanes = range.lanes.clone();
    let mut feed = Feed::start(runtime, Arc::clone(source), range);
    let mut all = BTreeMap::new();
    for step in steps {
        let (batches, _) = runtime.block_on(feed.next(Step(step))).expect("a step");
        all.extend(batches.lanes.into_iter().zip(lanes.clone()).map(|(batch, lane)| ((step, lane), batch)));
    }
    all
}

#[test]
fn a_lane_is_the_same_whoever_hosts_it_and_wherever_the_run_starts() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let source = runtime.block_on(source(Duration::ZERO));
    let alone = dealt(runtime.handle(), &source, (0, 1), 0..8);
    for (world, first) in [(2, 0), (3, 5)] {
        for rank in 0..world {
            for (place, batch) in dealt(runtime.handle(), &source, (rank, world), first..8) {
                assert_eq!(batch, alone[&place], "{place:?} on rank {rank} of {world}");
            }
        }
    }
}

#[test]
fn an_epoch_deals_every_row_once_and_replaces_the_bad_one() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let source = runtime.block_on(source(Duration::ZERO));
    let batches = dealt(runtime.handle(), &source, (0, 1), 0..10);
    let substitutions: Vec<_> = batches.values().flat_map(|b| &b.substitutions).collect();
    // 120 samples are three epochs of 40 rows.
    assert_eq!(substitutions.len(), 3, "{substitutions:?}");
    for s in &substitutions {
        assert_eq!(source.order.row_number(s.wanted), u64::from(BAD_ROW));
        assert_ne!(s.used, s.wanted);
        let place = "train/part-00000.parquet, row group 1, row 5";
        assert!(s.reason.starts_with(place), "{}", s.reason);
        let at = s.position;
        let used = batches[&(at / 12, (at % 12 / 3) as u32)].samples[(at % 3) as usize];
        assert_eq!(used, s.used, "the stand-in is in the place of the bad row");
    }
    for epoch in 0..3 {
        let mut rows: Vec<u64> = Vec::new();
        for (place, sample) in batches.values().flat_map(|b| &b.samples).enumerate() {
            let replaced = substitutions.iter().find(|s| s.position == place as u64);
            let wanted = replaced.map_or(*sample, |s| s.wanted);
            if wanted.epoch == epoch {
                rows.push(source.order.row_number(wanted));
            }
        }
        rows.sort_unstable();
        assert_eq!(rows, (0..u64::from(ROWS)).collect::<Vec<_>>(), "epoch {epoch}");
    }
}

/// A store that answers each request after [`LATENCY`].
const LATENCY: Duration = Duration::from_millis(30);

#[test]
fn from_a_far_store_come_the_same_batches_and_its_latency_is_paid_a_few_times_only() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let near = runtime.block_on(source(Duration::ZERO));
    let since = Instant::now();
    let expected = dealt(runtime.handle(), &near, (0, 1), 0..20);
    let decoding = since.elapsed();
    let far = runtime.block_on(source(LATENCY));
    let since = Instant::now();
    assert_eq!(dealt(runtime.handle(), &far, (0, 1), 0..20), expected);
    let took = since.elapsed().saturating_sub(decoding);
    let fetched = far.reader.fetched();
    assert!(fetched.mean_latency() >= LATENCY, "{:?}", fetched.mean_latency());
    // Opening takes five rounds, then rows of ever more steps come together; the bad picture has rounds of its own.
    let one_by_one = LATENCY * u32::try_from(fetched.requests()).expect("few");
    assert!(took < one_by_one / 2, "{took:?} beside decoding for {} requests of {LATENCY:?}", fetched.requests());
}

#[test]
fn a_file_that_is_gone_fails_the_step_that_needs_it() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let source = runtime.block_on(async {
        let (location, index) = dataset(Duration::ZERO).await;
        let source = source_of(location.clone(), &index);
        // Opened while it is there, gone before its rows are read.
        source.reader.prepare(0, source.config.columns()).await.expect("files");
        location.store().delete(&location.path("train/part-00000.parquet")).await.expect("in memory");
        source
    });
    let mut feed = Feed::start(runtime.handle(), source, range((0, 1), 0..8, 1 << 20));
    let error = runtime.block_on(feed.next(Step(0))).expect_err("the file is gone");
    assert!(matches!(&error, FeedError::Shards(ShardError::Stale { .. })), "{error}");
    let error = runtime.block_on(feed.next(Step(1))).expect_err("nothing comes after it");
    assert!(matches!(&error, FeedError::Stopped { step: 1 }), "{error}");
}

#[test]
fn it_reads_ahead_up_to_the_bound_and_the_bound_changes_no_batch() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let source = runtime.block_on(source(Duration::ZERO));
    let expected = dealt(runtime.handle(), &source, (0, 1), 0..30);
    let bytes = |step: u64| -> u64 {
        let rows = (0..4).map(|lane| expected[&(step, lane)].samples.len() as u64).sum::<u64>();
        rows * source.reader.row_bytes(0)
    };
    for (bound, least) in [(1, 0), (5 * bytes(0) as usize, bytes(0))] {
        let mut feed = Feed::start(runtime.handle(), Arc::clone(&source), range((0, 1), 0..30, bound));
        for step in 0..30 {
            let (batches, _) = runtime.block_on(feed.next(Step(step))).expect("a step");
            for (lane, batch) in (0..).zip(&batches.lanes) {
                assert_eq!(batch, &expected[&(step, lane)], "step {step}, lane {lane}, bound {bound}");
            }
        }
        let most = feed.counts().ahead_bytes_max();
        assert!(most >= least, "{most} bytes ahead with a bound of {bound}");
        // Rows take more memory than bytes of the store: a step's about four times as much.
        assert!(most <= bound as u64 + 8 * bytes(0), "{most} bytes ahead with a bound of {bound}");
    }
}

use super::*;
use object_store::memory::InMemory;
use object_store::path::Path;
use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, Needs};
use pixfleet_shards::embed::{EmbedJob, embed_split};
use pixfleet_shards::index;
use pixfleet_shards::row::{ImageSource, Region};
use pixfleet_shards::sample::TextSource;
use pixfleet_shards::store::Location;
use pixfleet_shards::writer::{PartWriter, WriterOptions};

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

/// A small split in memory with one bad picture, indexed and embedded.
async fn source() -> Arc<FeedSource> {
    let location = Location::with_store("memory:///set", Arc::new(InMemory::new()), Path::from("set"));
    let options = WriterOptions { rows_per_group: ROWS_PER_GROUP, ..WriterOptions::default() };
    let mut part = PartWriter::new("train/part-00000.parquet", options).expect("a writer");
    for number in 0..ROWS {
        part.push(row(number)).expect("a good row, its picture aside");
    }
    location.put("train/part-00000.parquet", part.finish().expect("bytes")).await.expect("put");
    let index = index::build(&location, &mut |_, _| {}).await.expect("indexed");
    let job = EmbedJob { location: &location, index: &index, split: "train", key: KEY };
    let mut encode = |texts: &[String]| {
        let vector = |t: &String| (0..TEXT_DIM).map(|i| (t.len() * (i + 1) % 7) as f32).collect();
        Ok::<_, std::io::Error>(texts.iter().map(vector).collect())
    };
    embed_split(job, &mut encode, &mut |_| {}).await.expect("embedded");
    let reader = RowGroupReader::new(location, &index, "train", Some(KEY)).expect("a split");
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

/// The batches of `steps` on `rank` of `world`, by (step, lane).
fn dealt(
    runtime: &Handle,
    source: &Arc<FeedSource>,
    (rank, world): (u32, u32),
    steps: Range<u64>,
) -> BTreeMap<(u64, u32), Batch> {
    let map = LaneMap::new(4, 3, world).expect("fewer ranks than lanes");
    let lanes = map.lanes_of(pixfleet_cluster::Rank(rank));
    let range = FeedRange { map, lanes: lanes.clone(), steps: steps.clone(), ahead: 2 };
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
    let source = runtime.block_on(source());
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
    let source = runtime.block_on(source());
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

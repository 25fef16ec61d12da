//! What a reader asks of its store: each thing once, all that a read needs at the same time, and hardly a byte in vain.

use crate::support::{Scratch, dataset, memory, png, row};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use pixfleet_cluster::SampleOrder;
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_shards::embed::{EmbedJob, embed_splits};
use pixfleet_shards::{Columns, ImageRow, Location, RowGroupReader, ShardWriter, WriterOptions, index};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEY: &str = "toy-plain-32";
const LATENCY: Duration = Duration::from_millis(50);

async fn embed(location: &Location, index: &DatasetIndex, dim: usize) {
    let mut encode = |texts: &[String]| {
        let vector = |t: &String| (0..dim).map(|i| ((t.len() * (i + 1)) % 251) as f32 / 251.0).collect();
        Ok::<_, std::io::Error>(texts.iter().map(vector).collect())
    };
    let train = ["train".to_owned()];
    let job = EmbedJob::new(location, index, &train, KEY);
    embed_splits(job, &mut encode, &mut |_| {}).await.expect("good rows");
}

fn reader(location: &Location, index: &DatasetIndex) -> RowGroupReader {
    RowGroupReader::new(location.clone(), index, "train", Some(KEY)).expect("a split")
}

/// 600 rows in row groups of 30, their pictures of some ten kilobytes, with vectors of 384 numbers.
async fn large() -> (Scratch, DatasetIndex) {
    let place = memory();
    let options = WriterOptions { rows_per_group: 30, bytes_per_file: 6 << 20, ..WriterOptions::default() };
    let mut writer = ShardWriter::new(place.location.clone(), "train", options);
    for i in 0..600 {
        let mut row = row(i);
        row.image.bytes = Some(png(80, 80, i));
        (row.width, row.height) = (80, 80);
        writer.push(row).await.expect("a good row");
    }
    writer.finish().await.expect("a store");
    let index = index::build(&place.location, &mut |_, _| {}).await.expect("a dataset");
    embed(&place.location, &index, 384).await;
    (place, index)
}

/// Reads an epoch as a run does: windows of 5 row groups, `step` rows at a time, those of a row group together.
async fn epoch(reader: &RowGroupReader, step: u64, columns: Columns) {
    let mut order = SampleOrder::new(3, reader.split().shape(), 5).expect("rows");
    let mut next = 0;
    while next < order.epoch_len() {
        let end = (next + step).min(order.epoch_len());
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for position in next..end {
            let id = order.locate(position);
            groups.entry(id.row_group).or_default().push(id.row);
        }
        for (row_group, rows) in groups {
            reader.read(row_group, &rows, columns).await.expect("good rows");
        }
        next = end;
    }
}

#[tokio::test]
async fn an_epoch_fetches_hardly_more_than_it_uses_however_its_rows_are_scattered_and_little_is_kept() {
    let (place, index) = large().await;
    assert!(index.split("train").expect("written").files.len() > 1);
    for (step, cache_bytes) in [(16, 2 << 20), (100, 2 << 20), (16, 256 << 20)] {
        let reader = reader(&place.location, &index).with_cache_bytes(cache_bytes);
        epoch(&reader, step, Columns::TRAIN).await;
        let (fetched, used) = (reader.fetched().bytes(), reader.fetched().used());
        assert!(fetched as f64 <= 1.02 * used as f64, "{fetched} bytes for {used}, steps of {step}");
        let pictures: u64 = reader.split().row_groups().map(|g| g.image_bytes).sum();
        assert!(used > pictures && used < reader.split().bytes() * 5 / 4, "{used} used of {}", reader.split().bytes());
    }
}

#[tokio::test]
async fn bytes_count_as_used_each_time_a_row_is_handed_out() {
    let (place, index) = large().await;
    let reader = reader(&place.location, &index);
    epoch(&reader, 50, Columns::TRAIN).await;
    let (fetched, used) = (reader.fetched().bytes(), reader.fetched().used());
    epoch(&reader, 50, Columns::TRAIN).await;
    assert_eq!((reader.fetched().bytes(), reader.fetched().used()), (fetched, 2 * used));
}

/// A small dataset with vectors, behind [`LATENCY`], all in one file.
async fn far() -> (Location, DatasetIndex, Vec<ImageRow>) {
    let inner = Arc::new(InMemory::new());
    let near = Location::with_store("memory:///data", inner.clone(), Path::from("data"));
    let rows: Vec<ImageRow> = (0..15).map(row).collect();
    let index = dataset(&near, &rows).await;
    embed(&near, &index, 8).await;
    let wait = ThrottleConfig { wait_get_per_call: LATENCY, ..ThrottleConfig::default() };
    let store = ThrottledStore::new(inner, wait);
    (Location::with_store("memory:///data", Arc::new(store), Path::from("data")), index, rows)
}

#[tokio::test]
async fn a_row_groups_columns_pictures_and_vectors_take_one_round() {
    let (location, index, rows) = far().await;
    let reader = reader(&location, &index);
    reader.prepare(0, Columns::TRAIN).await.expect("files");
    let (before, since) = (reader.fetched().requests(), Instant::now());
    let read = reader.read(1, &[0, 2, 4], Columns::TRAIN).await.expect("good rows");
    let took = since.elapsed();
    assert_eq!(read[1].image.bytes, rows[7].image.bytes);
    let requests = reader.fetched().requests() - before;
    assert!(requests > 6 && reader.fetched().most_under_way() >= requests, "{requests} requests");
    assert!(took >= LATENCY && took < 2 * LATENCY, "{took:?} for {requests} requests of {LATENCY:?}");
    assert!(reader.fetched().mean_latency() >= LATENCY && reader.fetched().recent_latency() >= LATENCY * 9 / 10);
}

#[tokio::test]
async fn what_two_ask_for_at_the_same_time_is_fetched_once() {
    let (location, index, _) = far().await;
    let alone = reader(&location, &index);
    for rows in [[0, 1], [2, 3]] {
        alone.read(0, &rows, Columns::TRAIN).await.expect("good rows");
    }
    let together = reader(&location, &index);
    let (one, two) =
        tokio::join!(together.read(0, &[0, 1], Columns::TRAIN), together.read(0, &[2, 3], Columns::TRAIN),);
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(together.fetched().bytes(), alone.fetched().bytes());
    assert_eq!(together.fetched().requests(), alone.fetched().requests());
}

#[tokio::test]
async fn the_gate_holds_requests_back() {
    let (location, index, _) = far().await;
    let reader = reader(&location, &index);
    reader.gate().set_limit(2);
    let all: Vec<u32> = (0..5).collect();
    for group in 0..3 {
        reader.read(group, &all, Columns::TRAIN).await.expect("good rows");
    }
    assert_eq!(reader.fetched().most_under_way(), 2);
}

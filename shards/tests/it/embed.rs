//! Text vectors: made once for each text, read back beside their rows, never those of another text.

use crate::support::{dataset, memory, options, row, scratches};
use futures::FutureExt;
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_shards::embed::{EmbedError, EmbedJob, EmbedProgress, embed_splits};
use pixfleet_shards::text_vectors::{RowVectors, TextVector, VectorsWriter, text_hash};
use pixfleet_shards::verify::verify;
use pixfleet_shards::writer::{PartWriter, part_path};
use pixfleet_shards::{Columns, ImageRow, Location, RowGroupReader, ShardError, index};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

#[derive(Debug, thiserror::Error)]
#[error("out of memory")]
struct Oom;

/// A vector that tells its text: exact in f16.
fn vector(text: &str) -> Vec<f32> {
    text_hash(text)[..4].iter().map(|&b| f32::from(b) / 128.0 - 1.0).collect()
}

async fn embed(location: &Location, index: &DatasetIndex, calls: &mut Vec<String>) -> EmbedProgress {
    let mut encode = |texts: &[String]| {
        calls.extend_from_slice(texts);
        Ok::<_, Oom>(texts.iter().map(|t| vector(t)).collect())
    };
    let train = ["train".to_owned()];
    let job = EmbedJob::new(location, index, &train, "toy-plain-32");
    embed_splits(job, &mut encode, &mut |_| {}).await.expect("a good encoder")
}

#[tokio::test]
async fn every_text_is_encoded_once_and_read_beside_its_row() {
    for place in scratches() {
        let rows: Vec<ImageRow> = (0..12).map(row).collect();
        let index = dataset(&place.location, &rows).await;
        let mut calls = Vec::new();
        let done = embed(&place.location, &index, &mut calls).await;
        let mut distinct = calls.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), calls.len(), "no text twice");
        // 7 short texts, 24 long ones and 12 of images; 17 short texts were known.
        assert_eq!((done.encoded, done.cached, done.rows), (7 + 24 + 12, 17, 12));

        let reader =
            RowGroupReader::new(place.location.clone(), &index, "train", Some("toy-plain-32")).expect("a split");
        let read = reader.read(1, &[4, 1], Columns::ALL).await.expect("good rows");
        for (read, written) in read.iter().zip([&rows[9], &rows[6]]) {
            assert_eq!(read.image_vector, written.image_text().map(vector));
            assert_eq!(read.regions.len(), written.regions.len());
            for (r, w) in read.regions.iter().zip(&written.regions) {
                assert_eq!(r.short_vector, w.short_text().map(vector));
                assert_eq!(r.long_vector, w.long_text().map(vector));
            }
        }
        let bare = Columns { vectors: true, ..Columns::default() };
        let read = reader.read(0, &[2], bare).await.expect("good rows");
        assert_eq!(read[0].regions[2].long_vector, rows[2].regions[2].long_text().map(vector));
        let report = verify(&place.location, &mut |_| {}).await.expect("a readable store");
        assert!(report.faults.is_empty() && report.vectors_files == 1, "{:?}", report.faults);

        calls.clear();
        let again = embed(&place.location, &index, &mut calls).await;
        assert_eq!((again.files_skipped, again.rows, calls.len()), (1, 12, 0));
    }
}

#[tokio::test]
async fn after_a_change_only_new_texts_are_encoded() {
    let place = memory();
    let mut rows: Vec<ImageRow> = (0..12).map(row).collect();
    let mut calls = Vec::new();
    embed(&place.location, &dataset(&place.location, &rows).await, &mut calls).await;
    rows[3].regions[0].caption_merged = Some("something else".into());
    let index = dataset(&place.location, &rows).await;

    let reader = RowGroupReader::new(place.location.clone(), &index, "train", Some("toy-plain-32")).expect("a split");
    let error = reader.read(0, &[0], Columns::TRAIN).await.expect_err("vectors of other rows");
    assert_eq!(
        error.to_string(),
        "vectors/toy-plain-32/train/part-00000.parquet: these text vectors belong to another version of train/part-00000.parquet; run `pixfleet shards embed` again"
    );
    calls.clear();
    embed(&place.location, &index, &mut calls).await;
    assert_eq!(calls, ["something else"]);
    let read = reader.read(0, &[3], Columns::TRAIN).await.expect("good rows");
    assert_eq!(read[0].regions[0].long_vector, Some(vector("something else")));
}

#[tokio::test]
async fn vectors_that_were_never_made() {
    let place = memory();
    let index = dataset(&place.location, &[row(0)]).await;
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", Some("minilm")).expect("a split");
    let error = reader.read(0, &[0], Columns::TRAIN).await.expect_err("no vectors");
    assert_eq!(
        error.to_string(),
        "memory:///data: no text vectors `minilm` beside train/part-00000.parquet; run `pixfleet shards embed memory:///data`"
    );
}

/// Writes the vectors of `row(0)` after `spoil` had its way with them.
async fn spoilt(location: &Location, spoil: impl Fn(&mut RowVectors)) -> DatasetIndex {
    let index = dataset(location, &[row(0)]).await;
    let row = row(0);
    let of = |text: Option<&str>| TextVector { hash: text.map(text_hash), values: text.map(vector) };
    let mut vectors = RowVectors {
        short: row.regions.iter().map(|r| of(r.short_text())).collect(),
        long: row.regions.iter().map(|r| of(r.long_text())).collect(),
        image: of(row.image_text()),
    };
    spoil(&mut vectors);
    let data = &index.split("train").expect("written").files[0];
    let mut writer = VectorsWriter::new("toy", data, 4).expect("a writer");
    writer.push_row_group(&[vectors]).expect("vectors of 4");
    let (path, bytes) = writer.finish().expect("a file");
    location.put(&path, bytes).await.expect("a store");
    index
}

#[tokio::test]
async fn bad_vectors_are_named() {
    type Spoil = fn(&mut RowVectors);
    let cases: [(Spoil, &str); 2] = [
        (
            |v| v.long[0].values = Some(vec![0.0, 0.0, f32::NAN, 0.0]),
            "field regions[0].long_vector: NaN or infinity at index 2 of the vector; run `pixfleet shards embed` again",
        ),
        (
            |v| v.short[0].hash = Some([9; 16]),
            "field regions[0].short_vector: the vector of another text; run `pixfleet shards embed` again",
        ),
    ];
    for (spoil, expected) in cases {
        let place = memory();
        let index = spoilt(&place.location, spoil).await;
        let reader = RowGroupReader::new(place.location.clone(), &index, "train", Some("toy")).expect("a split");
        let error = reader.read(0, &[0], Columns::ALL).await.expect_err("bad vectors");
        assert!(error.is_bad_data());
        let expected = format!("train/part-00000.parquet, row group 0, row 0, {expected}");
        assert_eq!(error.to_string(), expected);
        let report = verify(&place.location, &mut |_| {}).await.expect("a readable store");
        assert_eq!(report.faults.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
    let place = memory();
    let index = spoilt(&place.location, |v| {
        v.short.push(TextVector::default());
        v.long.push(TextVector::default());
    })
    .await;
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", Some("toy")).expect("a split");
    let error = reader.read(0, &[0], Columns::TRAIN).await.expect_err("bad vectors");
    assert_eq!(
        error.to_string(),
        "train/part-00000.parquet, row group 0, row 0, field regions: vectors for 2 regions; the row has 1; run `pixfleet shards embed` again"
    );
}

#[tokio::test]
async fn an_encoder_that_misbehaves() {
    let place = memory();
    let index = dataset(&place.location, &[row(0)]).await;
    let train = ["train".to_owned()];
    let job = EmbedJob::new(&place.location, &index, &train, "toy");
    let mut few = |texts: &[String]| Ok::<_, Oom>(vec![vec![0.0; 4]; texts.len() - 1]);
    let error = embed_splits(job, &mut few, &mut |_| {}).await.expect_err("too few vectors");
    assert_eq!(error.to_string(), "the encoder returned 2 vectors, expected 3");
    let mut uneven = |texts: &[String]| Ok::<_, Oom>(texts.iter().enumerate().map(|(i, _)| vec![0.0; 2 + i]).collect());
    let error = embed_splits(job, &mut uneven, &mut |_| {}).await.expect_err("uneven vectors");
    assert!(matches!(error, EmbedError::Shard(ShardError::Encoder { .. })), "{error}");
    let mut nan = |texts: &[String]| Ok::<_, Oom>(vec![vec![f32::NAN]; texts.len()]);
    let error = embed_splits(job, &mut nan, &mut |_| {}).await.expect_err("NaN");
    assert_eq!(
        error.to_string(),
        "text `a red fox number 0`: NaN or infinity at index 0 of the vector; run `pixfleet shards embed` again"
    );
    let mut broken = |_: &[String]| Err(Oom);
    let error = embed_splits(job, &mut broken, &mut |_| {}).await.expect_err("broken");
    assert!(matches!(error, EmbedError::Encode(Oom)));
}

/// Eight files of three rows, with short texts that several of them have.
async fn files(location: &Location) -> DatasetIndex {
    for file in 0..8 {
        let mut part = PartWriter::new(part_path("train", file), options()).expect("a writer");
        for i in 0..3 {
            part.push(row(u64::from(3 * file + i))).expect("a good row");
        }
        location.put(&part_path("train", file), part.finish().expect("bytes")).await.expect("a store");
    }
    index::build(location, &mut |_, _| {}).await.expect("a good dataset")
}

/// Every vectors file that belongs to a data file.
async fn published(location: &Location, index: &DatasetIndex) -> Vec<bytes::Bytes> {
    let mut all = Vec::new();
    for file in &index.split("train").expect("written").files {
        all.push(location.get(&format!("vectors/toy-plain-32/{}", file.path)).await.expect("it was written"));
    }
    all
}

/// The distinct texts of [`files`].
fn distinct() -> BTreeSet<String> {
    let of = |row: ImageRow| -> Vec<String> {
        let regions = row.regions.iter().flat_map(|r| [r.short_text(), r.long_text()]);
        regions.chain([row.image_text()]).flatten().map(str::to_owned).collect()
    };
    (0..24).flat_map(|i| of(row(i))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_share_a_dataset_encode_each_text_once() {
    for place in scratches() {
        let index = files(&place.location).await;
        let worker = async |location: Location, index: DatasetIndex| {
            let (mut calls, train) = (Vec::new(), ["train".to_owned()]);
            let mut encode = |texts: &[String]| {
                // Longer in all than those wait who found nothing to do at first.
                std::thread::sleep(Duration::from_millis(150));
                calls.extend_from_slice(texts);
                Ok::<_, Oom>(texts.iter().map(|t| vector(t)).collect())
            };
            let lease = Duration::from_secs(2);
            let job = EmbedJob { lease, ..EmbedJob::new(&location, &index, &train, "toy-plain-32") };
            let done = embed_splits(job, &mut encode, &mut |_| {}).await.expect("a good encoder");
            (done, calls)
        };
        let racing = (0..4).map(|_| {
            let (location, index) = (place.location.clone(), index.clone());
            tokio::task::spawn_blocking(move || Handle::current().block_on(worker(location, index)))
        });
        let ended = futures::future::join_all(racing).await;
        let (done, calls): (Vec<EmbedProgress>, Vec<Vec<String>>) =
            ended.into_iter().map(|ended| ended.expect("no panic")).unzip();
        let mut all: Vec<&String> = calls.iter().flatten().collect();
        all.sort();
        assert!(all.iter().copied().eq(&distinct()), "{} texts encoded", all.len());
        assert!(calls.iter().filter(|calls| !calls.is_empty()).count() > 1, "only one of them worked");
        let total: u64 = done.iter().map(|done| done.encoded).sum();
        assert_eq!(total as usize, all.len());
        assert!(done.iter().all(|done| done.rows == 24 && done.texts == total && done.texts_total == total));

        // As one process makes them.
        let alone = memory();
        let other = files(&alone.location).await;
        embed(&alone.location, &other, &mut Vec::new()).await;
        assert_eq!(published(&place.location, &index).await, published(&alone.location, &other).await);
        let report = verify(&place.location, &mut |_| {}).await.expect("a readable store");
        assert!(report.faults.is_empty() && report.vectors_files == 8, "{:?}", report.faults);
    }
}

#[tokio::test]
async fn what_a_lost_process_had_in_hand_is_done_by_another() {
    let place = memory();
    let index = files(&place.location).await;
    let train = ["train".to_owned()];
    let lease = Duration::from_millis(300);
    let job = EmbedJob { lease, ..EmbedJob::new(&place.location, &index, &train, "toy-plain-32") };
    let (mut lost, mut units) = (Vec::new(), 0);
    let mut dies = |texts: &[String]| {
        units += 1;
        lost.extend_from_slice(texts);
        assert!(units < 4, "killed");
        Ok::<_, Oom>(texts.iter().map(|t| vector(t)).collect())
    };
    let died = AssertUnwindSafe(embed_splits(job, &mut dies, &mut |_| {})).catch_unwind().await;
    assert!(died.is_err(), "it was to be killed");
    let mut calls = Vec::new();
    let mut encode = |texts: &[String]| {
        calls.extend_from_slice(texts);
        Ok::<_, Oom>(texts.iter().map(|t| vector(t)).collect())
    };
    let done = embed_splits(job, &mut encode, &mut |_| {}).await.expect("a good encoder");
    assert_eq!((done.taken_over, done.rows), (1, 24));
    let twice: Vec<&String> = calls.iter().filter(|text| lost.contains(text)).collect();
    let all: BTreeSet<String> = calls.iter().chain(&lost).cloned().collect();
    assert_eq!(all, distinct());
    assert_eq!(lost.len() + calls.len() - all.len(), twice.len());
    assert!(!twice.is_empty() && lost.ends_with(&twice.iter().map(|t| (*t).clone()).collect::<Vec<_>>()), "{twice:?}");
}

#[tokio::test]
async fn who_is_stopped_gives_its_file_back() {
    let place = memory();
    let index = files(&place.location).await;
    let train = ["train".to_owned()];
    let stop = AtomicBool::new(false);
    let job = EmbedJob { stop: &stop, ..EmbedJob::new(&place.location, &index, &train, "toy-plain-32") };
    let mut first = Vec::new();
    let mut encode = |texts: &[String]| {
        first.extend_from_slice(texts);
        stop.store(true, Ordering::Relaxed);
        Ok::<_, Oom>(texts.iter().map(|t| vector(t)).collect())
    };
    let stopped = embed_splits(job, &mut encode, &mut |_| {}).await.expect_err("it was stopped");
    assert!(matches!(stopped, EmbedError::Stopped), "{stopped}");
    let (since, mut calls) = (Instant::now(), Vec::new());
    let done = embed(&place.location, &index, &mut calls).await;
    assert_eq!(done.rows, 24);
    assert!(since.elapsed() < job.lease / 2, "nobody waits for the lease of who left");
    assert!(calls.iter().all(|text| !first.contains(text)), "what was published stays");
}

#[tokio::test]
async fn deleted_vectors_are_made_again() {
    let place = memory();
    let index = files(&place.location).await;
    embed(&place.location, &index, &mut Vec::new()).await;
    place.location.delete("vectors/toy-plain-32/train/part-00003.parquet").await.expect("deleted");
    let mut calls = Vec::new();
    let done = embed(&place.location, &index, &mut calls).await;
    assert_eq!((done.files_skipped, done.rows, calls.is_empty()), (7, 24, false));
    assert_eq!(published(&place.location, &index).await.len(), 8);
}

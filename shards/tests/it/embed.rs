//! Text vectors: made once for each text, read back beside their rows, never those of another text.

use crate::support::{dataset, memory, row, scratches};
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_shards::embed::{EmbedError, EmbedJob, EmbedProgress, embed_split};
use pixfleet_shards::text_vectors::{RowVectors, TextVector, VectorsWriter, text_hash};
use pixfleet_shards::verify::verify;
use pixfleet_shards::{Columns, ImageRow, Location, RowGroupReader, ShardError};

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
    let job = EmbedJob { location, index, split: "train", key: "toy-plain-32" };
    embed_split(job, &mut encode, &mut |_| {}).await.expect("a good encoder")
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
    let job = EmbedJob { location: &place.location, index: &index, split: "train", key: "toy" };
    let mut few = |texts: &[String]| Ok::<_, Oom>(vec![vec![0.0; 4]; texts.len() - 1]);
    let error = embed_split(job, &mut few, &mut |_| {}).await.expect_err("too few vectors");
    assert_eq!(error.to_string(), "the encoder returned 2 vectors, expected 3");
    let mut uneven = |texts: &[String]| Ok::<_, Oom>(texts.iter().enumerate().map(|(i, _)| vec![0.0; 2 + i]).collect());
    let error = embed_split(job, &mut uneven, &mut |_| {}).await.expect_err("uneven vectors");
    assert!(matches!(error, EmbedError::Shard(ShardError::Encoder { .. })), "{error}");
    let mut nan = |texts: &[String]| Ok::<_, Oom>(vec![vec![f32::NAN]; texts.len()]);
    let error = embed_split(job, &mut nan, &mut |_| {}).await.expect_err("NaN");
    assert_eq!(
        error.to_string(),
        "text `a red fox number 0`: NaN or infinity at index 0 of the vector; run `pixfleet shards embed` again"
    );
    let mut broken = |_: &[String]| Err(Oom);
    let error = embed_split(job, &mut broken, &mut |_| {}).await.expect_err("broken");
    assert!(matches!(error, EmbedError::Encode(Oom)));
}

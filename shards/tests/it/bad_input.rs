//! Bad input: each kind with its exact message, which names file, row group, row, field, and what to do.

use crate::support::{bad_dataset, dataset, jpeg, memory, options, png, put, row, scratches};
use arrow_array::builder::{Int32Builder, ListBuilder};
use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use pixfleet_cluster::Class;
use pixfleet_shards::pixels::rle::Rle;
use pixfleet_shards::writer::PartWriter;
use pixfleet_shards::{Columns, ImageRow, Location, RowGroupReader, ShardError, index, verify};
use std::sync::Arc;

const FILE: &str = "train/part-00000.parquet";

fn good_file() -> Vec<u8> {
    let mut part = PartWriter::new(FILE, options()).expect("a writer");
    for i in 0..7 {
        part.push(row(i)).expect("a good row");
    }
    part.finish().expect("a file").to_vec()
}

async fn index_error(location: &Location, bytes: Vec<u8>) -> String {
    put(location, bytes).await;
    let error = index::build(location, &mut |_, _| {}).await.expect_err("bad input");
    assert_eq!(error.class(), Class::Fatal);
    error.to_string()
}

/// The error of reading row 1 of 3, after `spoil` had its way with it.
async fn row_error(columns: Columns, spoil: impl Fn(&mut ImageRow)) -> String {
    let place = memory();
    let mut rows: Vec<ImageRow> = (0..3).map(row).collect();
    spoil(&mut rows[1]);
    let index = bad_dataset(&place.location, &rows).await;
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
    reader.read(0, &[0, 2], columns).await.expect("good neighbours");
    let error = reader.read(0, &[0, 1, 2], columns).await.expect_err("bad input");
    assert!(error.is_bad_data() && error.class() == Class::Fatal);
    error.to_string()
}

/// What `verify` finds after `spoil` had its way with row 1 of 3.
async fn faults(spoil: impl Fn(&mut ImageRow)) -> Vec<String> {
    let place = memory();
    let mut rows: Vec<ImageRow> = (0..3).map(row).collect();
    spoil(&mut rows[1]);
    bad_dataset(&place.location, &rows).await;
    let report = verify::verify(&place.location, &mut |_| {}).await.expect("a readable store");
    report.faults.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn truncated_parquet() {
    for place in scratches() {
        let bytes = good_file();
        let half = bytes.len() / 2;
        assert_eq!(
            index_error(&place.location, bytes[..half].to_vec()).await,
            format!(
                "{FILE}: {half} bytes without a Parquet footer at the end: the file is truncated or no Parquet; write it again"
            )
        );
        assert_eq!(
            index_error(&place.location, b"PAR1".to_vec()).await,
            format!(
                "{FILE}: 4 bytes without a Parquet footer at the end: the file is truncated or no Parquet; write it again"
            )
        );
    }
}

#[tokio::test]
async fn a_footer_that_claims_gigabytes() {
    let place = memory();
    let mut bytes = vec![0; 100 << 20];
    let length = bytes.len();
    bytes[length - 8..length - 4].copy_from_slice(&(90u32 << 20).to_le_bytes());
    bytes[length - 4..].copy_from_slice(b"PAR1");
    assert_eq!(
        index_error(&place.location, bytes).await,
        format!("{FILE}: a footer of 94371840 exceeds the limit of 67108864; refused before allocation")
    );
}

#[tokio::test]
async fn wrong_schema_version() {
    let place = memory();
    let mut bytes = good_file();
    let key = b"pixfleet.schema";
    let at = bytes.windows(key.len()).rposition(|w| w == key).expect("is there") + key.len() + 2;
    assert_eq!(bytes[at], b'1');
    bytes[at] = b'7';
    assert_eq!(
        index_error(&place.location, bytes).await,
        format!(
            "{FILE}: schema version 7, this program reads 1 (footer key `pixfleet.schema`); build the dataset again with this version of pixfleet"
        )
    );
}

#[tokio::test]
async fn missing_column_and_wrong_type() {
    let place = memory();
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![4]));
    let wide: ArrayRef = Arc::new(Float64Array::from(vec![4.0]));
    let shallow: ArrayRef = Arc::new(Int64Array::from(vec![4]));
    let file = |columns: Vec<(&str, ArrayRef)>| {
        let batch = RecordBatch::try_from_iter(columns).expect("columns of one row");
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("a batch");
        writer.append_key_value_metadata(KeyValue::new("pixfleet.schema".to_owned(), "1".to_owned()));
        writer.into_inner().expect("a file")
    };
    assert_eq!(
        index_error(
            &place.location,
            file(vec![("image_id", ids.clone()), ("width", narrow.clone()), ("height", narrow)])
        )
        .await,
        format!("{FILE}: no column `regions.bbox`; see docs/format.md, and write the file again with it")
    );
    assert_eq!(
        index_error(&place.location, file(vec![("image_id", ids.clone()), ("width", wide)])).await,
        format!("{FILE}: column `width` is DOUBLE, expected INT32 or INT64; write the file again with that type")
    );
    let listed = {
        let mut list = ListBuilder::new(Int32Builder::new());
        list.append_value([Some(4)]);
        Arc::new(list.finish()) as ArrayRef
    };
    assert_eq!(
        index_error(&place.location, file(vec![("image_id", ids), ("width", shallow), ("height", listed)])).await,
        format!("{FILE}: column `height` is a list, expected a single value; write the file again with that type")
    );
}

#[tokio::test]
async fn corrupt_jpeg() {
    let spoil = |row: &mut ImageRow| {
        let mut bytes = jpeg(48, 32).to_vec();
        let length = bytes.len();
        bytes.truncate(length / 2);
        row.image.bytes = Some(bytes.into());
    };
    assert_eq!(
        faults(spoil).await,
        [format!("{FILE}, row group 0, row 1, field image.bytes: the JPEG data is damaged")]
    );
}

#[tokio::test]
async fn an_image_header_of_60000_by_60000() {
    let spoil = |row: &mut ImageRow| {
        let mut bytes = jpeg(48, 32).to_vec();
        let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).expect("a frame header");
        bytes[frame + 5..frame + 7].copy_from_slice(&60_000u16.to_be_bytes());
        bytes[frame + 7..frame + 9].copy_from_slice(&60_000u16.to_be_bytes());
        row.image.bytes = Some(bytes.into());
    };
    assert_eq!(
        faults(spoil).await,
        [format!(
            "{FILE}, row group 0, row 1, field image.bytes: the image header says 60000 x 60000 pixels; more than 67108864 are not decoded: shrink the image or drop the row"
        )]
    );
}

#[tokio::test]
async fn an_image_of_another_size_than_its_row() {
    assert_eq!(
        faults(|row| row.image.bytes = Some(png(48, 31, 1))).await,
        [format!(
            "{FILE}, row group 0, row 1, field image.bytes: the image is 48 x 31 pixels, the row says width 48 and height 32; correct the row"
        )]
    );
    assert_eq!(
        faults(|row| row.width = 0).await[0],
        format!("{FILE}, row group 0, row 1, field width: 0 pixels; expected 1 to 32768")
    );
    assert_eq!(
        faults(|row| row.image.bytes = None).await,
        [format!("{FILE}, row group 0, row 1, field image.bytes: missing; every row needs one")]
    );
}

#[tokio::test]
async fn an_rle_longer_than_its_image() {
    let spoil = |row: &mut ImageRow| row.regions[1].mask = Some(Rle { height: 16, width: 24, counts: vec![100, 400] });
    assert_eq!(
        row_error(Columns::ROWS, spoil).await,
        format!(
            "{FILE}, row group 0, row 1, field regions[1].mask_rle: the runs cover 500 pixels, the mask of 16 x 24 has 384"
        )
    );
}

#[tokio::test]
async fn a_box_outside_the_image() {
    assert_eq!(
        row_error(Columns::TRAIN, |row| row.regions[0].bbox = [0.25, 0.5, 1.5, 0.75]).await,
        format!(
            "{FILE}, row group 0, row 1, field regions[0].bbox: [0.25, 0.5, 1.5, 0.75] leaves the image; expected x1, y1, x2, y2 in 0..1 (divide pixels by width and height)"
        )
    );
    assert_eq!(
        row_error(Columns::TRAIN, |row| row.regions[0].bbox = [0.5, 0.5, 0.5, 0.75]).await,
        format!(
            "{FILE}, row group 0, row 1, field regions[0].bbox: [0.5, 0.5, 0.5, 0.75] has no area; expected x1 < x2 and y1 < y2"
        )
    );
    let nan = row_error(Columns::TRAIN, |row| row.regions[0].bbox[0] = f32::NAN).await;
    assert!(nan.contains("[NaN, 0.0, 0.5, 0.5] leaves the image"), "{nan}");
}

#[tokio::test]
async fn an_empty_caption() {
    let expected = |field: &str| {
        format!("{FILE}, row group 0, row 1, field {field}: empty caption; leave it null or drop the region")
    };
    let spoil = |row: &mut ImageRow| row.regions[0].caption_object = Some(" \n".into());
    assert_eq!(row_error(Columns::CAPTIONS, spoil).await, expected("regions[0].caption_object"));
    assert_eq!(
        row_error(Columns::CAPTIONS, |row| row.caption_long = Some(String::new())).await,
        expected("caption_long")
    );
    assert_eq!(
        row_error(Columns::CAPTIONS, |row| row.captions = vec!["a fox".into(), String::new()]).await,
        expected("captions[1]")
    );
    assert_eq!(
        row_error(Columns::CAPTIONS, |row| row.regions[0].expressions = vec![" ".into()]).await,
        expected("regions[0].expressions[0]")
    );
}

#[tokio::test]
async fn a_nan_in_a_text_vector() {
    assert_eq!(
        row_error(Columns::ROWS, |row| row.regions[0].text_emb = Some(vec![0.5, f32::NAN])).await,
        format!(
            "{FILE}, row group 0, row 1, field regions[0].text_emb: NaN or infinity at index 1 of the vector; run `pixfleet shards embed` again"
        )
    );
}

#[tokio::test]
async fn an_index_older_than_its_files() {
    for place in scratches() {
        let rows: Vec<ImageRow> = (0..7).map(row).collect();
        let index = dataset(&place.location, &rows).await;
        let size = index.split("train").expect("written").bytes();
        let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
        let bytes = good_file();
        put(&place.location, bytes[..bytes.len() - 10].to_vec()).await;
        let url = place.location.url();
        let expected = format!(
            "index is older than its files: {FILE} ({size} bytes in the index, {} now); run `pixfleet shards index {url}`",
            bytes.len() - 10
        );
        let error = index::check_fresh(&place.location, &index).await.expect_err("stale");
        assert_eq!(error.to_string(), expected);
        let error = reader.read(0, &[0], Columns::ROWS).await.expect_err("stale");
        assert_eq!(error.to_string(), expected, "a reader notices without being asked to check");

        place.location.put("test/part-00000.parquet", good_file()).await.expect("a store");
        put(&place.location, good_file()).await;
        place.location.store().delete(&place.location.path(FILE)).await.expect("deletable");
        let error = index::check_fresh(&place.location, &index).await.expect_err("stale");
        assert_eq!(
            error.to_string(),
            format!(
                "index is older than its files: {FILE} (gone), test/part-00000.parquet (new); run `pixfleet shards index {url}`"
            )
        );
    }
}

#[tokio::test]
async fn a_file_written_again_with_the_same_size() {
    let place = memory();
    let rows: Vec<ImageRow> = (0..7).map(row).collect();
    let index = dataset(&place.location, &rows).await;
    put(&place.location, good_file()).await;
    let error = index::check_fresh(&place.location, &index).await.expect_err("stale");
    assert!(matches!(&error, ShardError::Stale { list, .. } if list.len() == 1), "{error}");
    assert!(error.to_string().contains(&format!("{FILE} (written again)")), "{error}");
}

#[tokio::test]
async fn no_index_no_split_no_row_no_files() {
    let place = memory();
    let location = &place.location;
    let error = |e: ShardError| e.to_string();
    assert_eq!(
        error(index::open(location).await.expect_err("nothing there")),
        "memory:///data: no index; run `pixfleet shards index memory:///data`"
    );
    assert_eq!(
        error(index::build(location, &mut |_, _| {}).await.expect_err("nothing there")),
        "memory:///data: no Parquet files in it; expected <split>/part-00000.parquet"
    );
    let index = dataset(location, &[row(0)]).await;
    assert_eq!(
        error(RowGroupReader::new(location.clone(), &index, "val", None).err().expect("no such split")),
        "memory:///data: no split `val`; it has train"
    );
    let reader = RowGroupReader::new(location.clone(), &index, "train", None).expect("a split");
    assert_eq!(
        error(reader.read(0, &[1], Columns::ROWS).await.expect_err("no such row")),
        format!("{FILE}, row group 0, row 1 is beyond the index, which has 1")
    );
}

#[tokio::test]
async fn one_damaged_page_costs_one_row() {
    let place = memory();
    let rows: Vec<ImageRow> = (0..5).map(row).collect();
    let mut bytes = {
        let mut part = PartWriter::new(FILE, options()).expect("a writer");
        for row in &rows {
            part.push(row.clone()).expect("a good row");
        }
        part.finish().expect("a file").to_vec()
    };
    let picture = rows[2].image.bytes.clone().expect("set");
    let at = bytes.windows(picture.len()).position(|w| w == picture).expect("stored as it is");
    bytes[at - 20..at - 12].fill(0xff);
    put(&place.location, bytes).await;
    let index = index::build(&place.location, &mut |_, _| {}).await.expect("a good footer");
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
    let each = reader.read_each(0, &[1, 2, 3], Columns::ROWS).await.expect("readable");
    assert_eq!(each[0].as_ref().expect("good"), &rows[1]);
    assert_eq!(each[2].as_ref().expect("good"), &rows[3]);
    let error = each[1].as_ref().expect_err("damaged").to_string();
    assert!(
        error.starts_with(&format!("{FILE}, row group 0, row 2, field image.bytes: cannot be decoded: ")),
        "{error}"
    );

    let report = verify::verify(&place.location, &mut |_| {}).await.expect("a readable store");
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert_eq!((report.rows, faults.len()), (4, 1), "{faults:?}");
    assert!(faults[0].starts_with(&format!("{FILE}, row group 0, row 2: cannot be decoded: ")), "{}", faults[0]);
}

//! Hard negatives and what they change: round trip, files of before, bad input, and which columns are read.

use crate::support::{bad_dataset, dataset, memory, put, row, scratches};
use arrow_array::builder::{Float32Builder, ListBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef, Int32Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use pixfleet_shards::{Columns, HardNegKind, ImageRow, RowGroupReader, ShardError, index, verify};
use std::sync::Arc;

const FILE: &str = "train/part-00000.parquet";
/// Two rows that pixfleet wrote before there were kinds of hard negatives.
const BEFORE: &[u8] = include_bytes!("../golden/before-kinds.parquet");

fn with_negatives(i: u64) -> ImageRow {
    let mut row = row(i);
    row.caption_short = Some("a fox".into());
    row.captions = vec!["a fox".into(), "one fox".into()];
    for region in &mut row.regions {
        region.short_expr = Some("the red fox at the top left".into());
        region.expressions = ["the red fox at the top left", "fox above", "red one"].map(String::from).to_vec();
        region.long_expr = Some("the red fox at the top left, drawn flat, on a plain teal background".into());
        region.hard_negs = vec!["the blue fox at the top left".into(), "the red dog at the top left".into()];
        region.hard_neg_kinds = vec![HardNegKind::Colour, HardNegKind::Identity];
    }
    row
}

async fn read(scratch: &crate::support::Scratch, columns: Columns) -> Vec<Result<ImageRow, ShardError>> {
    let index = index::build(&scratch.location, &mut |_, _| {}).await.expect("a dataset");
    let reader = RowGroupReader::new(scratch.location.clone(), &index, "train", None).expect("a split");
    reader.read_each(0, &[0, 1], columns).await.expect("readable")
}

#[tokio::test]
async fn kinds_come_back_beside_their_negatives() {
    for scratch in scratches() {
        let rows = [with_negatives(4), row(5)];
        dataset(&scratch.location, &rows).await;
        let found = read(&scratch, Columns::ROWS).await;
        assert_eq!([found[0].as_ref().expect("good"), found[1].as_ref().expect("good")], [&rows[0], &rows[1]]);
    }
}

#[tokio::test]
async fn a_file_of_before_has_negatives_without_kinds() {
    let scratch = memory();
    put(&scratch.location, BEFORE).await;
    let rows = read(&scratch, Columns::ROWS).await;
    let region = &rows[1].as_ref().expect("good").regions[0];
    assert_eq!(region.hard_negs, ["a blue fox", "a red dog"]);
    assert_eq!((region.short_expr.as_deref(), region.hard_neg_kinds.as_slice()), (Some("the fox"), [].as_slice()));
    // Nor had it lists of captions and expressions.
    assert!(rows[1].as_ref().is_ok_and(|row| row.captions.is_empty()) && region.expressions.is_empty());
    let report = verify::verify(&scratch.location, &mut |_| {}).await.expect("a readable store");
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

#[tokio::test]
async fn texts_are_read_without_vectors_and_without_other_texts() {
    let scratch = memory();
    dataset(&scratch.location, &[with_negatives(4), with_negatives(5)]).await;
    let columns = Columns::PICTURE.with_image_captions().with_hard_negatives();
    for found in read(&scratch, columns).await {
        let found = found.expect("a good row");
        let region = &found.regions[0];
        assert!(found.image.bytes.is_some() && region.mask.is_some() && found.caption_long.is_some());
        assert_eq!((region.hard_negs.len(), region.hard_neg_kinds.len()), (2, 2));
        assert!(region.short_expr.is_some(), "the positive comes with its negatives");
        assert_eq!((&region.caption_merged, &region.category, &found.lang), (&None, &None, &None));
        assert_eq!((found.captions.len(), region.expressions.len()), (2, 3), "lists come with what they go on from");
    }
    let expressions = read(&scratch, Columns::default().with_expressions()).await.remove(0).expect("a good row");
    assert!(expressions.regions[0].long_expr.is_some() && expressions.regions[0].hard_negs.is_empty());
    assert_eq!(expressions.caption_long, None);
}

#[tokio::test]
async fn kinds_that_do_not_stand_beside_negatives_are_a_fault() {
    let scratch = memory();
    let mut rows = [row(3), with_negatives(4)];
    rows[1].regions[1].hard_neg_kinds.truncate(1);
    bad_dataset(&scratch.location, &rows).await;
    let expected = format!(
        "{FILE}, row group 0, row 1, field regions[1].hard_neg_kinds: 1 kinds for 2 hard negatives; expected one for each, or none at all"
    );
    let error = read(&scratch, Columns::PICTURE.with_hard_negatives()).await.remove(1).expect_err("misaligned");
    assert_eq!(error.to_string(), expected);
    let report = verify::verify(&scratch.location, &mut |_| {}).await.expect("a readable store");
    assert_eq!(report.faults.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[tokio::test]
async fn a_kind_that_is_not_known_is_a_fault_that_names_the_known_ones() {
    let scratch = memory();
    put(&scratch.location, foreign(&["colour", "Material of the kite, and of all that hangs on it"])).await;
    let error = read(&scratch, Columns::ROWS).await.remove(0).expect_err("unknown");
    assert_eq!(
        error.to_string(),
        format!(
            "{FILE}, row group 0, row 0, field regions[0].hard_neg_kinds[1]: `Material of the kite, and of all that ha` is no kind of change; expected one of colour, size, position, count, identity, relation"
        )
    );
}

/// A file of another writer: two rows of one region with two negatives of `kinds`.
fn foreign(kinds: &[&str]) -> Vec<u8> {
    let texts = |of: &[&str]| -> ArrayRef {
        let mut list = ListBuilder::new(StringBuilder::new());
        for _ in 0..2 {
            list.append_value(of.iter().map(Some));
        }
        Arc::new(list.finish())
    };
    let mut boxes = ListBuilder::new(Float32Builder::new());
    for _ in 0..2 {
        boxes.append_value([0.0, 0.0, 0.5, 0.5].map(Some));
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bbox", Arc::new(boxes.finish())),
        ("hard_negs", texts(&["the blue kite", "the red dog"])),
        ("hard_neg_kinds", texts(kinds)),
    ];
    let fields: Fields = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
    let values = StructArray::new(fields, columns.into_iter().map(|(_, c)| c).collect(), None);
    let element = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let regions = ListArray::new(element, OffsetBuffer::from_lengths([1, 1]), Arc::new(values), None);
    let side = || -> ArrayRef { Arc::new(Int32Array::from(vec![48, 48])) };
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let batch = RecordBatch::try_from_iter([
        ("image_id", ids),
        ("width", side()),
        ("height", side()),
        ("regions", Arc::new(regions) as ArrayRef),
    ]);
    let batch = batch.expect("columns of two rows");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("a batch");
    writer.append_key_value_metadata(KeyValue::new("pixfleet.schema".to_owned(), "1".to_owned()));
    writer.into_inner().expect("a file")
}

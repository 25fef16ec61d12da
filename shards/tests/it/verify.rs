//! `verify` names each fault once, and a good dataset has none.

use crate::support::{bad_dataset, dataset, memory, put, row, scratches};
use pixfleet_shards::token_report::Lengths;
use pixfleet_shards::verify::{verify, verify_with};
use pixfleet_shards::{ImageRow, Region, Tokenizer};
use std::collections::BTreeMap;

#[tokio::test]
async fn a_good_dataset_has_no_faults() {
    for place in scratches() {
        let rows: Vec<ImageRow> = (0..12).map(row).collect();
        dataset(&place.location, &rows).await;
        let mut steps = Vec::new();
        let report = verify(&place.location, &mut |p| steps.push((p.row_groups, p.row_groups_total, p.faults))).await;
        let report = report.expect("a readable store");
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        assert_eq!((report.files, report.rows, report.regions), (1, 12, 24));
        assert_eq!(steps, [(1, 3, 0), (2, 3, 0), (3, 3, 0)]);
    }
}

#[tokio::test]
async fn all_faults_of_all_rows_are_named_in_order() {
    let place = memory();
    let mut rows: Vec<ImageRow> = (0..12).map(row).collect();
    rows[1].regions[1].bbox[2] = 7.0;
    rows[1].caption_long = Some(String::new());
    rows[6].image.bytes = Some(b"no picture".as_slice().into());
    rows[11].regions = vec![Region { caption_merged: Some(String::new()), ..row(0).regions[0].clone() }];
    bad_dataset(&place.location, &rows).await;
    place.location.put("test/part-00000.parquet", b"PAR1 and then nothing".as_slice()).await.expect("a store");
    let report = verify(&place.location, &mut |_| {}).await.expect("a readable store");
    let at: Vec<String> =
        report.faults.iter().map(|f| f.to_string().split(':').next().expect("a place").to_owned()).collect();
    assert_eq!(
        at,
        [
            "test/part-00000.parquet",
            "train/part-00000.parquet, row group 0, row 1, field caption_long",
            "train/part-00000.parquet, row group 0, row 1, field regions[1].bbox",
            "train/part-00000.parquet, row group 1, row 1, field image.bytes",
            "train/part-00000.parquet, row group 2, row 1, field regions[0].caption_merged",
            "index is older than its files",
        ]
    );
    assert_eq!(report.faults_total, 6);
}

#[tokio::test]
async fn a_row_group_that_cannot_be_read_is_one_fault() {
    let place = memory();
    let rows: Vec<ImageRow> = (0..5).map(row).collect();
    dataset(&place.location, &rows).await;
    let mut bytes = place.location.get("train/part-00000.parquet").await.expect("written").to_vec();
    // The first page header of the file: of the first column that every read needs.
    bytes[4..20].fill(0xff);
    put(&place.location, bytes).await;
    pixfleet_shards::index::build(&place.location, &mut |_, _| {}).await.expect("a good footer");
    let report = verify(&place.location, &mut |_| {}).await.expect("a readable store");
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "train/part-00000.parquet, row group 0: cannot be decoded: Parquet error: a page header is damaged; the file is damaged, write it again"
        ]
    );
}

#[tokio::test]
async fn a_flipped_bit_that_no_decoder_notices_is_a_fault() {
    let place = memory();
    let mut rows: Vec<ImageRow> = (0..5).map(row).collect();
    // A comment at the head of the JPEG: its bytes mean nothing to a decoder.
    let plain = crate::support::jpeg(48, 32);
    rows[2].image.bytes = Some([&plain[..2], b"\xff\xfe\x00\x08fooBAR".as_slice(), &plain[2..]].concat().into());
    dataset(&place.location, &rows).await;
    let good = verify(&place.location, &mut |_| {}).await.expect("a readable store");
    assert!(good.faults.is_empty(), "{:?}", good.faults);
    let mut bytes = place.location.get("train/part-00000.parquet").await.expect("written").to_vec();
    let at = bytes.windows(6).position(|w| w == b"fooBAR").expect("pictures are stored as they are");
    bytes[at] ^= 1;
    put(&place.location, bytes).await;
    pixfleet_shards::index::build(&place.location, &mut |_, _| {}).await.expect("a good footer");
    let report = verify(&place.location, &mut |_| {}).await.expect("a readable store");
    assert_eq!(
        report.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "train/part-00000.parquet: its bytes are not those that were written (the content hash differs); write or fetch it again"
        ]
    );
}

#[tokio::test]
async fn tokens_are_counted_by_column_and_the_longest_are_named() {
    let place = memory();
    let mut rows: Vec<ImageRow> = (0..12).map(row).collect();
    rows[6].caption_long = Some("very ".repeat(300) + "long");
    rows[7].regions[1].long_expr = Some("a ".repeat(76));
    rows[7].regions[1].hard_negs = vec!["a green fox".into(), "a ".repeat(75)];
    dataset(&place.location, &rows).await;
    let clip = Tokenizer::open("clip").expect("built in");
    let report = verify_with(&place.location, Some(&clip), &mut |_| {}).await.expect("a readable store");
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let fields: BTreeMap<&str, &Lengths> = report.tokens.fields().map(|(f, l)| (f.name(), l)).collect();
    let counts: Vec<_> = fields.iter().map(|(name, l)| (*name, l.texts(), l.cut_at(77), l.cut_at(248))).collect();
    assert_eq!(
        counts,
        [
            ("caption_long", 12, 1, 1),
            ("caption_merged", 24, 0, 0),
            ("caption_object", 24, 0, 0),
            ("hard_negs", 2, 0, 0),
            ("long_expr", 1, 1, 0),
        ]
    );
    // Start, `a long caption of picture 3`, end; a digit is a token.
    let long = fields["caption_long"];
    assert_eq!([0.0, 0.5, 0.9, 1.0].map(|q| long.quantile(q)), [8, 8, 9, 303]);
    assert_eq!((long.between(1, 8), long.between(9, 302)), (9, 2));
    let longest: Vec<_> = long.longest().iter().map(|t| (t.length, t.place.to_string())).collect();
    assert_eq!(longest.len(), 3);
    assert_eq!(longest[0], (303, "train/part-00000.parquet, row group 1, row 1, field caption_long".into()));
    let negative = &fields["hard_negs"].longest()[0];
    assert_eq!((negative.length, negative.text.len()), (77, 150));
    assert_eq!(negative.place.field.as_deref(), Some("regions[1].hard_negs[1]"));
}

#[tokio::test]
async fn a_text_that_cannot_be_tokenized_is_a_fault() {
    let place = memory();
    let mut rows: Vec<ImageRow> = (0..3).map(row).collect();
    rows[1].caption_short = Some("x".repeat(2 << 20));
    dataset(&place.location, &rows).await;
    let clip = Tokenizer::open("clip").expect("built in");
    let report = verify_with(&place.location, Some(&clip), &mut |_| {}).await.expect("a readable store");
    assert_eq!(
        report.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "train/part-00000.parquet, row group 0, row 1, field caption_short: 2097152 bytes exceed the limit of 262144 for a text; shorten it or drop the row"
        ]
    );
}

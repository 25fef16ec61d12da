//! Filters and mixes of datasets, and counts of what they hold.

use crate::support::{dataset, memory, options, png, row};
use bytes::Bytes;
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_shards::filter::{Filter, FilterOptions, FilterReport, filter};
use pixfleet_shards::mix::{MixOptions, MixSource, Until, mix};
use pixfleet_shards::stats::{Duplicate, StatsOptions, stats};
use pixfleet_shards::{Columns, ImageRow, Location, RowGroupReader, Tokenizer, index};
use std::collections::BTreeMap;

const ROWS: u64 = 23;

/// Rows of 1 to 3 regions, in row groups of 5; a region's score is its place among all of the row's.
fn rows() -> Vec<ImageRow> {
    let scored = |i: u64| {
        let mut row = row(i);
        row.clip_sim_l14 = Some(i as f32 / ROWS as f32);
        for (n, region) in row.regions.iter_mut().enumerate() {
            region.score = Some(n as f32 / 10.0);
        }
        row
    };
    (0..ROWS).map(scored).collect()
}

fn open(location: &Location, index: &DatasetIndex) -> RowGroupReader {
    RowGroupReader::new(location.clone(), index, "train", None).expect("a split")
}

async fn all(location: &Location) -> Vec<ImageRow> {
    let index = index::build(location, &mut |_, _| {}).await.expect("files");
    let reader = open(location, &index);
    let mut all = Vec::new();
    for (group, known) in (0..).zip(reader.split().row_groups()) {
        let numbers: Vec<u32> = (0..known.rows).collect();
        all.extend(reader.read(group, &numbers, Columns::ROWS).await.expect("good rows"));
    }
    all
}

/// What stays of [`rows`], the report, and what was fetched for it: bytes and requests.
async fn filtered(text: &str, keep_empty: bool) -> (Vec<ImageRow>, FilterReport, (u64, u64)) {
    let (source, out) = (memory(), memory());
    let index = dataset(&source.location, &rows()).await;
    let reader = open(&source.location, &index);
    let condition = Filter::parse(text).expect("a condition");
    let options = FilterOptions { keep_empty, tokenizer: None, writer: options() };
    let report =
        filter(&reader, &condition, &options, (&out.location, "train"), &mut |_, _| {}).await.expect("filters");
    let fetched = (reader.fetched().bytes(), reader.fetched().requests());
    let kept = if report.written.rows > 0 { all(&out.location).await } else { Vec::new() };
    assert_eq!(kept.len() as u64, report.written.rows);
    (kept, report, fetched)
}

#[tokio::test]
async fn rows_and_regions_stay_by_the_condition_in_their_order() {
    let (kept, report, _) = filtered("score > 0.05 and width >= 48", false).await;
    let expected: Vec<ImageRow> = rows()
        .into_iter()
        .filter_map(|mut row| {
            row.regions.retain(|r| r.score.is_some_and(|s| s > 0.05));
            (!row.regions.is_empty()).then_some(row)
        })
        .collect();
    assert!(expected.len() < rows().len());
    assert_eq!(kept, expected);
    let gone = report.parts.iter().map(|p| p.regions).sum::<u64>();
    assert_eq!(gone + report.written.regions, report.regions);
    assert_eq!(report.emptied + report.written.rows, ROWS);
    let (kept, report, _) = filtered("score > 0.05 and width >= 48", true).await;
    assert_eq!((kept.len() as u64, report.emptied), (ROWS, 0));
}

#[tokio::test]
async fn row_groups_that_cannot_match_and_pictures_that_go_are_not_read() {
    let (_, everything, (all_bytes, all_requests)) = filtered("width > 0", false).await;
    assert_eq!(everything.written.rows, ROWS);
    // By their statistics, none.
    let (kept, report, (bytes, requests)) = filtered("clip_sim_l14 > 7 or width > 48", false).await;
    assert_eq!((kept.len(), report.parts[0].row_groups, report.parts[0].skipped), (0, 5, ROWS));
    assert!(requests <= 3, "{requests} requests for a footer");
    assert!(bytes < all_bytes / 3, "{bytes} of {all_bytes}");
    // The last of five row groups.
    let (kept, report, (bytes, requests)) = filtered("clip_sim_l14 >= 0.869", false).await;
    assert_eq!((kept.len(), report.parts[0].row_groups), (3, 4));
    assert!(requests < all_requests && bytes < all_bytes / 2, "{bytes} of {all_bytes}");
    // One row of each row group: by no statistics, but the others' pictures are left alone.
    let one = "image_id in ('image-1', 'image-6', 'image-11', 'image-16', 'image-21')";
    let (kept, report, (bytes, _)) = filtered(one, false).await;
    assert_eq!((kept.len(), report.parts[0].row_groups), (5, 0));
    assert!(bytes < all_bytes / 2, "{bytes} of {all_bytes}");
}

async fn mixed(until: Until, limit: Option<u64>, seed: u64) -> (Vec<ImageRow>, Vec<u64>) {
    let (a, b, out) = (memory(), memory(), memory());
    dataset(&a.location, &rows()).await;
    let others: Vec<ImageRow> = (100..140).map(|i| ImageRow { source: String::new(), ..row(i) }).collect();
    dataset(&b.location, &others).await;
    let source = |place: &Location, weight| MixSource { location: place.clone(), weight };
    let sources = [source(&a.location, 3.0), source(&b.location, 1.0)];
    let options = MixOptions { seed, until, rows: limit, writer: options() };
    let report = mix(&sources, (&out.location, "train"), &options, &mut |_, _| {}).await.expect("mixes");
    (all(&out.location).await, report.sources.iter().map(|s| s.written).collect())
}

#[tokio::test]
async fn every_row_is_in_a_mix_once_and_a_seed_makes_it_again() {
    let (found, written) = mixed(Until::All, None, 3).await;
    assert_eq!(written, [ROWS, 40]);
    let mut by_id: BTreeMap<String, ImageRow> = BTreeMap::new();
    for row in &found {
        assert!(by_id.insert(row.image_id.clone(), row.clone()).is_none(), "{} is there twice", row.image_id);
    }
    for row in rows() {
        assert_eq!(by_id.get(&row.image_id), Some(&row), "rows are copied as they are");
    }
    // The location of the others is memory:///data.
    assert_eq!(by_id["image-100"].source, "data");
    let ids = |rows: &[ImageRow]| rows.iter().map(|r| r.image_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&found), ids(&mixed(Until::All, None, 3).await.0));
    assert_ne!(ids(&found), ids(&mixed(Until::All, None, 4).await.0));

    let (found, written) = mixed(Until::First, None, 3).await;
    assert_eq!(written[0], ROWS, "with three times the turns of a source twice as large, it ends first");
    assert!(written[1] < 40 && found.len() as u64 == written.iter().sum::<u64>());
    assert_eq!(mixed(Until::First, Some(7), 3).await.0.len(), 7);
}

#[tokio::test]
async fn counts_are_those_of_the_rows_and_duplicates_are_found() {
    let place = memory();
    let mut rows = rows();
    let picture: Bytes = png(48, 32, 4);
    for at in [9, 17] {
        rows[at].image.bytes = Some(picture.clone());
    }
    let index = dataset(&place.location, &rows).await;
    let options = StatsOptions { tokenizer: Some(Tokenizer::open("clip").expect("built in")), pictures: true };
    let found = stats(&open(&place.location, &index), &options, &mut |_, _| {}).await.expect("counts");
    let regions: u64 = rows.iter().map(|r| r.regions.len() as u64).sum();
    assert_eq!((found.rows, found.regions, found.bad), (ROWS, regions, 0));
    let count = |name: &str| found.row_fields.iter().find(|s| s.field == name).map(|s| s.count);
    assert_eq!((count("clip_sim_l14"), count("caption_short")), (Some(ROWS), Some(0)));
    assert_eq!(found.categories.names, [("fox".to_owned(), regions)]);
    assert_eq!((found.areas.total(), found.sides.total(), found.picture_bytes.total()), (regions, ROWS, ROWS));
    assert_eq!(found.tokens.fields().map(|(_, l)| l.texts()).sum::<u64>(), ROWS + 2 * regions);
    let duplicates = found.duplicates.expect("pictures were read");
    assert_eq!(
        (duplicates.compared + duplicates.flat, duplicates.equal_groups, duplicates.equal_pictures),
        (ROWS, 1, 2)
    );
    // Rows 4, 9 and 17 in row groups of 5.
    assert_eq!(duplicates.equal, [Duplicate { pictures: 3, first: vec![(0, 4), (1, 4), (3, 2)] }]);
}

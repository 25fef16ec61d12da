//! What is written is what is read; only what is needed is fetched.

use crate::support::{bad_dataset, dataset, folder, memory, options, region, row, scratches};
use pixfleet_cluster::index::LATEST;
use pixfleet_shards::writer::{PartWriter, part_path};
use pixfleet_shards::{Columns, HardNegKind, ImageRow, RowGroupReader, ShardError, ShardWriter, WriterOptions, index};

/// A row with every field set.
fn full() -> ImageRow {
    let mut row = row(2);
    row.image.path = Some("00001/000010.jpg".into());
    row.image.url = Some("https://example.org/fox.jpg".into());
    row.image.sha256 = Some([7; 32]);
    row.caption_short = Some("a fox".into());
    row.captions = vec!["a fox".into(), "a red fox rests".into()];
    row.caption_long_emb = Some(vec![0.5, -2.0]);
    row.caption_short_emb = Some(vec![1.0, 0.25]);
    row.clip_sim_b32 = Some(0.31);
    row.clip_sim_l14 = Some(0.27);
    let first = &mut row.regions[0];
    first.score = Some(0.9);
    first.span = Some([2, 9]);
    first.short_expr = Some("the fox".into());
    first.long_expr = Some("the fox that sits in the corner".into());
    first.expressions = vec!["the fox".into(), "fox in the corner".into(), "red animal".into()];
    first.hard_negs = vec!["a blue fox".into(), "a red dog".into()];
    first.hard_neg_kinds = vec![HardNegKind::Colour, HardNegKind::Identity];
    first.text_emb = Some(vec![0.125, 3.0]);
    row.regions[1].mask = None;
    row.regions[1].check_ok = Some(false);
    row
}

#[tokio::test]
async fn rows_come_back_as_they_were_written() {
    for place in scratches() {
        let mut rows: Vec<ImageRow> = (0..12).map(row).collect();
        rows[7] = full();
        rows[8].regions.clear();
        let index = dataset(&place.location, &rows).await;
        let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
        assert_eq!(reader.split().shape().rows, [5, 5, 2]);
        assert_eq!(reader.split().regions(), rows.iter().map(|r| r.regions.len() as u64).sum::<u64>());
        for (group, chunk) in rows.chunks(5).enumerate() {
            let all: Vec<u32> = (0..chunk.len() as u32).collect();
            assert_eq!(reader.read(group as u32, &all, Columns::ROWS).await.expect("good rows"), chunk);
        }
        let some = reader.read(1, &[4, 0, 2, 4], Columns::ROWS).await.expect("good rows");
        assert_eq!(some, [&rows[9], &rows[5], &rows[7], &rows[9]].map(Clone::clone), "in the order asked for");
    }
}

#[tokio::test]
async fn captions_are_read_without_pictures() {
    for place in scratches() {
        let rows: Vec<ImageRow> = (0..10).map(row).collect();
        let index = dataset(&place.location, &rows).await;
        let split = index.split("train").expect("written");
        let images: u64 = split.row_groups().map(|g| g.image_bytes).sum();
        assert!(images > 10 * 4000, "the pictures are most of the file: {images} bytes");
        let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
        for group in 0..2 {
            let read = reader.read(group, &[0, 1, 2, 3, 4], Columns::CAPTIONS).await.expect("good rows");
            assert_eq!(read[3].regions[0].caption_merged, rows[5 * group as usize + 3].regions[0].caption_merged);
            assert_eq!((read[3].image.bytes.clone(), read[3].regions[0].mask.clone()), (None, None));
        }
        let without = split.bytes() - images;
        assert!(reader.fetched().bytes() <= without, "{} of {without}", reader.fetched().bytes());
    }
}

#[tokio::test]
async fn one_picture_is_fetched_without_its_neighbours() {
    for place in scratches() {
        let rows: Vec<ImageRow> = (0..10)
            .map(|i| {
                let mut row = row(i);
                row.image.bytes = Some(crate::support::png(96, 96, i));
                (row.width, row.height) = (96, 96);
                row
            })
            .collect();
        let one = rows[3].image.bytes.as_ref().expect("set").len() as u64;
        let index = dataset(&place.location, &rows).await;
        let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
        reader.read(0, &[0], Columns { image: false, vectors: false, ..Columns::TRAIN }).await.expect("good rows");
        let before = reader.fetched().bytes();
        let read = reader.read(0, &[3], Columns { vectors: false, ..Columns::TRAIN }).await.expect("good rows");
        assert_eq!(read[0].image.bytes, rows[3].image.bytes);
        let fetched = reader.fetched().bytes() - before;
        assert!(fetched >= one && fetched < one + 64, "{fetched} bytes for a picture of {one}");
    }
}

#[tokio::test]
async fn an_epoch_fetches_hardly_more_than_the_files() {
    let place = memory();
    let rows: Vec<ImageRow> = (0..200)
        .map(|i| {
            let mut row = row(i);
            row.image.bytes = Some(crate::support::png(96, 96, i));
            (row.width, row.height) = (96, 96);
            row
        })
        .collect();
    let mut writer = ShardWriter::new(place.location.clone(), "train", WriterOptions::default());
    for row in rows {
        writer.push(row).await.expect("a good row");
    }
    let written = writer.finish().await.expect("a store");
    let index = index::build(&place.location, &mut |_, _| {}).await.expect("a dataset");
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
    for (group, rows) in reader.split().shape().rows.into_iter().enumerate() {
        for row in (0..rows).rev() {
            reader.read(group as u32, &[row], Columns::TRAIN).await.expect("good rows");
        }
    }
    let (fetched, stored) = (reader.fetched().bytes(), written.bytes);
    assert!(fetched as f64 <= 1.02 * stored as f64, "{fetched} bytes for files of {stored}");
}

#[tokio::test]
async fn the_least_recently_used_row_groups_leave_first() {
    let place = memory();
    let rows: Vec<ImageRow> = (0..15).map(row).collect();
    let index = dataset(&place.location, &rows).await;
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
    let columns = Columns { vectors: false, ..Columns::TRAIN };
    let all = [0, 1, 2, 3, 4];
    reader.read(0, &all, columns).await.expect("good rows");
    let one_group = reader.cached_bytes();
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", None)
        .expect("a split")
        .with_cache_bytes(one_group * 5 / 2);
    for group in [0, 1, 0, 2] {
        reader.read(group, &all, columns).await.expect("good rows");
        assert!(reader.cached_bytes() <= one_group * 5 / 2);
    }
    let before = reader.fetched().requests();
    reader.read(0, &all, columns).await.expect("good rows");
    assert_eq!(reader.fetched().requests(), before, "row group 0 was used after 1 and is still there");
    reader.read(1, &all, columns).await.expect("good rows");
    assert!(reader.fetched().requests() > before, "row group 1 left");
}

#[tokio::test]
async fn a_bad_row_leaves_its_neighbours_alone() {
    let place = memory();
    let mut rows: Vec<ImageRow> = (0..5).map(row).collect();
    rows[2].regions[1].bbox = [0.2, 0.2, 1.2, 0.8];
    let index = bad_dataset(&place.location, &rows).await;
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
    let each = reader.read_each(0, &[1, 2, 3], Columns::ROWS).await.expect("readable");
    assert_eq!(each[0].as_ref().expect("good"), &rows[1]);
    assert!(each[1].as_ref().is_err_and(ShardError::is_bad_data));
    assert_eq!(each[2].as_ref().expect("good"), &rows[3]);
}

#[tokio::test]
async fn row_groups_end_at_their_rows_or_bytes_and_files_at_their_bytes() {
    let place = memory();
    let size = row(0).image.bytes.expect("set").len() as u64;
    let options = WriterOptions { rows_per_group: 8, image_bytes_per_group: 3 * size - 100, bytes_per_file: 5 * size };
    let mut writer = ShardWriter::new(place.location.clone(), "train", options);
    for i in 0..20 {
        writer.push(row(i)).await.expect("a good row");
    }
    let written = writer.finish().await.expect("a store");
    let index = index::build(&place.location, &mut |_, _| {}).await.expect("a dataset");
    let split = index.split("train").expect("written");
    assert_eq!(written.rows, 20);
    assert_eq!(
        (written.files as usize, written.bytes, written.regions),
        (split.files.len(), split.bytes(), split.regions())
    );
    assert!(split.files.len() > 2, "{} files", split.files.len());
    assert_eq!(split.row_groups().map(|g| g.rows).max(), Some(3));

    // A smaller split in its place leaves none of the larger one's files behind.
    let mut writer = ShardWriter::new(place.location.clone(), "train", options);
    writer.push(row(0)).await.expect("a good row");
    writer.finish().await.expect("a store");
    let index = index::build(&place.location, &mut |_, _| {}).await.expect("a dataset");
    assert_eq!(index.split("train").expect("written").shape().rows, [1]);
}

#[tokio::test]
async fn equal_data_has_equal_digests() {
    let rows: Vec<ImageRow> = (0..7).map(row).collect();
    let (one, two) = (folder(), memory());
    let first = dataset(&one.location, &rows).await;
    assert_eq!(first.digest, dataset(&two.location, &rows).await.digest);
    assert_ne!(first.digest, dataset(&two.location, &rows[1..]).await.digest);
    let opened = index::open(&one.location).await.expect("an index");
    assert_eq!(opened, first);
    index::check_fresh(&one.location, &opened).await.expect("fresh");
    let latest = one.location.get(LATEST).await.expect("a pointer");
    assert_eq!(latest, format!(r#"{{"digest":"{0}","path":"index/{0}.json"}}"#, first.digest));
}

#[tokio::test]
async fn regions_are_counted_where_the_footer_does_not_say() {
    let place = memory();
    let mut part = PartWriter::new(part_path("train", 0), options()).expect("a writer");
    for i in 0..7 {
        part.push(row(i)).expect("a good row");
    }
    // The key of the region counts, spoilt in place: same length, another name.
    let mut bytes = part.finish().expect("a file").to_vec();
    let key = pixfleet_shards::schema::REGIONS_KEY.as_bytes();
    let at = bytes.windows(key.len()).rposition(|w| w == key).expect("is there");
    bytes[at] = b'P';
    crate::support::put(&place.location, bytes).await;
    let index = index::build(&place.location, &mut |_, _| {}).await.expect("a dataset");
    let regions: Vec<u32> = index.split("train").expect("written").row_groups().map(|g| g.regions).collect();
    assert_eq!(regions, [9, 4]);
}

#[tokio::test]
async fn a_writer_refuses_a_bad_row() {
    let place = memory();
    let mut writer = ShardWriter::new(place.location.clone(), "train", options());
    for i in 0..6 {
        writer.push(row(i)).await.expect("a good row");
    }
    let mut bad = row(6);
    bad.regions = vec![region(0), region(1)];
    bad.regions[1].caption_merged = Some("  ".into());
    let error = writer.push(bad).await.expect_err("an empty caption");
    assert_eq!(
        error.to_string(),
        "train/part-00000.parquet, row group 1, row 1, field regions[1].caption_merged: empty caption; leave it null or drop the region"
    );
}

//! Small datasets on stores that vanish with their test.

use bytes::Bytes;
use image::{ExtendedColorType, ImageEncoder};
use object_store::memory::InMemory;
use object_store::path::Path;
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_shards::pixels::{Mask, rle::Rle};
use pixfleet_shards::writer::PartWriter;
use pixfleet_shards::{ImageRow, ImageSource, Location, Region, ShardWriter, WriterOptions, index};
use std::sync::Arc;
use tempfile::TempDir;

/// A place for a dataset; a folder is deleted when it is dropped.
pub(crate) struct Scratch {
    pub(crate) location: Location,
    _folder: Option<TempDir>,
}

/// A temporary folder, by its `file://` URL.
pub(crate) fn folder() -> Scratch {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("file://{}/data set", folder.path().display());
    Scratch { location: Location::parse(&url).expect("a URL"), _folder: Some(folder) }
}

/// A store in memory.
pub(crate) fn memory() -> Scratch {
    let location = Location::with_store("memory:///data", Arc::new(InMemory::new()), Path::from("data"));
    Scratch { location, _folder: None }
}

/// Both.
pub(crate) fn scratches() -> [Scratch; 2] {
    [folder(), memory()]
}

/// A PNG of `width` x `height` with noise in it, so that it does not compress.
pub(crate) fn png(width: u32, height: u32, seed: u64) -> Bytes {
    let pixels: Vec<u8> = (0..u64::from(width * height * 3))
        .map(|i| (pixfleet_cluster::rng::mix(seed.wrapping_mul(0x1_0000_0000).wrapping_add(i)) >> 56) as u8)
        .collect();
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .expect("encodes");
    bytes.into()
}

/// A JPEG of one colour.
pub(crate) fn jpeg(width: u32, height: u32) -> Bytes {
    let pixels = vec![120; (width * height * 3) as usize];
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes)
        .encode(&pixels, width, height, ExtendedColorType::Rgb8)
        .expect("encodes");
    bytes.into()
}

/// A good region that fills a corner, told apart by `i`.
pub(crate) fn region(i: u64) -> Region {
    let mut mask = Mask::filled(24, 16, 0);
    for y in 0..8 {
        mask.data[y * 24..y * 24 + 8 + (i % 5) as usize].fill(255);
    }
    Region {
        bbox: [0.0, 0.0, 0.5, 0.5],
        mask: Some(Rle::encode(&mask)),
        category: Some("fox".into()),
        caption_object: Some(format!("a red fox number {}", i % 7)),
        caption_context: Some("in the corner".into()),
        caption_merged: Some(format!("in the corner of picture {i} sits a red fox")),
        check_ok: Some(true),
        ..Region::default()
    }
}

/// A good row with 1 to 3 regions; its picture takes a few kilobytes.
pub(crate) fn row(i: u64) -> ImageRow {
    ImageRow {
        image_id: format!("image-{i}"),
        source: "custom".into(),
        image: ImageSource { bytes: Some(png(48, 32, i)), ..ImageSource::default() },
        width: 48,
        height: 32,
        lang: Some("en".into()),
        caption_long: Some(format!("a long caption of picture {i}")),
        regions: (0..=i % 3).map(|r| region(10 * i + r)).collect(),
        ..ImageRow::default()
    }
}

/// Row groups of 5 rows.
pub(crate) fn options() -> WriterOptions {
    WriterOptions { rows_per_group: 5, ..WriterOptions::default() }
}

/// Writes and indexes `rows` as the split `train`.
pub(crate) async fn dataset(location: &Location, rows: &[ImageRow]) -> DatasetIndex {
    let mut writer = ShardWriter::new(location.clone(), "train", options());
    for row in rows {
        writer.push(row.clone()).await.expect("a good row");
    }
    writer.finish().await.expect("a writable store");
    index::build(location, &mut |_, _| {}).await.expect("a good dataset")
}

/// Writes and indexes `rows` unchecked, as one file.
pub(crate) async fn bad_dataset(location: &Location, rows: &[ImageRow]) -> DatasetIndex {
    let mut part = PartWriter::new("train/part-00000.parquet", options()).expect("a writer");
    for row in rows {
        part.push_unchecked(row.clone()).expect("rows of the schema");
    }
    put(location, part.finish().expect("a file")).await;
    index::build(location, &mut |_, _| {}).await.expect("a readable footer")
}

/// Puts the one file of the split `train`.
pub(crate) async fn put(location: &Location, bytes: impl Into<object_store::PutPayload>) {
    location.put("train/part-00000.parquet", bytes).await.expect("a writable store");
}

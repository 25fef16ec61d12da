//! What an annotator starts from: pictures and boxes, and nothing that a model could have written.

use anyhow::Result;
use pixfleet_shards::{Columns, ImageRow, Location, Region, RowGroupReader, ShardWriter, WriterOptions, index};

/// Copies the first `rows` rows of `split` at `from` to `to`, as several files, with pictures alone, and boxes if wished.
pub async fn strip(from: &str, split: &str, to: &str, rows: usize, boxes: bool) -> Result<()> {
    let location = Location::parse(to)?;
    let options = WriterOptions { rows_per_group: 8, bytes_per_file: 128 << 10, ..WriterOptions::default() };
    let mut writer = ShardWriter::new(location.clone(), split, options);
    for row in read(from, split).await?.into_iter().take(rows) {
        let bare = |region: Region| Region { bbox: region.bbox, category: region.category, ..Region::default() };
        let regions = row.regions.into_iter().filter(|_| boxes).map(bare).collect();
        let (image_id, source, image, width, height) = (row.image_id, row.source, row.image, row.width, row.height);
        writer.push(ImageRow { image_id, source, image, width, height, regions, ..ImageRow::default() }).await?;
    }
    writer.finish().await?;
    index::build(&location, &mut |_, _| {}).await?;
    Ok(())
}

/// All rows of a split.
pub async fn read(url: &str, split: &str) -> Result<Vec<ImageRow>> {
    let location = Location::parse(url)?;
    let index = index::open(&location).await?;
    let reader = RowGroupReader::new(location, &index, split, None)?;
    let mut all = Vec::new();
    for (group, &rows) in (0..).zip(&reader.split().shape().rows) {
        all.extend(reader.read(group, &(0..rows).collect::<Vec<_>>(), Columns::ROWS).await?);
    }
    Ok(all)
}

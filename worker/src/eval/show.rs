//! Draws what texts find: chosen queries, their pictures read again, regions drawn on them.

use super::features::{ImageFeatures, RegionFeatures};
use super::measure::Pairs;
use super::retrieve::{Places, top};
use crate::report::Gallery;
use crate::report::gallery::{self, Panel, Query};
use anyhow::{Context, Result, anyhow};
use image::RgbImage;
use pixfleet_shards::pixels::resize::{Raster, Rect};
use pixfleet_shards::pixels::{Mask, decode};
use pixfleet_shards::{Columns, ImageRow, RowGroupReader};
use std::collections::HashMap;
use tch::{IndexOp, Tensor};

/// Regions shown for a text.
const FOUND: usize = 5;

/// The gallery of one kind of text: `count` texts, about half of them found at once, the rest near misses and misses.
///
/// # Errors
/// If a picture cannot be read again.
pub(crate) async fn gallery(
    pairs: &Pairs<'_>,
    places: &Places,
    reader: &RowGroupReader,
    count: usize,
) -> Result<Gallery> {
    let third = count / 3;
    let chosen = gallery::choose(&places.all, count - third - third / 2, third / 2, third);
    let (texts, masks) = (pairs.texts(), pairs.masks());
    let mut pictures = Pictures::new(reader);
    let mut queries = Vec::with_capacity(chosen.len());
    for i in chosen {
        let row = similarities(&texts, &masks, i)?;
        let mut panels = Vec::with_capacity(FOUND + 1);
        for answer in std::iter::once(i).chain(top(&row, FOUND)) {
            let (image, region, _) = pairs.regions[answer];
            panels.push(pictures.panel(pairs.image(image), region, row[answer], answer == i).await?);
        }
        let wanted = panels.remove(0);
        queries.push(Query {
            text: pairs.regions[i].2.text.clone(),
            rank: places.all[i].rank(),
            wanted,
            found: panels,
        });
    }
    Ok(Gallery { text: pairs.kind(), queries })
}

/// Similarities of text `i` to every region.
fn similarities(texts: &Tensor, masks: &Tensor, i: usize) -> Result<Vec<f32>> {
    Ok(Vec::<f32>::try_from(masks.f_matmul(&texts.i(i as i64))?)?)
}

/// Rows read for the gallery; each once.
pub(super) struct Pictures<'a> {
    reader: &'a RowGroupReader,
    rows: HashMap<(u32, u32), (ImageRow, RgbImage)>,
}

impl<'a> Pictures<'a> {
    pub(super) fn new(reader: &'a RowGroupReader) -> Self {
        Self { reader, rows: HashMap::new() }
    }

    async fn panel(
        &mut self,
        image: &ImageFeatures,
        region: &RegionFeatures,
        similarity: f32,
        right: bool,
    ) -> Result<Panel> {
        let (row, picture) = self.row((image.row_group, image.row), &image.image_id).await?;
        let found =
            row.regions.get(region.index as usize).ok_or_else(|| anyhow!("{}: the row has changed", image.image_id))?;
        let (width, height) = picture.dimensions();
        let mask = match &found.mask {
            Some(rle) => fit(rle.decode().with_context(|| format!("mask of {}", image.image_id))?, width, height),
            None => Mask::from_box(width, height, found.bbox),
        };
        let inside: Vec<bool> = mask.data.iter().map(|&m| m >= 128).collect();
        let drawn = gallery::Region { mask: &inside, bbox: found.bbox, right };
        let uri = gallery::draw(picture, &drawn).ok_or_else(|| anyhow!("{}: cannot draw a region", image.image_id))?;
        let caption = found.short_text().or(found.long_text()).unwrap_or_default().to_owned();
        Ok(Panel { uri, caption, similarity, right })
    }

    /// The row `at` (row group, row) with its picture. `image_id` names it in messages.
    ///
    /// # Errors
    /// If the row or its picture cannot be read again.
    pub(super) async fn row(&mut self, at: (u32, u32), image_id: &str) -> Result<&(ImageRow, RgbImage)> {
        if !self.rows.contains_key(&at) {
            let columns = Columns::PICTURE.with_captions().with_hard_negatives();
            let row = self.reader.read(at.0, &[at.1], columns).await?.pop();
            let row = row.ok_or_else(|| anyhow!("{image_id}: the row is gone"))?;
            let bytes = row.image.bytes.as_ref().ok_or_else(|| anyhow!("{image_id}: no image"))?;
            let rgb = decode::rgb(bytes)?;
            let picture =
                RgbImage::from_raw(rgb.width, rgb.height, rgb.data).ok_or_else(|| anyhow!("an image of no size"))?;
            self.rows.insert(at, (row, picture));
        }
        Ok(&self.rows[&at])
    }
}

fn fit(mask: Mask, width: u32, height: u32) -> Mask {
    if (mask.width, mask.height) == (width, height) {
        return mask;
    }
    mask.resized(Rect::whole(mask.width, mask.height), width, height)
}

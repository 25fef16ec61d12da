//! Every region of a split through the towers: its image with its mask, with its box as the mask, the image with an
//! all-ones mask, and its texts through the text tower: stored vectors, or token ids that are made here.

use super::benchmarks::Part;
use super::feed::{SplitFeed, SplitRow};
use crate::pixels;
use crate::train::inputs::text_items;
use anyhow::{Result, anyhow};
use pixfleet_cluster::spec::terms::Set;
use pixfleet_model::host::put;
use pixfleet_model::{Compute, Model, TextItems, Weights};
use pixfleet_shards::batch::BatchTexts;
use pixfleet_shards::sample::{RegionView, SampleConfig, TextSource, Views, views};
use pixfleet_shards::{Columns, ImageRow, RowGroupReader};
use tch::{Device, IndexOp, Kind, Tensor};

/// Images in one forward.
const FORWARD_ROWS: i64 = 64;

/// One image of the split. Embeddings are L2-normalized, `D` numbers.
#[derive(Debug, Clone)]
pub(crate) struct ImageFeatures {
    /// Key of the image within its source.
    pub(crate) image_id: String,
    /// Row group, over all files of the split.
    pub(crate) row_group: u32,
    /// Row within it.
    pub(crate) row: u32,
    /// The image with an all-ones mask.
    pub(crate) full: Vec<f32>,
    /// Its regions.
    pub(crate) regions: Vec<RegionFeatures>,
}

/// One region.
#[derive(Debug, Clone)]
pub(crate) struct RegionFeatures {
    /// Number within its image.
    pub(crate) index: u32,
    /// The image with the region's mask.
    pub(crate) mask: Vec<f32>,
    /// The image with the region's box as the mask; empty unless asked for.
    pub(crate) boxed: Vec<f32>,
    /// The short text and its embedding.
    pub(crate) short: Option<Text>,
    /// The long text and its embedding.
    pub(crate) long: Option<Text>,
}

/// A text with its embedding.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// As it stands in the row.
    pub(crate) text: String,
    /// Through the text tower.
    pub(crate) embedding: Vec<f32>,
}

/// What to encode, and how.
pub(crate) struct FeatureJob<'a> {
    /// Reads the split, with the vectors' key.
    pub(crate) reader: &'a RowGroupReader,
    /// How rows become pixels.
    pub(crate) config: SampleConfig,
    /// Encodes.
    pub(crate) model: &'a Model,
    /// Where.
    pub(crate) device: Device,
    /// Whether regions are encoded by their boxes too.
    pub(crate) boxes: bool,
    /// Stop after about this many regions.
    pub(crate) limit: Option<u64>,
}

/// Encodes the split; `each` gets the images in the order of the rows. Returns how many rows were left out as bad.
///
/// # Errors
/// A store that cannot be read, a model that does not fit, what `each` returns.
pub(crate) fn encode_split(
    job: &FeatureJob<'_>,
    mut each: impl FnMut(Vec<ImageFeatures>) -> Result<()>,
) -> Result<u64> {
    let columns = Columns { captions: true, vectors: !job.reads_tokens(), ..Columns::TRAIN };
    let feed = SplitFeed { reader: job.reader, columns, limit: job.limit, first: None, part: Part::WHOLE };
    let config = &job.config;
    let decode = |row: &ImageRow| {
        let all: Vec<u32> = (0..row.regions.len() as u32).collect();
        views(row, &all, config)
    };
    feed.each(decode, |chunk| each(job.encode(&chunk)?))
}

impl FeatureJob<'_> {
    /// Whether texts become token ids here, instead of vectors that lie beside the rows.
    fn reads_tokens(&self) -> bool {
        matches!(self.config.texts, TextSource::Tokens(_))
    }

    fn encode(&self, chunk: &[SplitRow<Views>]) -> Result<Vec<ImageFeatures>> {
        let (model, device) = (self.model, self.device);
        tch::no_grad(|| {
            let s = model.vision().image();
            let w = model.params.weights(Compute::FP32);
            let views = || chunk.iter().map(|r| &r.seen);
            let bytes: Vec<u8> = views().flat_map(|v| v.pixels.iter().copied()).collect();
            let pixels = pixels::images(&put(&pixels::planes(&bytes, 3, s)?, device)?)?;
            let full = self.config.data.full_mask_value;
            let ones = Tensor::full([pixels.size()[0], 1, s, s], full, (Kind::Float, device));
            let full = rows_of(&image_features(model, &w, &pixels, &ones)?)?;
            let owner: Vec<i64> = (0i64..).zip(views()).flat_map(|(i, v)| vec![i; v.regions.len()]).collect();
            let owner = Tensor::from_slice(&owner).to_device(device);
            let shown = |of: fn(&RegionView) -> &Vec<u8>| -> Result<Vec<Vec<f32>>> {
                let bytes: Vec<u8> = views().flat_map(|v| &v.regions).flat_map(|r| of(r).iter().copied()).collect();
                let masks = pixels::masks(&put(&pixels::planes(&bytes, 1, s)?, device)?, &[])?;
                rows_of(&image_features(model, &w, &pixels.index_select(0, &owner), &masks)?)
            };
            let mut masked = shown(|r| &r.mask)?.into_iter();
            let mut boxed = if self.boxes { shown(|r| &r.filled_box)?.into_iter() } else { Vec::new().into_iter() };
            let rows = || chunk.iter().flat_map(|r| &r.source.regions);
            let mut short = self.texts(rows().map(|r| (r.short_text(), r.short_vector.as_deref())))?.into_iter();
            let mut long = self.texts(rows().map(|r| (r.long_text(), r.long_vector.as_deref())))?.into_iter();
            let image = |(SplitRow { row_group, row, source, .. }, full): (&SplitRow<Views>, Vec<f32>)| {
                let regions = (0..source.regions.len() as u32).map(|index| RegionFeatures {
                    index,
                    mask: masked.next().unwrap_or_default(),
                    boxed: boxed.next().unwrap_or_default(),
                    short: short.next().flatten(),
                    long: long.next().flatten(),
                });
                let regions = regions.collect();
                ImageFeatures { image_id: source.image_id.clone(), row_group: *row_group, row: *row, full, regions }
            };
            Ok(chunk.iter().zip(full).map(image).collect())
        })
    }

    /// Embeddings of the texts that are there; one entry per region.
    fn texts<'t>(
        &self,
        given: impl Iterator<Item = (Option<&'t str>, Option<&'t [f32]>)>,
    ) -> Result<Vec<Option<Text>>> {
        let vector = |found: Option<&'t [f32]>| found.or(self.reads_tokens().then_some(&[]));
        let given: Vec<_> = given.map(|(text, found)| text.zip(vector(found))).collect();
        let there: Vec<(&str, &[f32])> = given.iter().flatten().copied().collect();
        if there.is_empty() {
            return Ok(given.iter().map(|_| None).collect());
        }
        let items = match &self.config.texts {
            TextSource::Tokens(tokenizer) => {
                let most = self.config.data.short_tokens as usize;
                let ids = there.iter().map(|(text, _)| Ok(tokenizer.encode(text, most)?.ids));
                text_items(&BatchTexts::Tokens(ids.collect::<Result<_>>()?), self.device)?
            }
            TextSource::Vectors(_) | TextSource::None => self.vectors(there.iter().map(|(_, v)| *v).collect())?,
        };
        let w = self.model.params.weights(Compute::FP32);
        let mut embeddings = rows_of(&self.model.text().forward(&w, Set::RegionText, &items)?)?.into_iter();
        let one = |given: &Option<(&str, &[f32])>| {
            given.map(|(text, _)| Text { text: text.to_owned(), embedding: embeddings.next().unwrap_or_default() })
        };
        Ok(given.iter().map(one).collect())
    }

    fn vectors(&self, there: Vec<&[f32]>) -> Result<TextItems> {
        let width = i64::from(self.model.spec().text_proj.width);
        if let Some(other) = there.iter().find(|v| v.len() as i64 != width) {
            return Err(anyhow!(
                "the text vectors have {} numbers, the model's adapter takes {width}; are they of another encoder?",
                other.len()
            ));
        }
        Ok(TextItems::Vectors(Tensor::from_slice(&there.concat()).reshape([-1, width]).to_device(self.device)))
    }
}

/// [n, D] of n images with their masks, a few at a time.
fn image_features(model: &Model, w: &Weights<'_>, pixels: &Tensor, masks: &Tensor) -> Result<Tensor> {
    let n = pixels.size()[0];
    let parts = (0..n).step_by(FORWARD_ROWS as usize).map(|from| {
        let range = from..(from + FORWARD_ROWS).min(n);
        model.vision().forward(w, &pixels.i(range.clone()), Some(&masks.i(range)), false).image
    });
    Ok(Tensor::f_cat(&parts.collect::<Vec<_>>(), 0)?)
}

/// The rows of [n, D] on the host.
pub(super) fn rows_of(features: &Tensor) -> Result<Vec<Vec<f32>>> {
    let (_, d) = features.size2()?;
    let flat = Vec::<f32>::try_from(features.to_device(Device::Cpu).to_kind(Kind::Float).flatten(0, -1))?;
    Ok(flat.chunks_exact(d as usize).map(<[f32]>::to_vec).collect())
}

//! Every region of a split through the towers: its image with its mask, with its box as the mask, the image with an
//! all-ones mask, and its texts through the adapter.
//!
//! A feed thread reads row groups and decodes each row once, on all cores; the calling thread owns the tensors. A bad
//! row is left out, counted and logged.

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use pixfleet_cluster::spec::terms::Set;
use pixfleet_model::{Compute, Model, TextItems, Weights};
use pixfleet_shards::sample::{RegionView, SampleConfig, Views, views};
use pixfleet_shards::{Columns, ImageRow, RowGroupReader};
use rayon::prelude::*;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tch::{Device, IndexOp, Kind, Tensor};

/// Rows that are read, decoded and encoded together.
const ROWS_AT_ONCE: usize = 32;
/// Images in one forward.
const FORWARD_ROWS: i64 = 64;
/// Chunks of decoded rows that wait for the model.
const CHUNKS_QUEUED: usize = 2;

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
    /// Through the adapter.
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

/// Rows on their way from the feed to the model.
struct Chunk {
    rows: Vec<(u32, u32, ImageRow, Views)>,
    bad: u64,
}

/// Encodes the split; `each` gets the images in the order of the rows. Returns how many rows were left out as bad.
///
/// # Errors
/// A store that cannot be read, a model that does not fit, what `each` returns.
pub(crate) fn encode_split(
    job: &FeatureJob<'_>,
    mut each: impl FnMut(Vec<ImageFeatures>) -> Result<()>,
) -> Result<u64> {
    let bar = bar(job.reader.split().rows());
    let full = job.config.data.full_mask_value;
    let (reader, config, limit) = (job.reader, &job.config, job.limit);
    let bad = std::thread::scope(|scope| {
        let (send, receive) = sync_channel(CHUNKS_QUEUED);
        scope.spawn(move || {
            if let Err(error) = feed(reader, config, limit, &send) {
                // The receiver is gone only if this function has failed already.
                let _ = send.send(Err(error));
            }
        });
        drain(receive, &bar, |chunk| each(encode(job.model, &chunk, job.device, job.boxes, full)?))
    })?;
    bar.finish_and_clear();
    Ok(bad)
}

/// Takes the receiver, so that the feed ends when this fails.
fn drain(
    receive: Receiver<Result<Chunk>>,
    bar: &ProgressBar,
    mut each: impl FnMut(Chunk) -> Result<()>,
) -> Result<u64> {
    let mut bad = 0;
    for chunk in receive {
        let chunk = chunk?;
        bad += chunk.bad;
        bar.inc(chunk.rows.len() as u64 + chunk.bad);
        each(chunk)?;
    }
    Ok(bad)
}

fn bar(rows: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("encode {bar:32.cyan/dim} {pos}/{len} images  {per_sec}  eta {eta}");
    ProgressBar::new(rows).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Reads and decodes row group by row group; ends early where the receiver is gone.
fn feed(
    reader: &RowGroupReader,
    config: &SampleConfig,
    limit: Option<u64>,
    send: &SyncSender<Result<Chunk>>,
) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let columns = Columns { captions: true, ..Columns::TRAIN };
    let mut regions = 0;
    for (group, size) in (0u32..).zip(reader.split().shape().rows) {
        let all: Vec<u32> = (0..size).collect();
        for rows in all.chunks(ROWS_AT_ONCE) {
            if limit.is_some_and(|limit| regions >= limit) {
                return Ok(());
            }
            let read = runtime.block_on(reader.read_each(group, rows, columns))?;
            let decoded: Vec<Result<(u32, u32, ImageRow, Views)>> = rows
                .par_iter()
                .zip(read)
                .map(|(&row, read)| {
                    let read = read?;
                    let wanted: Vec<u32> = (0..read.regions.len() as u32).collect();
                    let seen = views(&read, &wanted, config).with_context(|| reader.place(group, row).to_string())?;
                    Ok((group, row, read, seen))
                })
                .collect();
            let mut chunk = Chunk { rows: Vec::with_capacity(rows.len()), bad: 0 };
            for row in decoded {
                match row {
                    Ok(row) => chunk.rows.push(row),
                    Err(error) => {
                        tracing::warn!("row left out: {error:#}");
                        chunk.bad += 1;
                    }
                }
            }
            regions += chunk.rows.iter().map(|r| r.2.regions.len() as u64).sum::<u64>();
            if send.send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn encode(model: &Model, chunk: &Chunk, device: Device, boxes: bool, full: f64) -> Result<Vec<ImageFeatures>> {
    tch::no_grad(|| {
        let s = model.vision().image();
        let w = model.params.weights(Compute::FP32);
        let plane = |values: Vec<f32>, channels: i64| -> Result<Tensor> {
            Ok(Tensor::from_slice(&values).f_reshape([-1, channels, s, s])?.f_to_device(device)?)
        };
        let views = || chunk.rows.iter().map(|r| &r.3);
        let pixels = plane(views().flat_map(|v| v.pixels.iter().copied()).collect(), 3)?;
        let ones = Tensor::full([pixels.size()[0], 1, s, s], full, (Kind::Float, device));
        let full = rows_of(&image_features(model, &w, &pixels, &ones)?)?;
        let owner: Vec<i64> = (0i64..).zip(views()).flat_map(|(i, v)| vec![i; v.regions.len()]).collect();
        let owner = Tensor::from_slice(&owner).to_device(device);
        let shown = |of: fn(&RegionView) -> &Vec<f32>| -> Result<Vec<Vec<f32>>> {
            let masks = plane(views().flat_map(|v| &v.regions).flat_map(|r| of(r).iter().copied()).collect(), 1)?;
            rows_of(&image_features(model, &w, &pixels.index_select(0, &owner), &masks)?)
        };
        let mut masked = shown(|r| &r.mask)?.into_iter();
        let mut boxed = if boxes { shown(|r| &r.filled_box)?.into_iter() } else { Vec::new().into_iter() };
        let rows = || chunk.rows.iter().flat_map(|r| &r.2.regions);
        let mut short = texts(model, device, rows().map(|r| (r.short_text(), r.short_vector.as_deref())))?.into_iter();
        let mut long = texts(model, device, rows().map(|r| (r.long_text(), r.long_vector.as_deref())))?.into_iter();
        let image = |((row_group, row, source, _), full): (&(u32, u32, ImageRow, Views), Vec<f32>)| {
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
        Ok(chunk.rows.iter().zip(full).map(image).collect())
    })
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

/// Embeddings of the texts that are there; one entry per region.
fn texts<'t>(
    model: &Model,
    device: Device,
    given: impl Iterator<Item = (Option<&'t str>, Option<&'t [f32]>)>,
) -> Result<Vec<Option<Text>>> {
    let given: Vec<_> = given.map(|(text, vector)| text.zip(vector)).collect();
    let there: Vec<&[f32]> = given.iter().flatten().map(|(_, v)| *v).collect();
    if there.is_empty() {
        return Ok(given.iter().map(|_| None).collect());
    }
    let width = i64::from(model.spec().text_proj.width);
    if let Some(other) = there.iter().find(|v| v.len() as i64 != width) {
        return Err(anyhow!(
            "the text vectors have {} numbers, the model's adapter takes {width}; are they of another encoder?",
            other.len()
        ));
    }
    let vectors = Tensor::from_slice(&there.concat()).reshape([-1, width]).to_device(device);
    let mut embeddings = rows_of(&model.text().forward(
        &model.params.weights(Compute::FP32),
        Set::RegionText,
        &TextItems::Vectors(vectors),
    )?)?
    .into_iter();
    let one = |given: &Option<(&str, &[f32])>| {
        given.map(|(text, _)| Text { text: text.to_owned(), embedding: embeddings.next().unwrap_or_default() })
    };
    Ok(given.iter().map(one).collect())
}

/// The rows of [n, D] on the host.
fn rows_of(features: &Tensor) -> Result<Vec<Vec<f32>>> {
    let (_, d) = features.size2()?;
    let flat = Vec::<f32>::try_from(features.to_device(Device::Cpu).to_kind(Kind::Float).flatten(0, -1))?;
    Ok(flat.chunks_exact(d as usize).map(<[f32]>::to_vec).collect())
}

//! A split through the vision tower as a benchmark shows it: one feature for each region or picture.

use super::Part;
use super::protocol::{Protocol, Show};
use super::questions::{Questions, columns, shown};
use super::table::Task;
use crate::eval::feed::{SplitFeed, SplitRow};
use crate::eval::subject::Subject;
use crate::pixels;
use anyhow::{Context, Result};
use pixfleet_cluster::spec::PoolOrder;
use pixfleet_model::host::put;
use pixfleet_model::roi_align::{roi_weights, weighted_sum};
use pixfleet_model::{Compute, Weights, l2_normalize};
use pixfleet_shards::sample::{FrameConfig, Framed, SampleError, framed};
use pixfleet_shards::{ImageRow, RowGroupReader};
use tch::{Device, Kind, Tensor};

/// Canvases in one forward.
const AT_ONCE: usize = 64;
/// Standard deviation of the blur, in pixels of the picture (ReCLIP's `blur_std_dev`).
const BLUR: f32 = 100.0;
/// An all-ones mask as training has it, for maps that regions are pooled from.
const ONES: f64 = 0.5 / 0.26;

/// A split as one model saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What is asked of it.
    pub(crate) questions: Questions,
    /// [things shown, D] on the host, of length 1; sums of two where similarities are added.
    pub(crate) features: Tensor,
    /// Rows that were left out as bad.
    pub(crate) bad: u64,
}

/// What of a split is looked at, and by whom.
pub(crate) struct Look<'a> {
    /// The model.
    pub(crate) subject: &'a Subject,
    /// Reads the split.
    pub(crate) reader: &'a RowGroupReader,
    /// What is asked.
    pub(crate) task: Task,
    /// How.
    pub(crate) protocol: &'a Protocol,
    /// Stop after about this many regions.
    pub(crate) limit: Option<u64>,
    /// Of the split only this.
    pub(crate) part: Part,
}

/// A row that asks something: its regions, and what is seen of them, once or twice.
struct RowShown {
    regions: Vec<u32>,
    views: Vec<Framed>,
}

impl Look<'_> {
    /// Looks at the whole split.
    ///
    /// # Errors
    /// A store that cannot be read, a device that fails.
    pub(crate) fn see(&self) -> Result<Seen> {
        let size = u32::try_from(self.subject.model.vision().image()).context("the model's image has no size")?;
        let feed = SplitFeed {
            reader: self.reader,
            columns: columns(self.task),
            limit: self.limit,
            first: self.protocol.first,
            part: self.part,
        };
        let views = self.views(size);
        // Threads that decode share neither model nor tensors.
        let (task, protocol) = (self.task, self.protocol);
        let decode = |row: &ImageRow| -> Result<Option<RowShown>, SampleError> {
            let Some(regions) = shown(row, task, protocol) else { return Ok(None) };
            let views = views.iter().map(|view| framed(row, &regions, view)).collect::<Result<Vec<_>, _>>()?;
            Ok(Some(RowShown { regions, views }))
        };
        let (mut questions, mut parts) = (Questions::default(), Vec::new());
        let bad = feed.each(decode, |rows| {
            let mut asking = Vec::with_capacity(rows.len());
            for SplitRow { source, seen, .. } in rows {
                if let Some(seen) = seen {
                    questions.add(&source, &seen.regions, task, protocol);
                    asking.push(seen);
                }
            }
            if !asking.is_empty() {
                parts.push(tch::no_grad(|| self.features(&asking))?);
            }
            Ok(())
        })?;
        let features = if parts.is_empty() {
            Tensor::zeros([0, self.subject.model.vision().sizes().embed()], (Kind::Float, Device::Cpu))
        } else {
            Tensor::f_cat(&parts, 0)?
        };
        Ok(Seen { questions, features, bad })
    }

    /// How a row is cut: once, and once more blurred where that is added.
    fn views(&self, size: u32) -> Vec<FrameConfig> {
        let boxes = self.protocol.show == Show::Box;
        let plain = FrameConfig { size, frame: self.protocol.frame, boxes, blur: None };
        let blurred = self.protocol.blur && self.task.shows_regions();
        [Some(plain), blurred.then_some(FrameConfig { blur: Some(BLUR), ..plain })].into_iter().flatten().collect()
    }

    /// [things shown, D] of some rows, on the host.
    fn features(&self, rows: &[RowShown]) -> Result<Tensor> {
        let w = self.subject.model.params.weights(Compute::FP32);
        let views = rows.first().map_or(0, |row| row.views.len());
        let mut sum: Option<Tensor> = None;
        for view in 0..views {
            let framed: Vec<&Framed> = rows.iter().map(|row| &row.views[view]).collect();
            let features = match (self.task.shows_regions(), self.protocol.show) {
                (true, Show::Pool) => self.pooled(&w, &framed)?,
                (true, Show::Mask | Show::Box) => self.masked(&w, &framed)?,
                (true, Show::Crop) | (false, Show::Mask | Show::Box | Show::Pool | Show::Crop) => {
                    self.whole(&w, &framed)?
                }
            };
            sum = Some(match sum {
                None => features,
                Some(sum) => sum + features,
            });
        }
        sum.context("a benchmark that looks at nothing")
    }

    /// Each region: its canvas with its mask.
    fn masked(&self, w: &Weights<'_>, framed: &[&Framed]) -> Result<Tensor> {
        let regions = framed.iter().flat_map(|f| f.regions.iter().map(move |r| (&f.canvases[r.canvas], &r.mask)));
        let regions: Vec<(&Vec<u8>, &Vec<u8>)> = regions.collect();
        let parts = regions.chunks(AT_ONCE).map(|part| {
            let pixels = self.canvases(part.iter().map(|(canvas, _)| *canvas))?;
            let masks: Vec<u8> = part.iter().flat_map(|(_, mask)| mask.iter().copied()).collect();
            let side = self.subject.model.vision().image();
            let masks = pixels::masks(&put(&pixels::planes(&masks, 1, side)?, self.subject.device)?, &[])?;
            host(&self.subject.model.vision().forward(w, &pixels, Some(&masks), false).image)
        });
        joined(parts)
    }

    /// Each canvas, with an all-ones mask where the tower takes one.
    fn whole(&self, w: &Weights<'_>, framed: &[&Framed]) -> Result<Tensor> {
        let canvases: Vec<&Vec<u8>> = framed.iter().flat_map(|f| &f.canvases).collect();
        let parts = canvases.chunks(AT_ONCE).map(|part| {
            let pixels = self.canvases(part.iter().copied())?;
            let ones = self.ones(&pixels, self.protocol.full_mask_value)?;
            host(&self.subject.model.vision().forward(w, &pixels, ones.as_ref(), false).image)
        });
        joined(parts)
    }

    /// Each region pooled by its box from its picture's map (method.md 2.7), in the order that the run trained.
    fn pooled(&self, w: &Weights<'_>, framed: &[&Framed]) -> Result<Tensor> {
        let vision = self.subject.model.vision();
        let parts = framed.chunks(AT_ONCE).map(|part| {
            let pixels = self.canvases(part.iter().flat_map(|f| &f.canvases))?;
            let ones = self.ones(&pixels, ONES)?;
            let map = vision.forward(w, &pixels, ones.as_ref(), true).map.context("a tower without a patch map")?;
            let (_, _, height, width) = map.size4()?;
            let boxes: Vec<f32> = part.iter().flat_map(|f| f.regions.iter().flat_map(|r| r.box_xyxy)).collect();
            let boxes = put(&Tensor::from_slice(&boxes).reshape([-1, 4]), self.subject.device)?;
            let owners: Vec<i64> = (0i64..).zip(part).flat_map(|(i, f)| vec![i; f.regions.len()]).collect();
            let owners = put(&Tensor::from_slice(&owners), self.subject.device)?;
            let weights = roi_weights(&boxes, height, width);
            let patches = map.flatten(2, 3);
            host(&match self.subject.needs.pool_order {
                PoolOrder::PoolThenHead => {
                    vision.head_norm(w, &weighted_sum(&patches.index_select(0, &owners), &weights))
                }
                PoolOrder::HeadThenPool => {
                    let patches = vision.head_norm(w, &patches.transpose(1, 2)).transpose(1, 2);
                    l2_normalize(&weighted_sum(&patches.index_select(0, &owners), &weights))
                }
            })
        });
        joined(parts)
    }

    /// [n, 3, S, S], normalized, on the device.
    fn canvases<'c>(&self, canvases: impl Iterator<Item = &'c Vec<u8>>) -> Result<Tensor> {
        let bytes: Vec<u8> = canvases.flat_map(|c| c.iter().copied()).collect();
        let planes = pixels::planes(&bytes, 3, self.subject.model.vision().image())?;
        Ok(pixels::images(&put(&planes, self.subject.device)?)?)
    }

    /// A mask of `value` everywhere for `pixels`, if the tower takes one.
    fn ones(&self, pixels: &Tensor, value: f64) -> Result<Option<Tensor>> {
        let (n, _, height, width) = pixels.size4()?;
        let ones = || Tensor::full([n, 1, height, width], value, (Kind::Float, pixels.device()));
        Ok(self.subject.model.vision().takes_mask().then(ones))
    }
}

fn host(features: &Tensor) -> Result<Tensor> {
    Ok(features.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?)
}

fn joined(parts: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

//! One optimizer step: a forward per lane with its graph, the losses on gathered features, a backward per lane with the
//! gradients all-reduced during the last one, clip, optimizer, teacher.
//!
//! Invariant: a lane is one forward whatever the world size, and sums over lanes and ranks are sums, never means of
//! means. So the result depends on the world size by fp32 rounding alone, and with `reduce = "exact"` not even by that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use pixfleet_cluster::ledger;
use pixfleet_cluster::spec::{CropLoss, LocalLoss, RunSpec, Teacher};
use pixfleet_cluster::{LaneMap, Rank, Step};
use pixfleet_collective::Group;
use pixfleet_model::objective::{Leaves, Outcome, ThreeBranch};
use pixfleet_model::optim::{AdamW, clamp_logit_scale};
use pixfleet_model::params::save_tensors;
use pixfleet_model::step::{Pull, backward};
use pixfleet_model::{Compute, Features, Inputs, Model, ModelError};
use pixfleet_shards::batch::Batch;
use tch::{Device, Tensor};

use super::error::TrainError;
use super::exchange::Peers;
use super::fault::{Faults, Point};
use super::reduce::Reduction;
use super::switches::Wish;

/// What a rank computes with; lives as long as the process.
pub(crate) struct Core {
    pub(crate) spec: RunSpec,
    pub(crate) model: Model,
    pub(crate) optimizer: AdamW,
    pub(crate) objective: ThreeBranch,
    /// The file that `model.weights` names, for a start from step 0.
    pub(crate) weights: Option<Vec<u8>>,
    pub(crate) device: Device,
    /// The worker's name, by which faults are addressed.
    pub(crate) name: String,
    pub(crate) faults: Faults,
    /// Where rank 0 writes the averaged gradients of step 0, before clipping.
    pub(crate) dump_gradients: Option<PathBuf>,
}

/// The collectives of one generation.
pub(crate) struct Peering<'g> {
    pub(crate) group: &'g Group,
    pub(crate) reduction: Reduction,
    pub(crate) lanes: LaneMap,
}

/// What one step came to.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) losses: ledger::Losses,
    pub(crate) lr: f64,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) collective_s: f64,
    /// What all ranks do next.
    pub(crate) asked: Wish,
}

impl Core {
    /// Runs `step` on this rank's lanes. On success the optimizer has run: the step is committed.
    ///
    /// # Errors
    /// A collective's error leaves the parameters as they were before the step.
    pub(crate) fn step(
        &mut self,
        peering: &mut Peering<'_>,
        lanes: &[Batch],
        step: Step,
        own_wish: Wish,
    ) -> Result<Stepped, TrainError> {
        self.strike(step, Point::Feed);
        let mut clock = Clock::start();
        self.model.params.zero_grad();
        let features = lanes.iter().map(|batch| self.forward(batch)).collect::<Result<Vec<_>, _>>()?;
        clock.lap("forward_s");
        self.strike(step, Point::Forward);

        let mut peers = Peers::new(peering.group, &peering.lanes, own_wish);
        let crop_valid = lanes.iter().flat_map(|batch| batch.crop_valid.iter().copied()).collect();
        let leaves = Leaves::of_lanes(&features, crop_valid)?;
        let logit_scale = scalar(self.model.logit_scale())?;
        let outcome = self.objective.step_losses(&leaves, logit_scale, &mut peers)?;
        clock.lap("exchange_s");
        self.strike(step, Point::Exchange);

        self.backward(peering, &features, &outcome)?;
        drop(features);
        clock.lap("backward_s");
        self.strike(step, Point::Backward);

        self.dump(peering.group, step)?;
        let factor = self.spec.schedule.factor(step.0);
        let optimized = self.optimizer.step(&self.model.params, factor)?;
        self.after_optimizer()?;
        clock.lap("optimizer_s");
        self.strike(step, Point::Optimizer);

        let mut metrics = clock.laps;
        let reduce_wait_s = peering.reduction.waited_s();
        metrics.insert("gather_s".into(), peers.seconds());
        metrics.insert("reduce_wait_s".into(), reduce_wait_s);
        metrics.insert("grad_norm".into(), optimized.grad_norm);
        metrics.insert("logit_scale".into(), logit_scale.exp());
        metrics.insert("image_to_text".into(), outcome.image_to_text);
        metrics.insert("text_to_image".into(), outcome.text_to_image);
        metrics.insert("crops".into(), outcome.crops as f64);
        metrics.extend(outcome.terms.iter().map(|(name, loss)| (format!("term_{name}"), *loss)));
        let lr = self.spec.optimizer.lr * factor;
        Ok(Stepped {
            losses: self.ledger_losses(&outcome),
            lr,
            metrics,
            collective_s: peers.seconds() + reduce_wait_s,
            asked: peers.asked(),
        })
    }
}

impl Core {
    /// The features of one lane, with their graph.
    fn forward(&self, batch: &Batch) -> Result<Features, TrainError> {
        let inputs = inputs(batch, self.device)?;
        Ok(self.model.encode(&inputs, &self.spec.loss, Compute::from(self.spec.train.precision))?)
    }

    /// Backward of every lane; gradients of the global batch, the same on every rank, stand in `.grad` afterwards.
    fn backward(&self, peering: &mut Peering<'_>, lanes: &[Features], outcome: &Outcome) -> Result<(), TrainError> {
        let Peering { group, reduction, lanes: map } = peering;
        let (own, params) = (map.lanes_of(Rank(group.rank())), &self.model.params);
        let pull = Pull {
            grads: &outcome.grads,
            logit_scale: self.model.logit_scale(),
            grad_logit_scale: &outcome.grad_logit_scale,
            factor: reduction.factor(group.world()),
        };
        match backward(lanes, pull, |i| reduction.before(i, &own, params)) {
            // A collective that fails inside a reducer's hook comes out of backward as an error of libtorch.
            Err(TrainError::Model(ModelError::Torch(error))) => return Err(group.classify(&error).into()),
            other => other?,
        }
        reduction.finish(group, map, params)
    }

    /// What follows the optimizer: the logit scale's bounds and the EMA teacher.
    fn after_optimizer(&mut self) -> Result<(), TrainError> {
        clamp_logit_scale(self.model.logit_scale(), &self.spec.model.logit_scale)?;
        if let (Teacher::Ema, Some(teacher)) = (self.spec.loss.teacher, &mut self.model.teacher) {
            teacher.ema_update(&self.model.params, self.spec.loss.ema_decay)?;
        }
        Ok(())
    }

    fn ledger_losses(&self, outcome: &Outcome) -> ledger::Losses {
        let (losses, spec) = (&outcome.losses, &self.spec.loss);
        let terms = [
            Some(("global", losses.global)),
            (spec.crop != CropLoss::Off).then_some(("crop", losses.crop)),
            (spec.local != LocalLoss::Off).then_some(("local", losses.local)),
        ];
        ledger::Losses::new(terms.into_iter().flatten(), losses.total)
    }

    fn strike(&self, step: Step, point: Point) {
        self.faults.strike(&self.name, step, point);
    }

    /// `grad.<name>` of every trainable parameter, once.
    fn dump(&self, group: &Group, step: Step) -> Result<(), TrainError> {
        let Some(path) = self.dump_gradients.as_deref().filter(|_| step.0 == 0 && group.rank() == 0) else {
            return Ok(());
        };
        let grads: Vec<_> =
            self.model.params.trainable().map(|p| (format!("grad.{}", p.name()), p.tensor().grad())).collect();
        let bytes = save_tensors(grads.iter().map(|(name, grad)| (name.as_str(), grad)))?;
        std::fs::write(path, bytes).map_err(|source| TrainError::File { path: path.into(), source })
    }
}

/// A host batch on the model's device.
fn inputs(batch: &Batch, device: Device) -> Result<Inputs, TrainError> {
    let torch = |source| TrainError::Torch { doing: "copying a batch to the device", source };
    let (n, side) = (batch.n as i64, batch.size as i64);
    let tensor = |values: &[f32], shape: &[i64]| {
        Tensor::f_from_slice(values).and_then(|t| t.f_reshape(shape)).and_then(|t| t.f_to_device(device)).map_err(torch)
    };
    let some = |values: &[f32], shape: &[i64]| (!values.is_empty()).then(|| tensor(values, shape)).transpose();
    Ok(Inputs {
        pixels: tensor(&batch.pixels, &[n, 3, side, side])?,
        mask: Some(tensor(&batch.mask, &[n, 1, side, side])?),
        crop_pixels: some(&batch.crop_pixels, &[n, 3, side, side])?,
        crop_mask: some(&batch.crop_mask, &[n, 1, side, side])?,
        boxes: Some(tensor(batch.boxes.as_flattened(), &[n, 4])?),
        text: tensor(&batch.text, &[n, batch.text_dim as i64])?,
    })
}

fn scalar(tensor: &Tensor) -> Result<f64, TrainError> {
    f64::try_from(tensor).map_err(|source| TrainError::Torch { doing: "reading a scalar", source })
}

/// Seconds by phase.
struct Clock {
    last: Instant,
    laps: BTreeMap<String, f64>,
}

impl Clock {
    fn start() -> Self {
        Self { last: Instant::now(), laps: BTreeMap::new() }
    }

    fn lap(&mut self, name: &str) {
        let now = Instant::now();
        self.laps.insert(name.into(), (now - self.last).as_secs_f64());
        self.last = now;
    }
}

#[cfg(test)]
mod tests;

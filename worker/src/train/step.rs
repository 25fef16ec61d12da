//! One optimizer step: a forward per lane with its graph, the losses on gathered features, a backward per lane with the
//! gradients all-reduced during the last one, clip, optimizer, teacher.
//!
//! Invariant: a lane is one forward whatever the world size, and sums over lanes and ranks are sums, never means of
//! means. So the result depends on the world size by fp32 rounding alone, and with `reduce = "exact"` not even by that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use pixfleet_cluster::ledger;
use pixfleet_cluster::spec::{Needs, RunSpec, Teacher};
use pixfleet_cluster::{LaneMap, Rank, Step};
use pixfleet_collective::Group;
use pixfleet_model::objective::{Leaves, Objective, Scales, StepLoss};
use pixfleet_model::optim::{AdamW, clamp_logit_scale};
use pixfleet_model::params::save_tensors;
use pixfleet_model::step::{Pull, backward};
use pixfleet_model::{Compute, Features, Model, ModelError};
use pixfleet_shards::batch::Batch;
use tch::Device;

use super::error::TrainError;
use super::exchange::Peers;
use super::fault::{Faults, Point};
use super::inputs::inputs;
use super::reduce::Reduction;
use super::switches::Wish;

/// What a rank computes with; lives as long as the process.
pub(crate) struct Core {
    pub(crate) spec: RunSpec,
    /// What the run needs of its towers.
    pub(crate) needs: Needs,
    pub(crate) model: Model,
    pub(crate) optimizer: AdamW,
    pub(crate) objective: Objective,
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
        let leaves = Leaves::of_lanes(&features)?;
        let scales = self.model.scales()?;
        let loss = self.objective.step_losses(&leaves, scales, &mut peers)?;
        clock.lap("exchange_s");
        self.strike(step, Point::Exchange);

        self.backward(peering, &features, (&leaves, &loss))?;
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
        metrics.extend(self.loss_metrics(&loss, scales));
        let lr = self.spec.optimizer.lr * factor;
        Ok(Stepped {
            losses: ledger::Losses::new(loss.terms.iter().map(|t| (t.name, t.loss)), loss.total),
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
        let inputs = inputs(batch, &self.needs, self.device)?;
        Ok(self.model.encode(&inputs, &self.needs, Compute::from(self.spec.train.precision))?)
    }

    /// Backward of every lane; gradients of the global batch, the same on every rank, stand in `.grad` afterwards.
    fn backward(
        &self,
        peering: &mut Peering<'_>,
        lanes: &[Features],
        (leaves, loss): (&Leaves, &StepLoss),
    ) -> Result<(), TrainError> {
        let Peering { group, reduction, lanes: map } = peering;
        let (own, params) = (map.lanes_of(Rank(group.rank())), &self.model.params);
        let temperatures = self.model.temperatures();
        let factor = reduction.factor(group.world());
        let pull = Pull { loss, leaves, temperatures: &temperatures, factor };
        match backward(lanes, pull, |i| reduction.before(i, &own, params)) {
            // A collective that fails inside a reducer's hook comes out of backward as an error of libtorch.
            Err(TrainError::Model(ModelError::Torch(error))) => return Err(group.classify(&error).into()),
            other => other?,
        }
        reduction.finish(group, map, params)
    }

    /// What follows the optimizer: the temperatures' bounds and the EMA teacher.
    fn after_optimizer(&mut self) -> Result<(), TrainError> {
        for (_, temperature) in self.model.temperatures() {
            clamp_logit_scale(temperature, &self.spec.model.logit_scale)?;
        }
        if let (Teacher::Ema, Some(teacher)) = (self.spec.loss.teacher, &mut self.model.teacher) {
            teacher.ema_update(&self.model.params, self.spec.loss.ema_decay)?;
        }
        Ok(())
    }

    /// How often each term was right and over how many slots it was, and the temperatures' factors.
    fn loss_metrics(&self, loss: &StepLoss, scales: Scales) -> Vec<(String, f64)> {
        let mut metrics: Vec<(String, f64)> =
            self.needs.temperatures().map(|t| (t.parameter().into(), scales.of(t).exp())).collect();
        for term in &loss.terms {
            metrics.push((format!("pairs_{}", term.name), term.pairs as f64));
            let directions = ["hit", "hit_back"].into_iter().zip(&term.hits);
            metrics.extend(directions.map(|(what, share)| (format!("{what}_{}", term.name), *share)));
        }
        metrics
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

//! One optimizer step: a forward per lane, the losses on gathered features, a backward per lane with the gradients
//! all-reduced during the last one, clip, optimizer, teacher.
//!
//! Invariants: a lane is one forward whatever the world size, and sums over lanes and ranks are sums, never means of
//! means. So the result depends on the world size by fp32 rounding alone, and with `reduce = "exact"` not even by that.
//! The device is read twice ([`pixfleet_model::host`]): which slots hold an item, before the losses; what the step came to,
//! at its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use pixfleet_cluster::ledger;
use pixfleet_cluster::spec::{Needs, RunSpec, Teacher};
use pixfleet_cluster::{Evidence, LaneMap, Rank, Step};
use pixfleet_collective::Group;
use pixfleet_model::host::{read, reads};
use pixfleet_model::objective::{Leaves, Objective, Scales, StepLoss, Told};
use pixfleet_model::optim::{AdamW, OptimizerStep, clamp_logit_scale};
use pixfleet_model::params::save_tensors;
use pixfleet_model::step::{Pull, backward};
use pixfleet_model::{Compute, Features, Flops, Model, ModelError};
use tch::{Device, Tensor, no_grad};

use super::error::TrainError;
use super::exchange::Peers;
use super::fault::{Faults, Point};
use super::graph_cache::GraphCache;
use super::inputs::{Staged, StagedStep};
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
    /// The temperatures as the last step left them; `None` where the state came from elsewhere.
    pub(crate) scales: Option<Scales>,
    /// The file that `model.weights` names, for a start from step 0.
    pub(crate) weights: Option<Vec<u8>>,
    pub(crate) device: Device,
    /// The worker's name, by which faults are addressed.
    pub(crate) name: String,
    pub(crate) faults: Faults,
    /// Whether a phase ends when the device is done with it, and not when it is queued; the step takes longer then.
    pub(crate) clock_waits: bool,
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
    /// Of this rank's lanes.
    pub(crate) flops: Flops,
    /// What all ranks do next.
    pub(crate) asked: Wish,
    /// What the global batch was fed.
    pub(crate) evidence: Option<Evidence>,
}

impl Core {
    /// Runs `step` on this rank's lanes. On success the optimizer has run: the step is committed. `meanwhile` is called once
    /// all of the step's work is queued on the device, and before it is waited for.
    ///
    /// # Errors
    /// A collective's error leaves the parameters as they were before the step.
    pub(crate) fn step(
        &mut self,
        peering: &mut Peering<'_>,
        lanes: &StagedStep,
        (step, own_wish): (Step, Wish),
        meanwhile: impl FnOnce(),
    ) -> Result<Stepped, TrainError> {
        self.strike(step, Point::Feed);
        let reads_before = reads();
        let mut clock = Clock::start(self.clock_waits.then_some(self.device));
        self.model.params.zero_grad()?;
        let scales = self.scales.take().map_or_else(|| self.model.scales(), Ok)?;
        let fed = lanes.evidence(&peering.lanes, (step, Rank(peering.group.rank())));
        let mut peers = Peers::new(peering.group, &peering.lanes, (own_wish, fed));
        let (loss, flops) = self.differentiate(peering, lanes.lanes()?, step, (scales, &mut peers, &mut clock))?;

        self.dump(peering.group, step)?;
        let factor = self.spec.schedule.factor(step.0);
        let norm = self.optimizer.launch(&self.model.params, factor)?;
        self.clamp_temperatures()?;
        meanwhile();
        let (told, optimized) = self.read(&loss, &norm)?;
        self.follow_with_teacher()?;
        clock.lap("optimizer_s");
        self.strike(step, Point::Optimizer);

        let mut metrics = clock.laps;
        let reduce_wait_s = peering.reduction.waited_s();
        metrics.insert("gather_s".into(), peers.seconds());
        metrics.insert("reduce_wait_s".into(), reduce_wait_s);
        let reduce_bytes = peering.reduction.bytes(peering.group, &self.model.params);
        metrics.insert("reduce_bytes".into(), reduce_bytes as f64);
        metrics.insert("grad_norm".into(), optimized.grad_norm);
        metrics.insert("flops".into(), flops.total());
        metrics.insert("device_reads".into(), (reads() - reads_before) as f64);
        metrics.extend(self.loss_metrics(&told, scales));
        let lr = self.spec.optimizer.lr * factor;
        Ok(Stepped {
            losses: ledger::Losses::new(told.terms.iter().map(|t| (t.name, t.loss)), told.total),
            lr,
            metrics,
            collective_s: peers.seconds() + reduce_wait_s,
            flops,
            asked: peers.asked(),
            evidence: peers.fed(),
        })
    }

    /// The losses of the global batch; its gradients, the same on every rank, stand in `.grad` afterwards.
    fn differentiate(
        &self,
        peering: &mut Peering<'_>,
        lanes: &[Staged],
        step: Step,
        (scales, peers, clock): (Scales, &mut Peers<'_>, &mut Clock),
    ) -> Result<(StepLoss, Flops), TrainError> {
        let train = &self.spec.train;
        let cast = self.model.cast(Compute::from(train.precision)).recomputing(train.recompute);
        let mut flops = Flops::default();
        let mut forward = |lane: &Staged, again: bool| -> Result<Features, TrainError> {
            let inputs = lane.inputs()?;
            if !again {
                flops += self.model.flops(&inputs, &self.needs);
            }
            Ok(cast.encode(&inputs, &self.needs)?)
        };
        let mut cache = GraphCache::new(train.cache, self.device, lanes.len());
        let mut features = Vec::with_capacity(lanes.len());
        for lane in lanes {
            features.push(if cache.keeps_another() {
                forward(lane, false)?
            } else {
                no_grad(|| forward(lane, false))?
            });
        }
        clock.lap("forward_s");
        self.strike(step, Point::Forward);

        let leaves = Leaves::of_lanes(&features)?;
        let loss = self.objective.step_losses(&leaves, scales, peers)?;
        clock.lap("exchange_s");
        self.strike(step, Point::Exchange);

        let mut graphs = features.into_iter().take(cache.kept());
        let graph = |i: usize| graphs.next().map_or_else(|| forward(&lanes[i], true), Ok);
        self.backward(peering, (&leaves, &loss), graph)?;
        clock.lap("backward_s");
        self.strike(step, Point::Backward);
        Ok((loss, flops))
    }

    /// What the step came to, in one read: the losses, whether the optimizer could step, the temperatures of the next step.
    fn read(&mut self, loss: &StepLoss, norm: &Tensor) -> Result<(Told, OptimizerStep), TrainError> {
        let torch = |source| TrainError::Torch { doing: "collecting what a step came to", source };
        let losses = loss.numbers()?;
        let temperatures = self.model.temperatures_in_order()?;
        let all = Tensor::f_cat(&[&losses, &norm.f_reshape([1]).map_err(torch)?, &temperatures], 0).map_err(torch)?;
        let numbers = read(&all)?;
        let (losses, rest) = numbers.split_at(losses.numel());
        let told = loss.told(losses)?;
        let optimized = self.optimizer.finish(rest[0])?;
        self.scales = Some(self.model.scales_of(&rest[1..]));
        Ok((told, optimized))
    }
}

impl Core {
    /// Backward of every lane over the graphs that `graph` yields.
    fn backward(
        &self,
        peering: &mut Peering<'_>,
        (leaves, loss): (&Leaves, &StepLoss),
        mut graph: impl FnMut(usize) -> Result<Features, TrainError>,
    ) -> Result<(), TrainError> {
        let Peering { group, reduction, lanes: map } = peering;
        let (own, params) = (map.lanes_of(Rank(group.rank())), &self.model.params);
        let temperatures = self.model.temperatures();
        let pull = Pull { loss, leaves, temperatures: &temperatures };
        let graph = |i: usize| {
            let lane = graph(i)?;
            reduction.before(i, &own, params)?;
            Ok(lane)
        };
        match backward(pull, graph) {
            // A collective that fails inside a reducer's hook comes out of backward as an error of libtorch.
            Err(TrainError::Model(ModelError::Torch(error))) => return Err(group.classify(&error).into()),
            other => other?,
        }
        reduction.finish(group, map, params)
    }

    fn clamp_temperatures(&self) -> Result<(), TrainError> {
        for (_, temperature) in self.model.temperatures() {
            clamp_logit_scale(temperature, &self.spec.model.logit_scale)?;
        }
        Ok(())
    }

    /// The EMA teacher follows once the step is known to have been taken.
    fn follow_with_teacher(&mut self) -> Result<(), TrainError> {
        if let (Teacher::Ema, Some(teacher)) = (self.spec.loss.teacher, &mut self.model.teacher) {
            teacher.ema_update(&self.model.params, self.spec.loss.ema_decay)?;
        }
        Ok(())
    }

    /// How often each term was right and over how many slots it was, and the temperatures' factors.
    fn loss_metrics(&self, told: &Told, scales: Scales) -> Vec<(String, f64)> {
        let mut metrics: Vec<(String, f64)> =
            self.needs.temperatures().map(|t| (t.parameter().into(), scales.of(t).exp())).collect();
        for term in &told.terms {
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
    /// Waited for at the end of a phase.
    device: Option<Device>,
}

impl Clock {
    fn start(device: Option<Device>) -> Self {
        Self { last: Instant::now(), laps: BTreeMap::new(), device }
    }

    fn lap(&mut self, name: &str) {
        if let Some(Device::Cuda(index)) = self.device {
            tch::Cuda::synchronize(index as i64);
        }
        let now = Instant::now();
        self.laps.insert(name.into(), (now - self.last).as_secs_f64());
        self.last = now;
    }
}

#[cfg(test)]
mod tests;

//! The step alone: the batch of one step, stepped over again and again by one rank without peers; and the same fed as a run
//! is, so that reading, decoding and computing share the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pixfleet_cluster::spec::RunSpec;
use pixfleet_cluster::{LaneMap, Rank, Step};
use pixfleet_collective::{Backend, Group, GroupConfig, HashStore};
use pixfleet_model::{Compute, Flops};
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use tokio::runtime::Runtime;

use super::Args;
use super::figures::{Figures, median};
use crate::train::ahead::Ahead;
use crate::train::feed::{Feed, FeedRange, FeedSource};
use crate::train::gauges::Gauges;
use crate::train::reduce::Reduction;
use crate::train::start;
use crate::train::step::{Core, Peering};
use crate::train::switches::Wish;

/// Steps before those that are measured.
const WARM: u64 = 3;
/// Steps that are measured unless `--steps` says otherwise.
const STEPS: u64 = 10;
/// What a step is made of, in order: its metric, and what it is called.
const PHASES: [(&str, &str); 4] =
    [("forward_s", "forward"), ("exchange_s", "loss"), ("backward_s", "backward"), ("optimizer_s", "optimizer")];

/// Medians over steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct StepFigures {
    device: String,
    /// Of one step, and how many lanes they are.
    samples: u32,
    lanes: u32,
    seconds: f64,
    pub(super) samples_per_s: f64,
    /// Seconds by phase, each until the device is done with it.
    phases: BTreeMap<&'static str, f64>,
    /// Of one sample's towers, forward and backward, by tower.
    flops_per_sample: BTreeMap<&'static str, f64>,
    flops_per_s: f64,
    /// Of the data sheet's; `None` where none is known.
    mfu: Option<f64>,
    /// What large matrix products in the run's precision reach here.
    matmul_flops_per_s: f64,
    peak_memory_bytes: f64,
    device_reads: f64,
}

/// Steps as a run has them, without peers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RunFigures {
    steps: u64,
    pub(super) samples_per_s: f64,
    /// Part of the time in which a step waited for its samples.
    pub(super) waited: f64,
}

/// One rank without peers, over the share of one of `--workers` workers.
pub(super) struct Bench<'a> {
    args: &'a Args,
    runtime: &'a Runtime,
    core: Core,
    group: Group,
    lanes: LaneMap,
    /// The run's lanes are dealt to so many.
    dealt: LaneMap,
}

impl<'a> Bench<'a> {
    /// Builds the model of `spec`.
    ///
    /// # Errors
    /// A device that fails.
    pub(super) fn new(args: &'a Args, spec: &RunSpec, device: Device, runtime: &'a Runtime) -> Result<Self> {
        let train = &spec.train;
        let dealt = LaneMap::new(train.lanes, train.global_batch / train.lanes, args.workers)
            .context("the number of workers was checked against the lanes")?;
        let own = dealt.lanes_of(Rank(0)).len() as u32;
        let lanes = LaneMap::new(own, train.global_batch / train.lanes, 1).context("a rank has a lane")?;
        // How fast it is does not hang on the numbers.
        let core = start::core(spec.clone(), device, "bench", None)?;
        let backend = if device == Device::Cpu { Backend::Gloo } else { Backend::Nccl };
        let config = GroupConfig { device, ..GroupConfig::loopback(0, 1, 1) };
        let group = Group::new(backend, Arc::new(HashStore::new()), config)?;
        Ok(Self { args, runtime, core, group, lanes, dealt })
    }

    /// The step's ceiling.
    ///
    /// # Errors
    /// A dataset that cannot be read, or a device that fails.
    pub(super) fn step(&mut self, source: &Arc<FeedSource>) -> Result<StepFigures> {
        let mut ahead = self.feed(source, 1)?;
        let (batches, _) = self.runtime.block_on(ahead.next(Step(0)))?;
        let steps = self.args.steps.unwrap_or(STEPS);
        let mut gauges = Gauges::new(self.core.device, self.core.spec.train.precision);
        let reduction = Reduction::new(self.core.spec.train.reduce, &self.group, &self.core.model.params)?;
        let mut peering = Peering { group: &self.group, reduction, lanes: self.lanes };
        let (mut seconds, mut told) = (Vec::new(), BTreeMap::<String, Vec<f64>>::new());
        let mut flops = Flops::default();
        // First as fast as it goes, then phase by phase.
        for (clock_waits, step) in
            [false, true].into_iter().flat_map(|waits| (0..WARM + steps).map(move |i| (waits, i)))
        {
            self.core.clock_waits = clock_waits;
            let started = Instant::now();
            let mut stepped = self.core.step(&mut peering, &batches.staged, (Step(step), Wish::default()), || {})?;
            let took = started.elapsed().as_secs_f64();
            gauges.add(&mut stepped.metrics, took);
            flops = stepped.flops;
            if step < WARM {
                continue;
            }
            if !clock_waits {
                seconds.push(took);
            }
            for (name, value) in stepped.metrics {
                let phase = PHASES.iter().any(|(metric, _)| *metric == name);
                if phase == clock_waits {
                    told.entry(name).or_default().push(value);
                }
            }
        }
        let mut of = |name: &str| told.get_mut(name).map_or(f64::NAN, |values| median(values));
        let seconds = median(&mut seconds);
        let samples = self.lanes.rows_of(Rank(0)).len() as u32;
        Ok(StepFigures {
            device: start::device_name(self.core.device),
            samples,
            lanes: self.dealt.lanes_of(Rank(0)).len() as u32,
            seconds,
            samples_per_s: f64::from(samples) / seconds,
            phases: PHASES.iter().map(|(metric, name)| (*name, of(metric))).collect(),
            flops_per_sample: flops.by_tower().map(|(tower, flops)| (tower, flops / f64::from(samples))).collect(),
            flops_per_s: flops.total() / seconds,
            mfu: Some(of("mfu")).filter(|mfu| mfu.is_finite()),
            matmul_flops_per_s: matmul(self.core.device, Compute::from(self.core.spec.train.precision)),
            peak_memory_bytes: of("peak_memory_bytes"),
            device_reads: of("device_reads"),
        })
    }

    /// The real run, without peers.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub(super) fn run(&mut self, source: &Arc<FeedSource>) -> Result<RunFigures> {
        let steps = self.args.steps.unwrap_or(STEPS);
        let mut ahead = self.feed(source, WARM + steps)?;
        let reduction = Reduction::new(self.core.spec.train.reduce, &self.group, &self.core.model.params)?;
        let mut peering = Peering { group: &self.group, reduction, lanes: self.lanes };
        self.core.clock_waits = false;
        let (mut started, mut waited) = (Instant::now(), Duration::ZERO);
        for step in (0..WARM + steps).map(Step) {
            if step.0 == WARM {
                (started, waited) = (Instant::now(), Duration::ZERO);
            }
            let (batches, wait) = self.runtime.block_on(ahead.next(step))?;
            waited += wait;
            self.core.step(&mut peering, &batches.staged, (step, Wish::default()), || ahead.stage_another())?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let samples = steps * self.lanes.rows_of(Rank(0)).len() as u64;
        Ok(RunFigures { steps, samples_per_s: samples as f64 / seconds, waited: waited.as_secs_f64() / seconds })
    }

    fn feed(&self, source: &Arc<FeedSource>, steps: u64) -> Result<Ahead> {
        let train = &self.core.spec.train;
        let range = FeedRange {
            map: self.dealt,
            lanes: self.dealt.lanes_of(Rank(0)),
            steps: 0..steps,
            ahead: train.prefetch_steps as usize,
            ahead_bytes: (train.prefetch_mib as usize) << 20,
        };
        Ok(Ahead::of(Feed::start(self.runtime.handle(), Arc::clone(source), range), &self.core)?)
    }
}

/// FLOP/s of a large matrix product, the best of three.
fn matmul(device: Device, compute: Compute) -> f64 {
    let side: i64 = if device == Device::Cpu { 2048 } else { 8192 };
    let [a, b] =
        [(); 2].map(|()| Tensor::randn([side, side], (Kind::Float, device)).to_kind(compute.multiplied_in(device)));
    let product = || {
        let started = Instant::now();
        let product = a.matmul(&b);
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
        drop(product);
        2.0 * (side as f64).powi(3) / started.elapsed().as_secs_f64()
    };
    product();
    (0..3).map(|_| product()).fold(0.0, f64::max)
}

impl Figures for StepFigures {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let tera = |flops: f64| format!("{:.3} TFLOP/s", flops / 1e12);
        let towers = self.flops_per_sample.iter().filter(|(_, flops)| **flops > 0.0);
        let phases: f64 = self.phases.values().sum();
        let share = |name| format!("{} {:.0} %", name, 100.0 * self.phases[name] / phases);
        vec![
            ("device", self.device.clone()),
            ("step", format!("{:.4} s: {} samples in {} lanes", self.seconds, self.samples, self.lanes)),
            ("rate", format!("{:.2} samples/s", self.samples_per_s)),
            ("phases", PHASES.map(|(_, name)| share(name)).join(", ")),
            ("GFLOP a sample", towers.map(|(t, f)| format!("{t} {:.1}", f / 1e9)).collect::<Vec<_>>().join(", ")),
            ("towers' products", tera(self.flops_per_s)),
            ("a large product here", tera(self.matmul_flops_per_s)),
            (
                "MFU by the data sheet",
                self.mfu.map_or("no data sheet known".into(), |mfu| format!("{:.1} %", 100.0 * mfu)),
            ),
            ("peak memory", format!("{:.2} GiB", self.peak_memory_bytes / f64::from(1 << 30))),
            ("reads of the device", format!("{:.0} a step", self.device_reads)),
        ]
    }

    fn sentence(&self) -> String {
        let (longest, seconds) =
            self.phases.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(("", 0.0), |(name, seconds)| (*name, *seconds));
        let part = 100.0 * self.flops_per_s / self.matmul_flops_per_s;
        let of = 100.0 * seconds / self.phases.values().sum::<f64>();
        format!("A step computes at {part:.0} % of what large products reach here; {longest} takes {of:.0} % of it.")
    }
}

impl Figures for RunFigures {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("rate", format!("{:.2} samples/s over {} steps", self.samples_per_s, self.steps)),
            ("waited for samples", format!("{:.1} % of the time", 100.0 * self.waited)),
        ]
    }

    fn sentence(&self) -> String {
        format!("Steps waited for samples {:.0} % of the time.", 100.0 * self.waited)
    }
}

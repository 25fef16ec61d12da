//! The trainer: one OS thread that owns model, optimizer, group and reducer, and lives from generation to generation.
//!
//! Invariants: tensors never leave this thread; a healthy step waits for no RPC; a step is committed when its optimizer
//! has run; after a collective's error group and reducer are dropped before anything is reported.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pixfleet_checkpoint::{Location, PartKey, load_at};
use pixfleet_cluster::ledger::Substitution;
use pixfleet_cluster::run::{Failed, FailureKind, Form, Report, StepReport};
use pixfleet_cluster::{Generation, LaneMap, Rank, Step};
use pixfleet_collective::{Backend, CollectiveError, Group, GroupConfig, Reducer};
use pixfleet_proto::{Reports, StoreClient};
use tch::Device;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::error::TrainError;
use super::events::Events;
use super::feed::{Feed, Source, StepBatches, Stretch};
use super::rendezvous::FleetStore;
use super::session::{Command, Stopped, Switches};
use super::snapshot::{Snapshot, Upload};
use super::state;
use super::step::{Core, Peering, Stepped};

/// The trainer's ways to the outside.
pub(crate) struct Link {
    pub(crate) runtime: Handle,
    pub(crate) orders: mpsc::Receiver<Command>,
    pub(crate) reports: Reports,
    pub(crate) switches: Arc<Switches>,
    /// Makes the rendezvous store of a generation.
    pub(crate) store: Box<dyn Fn(Generation) -> StoreClient + Send>,
    /// The run's folder.
    pub(crate) run: Location,
    /// The address under which peers reach this process.
    pub(crate) host: String,
}

/// See the module.
pub(crate) struct Trainer {
    core: Core,
    source: Arc<Source>,
    link: Link,
    /// The step that the held state runs next; `None`: no state, or a torn one.
    held: Option<Step>,
    /// The generation that this rank is part of.
    current: Option<Generation>,
    upload: Option<Upload>,
    events: Option<Events>,
}

impl Trainer {
    pub(crate) fn new(core: Core, source: Arc<Source>, link: Link) -> Self {
        Self { core, source, link, held: None, current: None, upload: None, events: None }
    }

    /// Follows orders until the run is over.
    ///
    /// # Errors
    /// What no other generation mends.
    pub(crate) fn run(&mut self) -> Result<Stopped, TrainError> {
        while let Some(command) = self.link.orders.blocking_recv() {
            match command {
                Command::Form(form) => {
                    self.current = Some(form.generation);
                    match self.generation(&form) {
                        Ok(()) => {}
                        Err(error) if error.ends_only_the_generation() => self.leave(form.generation, &error)?,
                        Err(error) => return Err(error),
                    }
                }
                // An abort of a generation that was left already has been answered.
                Command::Abort(generation) if self.current == Some(generation) => {
                    let aborted = CollectiveError::Aborted { operation: "waiting for orders" };
                    self.leave(generation, &aborted.into())?;
                }
                Command::Abort(_) => {}
                Command::Stop(stopped) => return Ok(stopped),
            }
        }
        Err(TrainError::OrdersClosed)
    }

    /// Says that this rank is out of `generation`.
    fn leave(&mut self, generation: Generation, error: &TrainError) -> Result<(), TrainError> {
        self.current = None;
        let (kind, lost_rank) = match error {
            TrainError::Collective(CollectiveError::Aborted { .. }) => (FailureKind::Aborted, None),
            TrainError::Collective(CollectiveError::LostPeer { rank, .. }) => (FailureKind::Collective, rank.map(Rank)),
            _ => (FailureKind::Collective, None),
        };
        let message = error.sentence();
        tracing::info!(%generation, message, "left the generation");
        let failed = Failed { generation, next_step: self.held, kind, message, lost_rank };
        Ok(self.link.reports.blocking_send(Report::Failed(failed))?)
    }

    /// One generation, from forming the group to the last step. Group, reducer and feed live and die in here.
    fn generation(&mut self, form: &Form) -> Result<(), TrainError> {
        let train = &self.core.spec.train;
        let (lanes, world) = (train.lanes, form.world());
        let map =
            LaneMap::new(lanes, train.global_batch / lanes, world).ok_or(TrainError::TooManyRanks { world, lanes })?;
        // The feed reads while the group forms and the state travels.
        let feed = self.feed(form, map);
        let group = self.form_group(form)?;
        self.link.switches.arm(form.generation, group.abort_handle());
        let result = self.take_state(form, &group).and_then(|()| self.steps(form, &group, map, feed));
        if result.is_ok() {
            // Peers may still upload; their connections to this rank stay open until all are done.
            if let Err(error) = group.finish() {
                tracing::debug!(%error, "a peer left before the end of the generation");
            }
        }
        self.link.switches.disarm();
        result
    }

    fn form_group(&self, form: &Form) -> Result<Group, TrainError> {
        let device = self.core.device;
        let backend = if device == Device::Cpu { Backend::Gloo } else { Backend::Nccl };
        let store = FleetStore::new((self.link.store)(form.generation), self.link.runtime.clone());
        let config = GroupConfig {
            rank: form.rank.0,
            world: form.world(),
            generation: form.generation.0,
            timeout: Duration::from_millis(self.core.spec.train.collective_timeout_ms),
            device,
            hostname: self.link.host.clone(),
        };
        Ok(Group::new(backend, Arc::new(store), config)?)
    }

    /// Puts the state of `form.start_step` in place: from a checkpoint, by broadcast, or what is held already.
    fn take_state(&mut self, form: &Form, group: &Group) -> Result<(), TrainError> {
        let step = form.start_step;
        match form.source {
            None => {
                self.hold(None);
                match &form.resume_from {
                    Some(key) => {
                        let (_, tensors) = self.link.runtime.block_on(load_at(&self.link.run, key))?;
                        state::restore(&mut self.core, &tensors, step)?;
                    }
                    None => state::start_afresh(&mut self.core)?,
                }
                self.hold(Some(step));
            }
            Some(source) if !form.receivers.is_empty() => {
                if form.needs_state() {
                    self.hold(None);
                }
                state::broadcast(&mut self.core, group, source.0, step)?;
                if form.needs_state() {
                    self.hold(Some(step));
                }
            }
            Some(_) => {}
        }
        if self.held == Some(step) {
            return Ok(());
        }
        Err(TrainError::OutOfStep { ordered: step.0, held: self.held.map_or(0, |s| s.0) })
    }

    fn hold(&mut self, step: Option<Step>) {
        self.held = step;
        self.link.switches.set_held(step);
    }

    /// The feed of a generation; `None` if it has no step to run.
    fn feed(&self, form: &Form, map: LaneMap) -> Option<Feed> {
        let (first, steps) = (form.start_step.0, self.core.spec.schedule.steps);
        let ahead = self.core.spec.train.prefetch_steps as usize;
        let stretch = Stretch { map, lanes: map.lanes_of(form.rank), steps: first..steps, ahead };
        let runs = !form.draining && first < steps;
        runs.then(|| Feed::start(&self.link.runtime, Arc::clone(&self.source), stretch))
    }

    /// Steps of one generation, then the last checkpoint.
    fn steps(&mut self, form: &Form, group: &Group, map: LaneMap, feed: Option<Feed>) -> Result<(), TrainError> {
        let trainable = self.core.model.params.trainable().map(|p| (p.name(), p.tensor()));
        let reducer = Reducer::new(group, trainable)?;
        let mut peering = Peering { group, reducer, lanes: map };
        let mut step = form.start_step;
        self.link.reports.blocking_send(Report::Ready { generation: form.generation, next_step: step })?;
        let mut written = None;
        if let Some(mut feed) = feed {
            let mut drains = false;
            let mut started = Instant::now();
            while step.0 < self.core.spec.schedule.steps && !drains {
                if self.link.switches.is_over(form.generation) {
                    return Err(CollectiveError::Aborted { operation: "the next step" }.into());
                }
                let (batches, waited) = feed.next(step)?;
                let wish = self.link.switches.wants_drain();
                let stepped = self.core.step(&mut peering, &batches.lanes, step, wish)?;
                self.hold(Some(step.next()));
                drains = stepped.drains;
                self.report(form, step, &batches, (stepped, started, waited))?;
                started = Instant::now();
                step = step.next();
                if step.0.is_multiple_of(self.core.spec.checkpoint.every_steps) {
                    self.checkpoint(form, step)?;
                    written = Some(step);
                }
            }
        }
        if written != Some(step) {
            self.checkpoint(form, step)?;
        }
        self.wait_for_upload()?;
        Ok(self.link.reports.blocking_send(Report::Finished { generation: form.generation, next_step: step })?)
    }

    /// Tells the coordinator and the event file of a committed step.
    fn report(
        &mut self,
        form: &Form,
        step: Step,
        batches: &StepBatches,
        (stepped, started, waited): (Stepped, Instant, Duration),
    ) -> Result<(), TrainError> {
        let substitutions = batches.lanes.iter().flat_map(|batch| &batch.substitutions).map(|s| Substitution {
            position: s.position.0,
            wanted: s.wanted,
            used: s.used,
            reason: s.reason.clone(),
        });
        let report = StepReport {
            generation: form.generation,
            step,
            losses: stepped.losses,
            lr: stepped.lr,
            samples: u64::from(self.core.spec.train.global_batch),
            seconds: started.elapsed().as_secs_f64(),
            data_wait_s: waited.as_secs_f64(),
            collective_wait_s: stepped.collective_s,
            substitutions: substitutions.collect(),
            metrics: stepped.metrics,
        };
        if form.rank == Rank(0) {
            self.write_events(&report)?;
        }
        Ok(self.link.reports.blocking_send(Report::Committed(report))?)
    }

    fn write_events(&mut self, report: &StepReport) -> Result<(), TrainError> {
        if self.events.is_none() {
            let Some(folder) = self.link.run.local_folder() else { return Ok(()) };
            let failed = |source| TrainError::File { path: PathBuf::from(&folder), source };
            self.events = Some(Events::create(&folder).map_err(failed)?);
        }
        if let Some(events) = &mut self.events {
            events.write(report);
        }
        Ok(())
    }

    /// Copies the own share of the state, and uploads it behind the next steps. One upload at a time: if the last one
    /// is still under way, it is waited for.
    fn checkpoint(&mut self, form: &Form, step: Step) -> Result<(), TrainError> {
        self.wait_for_upload()?;
        let key = PartKey { step, generation: form.generation, rank: form.rank, world: form.world() };
        let snapshot = Snapshot::take(key, &state::named(&mut self.core))?;
        self.upload = Some(snapshot.upload(&self.link.runtime, self.link.run.clone(), self.link.reports.clone()));
        Ok(())
    }

    fn wait_for_upload(&mut self) -> Result<(), TrainError> {
        self.upload.take().map_or(Ok(()), |upload| upload.wait(&self.link.runtime))
    }
}

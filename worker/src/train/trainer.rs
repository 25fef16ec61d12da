//! The trainer: one OS thread that owns model, optimizer, group and reducer, and lives from generation to generation.
//!
//! Invariants: tensors never leave this thread; a healthy step waits for no RPC; a step is committed when its optimizer
//! has run; group and reducer are dropped before this rank says that it has left; whatever this thread waits for, the end
//! of its generation wakes it.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pixfleet_checkpoint::{Attempts, CheckpointError, Folder, HostTensor, PartKey, load_at};
use pixfleet_cluster::peer::Word;
use pixfleet_cluster::run::{Form, LeaveKind, Left, Prepared, StepReport, Switched};
use pixfleet_cluster::spec::Rung;
use pixfleet_cluster::{Generation, LaneMap, Manifest, Rank, Step};
use pixfleet_collective::{AbortHandle, Backend, CollectiveError, Group, GroupConfig};
use tch::Device;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ahead::{Ahead, StagedBatches};
use super::error::TrainError;
use super::events::Events;
use super::exact;
use super::fed_log::FedLog;
use super::feed::{Feed, FeedRange, FeedSource};
use super::gauges::Gauges;
use super::meeting::FleetStore;
use super::reduce::Reduction;
use super::snapshot::{Snapshot, Upload};
use super::state;
use super::step::{Core, Peering, Stepped};
use super::step_log::StepLog;
use super::switches::{Command, Switches, Wish};
use super::trace::Trace;

/// The trainer's ways to the outside.
pub(crate) struct Channels {
    pub(crate) runtime: Handle,
    pub(crate) orders: mpsc::Receiver<Command>,
    pub(crate) words: mpsc::Sender<Word>,
    pub(crate) switches: Arc<Switches>,
    /// The run's folder.
    pub(crate) run: Folder,
    /// The address under which peers reach this process.
    pub(crate) host: String,
}

impl Channels {
    fn say(&self, word: Word) -> Result<(), TrainError> {
        self.words.blocking_send(word).map_err(|_| TrainError::Dismissed)
    }

    /// Waits for `future`, unless `generation` ends first.
    fn wait<T, E: Into<TrainError>>(
        &self,
        generation: Generation,
        operation: &'static str,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TrainError> {
        self.runtime.block_on(async {
            tokio::select! {
                result = future => result.map_err(Into::into),
                () = self.switches.until_over(generation) => Err(CollectiveError::Aborted { operation }.into()),
            }
        })
    }
}

/// How a generation ends in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum GenerationEnd {
    /// All ranks go over into the next one after the same step.
    GoesOver(Prepared),
    /// All its work is done and in the store.
    Finished,
}

/// See the module.
pub(crate) struct Trainer {
    core: Core,
    source: Arc<FeedSource>,
    channels: Channels,
    gauges: Gauges,
    /// The step that the held state runs next; `None`: no state, or a torn one.
    held: Option<Step>,
    /// The generation that this rank is part of.
    current: Option<Generation>,
    upload: Option<Upload>,
    events: Option<Events>,
    step_log: Option<StepLog>,
    fed_log: Option<FedLog>,
    trace: Option<Trace>,
}

impl Trainer {
    pub(crate) fn new(
        core: Core,
        source: Arc<FeedSource>,
        channels: Channels,
        (step_log, fed_log, trace): (Option<StepLog>, Option<FedLog>, Option<Trace>),
    ) -> Self {
        let gauges = Gauges::new(core.device, core.spec.train.precision);
        let (held, current, upload, events) = (None, None, None, None);
        Self { core, source, channels, gauges, held, current, upload, events, step_log, fed_log, trace }
    }

    /// Follows orders until the run is over.
    ///
    /// # Errors
    /// What no other generation mends.
    pub(crate) fn run(&mut self) -> Result<(), TrainError> {
        while let Some(command) = self.channels.orders.blocking_recv() {
            match command {
                Command::Form(form) => {
                    let mut next = Some(form);
                    while let Some(form) = next {
                        next = self.follow(form)?;
                    }
                }
                // An abort of a generation that was left already has been answered.
                Command::Abort(through) if self.current.is_some_and(|current| current <= through) => {
                    let generation = self.current.unwrap_or(through);
                    self.fail(generation, &CollectiveError::Aborted { operation: "waiting for orders" }.into())?;
                }
                Command::Abort(_) => {}
                Command::Stop => return Ok(()),
            }
        }
        Err(TrainError::Dismissed)
    }

    /// Takes its place in a generation, to its end; the order of the next one, if the ranks go over into that.
    fn follow(&mut self, form: Form) -> Result<Option<Form>, TrainError> {
        let generation = form.generation;
        self.current = Some(generation);
        match self.generation(&form) {
            Ok(GenerationEnd::Finished) => Ok(None),
            Ok(GenerationEnd::GoesOver(Prepared { generation: next, form: Some(form), .. })) => {
                self.go_over(next, form).map(Some)
            }
            Ok(GenerationEnd::GoesOver(Prepared { generation: next, form: None, .. })) => {
                self.leave(generation, LeaveKind::Boundary { next }, String::new(), None).map(|()| None)
            }
            Err(error) if error.ends_only_the_generation() => self.fail(generation, &error).map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// All ranks hold the order of the next generation, and have done the same steps.
    fn go_over(&mut self, next: Generation, form: Form) -> Result<Form, TrainError> {
        let start_step = self.held.ok_or(TrainError::OutOfStep { ordered: 0, held: 0 })?;
        let digest = state::digest(&mut self.core)?;
        self.upload = None;
        tracing::info!(generation = %next, rank = %form.rank, world = form.world(), step = %start_step, "goes over");
        self.channels.say(Word::Switched(Switched { generation: next, start_step, digest: Some(digest) }))?;
        Ok(Form { start_step: Some(start_step), ..form })
    }

    fn fail(&mut self, generation: Generation, error: &TrainError) -> Result<(), TrainError> {
        let aborted = matches!(error, TrainError::Collective(CollectiveError::Aborted { .. }));
        let kind = if aborted { LeaveKind::Aborted } else { LeaveKind::Collective };
        let lost_rank = if let TrainError::Collective(CollectiveError::LostPeer { rank, .. }) = error {
            rank.map(Rank)
        } else {
            None
        };
        self.leave(generation, kind, error.sentence(), lost_rank)
    }

    /// Says that this rank is out of `generation`, and what it holds.
    fn leave(
        &mut self,
        generation: Generation,
        kind: LeaveKind,
        message: String,
        lost_rank: Option<Rank>,
    ) -> Result<(), TrainError> {
        self.current = None;
        self.upload = None;
        let started = Instant::now();
        let digest = self.held.map(|_| state::digest(&mut self.core)).transpose()?;
        tracing::info!(%generation, ?kind, message, digest_ms = started.elapsed().as_millis(), "left the generation");
        self.channels.say(Word::Left(Left { generation, next_step: self.held, digest, kind, message, lost_rank }))
    }

    /// One generation, from forming the group to the last step. Group, reducer and feed live and die in here.
    fn generation(&mut self, form: &Form) -> Result<GenerationEnd, TrainError> {
        let train = &self.core.spec.train;
        let (lanes, world) = (train.lanes, form.world());
        let map =
            LaneMap::new(lanes, train.global_batch / lanes, world).ok_or(TrainError::TooManyRanks { world, lanes })?;
        let abort = AbortHandle::new();
        self.channels.switches.arm(form.generation, abort.clone());
        let end = self.meet(form).and_then(|(store, start)| self.within(form, map, (store, start), &abort));
        self.channels.switches.disarm();
        end
    }

    /// A generation whose ranks know where they meet, and that begins with `start`.
    fn within(
        &mut self,
        form: &Form,
        map: LaneMap,
        (store, start): (FleetStore, Step),
        abort: &AbortHandle,
    ) -> Result<GenerationEnd, TrainError> {
        // The feed reads while the group forms and the state travels.
        let feed = self.feed(form, start, map);
        let group = self.form_group(form, store, abort)?;
        self.take_state(form, start, &group)?;
        let end = self.steps((form, start), &group, map, feed)?;
        // Peers may still compute or upload; their connections to this rank stay open until all are done.
        if let Err(error) = group.finish() {
            tracing::debug!(%error, "a peer left before the end of the generation");
        }
        Ok(end)
    }

    /// Where the ranks of `form` find each other, and the step that they begin with: whoever joins hears it there.
    fn meet(&self, form: &Form) -> Result<(FleetStore, Step), TrainError> {
        let Channels { switches, runtime, .. } = &self.channels;
        let store = FleetStore::new(form, Arc::clone(switches), runtime.clone()).map_err(CollectiveError::from)?;
        match form.start_step {
            Some(start) => {
                if form.rank == Rank(0) {
                    store.tell_start(start).map_err(CollectiveError::from)?;
                }
                Ok((store, start))
            }
            None => {
                let start_step = store.hear_start().map_err(CollectiveError::from)?;
                let switched = Switched { generation: form.generation, start_step, digest: None };
                self.channels.say(Word::Switched(switched))?;
                Ok((store, start_step))
            }
        }
    }

    fn form_group(&self, form: &Form, store: FleetStore, abort: &AbortHandle) -> Result<Group, TrainError> {
        let device = self.core.device;
        let backend = if device == Device::Cpu { Backend::Gloo } else { Backend::Nccl };
        let config = GroupConfig {
            rank: form.rank.0,
            world: form.world(),
            generation: form.generation.0,
            timeout: self.core.spec.ladder()[Rung::CollectiveTimeout],
            device,
            hostname: self.channels.host.clone(),
        };
        Ok(Group::form(backend, Arc::new(store), config, abort)?)
    }

    /// Puts the state of `step` in place: from a checkpoint, by broadcast, or what is held already.
    fn take_state(&mut self, form: &Form, step: Step, group: &Group) -> Result<(), TrainError> {
        match form.source {
            None => {
                self.held = None;
                match &form.resume_from {
                    Some(key) => {
                        let load = patient_load(&self.channels.run, key, self.patience());
                        let (_, tensors) = self.channels.wait(form.generation, "loading a checkpoint", load)?;
                        state::restore(&mut self.core, &tensors, step)?;
                    }
                    None => state::start_afresh(&mut self.core)?,
                }
                self.held = Some(step);
            }
            Some(source) if !form.receivers.is_empty() => {
                if form.needs_state() {
                    self.held = None;
                }
                state::broadcast(&mut self.core, group, source.0, step)?;
                if form.needs_state() {
                    self.held = Some(step);
                }
            }
            Some(_) => {}
        }
        if self.held == Some(step) {
            return Ok(());
        }
        Err(TrainError::OutOfStep { ordered: step.0, held: self.held.map_or(0, |s| s.0) })
    }

    /// The feed of a generation from `start` on; `None` if it has no step to run.
    fn feed(&self, form: &Form, start: Step, map: LaneMap) -> Option<Feed> {
        let (first, steps) = (start.0, self.core.spec.schedule.steps);
        let train = &self.core.spec.train;
        let (ahead, ahead_bytes) = (train.prefetch_steps as usize, (train.prefetch_mib as usize) << 20);
        let range = FeedRange { map, lanes: map.lanes_of(form.rank), steps: first..steps, ahead, ahead_bytes };
        let runs = !form.checkpoint_only && first < steps;
        runs.then(|| Feed::start(&self.channels.runtime, Arc::clone(&self.source), range))
    }

    /// Steps of one generation, until there are no more or the ranks are asked to stop.
    fn steps(
        &mut self,
        (form, start): (&Form, Step),
        group: &Group,
        map: LaneMap,
        feed: Option<Feed>,
    ) -> Result<GenerationEnd, TrainError> {
        let generation = form.generation;
        let reduction = Reduction::new(self.core.spec.train.reduce, group, &self.core.model.params)?;
        let mut peering = Peering { group, reduction, lanes: map };
        let mut step = start;
        self.channels.say(Word::Ready { generation, next_step: step })?;
        // A checkpoint that was due when the last generation ended may have been cut off.
        let mut written = if form.source.is_some() { None } else { Some(step) };
        let mut started = Instant::now();
        if let Some(feed) = feed {
            let mut ahead = Ahead::of(feed, &self.core)?;
            while step.0 < self.core.spec.schedule.steps {
                if self.is_due(step) && written != Some(step) {
                    self.checkpoint(form, step)?;
                    written = Some(step);
                }
                let (mut batches, waited) = self.channels.wait(generation, "waiting for samples", ahead.next(step))?;
                if self.core.faults.swaps(&self.core.name, step) {
                    let swapped = batches.staged.swap_lanes();
                    tracing::warn!(%step, swapped, "two lanes in each other's place, on purpose");
                }
                let held = self.channels.switches.held_in(generation);
                let finish = self.channels.switches.finishes(generation);
                let wish = Wish { finish, next: held.as_ref().map(|held| held.generation) };
                let stage_another = || ahead.stage_another();
                let (trace, device) = (self.trace.as_ref(), self.core.device);
                let stepped = Trace::around(trace, (step, device), || {
                    self.core.step(&mut peering, &batches.staged, (step, wish), stage_another)
                });
                let stepped = stepped.map_err(exact::told)?;
                let asked = stepped.asked;
                self.committed(form, step, &batches, (stepped, started, waited))?;
                started = Instant::now();
                step = step.next();
                if asked.finish {
                    break;
                }
                if let (Some(next), true) = (held, asked.next.is_some() && step.0 < self.core.spec.schedule.steps) {
                    return Ok(GenerationEnd::GoesOver(next));
                }
            }
        }
        if written != Some(step) {
            self.checkpoint(form, step)?;
        }
        self.wait_for_upload(generation)?;
        self.channels.say(Word::Finished { generation, next_step: step })?;
        Ok(GenerationEnd::Finished)
    }

    fn is_due(&self, step: Step) -> bool {
        step.0 > 0 && step.0.is_multiple_of(self.core.spec.checkpoint.every_steps)
    }

    /// The optimizer has run: nobody else needs to know for the step to count.
    fn committed(
        &mut self,
        form: &Form,
        step: Step,
        batches: &StagedBatches,
        (mut stepped, started, waited): (Stepped, Instant, Duration),
    ) -> Result<(), TrainError> {
        self.held = Some(step.next());
        if let Some(log) = &mut self.step_log {
            log.committed(step, form.generation)?;
        }
        if let Some(log) = &mut self.fed_log {
            let own = LaneMap::new(self.core.spec.train.lanes, 1, form.world()).map(|map| map.lanes_of(form.rank));
            log.committed((step, form.generation, form.rank), own.into_iter().flatten().zip(batches.staged.fed()))?;
        }
        let every = self.core.spec.train.digest_every_steps;
        let compared = every > 0 && step.next().0.is_multiple_of(every);
        let digest = compared.then(|| state::digest(&mut self.core)).transpose()?;
        let substitutions = batches.lanes.iter().flat_map(|batch| &batch.substitutions).cloned();
        let seconds = started.elapsed().as_secs_f64();
        self.gauges.add(&mut stepped.metrics, seconds);
        let report = StepReport {
            generation: form.generation,
            step,
            losses: stepped.losses,
            lr: stepped.lr,
            samples: u64::from(self.core.spec.train.global_batch),
            seconds,
            data_wait_s: waited.as_secs_f64(),
            collective_wait_s: stepped.collective_s,
            substitutions: substitutions.collect(),
            evidence: stepped.evidence,
            digest,
            metrics: stepped.metrics,
        };
        if form.rank == Rank(0) {
            self.write_events(&report)?;
        }
        self.channels.say(Word::Committed(report))
    }

    fn write_events(&mut self, report: &StepReport) -> Result<(), TrainError> {
        if self.events.is_none() {
            let Some(folder) = self.channels.run.local_folder() else { return Ok(()) };
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
        self.wait_for_upload(form.generation)?;
        let key = PartKey { step, generation: form.generation, rank: form.rank, world: form.world() };
        let taken = Instant::now();
        let snapshot = Snapshot::take(key, &state::named(&mut self.core))?;
        self.gauges.stalled(taken.elapsed());
        self.upload = Some(snapshot.upload(&self.channels, self.patience()));
        Ok(())
    }

    /// With a store that fails.
    fn patience(&self) -> Duration {
        self.core.spec.ladder()[Rung::StorePatience]
    }

    fn wait_for_upload(&mut self, generation: Generation) -> Result<(), TrainError> {
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        self.channels.wait(generation, "uploading a checkpoint", upload.finished())
    }
}

/// The checkpoint whose manifest is `key`.
async fn patient_load(
    run: &Folder,
    key: &str,
    patience: Duration,
) -> Result<(Manifest, Vec<HostTensor>), CheckpointError> {
    let mut attempts = Attempts::lasting(patience);
    loop {
        match load_at(run, key).await {
            Err(error) if attempts.outlasts(&error, error.class()).await => {}
            answer => return answer,
        }
    }
}

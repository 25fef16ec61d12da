//! A model of a worker's trainer. Its weights are the chain of the steps that were applied to them; a step is a forward,
//! an exchange that carries what the ranks were asked for, a reduction, and the optimizer, which commits.

use super::group::{Brought, Op, Participant};
use super::world::{ToWorker, What, WorkerId, World};
use crate::commit::PartEntry;
use crate::evidence::Evidence;
use crate::ids::{Generation, Rank, Step};
use crate::ledger::Losses;
use crate::peer::{PeerEvent, Word};
use crate::rng::key;
use crate::run::{Form, LeaveKind, Left, PartReport, Prepared, StepReport, Switched};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// Weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) next: Step,
    pub(super) chain: u64,
}

impl State {
    pub(super) const INITIAL: Self = Self { next: Step(0), chain: 0 };

    /// After one more step on `positions`, whose ranks all held the weights of `chains`.
    pub(super) fn stepped(self, positions: &Range<u64>) -> Self {
        Self { next: self.next.next(), chain: key(&[self.chain, self.next.0, positions.start, positions.end]) }
    }
}

/// A part of a checkpoint on its way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) generation: Generation,
    pub(super) rank: Rank,
    pub(super) state: State,
    /// The trainer waits for it.
    pub(super) last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// On the way to the rendezvous.
    Calling,
    /// Reads a manifest.
    Loading,
    Forward,
    /// In a collective.
    Waiting(Op),
    Backward,
    /// The optimizer runs; the weights that it makes.
    Optimizing(State),
    /// Writes its last part.
    Uploading,
    Finished,
}

/// Its time in a generation.
#[derive(Debug)]
pub(super) struct Stint {
    pub(super) form: Form,
    pub(super) activity: Activity,
    /// Whether the ranks are to finish after this step.
    finishes: bool,
    /// What it held when this step's exchange began.
    held: Option<Prepared>,
    /// The generation that the ranks go over into after this step.
    next: Option<Generation>,
    /// What they fed of it.
    fed: Evidence,
    /// Its last generation was larger.
    shrunk: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trainer {
    pub(super) state: Option<State>,
    /// The generation that it was made in.
    pub(super) made_in: Generation,
    pub(super) stint: Option<Stint>,
    waiting: VecDeque<Form>,
    /// Generations that it was told are over.
    over: Option<Generation>,
    /// The generation that was asked to finish.
    asked: Option<Generation>,
    /// The order that it holds.
    prepared: Option<Prepared>,
    /// Changes with each activity, so that what belongs to an earlier one is known.
    token: u64,
    last_world: u32,
}

impl Trainer {
    pub(super) fn asked(&mut self, generation: Generation) {
        self.asked = Some(generation);
    }

    pub(super) fn hold(&mut self, prepared: Prepared) {
        self.prepared = Some(prepared);
    }

    pub(super) fn withdraw(&mut self, generation: Generation) {
        self.prepared.take_if(|held| held.generation == generation);
    }

    fn is_over(&self, generation: Generation) -> bool {
        self.over.is_some_and(|over| generation <= over)
    }

    pub(super) fn next(&self) -> Option<Step> {
        self.state.map(|s| s.next)
    }
}

impl World {
    /// The trainer is told to take its place in a generation; it does so once it is out of the last.
    pub(super) fn take_order(&mut self, id: WorkerId, form: Form) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.trainer.waiting.push_back(form);
        self.next_order(id);
    }

    fn next_order(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.trainer.waiting.is_empty() {
            return;
        }
        match &worker.trainer.stint {
            // It has said all that it had to say of that one.
            Some(done) if done.activity == Activity::Finished => {
                let left = done.form.generation;
                worker.trainer.stint = None;
                self.rank_gone(left, false);
            }
            Some(_) => return,
            None => {}
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(form) = worker.trainer.waiting.pop_front() else { return };
        let shrunk = form.world() < worker.trainer.last_world;
        worker.trainer.last_world = form.world();
        worker.trainer.stint = Some(Stint {
            form,
            activity: Activity::Calling,
            finishes: false,
            held: None,
            next: None,
            fed: Evidence::default(),
            shrunk,
        });
        let takes = worker.dice.ms(10..=600);
        self.enter(id, Activity::Calling, Some(takes));
    }

    /// The next activity; it takes so long, or is ended by others.
    fn enter(&mut self, id: WorkerId, activity: Activity, takes: Option<Duration>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stint) = &mut worker.trainer.stint else { return };
        stint.activity = activity;
        worker.trainer.token += 1;
        let token = worker.trainer.token;
        if let Some(takes) = takes {
            self.queue.push(self.now + takes, What::Worker(id, ToWorker::Activity(token)));
        }
    }

    fn meet(&mut self, id: WorkerId, op: Op, brought: Brought) {
        self.enter(id, Activity::Waiting(op), None);
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(stint) = &worker.trainer.stint else { return };
        let who = (id, worker.trainer.token);
        let participant =
            Participant { group: stint.form.generation, rank: stint.form.rank, world: stint.form.world(), who };
        self.arrive_at(participant, op, brought);
    }

    /// An activity is over by itself.
    pub(super) fn activity_over(&mut self, id: WorkerId, token: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.trainer.token != token {
            return;
        }
        let Some(stint) = &worker.trainer.stint else { return };
        let (generation, activity, start) = (stint.form.generation, stint.activity, stint.form.start_step);
        if worker.trainer.is_over(generation) && !matches!(activity, Activity::Optimizing(_) | Activity::Uploading) {
            return self.leave(id, LeaveKind::Aborted, "aborted");
        }
        match activity {
            Activity::Calling => self.meet(id, Op::Meet, Brought { start, ..Brought::default() }),
            Activity::Loading => self.load(id),
            Activity::Forward => {
                let asked = worker.trainer.asked == Some(generation);
                let held = worker.trainer.prepared.clone().filter(|held| held.from == generation);
                let next = held.as_ref().map(|held| held.generation);
                let step = worker.trainer.next().unwrap_or_default();
                let Some(stint) = &mut worker.trainer.stint else { return };
                stint.held = held;
                let positions = self.setup.positions(step, stint.form.rank, stint.form.world());
                let fed = self.setup.fed(positions, |position| self.habits.reads(position));
                self.meet(id, Op::Exchange(step), Brought { asked, next, fed, ..Brought::default() });
            }
            Activity::Backward => self.reduce(id),
            Activity::Optimizing(state) => self.commit(id, state),
            Activity::Waiting(_) | Activity::Uploading | Activity::Finished => {}
        }
    }

    fn reduce(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (Some(stint), Some(state)) = (&worker.trainer.stint, worker.trainer.state) else { return };
        let positions = self.setup.positions(state.next, stint.form.rank, stint.form.world());
        let positions = self.habits.positions(positions, stint.shrunk);
        self.meet(id, Op::Reduce(state.next), Brought { state: Some(state), positions, ..Brought::default() });
    }

    /// A collective is over: it succeeded, or it failed.
    pub(super) fn collective_over(&mut self, id: WorkerId, token: u64, timed_out: bool) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.trainer.token != token {
            return;
        }
        let Some(stint) = &mut worker.trainer.stint else { return };
        let Activity::Waiting(op) = stint.activity else { return };
        let aborted = worker.trainer.over.is_some_and(|over| stint.form.generation <= over);
        let Some(group) = self.groups.get(&stint.form.generation) else { return };
        let result = group.result(op, &mut worker.dice, self.habits.as_ref());
        let Some(result) = result.filter(|_| !timed_out) else {
            let kind = if aborted { LeaveKind::Aborted } else { LeaveKind::Collective };
            let why = if timed_out { "the collective timed out" } else { "a peer is gone" };
            return self.leave(id, kind, why);
        };
        match op {
            Op::Meet => self.met(id, result.start),
            Op::Broadcast => {
                let Some(worker) = self.workers.get_mut(&id) else { return };
                let Some(stint) = &worker.trainer.stint else { return };
                if stint.form.needs_state() {
                    worker.trainer.state = result.state;
                }
                self.ready(id);
            }
            Op::Exchange(_) => {
                (stint.finishes, stint.next, stint.fed) = (result.asked, result.next, result.fed);
                let takes = worker.dice.ms(5..=200);
                self.enter(id, Activity::Backward, Some(takes));
            }
            Op::Reduce(_) => {
                let Some(before) = result.state else { return };
                let takes = worker.dice.ms(5..=60);
                let after = before.stepped(&result.positions);
                self.enter(id, Activity::Optimizing(after), Some(takes));
                if self.habits.reports_early() {
                    self.say_committed(id, before.next);
                }
            }
        }
    }

    /// The group stands: take over state.
    fn met(&mut self, id: WorkerId, start: Option<Step>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stint) = &mut worker.trainer.stint else { return };
        if let (None, Some(start_step)) = (stint.form.start_step, start) {
            stint.form.start_step = start;
            let switched = Switched { generation: stint.form.generation, start_step, digest: None };
            self.peer(id, PeerEvent::Trainer(Word::Switched(switched)));
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stint) = &worker.trainer.stint else { return };
        let state = worker.trainer.state;
        match stint.form.source {
            None => {
                worker.trainer.state = None;
                let takes = worker.dice.ms(10..=1500);
                self.enter(id, Activity::Loading, Some(takes));
            }
            Some(_) if stint.form.receivers.is_empty() => self.ready(id),
            Some(source) => {
                let state = state.filter(|_| source == stint.form.rank);
                if stint.form.needs_state() {
                    worker.trainer.state = None;
                }
                self.meet(id, Op::Broadcast, Brought { state, ..Brought::default() });
            }
        }
    }

    fn load(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stint) = &worker.trainer.stint else { return };
        if self.store.is_down(self.now) {
            let again = worker.dice.ms(300..=2000);
            return self.enter(id, Activity::Loading, Some(again));
        }
        let state = match &stint.form.resume_from {
            None => Some(State::INITIAL),
            Some(key) => super::oracle::state_of(&self.store, key),
        };
        worker.trainer.state = state;
        self.ready(id);
    }

    fn ready(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stint) = &worker.trainer.stint else { return };
        let (generation, only) = (stint.form.generation, stint.form.checkpoint_only);
        let Some(next_step) = stint.form.start_step else { return };
        if worker.trainer.next() != Some(next_step) {
            let held = worker.trainer.state;
            return self.accuse("out_of_step", || format!("{id} is to begin at step {next_step} and holds {held:?}"));
        }
        worker.trainer.made_in = generation;
        self.judge_member(id, generation);
        self.peer(id, PeerEvent::Trainer(Word::Ready { generation, next_step }));
        if only || next_step.0 >= self.setup.steps {
            return self.upload(id, true);
        }
        self.forward(id);
    }

    fn forward(&mut self, id: WorkerId) {
        let usual = self.setup.forward_ms;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let takes = worker.dice.ms(usual * 4 / 5..=usual * 6 / 5);
        self.enter(id, Activity::Forward, Some(takes));
    }

    /// The optimizer has run.
    fn commit(&mut self, id: WorkerId, state: State) {
        let step = Step(state.next.0 - 1);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stint) = &worker.trainer.stint else { return };
        let (generation, finishes, next) = (stint.form.generation, stint.finishes, stint.next);
        worker.trainer.state = Some(state);
        self.judge_commit(id, generation, step, state);
        if !self.habits.reports_early() {
            self.say_committed(id, step);
        }
        let ends = finishes || state.next.0 >= self.setup.steps;
        if ends || state.next.0.is_multiple_of(self.setup.every) {
            self.upload(id, ends);
        }
        match next {
            _ if ends => {}
            Some(next) => self.go_over(id, next),
            None => self.forward(id),
        }
    }

    /// All ranks hold the order of the next generation.
    fn go_over(&mut self, id: WorkerId, next: Generation) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (Some(stint), Some(state)) = (&mut worker.trainer.stint, worker.trainer.state) else { return };
        let form = stint.held.take().filter(|held| held.generation == next).and_then(|held| held.form);
        let Some(form) = form else {
            return self.leave(id, LeaveKind::Boundary { next }, "it has no part in the next");
        };
        let left = stint.form.generation;
        worker.trainer.stint = None;
        worker.trainer.token += 1;
        worker.trainer.waiting.push_front(Form { start_step: Some(state.next), ..form });
        self.log(|| format!("{id} goes over from {left} into {next} with {state:?}"));
        self.rank_gone(left, false);
        let switched = Switched { generation: next, start_step: state.next, digest: Some(state.chain) };
        self.peer(id, PeerEvent::Trainer(Word::Switched(switched)));
        self.next_order(id);
    }

    fn say_committed(&mut self, id: WorkerId, step: Step) {
        let Some(stint) = self.workers.get(&id).and_then(|w| w.trainer.stint.as_ref()) else { return };
        let report = StepReport {
            generation: stint.form.generation,
            step,
            losses: Losses { total: 1.0, ..Losses::default() },
            samples: u64::from(self.setup.global_batch()),
            evidence: Some(stint.fed),
            ..StepReport::default()
        };
        self.peer(id, PeerEvent::Trainer(Word::Committed(report)));
    }

    fn upload(&mut self, id: WorkerId, last: bool) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (Some(stint), Some(state)) = (&worker.trainer.stint, worker.trainer.state) else { return };
        let upload = Upload { generation: stint.form.generation, rank: stint.form.rank, state, last };
        let takes = worker.dice.ms(50..=4000);
        if last {
            self.enter(id, Activity::Uploading, None);
        }
        self.queue.push(self.now + takes, What::Worker(id, ToWorker::Uploaded(upload)));
    }

    pub(super) fn uploaded(&mut self, id: WorkerId, upload: Upload) {
        if self.store.is_down(self.now) {
            let again = self.now + Duration::from_secs(1);
            return self.queue.push(again, What::Worker(id, ToWorker::Uploaded(upload)));
        }
        let Upload { generation, rank, state, last } = upload;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stint) = worker.trainer.stint.as_ref().filter(|p| p.form.generation == generation) else { return };
        let path = crate::Manifest::part_key(state.next, generation, rank, stint.form.world());
        let blake3 = format!("{:016x}", state.chain);
        let entry = PartEntry { path, rank, bytes: 8, blake3, tensors: Vec::new() };
        let over = worker.trainer.is_over(generation);
        self.peer(id, PeerEvent::Trainer(Word::Part(PartReport { generation, step: state.next, entry })));
        if !last {
            return;
        }
        if over {
            return self.leave(id, LeaveKind::Aborted, "aborted");
        }
        self.enter(id, Activity::Finished, None);
        self.peer(id, PeerEvent::Trainer(Word::Finished { generation, next_step: state.next }));
    }

    /// The generation is over; a collective breaks off, anything else goes to its end first.
    pub(super) fn abort_trainer(&mut self, id: WorkerId, generation: Generation) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.trainer.over = worker.trainer.over.max(Some(generation));
        let Some(stint) = worker.trainer.stint.as_ref().filter(|p| p.form.generation <= generation) else { return };
        match stint.activity {
            Activity::Waiting(_) | Activity::Finished => self.leave(id, LeaveKind::Aborted, "aborted"),
            Activity::Calling
            | Activity::Loading
            | Activity::Forward
            | Activity::Backward
            | Activity::Optimizing(_)
            | Activity::Uploading => {}
        }
    }

    fn leave(&mut self, id: WorkerId, kind: LeaveKind, message: &str) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(stint) = worker.trainer.stint.take() else { return };
        worker.trainer.token += 1;
        let state = worker.trainer.state;
        let left = Left {
            generation: stint.form.generation,
            next_step: state.map(|s| s.next),
            digest: state.map(|s| s.chain),
            kind,
            message: message.into(),
            lost_rank: None,
        };
        self.log(|| format!("{id} leaves {} with {state:?}: {message}", left.generation));
        if kind == LeaveKind::Aborted {
            self.disturb(self.now);
        }
        self.rank_gone(stint.form.generation, !matches!(kind, LeaveKind::Boundary { .. }));
        self.peer(id, PeerEvent::Trainer(Word::Left(left)));
        self.next_order(id);
    }
}

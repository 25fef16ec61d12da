//! The machine itself: its state, its one entrance, and what each report does. Who is a member and when a generation
//! is formed or given up stands in `membership.rs`.

use super::commits::Commits;
use super::event::{Effect, Event, LossCause, Notice, Now, Refusal, Resume, RunConfig};
use super::messages::{Join, Order, Outcome, PartReport, Report, StepReport};
use super::steps::Steps;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::Record;
use std::collections::BTreeMap;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for members.
    Gathering,
    /// A generation was ordered; its members build their group and take over state.
    Forming(Generation),
    /// All members of the generation are in place.
    Training(Generation),
    /// The generation is over; its members report out of it.
    Reforming(Generation),
    /// The run is over.
    Done(Outcome),
}

/// A member's part in the current generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// None: it waits for the next one.
    Waiting,
    /// It has a rank.
    Active {
        rank: Rank,
        /// Its group stands.
        ready: bool,
        /// All its steps are done and its part is reported.
        finished: bool,
    },
}

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) join: Join,
    pub(super) heard: Now,
    pub(super) next_step: Option<Step>,
    pub(super) place: Place,
}

/// A member, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its number.
    pub member: MemberId,
    /// What it said of itself.
    pub join: Join,
    /// Its rank, if it takes part.
    pub rank: Option<Rank>,
    /// The step that it runs next.
    pub next_step: Option<Step>,
    /// `waiting`, `forming`, `training` or `finished`.
    pub state: &'static str,
}

/// A run. Only [`Run::handle`] changes it.
#[derive(Debug)]
pub struct Run {
    pub(super) config: RunConfig,
    pub(super) phase: Phase,
    /// Since when, or until when, the phase waits.
    pub(super) phase_since: Option<Now>,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) generation: Option<Generation>,
    pub(super) world: u32,
    pub(super) start_step: Step,
    pub(super) draining: bool,
    pub(super) steps: Steps,
    pub(super) commits: Commits,
    pub(super) checkpoint: Option<Resume>,
    pub(super) fruitless: u32,
    pub(super) losses: u64,
    /// Why the current generation is given up; for whoever stays silent.
    pub(super) failure: String,
    pub(super) message: String,
    pub(super) effects: Vec<Effect>,
}

impl Run {
    /// A run that waits for its first member.
    #[must_use]
    pub fn new(config: RunConfig) -> Self {
        let checkpoint = config.resume.clone();
        let start_step = checkpoint.as_ref().map_or(Step(0), |c| c.step);
        Self {
            config,
            phase: Phase::Gathering,
            phase_since: None,
            members: BTreeMap::new(),
            generation: None,
            world: 0,
            start_step,
            draining: false,
            steps: Steps::default(),
            commits: Commits::default(),
            checkpoint,
            fruitless: 0,
            losses: 0,
            failure: String::new(),
            message: String::new(),
            effects: Vec::new(),
        }
    }

    /// Where the run stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The phase in a word, for people.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Done(Outcome::Done) => "done",
            Phase::Done(Outcome::Drained) => "drained",
            Phase::Done(Outcome::Fault) => "fault",
            _ if self.draining => "draining",
            Phase::Gathering => "gathering",
            Phase::Forming(_) => "forming",
            Phase::Training(_) => "training",
            Phase::Reforming(_) => "reforming",
        }
    }

    /// The newest generation, if one was formed.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Ranks of the newest generation.
    #[must_use]
    pub fn world(&self) -> u32 {
        self.world
    }

    /// The furthest step that any member would run next.
    #[must_use]
    pub fn next_step(&self) -> Step {
        self.members.values().filter_map(|m| m.next_step).max().unwrap_or(self.start_step)
    }

    /// The newest committed checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Resume> {
        self.checkpoint.as_ref()
    }

    /// Members lost so far.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// What the run died of, or waits for.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The members, by number.
    pub fn members(&self) -> impl Iterator<Item = MemberView> {
        self.members.iter().map(|(&member, m)| {
            let (rank, state) = match m.place {
                Place::Waiting => (None, "waiting"),
                Place::Active { rank, finished: true, .. } => (Some(rank), "finished"),
                Place::Active { rank, ready: true, .. } => (Some(rank), "training"),
                Place::Active { rank, .. } => (Some(rank), "forming"),
            };
            MemberView { member, join: m.join.clone(), rank, next_step: m.next_step, state }
        })
    }

    /// When [`Event::Tick`] must come at the latest, if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        if matches!(self.phase, Phase::Done(_)) {
            return None;
        }
        let silence = self.members.values().map(|m| m.heard + self.config.heartbeat_timeout).min();
        let phase = match self.phase {
            Phase::Gathering if !self.members.is_empty() => self.phase_since.map(|t| t + self.config.join_window),
            Phase::Reforming(_) => self.phase_since.map(|t| t + self.config.reform_grace),
            _ => None,
        };
        // A gathering whose window is over waits for members, not for time.
        let phase = phase.filter(|_| !self.waits_for_members_only());
        [silence, phase].into_iter().flatten().min()
    }

    /// Takes in what happened at `now` and says what must be done.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        debug_assert!(self.effects.is_empty(), "effects of the last event were handed out");
        match event {
            Event::Joined { member, join } => self.join(now, member, join),
            Event::Reported { member, report } => self.report(now, member, report),
            Event::Lost { member, cause } => self.lose(now, member, cause),
            Event::WillNotJoin => {
                self.config.expect = self.config.expect.saturating_sub(1).max(self.config.min_workers);
                self.gathered(now);
            }
            Event::Drain => self.drain(now),
            Event::Stop { message } => self.finish(Outcome::Fault, message),
            Event::ManifestStored { generation, step, key } => {
                self.stored(generation, step, key);
                self.resume_forming(now);
            }
            Event::ManifestFailed { generation, step, message } => {
                self.store_failed(generation, step, message);
                self.resume_forming(now);
            }
            Event::Tick => {}
        }
        self.overdue(now);
        self.check();
        std::mem::take(&mut self.effects)
    }

    pub(super) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn refuse(&mut self, member: MemberId, refusal: Refusal) {
        self.emit(Effect::Refuse { member, refusal });
    }

    fn report(&mut self, now: Now, member: MemberId, report: Report) {
        let Some(m) = self.members.get_mut(&member) else {
            return self.refuse(member, Refusal::Unknown);
        };
        m.heard = now;
        let (place, current) = (m.place, self.generation);
        let claimed = match &report {
            Report::Ready { generation, .. } | Report::Finished { generation, .. } => Some(*generation),
            Report::Committed(s) => Some(s.generation),
            Report::Failed(f) => Some(f.generation),
            Report::Part(p) => Some(p.generation),
            Report::Join(_) | Report::Heartbeat { .. } | Report::Fault { .. } => None,
        };
        let rank = match place {
            Place::Active { rank, .. } => Some(rank),
            Place::Waiting => None,
        };
        // The fence: whoever speaks of another generation, or of one that it is not part of, is not heard.
        if let Some(got) = claimed.filter(|&g| Some(g) != current || rank.is_none()) {
            return self.refuse(member, Refusal::StaleGeneration { got, current: current.unwrap_or_default() });
        }
        match (report, rank) {
            (Report::Join(_) | Report::Heartbeat { .. }, _) => {}
            (Report::Fault { message }, _) => self.lose(now, member, LossCause::Fault { message }),
            (Report::Failed(failed), _) => self.failed(now, member, failed),
            (Report::Ready { next_step, .. }, Some(rank)) => self.ready(member, rank, next_step),
            (Report::Committed(step), Some(rank)) => self.committed(member, rank, step),
            (Report::Part(part), Some(rank)) => self.part(member, rank, part),
            (Report::Finished { next_step, .. }, Some(_)) => self.finished(member, next_step),
            // The fence above has turned these away.
            (Report::Ready { .. } | Report::Committed(_) | Report::Part(_) | Report::Finished { .. }, None) => {}
        }
    }

    fn ready(&mut self, member: MemberId, rank: Rank, next_step: Step) {
        if next_step != self.start_step {
            let expected = Some(self.start_step);
            return self.refuse(member, Refusal::OutOfOrder { expected, got: next_step });
        }
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        m.next_step = Some(next_step);
        m.place = Place::Active { rank, ready: true, finished: false };
        self.all_ready();
    }

    fn committed(&mut self, member: MemberId, rank: Rank, step: StepReport) {
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        // A rank that commits is ready, whatever overtook what on its way here.
        let expected = if matches!(m.place, Place::Active { ready: true, .. }) { m.next_step } else { None };
        if expected != Some(step.step) {
            return self.refuse(member, Refusal::OutOfOrder { expected, got: step.step });
        }
        m.next_step = Some(step.step.next());
        self.fruitless = 0;
        for done in self.steps.report(rank, self.world, step) {
            self.record_step(done);
        }
    }

    pub(super) fn record_step(&mut self, (report, record): (StepReport, crate::ledger::StepRecord)) {
        let world = self.world;
        self.emit(Effect::Ledger(Record::Step(record)));
        self.emit(Effect::Announce(Notice::Step { report, world }));
    }

    fn part(&mut self, member: MemberId, rank: Rank, part: PartReport) {
        let expected = self.members.get(&member).and_then(|m| m.next_step);
        if part.entry.rank != rank || expected.is_none_or(|e| part.step > e) {
            return self.refuse(member, Refusal::OutOfOrder { expected, got: part.step });
        }
        let (generation, step) = (part.generation, part.step);
        if let Some(parts) = self.commits.part(self.world, part) {
            self.emit(Effect::StoreManifest { generation, step, parts });
        }
    }

    fn finished(&mut self, member: MemberId, next_step: Step) {
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        if m.next_step != Some(next_step) {
            let expected = m.next_step;
            return self.refuse(member, Refusal::OutOfOrder { expected, got: next_step });
        }
        if let Place::Active { finished, .. } = &mut m.place {
            *finished = true;
        }
        self.all_finished();
    }

    fn stored(&mut self, generation: Generation, step: Step, key: String) {
        self.commits.answered(step, generation);
        self.emit(Effect::Ledger(Record::Checkpoint { generation, step, manifest: key.clone() }));
        self.emit(Effect::Announce(Notice::Checkpoint { step, key: key.clone() }));
        if self.checkpoint.as_ref().is_none_or(|c| c.step <= step) {
            self.checkpoint = Some(Resume { step, key: key.clone() });
        }
        for member in self.active() {
            let order = Order::Checkpointed { generation, step, key: key.clone() };
            self.emit(Effect::Send { member, order });
        }
        self.all_finished();
        // Everybody may have gone while the store was slow; what they left behind is whole.
        if self.phase == Phase::Gathering && self.members.is_empty() && (self.draining || step.0 >= self.config.steps) {
            self.finish(self.outcome_at(step), String::new());
        }
    }

    fn store_failed(&mut self, generation: Generation, step: Step, message: String) {
        self.commits.answered(step, generation);
        self.message = format!("the checkpoint of step {step} could not be committed: {message}");
        self.emit(Effect::Announce(Notice::CheckpointFailed { step, message }));
        self.all_finished();
    }

    /// Once every member has finished: done if the checkpoint of that step is committed, at fault if it never will be.
    pub(super) fn all_finished(&mut self) {
        let active = self.members.values().filter(|m| matches!(m.place, Place::Active { .. }));
        let unfinished = |m: &Member| !matches!(m.place, Place::Active { finished: true, .. });
        let Some(step) = active.clone().next().and_then(|m| m.next_step) else { return };
        if matches!(self.phase, Phase::Done(_)) || active.clone().any(unfinished) {
            return;
        }
        if self.checkpoint.as_ref().is_some_and(|c| c.step == step) {
            return self.finish(self.outcome_at(step), String::new());
        }
        // While the generation is given up its missing parts are still to come, from the next one.
        if matches!(self.phase, Phase::Training(_)) && self.commits.storing().is_none() {
            let cause =
                if self.message.is_empty() { "a part of it was never reported".into() } else { self.message.clone() };
            self.finish(Outcome::Fault, format!("the run ended at step {step} without its checkpoint: {cause}"));
        }
    }

    pub(super) fn outcome_at(&self, step: Step) -> Outcome {
        if step.0 >= self.config.steps { Outcome::Done } else { Outcome::Drained }
    }

    /// What must hold between any two events.
    fn check(&self) {
        let active = self.members.values().filter(|m| matches!(m.place, Place::Active { .. })).count();
        debug_assert!(active <= self.config.lanes as usize, "every rank hosts at least one lane");
        if let Phase::Gathering = self.phase {
            debug_assert_eq!(active, 0, "nobody has a rank while no generation stands");
        }
        if let Phase::Forming(g) | Phase::Training(g) | Phase::Reforming(g) = self.phase {
            debug_assert_eq!(Some(g), self.generation, "the phase is about the newest generation");
        }
    }
}

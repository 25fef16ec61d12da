//! What each report does. The fence stands here: whoever speaks of another generation, or of one that it is not part
//! of, is not heard.

use super::event::{LossCause, Notice, Now, Refusal, RunEffect};
use super::machine::{Duty, Member, Phase, Run};
use super::messages::{LeaveKind, Left, Order, PartReport, Report, Standing, StepReport};
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::{Record, StepRecord};

impl Run {
    pub(super) fn report(&mut self, now: Now, member: MemberId, report: Report) {
        if self.members.change(member, |m| m.heard = now).is_none() {
            return self.refuse(member, Refusal::Unknown);
        }
        match report {
            Report::Join(_) | Report::Heartbeat { .. } => {}
            Report::Standing(standing) => self.standing(now, member, standing),
            Report::Leaving { reason } => self.leaving(now, member, reason),
            Report::Fault { message } => self.lose(now, member, LossCause::Fault { message }),
            Report::Switched(switched) => self.switched(now, member, switched),
            Report::Left(left) => self.left(now, member, left),
            Report::Committed(step) => self.told_of(now, member, step),
            Report::Ready { generation, next_step } => {
                if let Some(rank) = self.rank_now(member, generation) {
                    self.ready(now, member, rank, next_step);
                }
            }
            Report::Part(part) => {
                if let Some(rank) = self.rank_now(member, part.generation) {
                    self.part(member, rank, part);
                }
            }
            Report::Finished { generation, next_step } => {
                if self.rank_now(member, generation).is_some() {
                    self.finished(now, member, next_step);
                }
            }
        }
    }

    /// The rank of `member` in `generation`, if that stands; its report is refused otherwise.
    fn rank_now(&mut self, member: MemberId, generation: Generation) -> Option<Rank> {
        let heard_of = self.generation == Some(generation) && !self.unheard_of(generation);
        let rank = self.members.get(member).and_then(Member::rank).filter(|_| heard_of);
        if rank.is_none() {
            self.refuse_stale(member, generation);
        }
        rank
    }

    fn refuse_stale(&mut self, member: MemberId, got: Generation) {
        let current = self.generation.unwrap_or_default();
        self.refuse(member, Refusal::StaleGeneration { got, current });
    }

    /// A rank's optimizer has run, in the generation that stands or in the one before; or somebody who was lost meanwhile owes
    /// a step.
    fn told_of(&mut self, now: Now, member: MemberId, step: StepReport) {
        let generation = step.generation;
        let is_current = self.generation == Some(generation);
        match self.seat(member, generation) {
            Some((rank, _)) if is_current && !self.unheard_of(generation) => self.committed(now, member, rank, step),
            Some(seat) if !is_current => self.committed_before(now, member, seat, step),
            None if is_current => self.owed(step),
            None if self.owed_before(step.clone()) => {}
            Some(_) | None => self.refuse_stale(member, generation),
        }
    }

    /// Its record is not in the store yet, so nobody can have heard of it.
    fn unheard_of(&self, generation: Generation) -> bool {
        self.phase == Phase::Claiming(generation)
    }

    /// A worker is warm, or tells a coordinator that it reconnects to where it is. Whatever it missed meanwhile is told
    /// again; if its word and ours do not agree, its generation is over.
    fn standing(&mut self, now: Now, member: MemberId, standing: Standing) {
        let Some(m) = self.members.get(member) else { return };
        let (rank, known, name) = (m.rank(), m.next_step, m.join.name.clone());
        let current = self.generation.unwrap_or_default();
        match standing {
            Standing::Free { next_step, digest } => self.came_free(now, member, next_step, digest),
            Standing::Training { generation, next_step } if rank.is_some() && generation == current => {
                self.stands_at(member, known.max(Some(next_step)));
                self.returned(now, member);
            }
            Standing::Finished { generation, next_step } if rank.is_some() && generation == current => {
                self.stands_at(member, Some(next_step));
                self.returned(now, member);
                self.finished(now, member, next_step);
            }
            Standing::Forming { generation } if rank.is_some() && generation == current => {
                self.still_forms(now, member)
            }
            Standing::Forming { generation } if rank.is_none() && self.holds(member, generation) => {}
            // It never heard that its generation is over.
            Standing::Forming { generation }
            | Standing::Training { generation, .. }
            | Standing::Finished { generation, .. } => {
                let order = Order::Abort { generation, cause: "another generation stands".into() };
                self.emit(RunEffect::Send { member, order });
                if rank.is_some() {
                    // It has a rank in a generation that it has never heard of.
                    self.out_of(member);
                    self.give_up(now, format!("{name} did not hear of it"));
                }
            }
        }
    }

    fn stands_at(&mut self, member: MemberId, next_step: Option<Step>) {
        self.members.change(member, |m| m.next_step = next_step);
    }

    /// A member's group is being formed, which needs no coordinator.
    fn still_forms(&mut self, now: Now, member: MemberId) {
        let Some(generation) = self.generation else { return };
        self.members.change(member, |m| {
            if let Duty::Active { ready, .. } = &mut m.duty {
                *ready = false;
            }
        });
        if self.members.away().is_empty() {
            self.pace.begin(now);
        }
        if matches!(self.phase, Phase::Reforming(_)) {
            let order = Order::Abort { generation, cause: self.failure.clone() };
            self.emit(RunEffect::Send { member, order });
        }
    }

    /// A member is in no generation, and could be in the next.
    fn came_free(&mut self, now: Now, member: MemberId, next_step: Option<Step>, digest: Option<u64>) {
        let before = self.members.change(member, |m| {
            m.next_step = next_step;
            m.digest = digest;
            (m.join.name.clone(), std::mem::replace(&mut m.duty, Duty::Waiting))
        });
        let (name, duty) = before.expect("looked up by the caller");
        let was_active = matches!(duty, Duty::Active { .. });
        let joins = matches!(duty, Duty::Holding(held) if self.next.as_ref().is_some_and(|n| n.generation == held));
        if joins {
            // It has never heard of it.
            self.call_off();
        }
        self.is_out(member);
        if was_active {
            self.give_up(now, format!("{name} is out of it"));
        }
        self.emit(RunEffect::Announce(Notice::State));
    }

    /// A step of the newest generation, told by somebody who has no rank in it any more: the weights hold it, so the
    /// ledger must.
    fn owed(&mut self, step: StepReport) {
        self.steps.owed(self.world, step);
        self.gathered_steps();
    }

    /// While the generation stands its ranks may still tell of its steps themselves.
    pub(super) fn gathered_steps(&mut self) {
        if self.phase == Phase::Gathering && !self.is_held_back() {
            self.flush_steps();
        }
    }

    /// Nobody else is waited for.
    pub(super) fn flush_steps(&mut self) {
        for done in self.steps.flush() {
            self.record_step(done);
        }
    }

    /// A member of the current generation is back and where it should be.
    fn returned(&mut self, now: Now, member: MemberId) {
        let Some(generation) = self.generation else { return };
        match self.phase {
            Phase::Training(_) => {
                if self.asked {
                    self.emit(RunEffect::Send { member, order: Order::Yield { generation } });
                }
                self.tell_rank(member);
                if self.members.away().is_empty() {
                    self.pace.begin(now);
                }
                self.emit(RunEffect::Announce(Notice::State));
            }
            Phase::Forming(_) => {
                if let Some(m) = self.members.get(member).filter(|m| !m.is_ready())
                    && let Some(rank) = m.rank()
                {
                    let next_step = m.next_step.unwrap_or(self.start_step);
                    self.ready(now, member, rank, next_step);
                }
            }
            Phase::Reforming(_) => {
                let order = Order::Abort { generation, cause: self.failure.clone() };
                self.emit(RunEffect::Send { member, order });
            }
            Phase::Gathering | Phase::Claiming(_) | Phase::Done(_) => {}
        }
    }

    fn ready(&mut self, now: Now, member: MemberId, rank: Rank, next_step: Step) {
        if next_step != self.start_step {
            let expected = Some(self.start_step);
            return self.refuse(member, Refusal::OutOfOrder { expected, got: next_step });
        }
        self.members.change(member, |m| {
            m.next_step = Some(next_step);
            m.duty = Duty::Active { rank, ready: true, finished: false };
        });
        self.all_ready(now);
    }

    fn committed(&mut self, now: Now, member: MemberId, rank: Rank, step: StepReport) {
        if step.step == self.start_step && self.members.get(member).is_some_and(|m| !m.is_ready()) {
            // A rank that commits is ready; its word was lost with its session.
            self.ready(now, member, rank, step.step);
        }
        let m = self.members.get(member).expect("looked up by the caller");
        let ready = m.is_ready();
        // A rank of an adopted generation begins with the oldest step that it is not sure was recorded.
        let expected = if ready { Some(m.next_step.unwrap_or(step.step)) } else { None };
        if expected.is_some_and(|expected| step.step < expected) {
            return;
        }
        if expected != Some(step.step) {
            return self.refuse(member, Refusal::OutOfOrder { expected, got: step.step });
        }
        self.members.change(member, |m| m.next_step = Some(step.step.next()));
        self.fruitless = 0;
        if self.steps.is_news(step.step) {
            self.pace.stepped(now);
        }
        if let Some(ratio) = self.pace.report(member, &step) {
            let name = self.members.get(member).map(|m| m.join.name.clone()).unwrap_or_default();
            self.emit(RunEffect::Announce(Notice::Straggler { member, name, ratio }));
        }
        if let Some(odd) = self.steps.odd_digest(rank, &step) {
            self.diverged(now, odd, step.step);
        }
        for done in self.steps.report(rank, self.world, step) {
            self.record_step(done);
        }
    }

    pub(super) fn record_step(&mut self, (report, record): (StepReport, StepRecord)) {
        let world = record.world;
        self.emit(RunEffect::Ledger(Record::Step(record)));
        self.emit(RunEffect::Announce(Notice::Step { report, world }));
    }

    /// Two ranks say different things of the same step: the generation is over, and the next forming lets the majority
    /// decide, for there everybody brings its digest.
    fn diverged(&mut self, now: Now, odd: Rank, step: Step) {
        self.give_up(now, format!("rank {odd} holds other weights than the ranks before it after step {step}"));
    }

    fn part(&mut self, member: MemberId, rank: Rank, part: PartReport) {
        // A part of weights with a step in them that the ledger does not know of, nor will when all have told.
        let expected = Some(self.steps.furthest_told());
        let early = expected.is_some_and(|e| part.step > e);
        if part.entry.rank != rank || early {
            return self.refuse(member, Refusal::OutOfOrder { expected, got: part.step });
        }
        let (generation, step) = (part.generation, part.step);
        if let Some(done) = self.checkpoint.clone().filter(|c| c.step >= step) {
            let order = Order::Checkpointed { generation, step: done.step, key: done.key };
            return self.emit(RunEffect::Send { member, order });
        }
        if let Some(parts) = self.commits.part(self.world, part) {
            self.whole(generation, step, parts);
        }
    }

    fn finished(&mut self, now: Now, member: MemberId, next_step: Step) {
        let expected = self.members.get(member).and_then(|m| m.next_step);
        if expected != Some(next_step) {
            return self.refuse(member, Refusal::OutOfOrder { expected, got: next_step });
        }
        self.members.change(member, |m| {
            if let Duty::Active { finished, .. } = &mut m.duty {
                *finished = true;
            }
        });
        self.all_finished(now);
    }

    /// A worker left its generation and lives. Ranks that go over into the next one do so by themselves; otherwise the others
    /// must be told.
    fn left(&mut self, now: Now, member: MemberId, left: Left) {
        let Some(m) = self.members.get(member) else { return };
        let (name, duty, before) = (m.join.name.clone(), m.duty, self.is_handing_over(member));
        let is_current = self.generation == Some(left.generation) && !self.unheard_of(left.generation);
        match (left.kind, duty) {
            (LeaveKind::Boundary { next }, Duty::Active { .. }) if is_current => {
                self.left_at_boundary(now, member, &left, next);
            }
            (LeaveKind::Boundary { next }, Duty::Waiting) if before => self.left_at_boundary(now, member, &left, next),
            // It was to join a generation that is not to be.
            (_, Duty::Holding(held)) if held == left.generation => {
                if self.next.as_ref().is_some_and(|next| next.generation == held) {
                    self.call_off();
                }
                self.came_free(now, member, left.next_step, left.digest);
            }
            (LeaveKind::Collective | LeaveKind::Aborted, Duty::Active { .. }) if is_current || before => {
                self.came_out(member, &left);
                self.give_up(now, format!("{name}: {}", left.message));
            }
            (_, Duty::Active { .. }) => self.refuse_stale(member, left.generation),
            // It has no place to leave: it was lost, and came back under another number, or goes.
            (_, Duty::Waiting | Duty::Arriving | Duty::Holding(_)) => {
                self.came_out(member, &left);
                self.emit(RunEffect::Announce(Notice::State));
            }
        }
    }

    fn came_out(&mut self, member: MemberId, left: &Left) {
        self.members.change(member, |m| {
            m.next_step = left.next_step;
            m.digest = left.digest;
            m.duty = Duty::Waiting;
        });
        self.is_out(member);
    }

    fn leaving(&mut self, now: Now, member: MemberId, reason: String) {
        // When it goes is decided after every event, with everybody else in view.
        self.members.change(member, |m| {
            m.leaving.get_or_insert(reason);
        });
        self.all_finished(now);
    }

    /// The store holds these records: workers need not keep their reports.
    pub(super) fn recorded(&mut self, through: Step) {
        for member in self.active() {
            self.emit(RunEffect::Send { member, order: Order::Recorded { through } });
        }
    }
}

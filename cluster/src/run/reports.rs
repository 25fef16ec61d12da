//! What each report does. The fence stands here: whoever speaks of another generation, or of one that it is not part
//! of, is not heard.

use super::event::{LossCause, Notice, Now, Refusal, RunEffect};
use super::machine::{Asked, Duty, Phase, Run};
use super::messages::{LeaveKind, Left, Order, PartReport, Report, Standing, StepReport};
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::{Record, StepRecord};

impl Run {
    pub(super) fn report(&mut self, now: Now, member: MemberId, report: Report) {
        let Some(m) = self.members.get_mut(&member) else {
            return self.refuse(member, Refusal::Unknown);
        };
        m.heard = now;
        let (rank, current) = (m.rank(), self.generation);
        let claimed = match &report {
            Report::Ready { generation, .. } | Report::Finished { generation, .. } => Some(*generation),
            Report::Committed(s) => Some(s.generation),
            Report::Left(left) => Some(left.generation),
            Report::Part(p) => Some(p.generation),
            Report::Join(_)
            | Report::Standing(_)
            | Report::Heartbeat { .. }
            | Report::Leaving { .. }
            | Report::Fault { .. } => None,
        };
        let stale = claimed.filter(|&g| Some(g) != current || rank.is_none() || self.unheard_of(g));
        if let Some(got) = stale {
            return match report {
                // It was lost, and came back under another number.
                Report::Committed(step) if Some(got) == current && rank.is_none() => self.owed(step),
                Report::Left(left) if rank.is_none() => self.came_free(now, member, left.next_step, left.digest),
                Report::Ready { .. }
                | Report::Committed(_)
                | Report::Part(_)
                | Report::Finished { .. }
                | Report::Left(_)
                | Report::Join(_)
                | Report::Standing(_)
                | Report::Heartbeat { .. }
                | Report::Leaving { .. }
                | Report::Fault { .. } => {
                    self.refuse(member, Refusal::StaleGeneration { got, current: current.unwrap_or_default() });
                }
            };
        }
        match (report, rank) {
            (Report::Join(_) | Report::Heartbeat { .. }, _) => {}
            (Report::Standing(standing), _) => self.standing(now, member, standing),
            (Report::Leaving { reason }, _) => self.leaving(now, member, reason),
            (Report::Fault { message }, _) => self.lose(now, member, LossCause::Fault { message }),
            (Report::Left(left), _) => self.left(now, member, left),
            (Report::Ready { next_step, .. }, Some(rank)) => self.ready(now, member, rank, next_step),
            (Report::Committed(step), Some(rank)) => self.committed(now, member, rank, step),
            (Report::Part(part), Some(rank)) => self.part(member, rank, part),
            (Report::Finished { next_step, .. }, Some(_)) => self.finished(now, member, next_step),
            // The fence above has turned these away.
            (Report::Ready { .. } | Report::Committed(_) | Report::Part(_) | Report::Finished { .. }, None) => {}
        }
    }

    /// Its record is not in the store yet, so nobody can have heard of it.
    fn unheard_of(&self, generation: Generation) -> bool {
        self.phase == Phase::Claiming(generation)
    }

    /// A worker is warm, or tells a coordinator that it reconnects to where it is. Whatever it missed meanwhile is told
    /// again; if its word and ours do not agree, its generation is over.
    fn standing(&mut self, now: Now, member: MemberId, standing: Standing) {
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        let rank = m.rank();
        let current = self.generation.unwrap_or_default();
        match standing {
            Standing::Free { next_step, digest } => self.came_free(now, member, next_step, digest),
            Standing::Training { generation, next_step } if rank.is_some() && generation == current => {
                let known = m.next_step.unwrap_or(next_step);
                m.next_step = Some(next_step.max(known));
                self.returned(now, member);
            }
            Standing::Finished { generation, next_step } if rank.is_some() && generation == current => {
                m.next_step = Some(next_step);
                self.returned(now, member);
                self.finished(now, member, next_step);
            }
            // The keys of its rendezvous were lost with its session, or it never heard that its generation is over.
            Standing::Forming { generation }
            | Standing::Training { generation, .. }
            | Standing::Finished { generation, .. } => {
                let name = m.join.name.clone();
                let order = Order::Abort { generation, cause: "another generation stands".into() };
                self.emit(RunEffect::Send { member, order });
                if rank.is_some() && generation == current {
                    self.give_up(now, format!("{name} lost its session while its group formed"));
                } else if rank.is_some() {
                    // It has a rank in a generation that it has never heard of.
                    self.out_of(member);
                    self.give_up(now, format!("{name} did not hear of it"));
                }
            }
        }
    }

    /// A member is in no generation, and could be in the next.
    fn came_free(&mut self, now: Now, member: MemberId, next_step: Option<Step>, digest: Option<u64>) {
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        m.next_step = next_step;
        m.digest = digest;
        let name = m.join.name.clone();
        let was_active = m.is_active();
        m.duty = Duty::Waiting;
        if was_active {
            self.give_up(now, format!("{name} is out of it"));
        }
        self.emit(RunEffect::Announce(Notice::State));
    }

    /// A step of the newest generation, told by somebody who has no rank in it any more: the weights hold it, so the
    /// ledger must.
    fn owed(&mut self, step: StepReport) {
        self.steps.owed(step);
        // While the generation stands its ranks may still tell of it themselves.
        if self.phase == Phase::Gathering {
            for done in self.steps.flush(self.world) {
                self.record_step(done);
            }
        }
    }

    /// A member of the current generation is back and where it should be.
    fn returned(&mut self, now: Now, member: MemberId) {
        let Some(generation) = self.generation else { return };
        match self.phase {
            Phase::Training(_) => {
                if self.asked > Asked::Nothing {
                    let order = Order::Yield { generation, checkpoint: self.asked == Asked::Checkpoint };
                    self.emit(RunEffect::Send { member, order });
                }
                if self.members.values().all(|m| m.away.is_none()) {
                    self.pace.begin(now);
                }
                self.emit(RunEffect::Announce(Notice::State));
            }
            Phase::Forming(_) => {
                let next_step = self.members.get(&member).and_then(|m| m.next_step).unwrap_or(self.start_step);
                let rank = self.members.get(&member).and_then(super::machine::Member::rank);
                if let Some(rank) = rank {
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
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        m.next_step = Some(next_step);
        m.duty = Duty::Active { rank, ready: true, finished: false };
        self.all_ready(now);
    }

    fn committed(&mut self, now: Now, member: MemberId, rank: Rank, step: StepReport) {
        if step.step == self.start_step && self.members.get(&member).is_some_and(|m| !m.is_ready()) {
            // A rank that commits is ready; its word was lost with its session.
            self.ready(now, member, rank, step.step);
        }
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        let ready = m.is_ready();
        // A rank of an adopted generation begins with the oldest step that it is not sure was recorded.
        let expected = if ready { Some(m.next_step.unwrap_or(step.step)) } else { None };
        if expected.is_some_and(|expected| step.step < expected) {
            return;
        }
        if expected != Some(step.step) {
            return self.refuse(member, Refusal::OutOfOrder { expected, got: step.step });
        }
        m.next_step = Some(step.step.next());
        let name = m.join.name.clone();
        self.fruitless = 0;
        if self.steps.is_news(step.step) {
            self.pace.stepped(now);
        }
        if let Some(ratio) = self.pace.report(member, &step) {
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
        let world = self.world;
        self.emit(RunEffect::Ledger(Record::Step(record)));
        self.emit(RunEffect::Announce(Notice::Step { report, world }));
    }

    /// Two ranks say different things of the same step: the generation is over, and the next forming lets the majority
    /// decide, for there everybody brings its digest.
    fn diverged(&mut self, now: Now, odd: Rank, step: Step) {
        self.give_up(now, format!("rank {odd} holds other weights than the ranks before it after step {step}"));
    }

    fn part(&mut self, member: MemberId, rank: Rank, part: PartReport) {
        // A part of weights with a step in them that the ledger does not know of.
        let expected = Some(self.steps.first_untold());
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
            self.emit(RunEffect::StoreManifest { generation, step, parts });
        }
    }

    fn finished(&mut self, now: Now, member: MemberId, next_step: Step) {
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        if m.next_step != Some(next_step) {
            let expected = m.next_step;
            return self.refuse(member, Refusal::OutOfOrder { expected, got: next_step });
        }
        if let Duty::Active { finished, .. } = &mut m.duty {
            *finished = true;
        }
        self.all_finished(now);
    }

    /// A worker left its generation and lives. After an [`Order::Yield`] all do so by themselves; otherwise the others
    /// must be told.
    fn left(&mut self, now: Now, member: MemberId, left: Left) {
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        let name = m.join.name.clone();
        m.next_step = left.next_step;
        m.digest = left.digest;
        m.duty = Duty::Waiting;
        match left.kind {
            LeaveKind::Boundary => self.step_aside(now, left.generation),
            LeaveKind::Collective | LeaveKind::Aborted => self.give_up(now, format!("{name}: {}", left.message)),
        }
    }

    fn leaving(&mut self, now: Now, member: MemberId, reason: String) {
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        // When it goes is decided after every event, with everybody else in view.
        m.leaving.get_or_insert(reason);
        self.all_finished(now);
    }

    /// The store holds these records: workers need not keep their reports.
    pub(super) fn recorded(&mut self, through: Step) {
        for member in self.active() {
            self.emit(RunEffect::Send { member, order: Order::Recorded { through } });
        }
    }
}

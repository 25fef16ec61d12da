//! Who is a member, when a generation is formed, and when it is given up.

use super::deal::{Deal, deal};
use super::event::{Effect, LossCause, Notice, Now, Refusal};
use super::machine::{Member, Phase, Place, Run};
use super::messages::{Failed, Form, Join, Order, Outcome};
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::Record;

impl Run {
    /// The one place that changes the phase: asserts that the edge exists.
    fn enter(&mut self, now: Option<Now>, phase: Phase) {
        let edge = match (self.phase, phase) {
            (Phase::Done(_), _) => false,
            (_, Phase::Done(_)) => true,
            (Phase::Gathering | Phase::Reforming(_), Phase::Forming(_)) => true,
            (Phase::Forming(a), Phase::Training(b)) => a == b,
            (Phase::Forming(a) | Phase::Training(a), Phase::Reforming(b)) => a == b,
            (Phase::Reforming(_), Phase::Gathering) => true,
            _ => false,
        };
        assert!(edge, "no edge from {:?} to {phase:?}", self.phase);
        self.phase = phase;
        self.phase_since = now;
        self.emit(Effect::Announce(Notice::State));
    }

    pub(super) fn active(&self) -> Vec<MemberId> {
        let active = self.members.iter().filter(|(_, m)| matches!(m.place, Place::Active { .. }));
        active.map(|(&id, _)| id).collect()
    }

    pub(super) fn join(&mut self, now: Now, member: MemberId, join: Join) {
        if let Phase::Done(outcome) = self.phase {
            return self.refuse(member, Refusal::Over { outcome });
        }
        let members = self.members.len() as u64;
        if members >= u64::from(self.config.members_max) {
            return self.refuse(member, Refusal::Full { members });
        }
        let next_step = join.next_step;
        self.members.insert(member, Member { join, heard: now, next_step, place: Place::Waiting });
        self.emit(Effect::Welcome { member });
        self.emit(Effect::Announce(Notice::State));
        if self.phase == Phase::Gathering && self.phase_since.is_none() {
            self.phase_since = Some(now);
        }
        self.gathered(now);
    }

    /// Whether a gathering has run out of its window, so that only another member can end it.
    pub(super) fn waits_for_members_only(&self) -> bool {
        self.phase == Phase::Gathering && self.members.len() < self.enough_after_window()
    }

    fn enough_after_window(&self) -> usize {
        if self.draining { 1 } else { self.config.min_workers as usize }
    }

    /// Forms a generation if a gathering has what it waits for.
    pub(super) fn gathered(&mut self, now: Now) {
        if self.phase != Phase::Gathering || self.members.is_empty() {
            return;
        }
        let window_over = self.phase_since.is_some_and(|since| now >= since + self.config.join_window);
        // After the first generation nobody is awaited: the run goes on as soon as it may.
        let patient = self.generation.is_none() && !window_over && !self.draining;
        let wanted = if patient { self.config.expect.min(self.config.lanes) as usize } else { 0 };
        if self.members.len() >= wanted.max(self.enough_after_window()) {
            self.form(now);
        }
    }

    /// Orders the next generation from everybody who waits.
    fn form(&mut self, now: Now) {
        let candidates: Vec<_> = self.members.iter().map(|(&id, m)| (id, m.next_step)).collect();
        let Some(deal) = deal(&candidates, self.config.lanes, self.checkpoint.as_ref()) else { return };
        // A checkpoint that is further than everybody and about to exist would fork the history if one began before it.
        if self.commits.storing().is_some_and(|step| step > deal.start_step) {
            return;
        }
        // All work is done and safe: nobody needs to meet again for it.
        let safe = self.checkpoint.as_ref().is_some_and(|c| c.step == deal.start_step);
        let over = self.draining || deal.start_step.0 >= self.config.steps;
        let untouched = deal.start_step == Step(0) && deal.source.is_none();
        if over && (safe || untouched) {
            return self.finish(self.outcome_at(deal.start_step), String::new());
        }
        self.fruitless += 1;
        if self.fruitless > self.config.fruitless_max {
            let failure = std::mem::take(&mut self.failure);
            let tries = self.config.fruitless_max;
            return self.finish(
                Outcome::Fault,
                format!("{tries} generations in a row reached no step; the last one ended with: {failure}"),
            );
        }
        let generation = self.generation.map_or(self.config.first_generation, Generation::next);
        self.order(now, generation, &deal);
    }

    fn order(&mut self, now: Now, generation: Generation, deal: &Deal) {
        self.generation = Some(generation);
        self.message.clear();
        self.world = u32::try_from(deal.members.len()).expect("no more members than lanes, a u32");
        self.start_step = deal.start_step;
        self.commits.clear();
        self.emit(Effect::OpenRendezvous { generation });
        self.emit(Effect::Ledger(Record::Formed {
            generation,
            start_step: deal.start_step,
            members: deal.members.clone(),
            source: deal.state_source(),
        }));
        for (i, &member) in deal.members.iter().enumerate() {
            let rank = Rank(u32::try_from(i).expect("no more members than lanes, a u32"));
            let m = self.members.get_mut(&member).expect("dealt from the members");
            m.place = Place::Active { rank, ready: false, finished: false };
            let form = Form {
                generation,
                rank,
                members: deal.members.clone(),
                start_step: deal.start_step,
                source: deal.source,
                receivers: deal.receivers.clone(),
                resume_from: deal.resume.as_ref().map(|r| r.key.clone()),
                draining: self.draining,
            };
            self.emit(Effect::Send { member, order: Order::Form(form) });
        }
        self.enter(Some(now), Phase::Forming(generation));
    }

    pub(super) fn all_ready(&mut self) {
        let Phase::Forming(generation) = self.phase else { return };
        let waiting = |m: &Member| matches!(m.place, Place::Active { ready: false, .. });
        if !self.members.values().any(waiting) {
            self.enter(None, Phase::Training(generation));
        }
    }

    pub(super) fn drain(&mut self, now: Now) {
        if self.draining || matches!(self.phase, Phase::Done(_)) {
            return;
        }
        self.draining = true;
        self.emit(Effect::Announce(Notice::State));
        for member in self.active() {
            self.emit(Effect::Send { member, order: Order::Drain });
        }
        if self.phase == Phase::Gathering && self.members.is_empty() {
            return self.finish(Outcome::Drained, String::new());
        }
        self.gathered(now);
    }

    /// A worker left its generation and lives. The others must leave it too.
    pub(super) fn failed(&mut self, now: Now, member: MemberId, failed: Failed) {
        let m = self.members.get_mut(&member).expect("looked up by the caller");
        let name = m.join.name.clone();
        m.next_step = failed.next_step;
        m.place = Place::Waiting;
        self.give_up(now, format!("{name}: {}", failed.message));
        self.all_out(now);
    }

    /// The one place where a member goes.
    pub(super) fn lose(&mut self, now: Now, member: MemberId, cause: LossCause) {
        let Some(gone) = self.members.remove(&member) else { return };
        self.emit(Effect::Close { member });
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        self.losses += 1;
        let rank = match gone.place {
            Place::Active { rank, .. } => Some(rank),
            Place::Waiting => None,
        };
        let generation = self.generation.unwrap_or_default();
        let name = gone.join.name.clone();
        self.emit(Effect::Ledger(Record::Lost { generation, member, cause: cause.to_string() }));
        let pid = gone.join.pid;
        let text = format!("{name} was lost: {cause}");
        self.emit(Effect::Announce(Notice::Loss { member, name, pid, generation, rank, cause }));
        match gone.place {
            Place::Active { finished: false, .. } => {
                self.give_up(now, text);
                self.all_out(now);
            }
            // Its work is done and its part is reported; what matters is whether the others' is.
            Place::Active { finished: true, .. } => {
                if self.active().is_empty() && self.phase != Phase::Gathering {
                    self.give_up(now, text);
                    self.all_out(now);
                } else {
                    self.all_finished();
                }
            }
            Place::Waiting => self.all_out(now),
        }
        if self.phase == Phase::Gathering && self.members.is_empty() {
            self.phase_since = None;
        }
    }

    /// The generation is over: everybody in it must leave.
    fn give_up(&mut self, now: Now, failure: String) {
        let (Phase::Forming(generation) | Phase::Training(generation)) = self.phase else { return };
        self.emit(Effect::CloseRendezvous);
        for member in self.active() {
            let order = Order::Abort { generation, cause: failure.clone() };
            self.emit(Effect::Send { member, order });
        }
        self.failure = failure;
        self.enter(Some(now), Phase::Reforming(generation));
    }

    /// Once everybody is out of the old generation, the next one is formed, or members are awaited.
    fn all_out(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Reforming(_)) || !self.active().is_empty() {
            return;
        }
        for done in self.steps.flush(self.world) {
            self.record_step(done);
        }
        if self.members.len() >= self.enough_after_window() {
            return self.form(now);
        }
        let (have, need) = (self.members.len(), self.config.min_workers);
        self.message = format!("{have} of at least {need} workers are left; the last loss: {}", self.failure);
        let since = (!self.members.is_empty()).then_some(now);
        self.enter(since, Phase::Gathering);
        if self.members.is_empty() {
            // Nobody holds state any more: the next generation starts from the newest checkpoint.
            self.start_step = self.checkpoint.as_ref().map_or(Step(0), |c| c.step);
            if self.draining {
                self.finish(Outcome::Fault, format!("the last worker was lost in the drain: {}", self.failure));
            }
        }
    }

    /// A forming that waited for the store goes on.
    pub(super) fn resume_forming(&mut self, now: Now) {
        self.all_out(now);
        self.gathered(now);
    }

    /// What time alone brings about.
    pub(super) fn overdue(&mut self, now: Now) {
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        let silent = |m: &Member| now.saturating_sub(m.heard);
        let timeout = self.config.heartbeat_timeout;
        let mute: Vec<_> = self.members.iter().map(|(&id, m)| (id, silent(m))).filter(|&(_, s)| s >= timeout).collect();
        for (member, silent) in mute {
            self.lose(now, member, LossCause::HeartbeatMissed { silent });
        }
        if let (Phase::Reforming(_), Some(since)) = (self.phase, self.phase_since)
            && now >= since + self.config.reform_grace
        {
            for member in self.active() {
                let failure = self.failure.clone();
                self.lose(now, member, LossCause::SilentAfterFailure { failure });
            }
        }
        self.gathered(now);
    }

    pub(super) fn finish(&mut self, outcome: Outcome, message: String) {
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        for done in self.steps.flush(self.world) {
            self.record_step(done);
        }
        let word = match outcome {
            Outcome::Done => "done",
            Outcome::Drained => "drained",
            Outcome::Fault => "fault",
        };
        self.emit(Effect::Ledger(Record::Closed { outcome: word.into(), message: message.clone() }));
        self.emit(Effect::CloseRendezvous);
        let everybody: Vec<MemberId> = self.members.keys().copied().collect();
        for member in everybody {
            let order = Order::Stop { outcome, message: message.clone() };
            self.emit(Effect::Send { member, order });
        }
        self.message = message.clone();
        self.enter(None, Phase::Done(outcome));
        self.emit(Effect::Finish { outcome, message });
    }
}

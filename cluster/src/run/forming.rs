//! When a generation is formed and when it is given up.

use super::deal::{Candidate, Deal, deal, odd_ones};
use super::event::{Notice, Now, RunEffect};
use super::machine::{Duty, Member, Phase, Run};
use super::messages::{Form, Order, Outcome};
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::Record;
use crate::spec::Rung;
use std::collections::BTreeSet;
use std::time::Duration;

impl Run {
    /// The one place that changes the phase: asserts that the edge exists.
    pub(super) fn enter(&mut self, now: Option<Now>, phase: Phase) {
        let edge = match (self.phase, phase) {
            (Phase::Done(_), _) => false,
            (_, Phase::Done(_)) => true,
            (Phase::Gathering | Phase::Reforming(_), Phase::Claiming(_)) => true,
            (Phase::Claiming(a), Phase::Forming(b)) => a == b,
            (Phase::Forming(a), Phase::Training(b)) => a == b,
            // Its ranks went over by themselves, while it trained or as it was given up.
            (Phase::Training(a), Phase::Forming(b)) => a < b,
            (Phase::Reforming(a), Phase::Reforming(b)) => a < b,
            (Phase::Claiming(a) | Phase::Forming(a) | Phase::Training(a), Phase::Reforming(b)) => a == b,
            (Phase::Reforming(_), Phase::Gathering) => true,
            (
                Phase::Gathering | Phase::Claiming(_) | Phase::Forming(_) | Phase::Training(_) | Phase::Reforming(_),
                Phase::Gathering | Phase::Claiming(_) | Phase::Forming(_) | Phase::Training(_) | Phase::Reforming(_),
            ) => false,
        };
        assert!(edge, "no edge from {:?} to {phase:?}", self.phase);
        self.phase = phase;
        self.phase_since = now;
        self.emit(RunEffect::Announce(Notice::State));
    }

    /// Members that the next generation may count on.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        self.candidates_where(Member::is_candidate)
    }

    /// Members that are in no generation, those who leave among them.
    fn waiting(&self) -> Vec<Candidate> {
        self.candidates_where(|m| m.duty == Duty::Waiting && m.away.is_none())
    }

    pub(super) fn candidates_where(&self, counts: impl Fn(&Member) -> bool) -> Vec<Candidate> {
        let members = self.members.iter().filter(|(_, m)| counts(m));
        let told = self.steps.first_untold();
        // Weights with a step in them that no ledger will ever hold are as good as none.
        let held = |m: &Member| m.next_step.filter(|&step| step <= told);
        members.map(|(member, m)| Candidate { member, next_step: held(m), digest: m.digest }).collect()
    }

    /// Where the next generation must not begin yet: a checkpoint that is further than everybody is about to exist, and
    /// would fork the history.
    pub(super) fn waits_for_checkpoint(&self) -> bool {
        let start = self.next_start();
        self.commits.storing().is_some_and(|step| step > start)
    }

    /// Fewer members do not train.
    pub(super) fn enough(&self) -> usize {
        if self.draining { 1 } else { self.config.min_workers as usize }
    }

    /// At most so many members train at once.
    pub(super) fn world_max(&self) -> u32 {
        self.config.lanes.min(self.config.max_workers)
    }

    /// Forms a generation if a gathering has what it waits for.
    pub(super) fn gathered(&mut self, now: Now) {
        if self.phase != Phase::Gathering {
            return;
        }
        if self.leavers_hold_the_most() {
            return self.form(now, &self.waiting());
        }
        self.let_leavers_go();
        let here = self.members.candidates();
        if here == 0 {
            return;
        }
        if here >= self.enough() && self.gathers_until().is_none_or(|until| now >= until) {
            self.form(now, &self.candidates());
        }
    }

    /// Until when a gathering that has enough members waits for more: for those that are expected, and for those of the
    /// last generation, who may come back with steps that would otherwise be done again.
    pub(super) fn gathers_until(&self) -> Option<Now> {
        let since = self.phase_since?;
        let here = self.members.candidates();
        let lacks = |wanted: u32| !self.draining && here < wanted.min(self.world_max()) as usize;
        if let Some(until) = self.parked_until {
            return lacks(self.world).then_some(until);
        }
        let expects = !self.has_formed && lacks(self.config.expect);
        let redoes = self.next_start() < self.steps.first_untold();
        let window = match (expects, redoes || lacks(self.world)) {
            (true, _) => self.config.join_window,
            (false, true) => self.config.ladder[Rung::AdoptWindow],
            (false, false) => return None,
        };
        Some(since + window)
    }

    /// Where a generation of those that wait would begin.
    fn next_start(&self) -> Step {
        let furthest = self.members.furthest_candidate(self.steps.first_untold());
        furthest.max(self.checkpoint.as_ref().map(|c| c.step)).unwrap_or_default()
    }

    /// Decides the next generation from `candidates`.
    fn form(&mut self, now: Now, candidates: &[Candidate]) {
        let candidates = self.without_the_odd(candidates);
        let Some(deal) = deal(&candidates, self.world_max(), self.checkpoint.as_ref()) else { return };
        if self.waits_for_checkpoint() {
            return;
        }
        // All work is done and safe: nobody needs to meet again for it.
        let over = self.draining || deal.start_step.0 >= self.config.steps;
        if over && self.is_safe(&deal) {
            return self.finish(self.outcome_at(deal.start_step), String::new());
        }
        self.pausing = self.staying(&deal) < self.enough();
        if !self.pausing {
            self.fruitless += 1;
        }
        if self.fruitless > self.config.fruitless_max {
            let failure = std::mem::take(&mut self.failure);
            let tries = self.config.fruitless_max;
            return self.finish(
                Outcome::Fault,
                format!("{tries} generations in a row reached no step; the last one ended with: {failure}"),
            );
        }
        let generation = self.number();
        self.claim(now, generation, deal);
    }

    /// Members of `deal` that do not want to go.
    fn staying(&self, deal: &Deal) -> usize {
        deal.members.iter().filter(|&&m| self.members.get(m).is_some_and(|m| m.leaving.is_none())).count()
    }

    /// Whether nothing would be lost if all members of `deal` were gone.
    fn is_safe(&self, deal: &Deal) -> bool {
        let untouched = deal.start_step == Step(0) && deal.source.is_none();
        untouched || self.checkpoint.as_ref().is_some_and(|c| c.step == deal.start_step)
    }

    /// `candidates`, where those whose weights are not those of the others as far as they are named, and will receive.
    fn without_the_odd(&mut self, candidates: &[Candidate]) -> Vec<Candidate> {
        let odd: BTreeSet<_> = odd_ones(candidates).into_iter().collect();
        for &member in &odd {
            let told = self.members.change(member, |m| {
                m.digest = None;
                (m.join.name.clone(), m.next_step.take().unwrap_or_default())
            });
            let Some((name, step)) = told else { continue };
            self.emit(RunEffect::Announce(Notice::Diverged { member, name, rank: None, step }));
        }
        let heard = |c: &Candidate| {
            if odd.contains(&c.member) { Candidate { next_step: None, digest: None, ..*c } } else { *c }
        };
        candidates.iter().map(heard).collect()
    }

    /// What the run knows of the generation that stands, for a new one.
    pub(super) fn begin_generation(&mut self, generation: Generation, members: &[MemberId], start_step: Step) {
        self.generation = Some(generation);
        self.has_formed = true;
        (self.inherited, self.parked_until) = (false, None);
        self.message.clear();
        self.world = u32::try_from(members.len()).expect("no more members than lanes, a u32");
        self.finished_gone = 0;
        self.start_step = start_step;
        self.asked = false;
        self.joiners_since = None;
        self.commits.clear();
    }

    /// The record first: a generation that anybody has heard of is in the store, and no other leader can have used its
    /// number.
    fn claim(&mut self, now: Now, generation: Generation, deal: Deal) {
        self.end_handover();
        self.flush_steps();
        self.prepared.clear();
        self.begin_generation(generation, &deal.members, deal.start_step);
        self.steps.cut_back(deal.start_step);
        for (rank, &member) in (0..).map(Rank).zip(&*deal.members) {
            let duty = Duty::Active { rank, ready: false, finished: false };
            self.members.change(member, |m| m.duty = duty).expect("dealt from the members");
        }
        self.emit(RunEffect::Ledger(Record::Formed {
            generation,
            start_step: deal.start_step,
            members: deal.members.to_vec(),
            source: deal.state_source(),
        }));
        self.deal = Some(deal);
        self.enter(Some(now), Phase::Claiming(generation));
        self.emit(RunEffect::Claim { generation });
    }

    /// The generation's record is in the store: its members may hear of it.
    pub(super) fn claimed(&mut self, now: Now, generation: Generation) {
        if self.phase != Phase::Claiming(generation) {
            return self.prepared_is_claimed(generation);
        }
        let Some(deal) = self.deal.take() else { return };
        let meets_at = self.meeting_point(&deal.members);
        for (rank, &member) in (0..).map(Rank).zip(&*deal.members) {
            let form = Form {
                generation,
                rank,
                members: deal.members.clone(),
                meets_at: meets_at.clone(),
                start_step: Some(deal.start_step),
                source: deal.source,
                receivers: deal.receivers.clone(),
                resume_from: deal.resume.as_ref().map(|r| r.key.clone()),
                checkpoint_only: self.draining || self.pausing,
            };
            self.emit(RunEffect::Send { member, order: Order::Form(form) });
        }
        self.enter(Some(now), Phase::Forming(generation));
    }

    pub(super) fn all_ready(&mut self, now: Now) {
        let Phase::Forming(generation) = self.phase else { return };
        if self.members.ready() == self.members.active().len() {
            self.pace.begin(now);
            self.enter(None, Phase::Training(generation));
        }
    }

    /// The generation is over: everybody in it must leave.
    pub(super) fn give_up(&mut self, now: Now, failure: String) {
        let told = match self.phase {
            Phase::Claiming(generation) => {
                // Nobody has heard of it: all are out already.
                for member in self.active() {
                    self.out_of(member);
                }
                generation
            }
            Phase::Forming(generation) | Phase::Training(generation) => generation,
            Phase::Reforming(generation) => return self.abort_once(generation, &failure),
            Phase::Gathering | Phase::Done(_) => return,
        };
        self.deal = None;
        self.expect_none();
        self.abort(told, &failure);
        self.failure = failure;
        self.enter(Some(now), Phase::Reforming(told));
        self.lose_the_away(now);
    }

    /// One more leaves a generation that is over. Whoever is in it has heard that, unless it has moved on to another meanwhile:
    /// ten thousand that leave must not be told ten thousand times each.
    fn abort_once(&mut self, generation: Generation, cause: &str) {
        if self.aborted < Some(self.highest(generation)) {
            self.abort(generation, cause);
        }
    }

    fn abort(&mut self, generation: Generation, cause: &str) {
        // Its ranks may be in a prepared one already.
        let generation = self.highest(generation);
        self.aborted = Some(generation);
        for member in self.engaged() {
            self.emit(RunEffect::Send { member, order: Order::Abort { generation, cause: cause.into() } });
        }
    }

    /// A member is in no generation, without having said so.
    pub(super) fn out_of(&mut self, member: MemberId) {
        self.members.change(member, |m| m.duty = Duty::Waiting);
    }

    /// Once everybody is out of the old generation, the next one is formed, or members are awaited.
    pub(super) fn all_out(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Reforming(_)) || self.members.engaged() > 0 {
            return;
        }
        self.close_handover();
        if self.is_held_back() {
            return self.await_members(now);
        }
        self.flush_steps();
        // Those who leave help to save what would go with them: they checkpoint, or hand over to those who stay.
        let enough = self.members.candidates() >= self.enough();
        if self.leavers_hold_the_most() || (!enough && self.unsaved(self.furthest_waiting())) {
            return self.form(now, &self.waiting());
        }
        self.let_leavers_go();
        if enough && self.inherited {
            // The rest was parked as those that are here were, looks for a coordinator as often, and may hold a step more.
            self.parked_until = Some(now + self.config.ladder[Rung::ParkedWindow]);
            self.enter(Some(now), Phase::Gathering);
            return self.gathered(now);
        }
        if enough {
            return self.form(now, &self.candidates());
        }
        self.await_members(now);
    }

    fn let_leavers_go(&mut self) {
        for leaver in self.members.leaving().iter().copied().collect::<Vec<_>>() {
            self.depart(leaver);
        }
    }

    /// Whether steps would go with those who leave that nobody else holds and no checkpoint has.
    fn leavers_hold_the_most(&self) -> bool {
        let (held, told) = (self.furthest_waiting(), self.steps.first_untold());
        held > self.members.furthest_candidate(told) && self.unsaved(held)
    }

    /// The furthest step that anybody would run next who waits.
    fn furthest_waiting(&self) -> Option<Step> {
        self.members.furthest_waiting(self.steps.first_untold())
    }

    fn unsaved(&self, held: Option<Step>) -> bool {
        held.is_some_and(|step| step.0 > 0 && self.checkpoint.as_ref().is_none_or(|c| c.step < step))
    }

    fn await_members(&mut self, now: Now) {
        let (have, need) = (self.members.candidates(), self.config.min_workers);
        let word = if self.pausing { "paused" } else { "waiting" };
        let saved = self.checkpoint.as_ref().map_or(String::new(), |c| format!(", checkpointed at step {}", c.step));
        self.message = format!("{word}: {have} of at least {need} workers are left{saved}; {}", self.failure);
        let since = (!self.members.is_empty()).then_some(now);
        self.enter(since, Phase::Gathering);
        if self.members.furthest().is_none() {
            // Nobody holds state any more: the next generation starts from the newest checkpoint.
            self.start_step = self.checkpoint.as_ref().map_or(Step(0), |c| c.step);
        }
        if self.members.is_empty() && self.draining {
            self.finish(Outcome::Fault, format!("the last worker was lost in the drain: {}", self.failure));
        }
    }

    /// When the generation that trains counts as hanging. Who stays away, or has nothing left to do, does not hang.
    pub(super) fn stalls_at(&self) -> Option<Now> {
        if !self.members.away().is_empty() || self.members.finished() > 0 {
            return None;
        }
        self.pace.stalls_at(&self.config.ladder)
    }

    /// How long the members of a generation that is over have to report out of it. It covers a step, for a worker cannot
    /// leave in the midst of its forward.
    pub(super) fn reform_grace(&self) -> Duration {
        self.config.ladder.measured(Rung::ReformGrace, self.pace.median_step())
    }

    /// When the generation that trains is ended for those that wait.
    pub(super) fn joiners_due(&self) -> Option<Now> {
        self.joiners_since.filter(|_| !self.asked && self.is_settled()).map(|since| since + self.config.join_batch)
    }

    /// What members want of a generation that trains: to leave it, to join it, to end the run.
    pub(super) fn wishes(&mut self, now: Now) {
        let Phase::Training(generation) = self.phase else { return };
        let room = self.has_room();
        // Those that have finished already, or are about to, need no boundary.
        let ending = self.members.finished() > 0;
        self.joiners_since =
            (room && self.members.any_unexpected() && !ending).then(|| self.joiners_since.unwrap_or(now));
        let leaves = self.members.any_active_leaves();
        // To whom those who leave can leave their weights.
        let heirs = self.members.any_active_stays();
        let checkpoint = self.draining || (leaves && (!heirs || self.members.staying() < self.enough()));
        if ending || self.asked {
            return;
        }
        if checkpoint {
            self.call_off();
            self.asked = true;
            self.pausing |= !self.draining;
            for member in self.active() {
                self.emit(RunEffect::Send { member, order: Order::Yield { generation } });
            }
            return;
        }
        let due = self.joiners_due().is_some_and(|due| now >= due);
        if due || self.members.any_expected_leaves() {
            // Others are to be in it than those that it was prepared for.
            self.call_off();
        }
        if (leaves || due) && self.next.is_none() && self.is_settled() {
            self.prepare();
        }
    }
}

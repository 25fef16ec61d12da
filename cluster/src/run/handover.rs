//! How a generation goes over into the next one without anybody else. It happens when nobody was lost: somebody waits to
//! join, or wants to leave.
//!
//! The next generation is *prepared*: its number and members are recorded; those that join it hear first, and say that they
//! hold the order; then the ranks that train hear. With the gather of each step they tell each other what they hold, and the
//! step after which all hold the same is their last in the old generation ([`super::agreed`]). So a coordinator that dies at
//! any moment leaves behind ranks that train on, or ranks that all know where to go.
//!
//! The run hears of it afterwards, from each rank: until all have told (or are lost), the old generation's last steps may yet
//! be reported, and the records of the new one wait behind them.

use super::deal::Roster;
use super::event::{Now, RunEffect};
use super::machine::{Duty, Member, Phase, Run};
use super::messages::{Form, Left, MeetingPoint, Order, Prepared, StepReport, Switched};
use crate::commit::PartEntry;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::ledger::{Record, StateSource};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far the newest prepared generation has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Its record is on the way to the store.
    Nobody,
    /// Those that join; these hold their order.
    Joiners(BTreeSet<MemberId>),
    /// The ranks that train, too.
    Ranks,
}

/// The prepared generation that the ranks are to go over into.
#[derive(Debug, Clone)]
pub(super) struct Next {
    pub(super) generation: Generation,
    pub(super) told: Told,
    /// Of its members.
    ranks: BTreeMap<MemberId, Rank>,
    stayers: u32,
    /// The ranks of those that join.
    receivers: Arc<[Rank]>,
}

impl Next {
    pub(super) fn new(generation: Generation, roster: &Roster, told: Told) -> Self {
        let receivers = roster.joiners().map(|(_, rank)| rank).collect();
        Self { generation, told, ranks: roster.ranks().collect(), stayers: roster.stayers, receivers }
    }

    fn joins(&self, member: MemberId) -> bool {
        self.ranks.get(&member).is_some_and(|rank| rank.0 >= self.stayers)
    }
}

/// A generation whose ranks are going over.
#[derive(Debug)]
pub(super) struct Handover {
    generation: Generation,
    world: u32,
    /// Those who have not told yet that they are out of it.
    ranks: BTreeMap<MemberId, Rank>,
    /// Members of the one that they go over into.
    members: Arc<[MemberId]>,
    start_step: Step,
    /// Checkpoints that are whole, and wait for the records of what is in them.
    whole: Vec<(Step, Vec<PartEntry>)>,
    /// Of the state there, as the first one told it.
    digest: Option<u64>,
}

impl Run {
    /// The next number that no generation has had.
    pub(super) fn number(&mut self) -> Generation {
        let number = self.next_number;
        self.next_number = number.next();
        number
    }

    /// The highest number that anybody may have heard of.
    pub(super) fn highest(&self, known: Generation) -> Generation {
        self.prepared.keys().next_back().copied().map_or(known, |prepared| prepared.max(known))
    }

    /// Whether the ranks may be asked for a change: they are all in one generation, and whoever held the order of one that is
    /// not to be has given it back.
    pub(super) fn is_settled(&self) -> bool {
        let next = self.next.as_ref().map(|next| next.generation);
        self.handover.is_none() && self.members.holds_only(next)
    }

    /// The members of the generation that is prepared.
    pub(super) fn next_roster(&self) -> Option<&Roster> {
        self.prepared.get(&self.next.as_ref()?.generation)
    }

    /// Ranks that the next generation has room for beside those that are in it, or in this one.
    pub(super) fn has_room(&self) -> bool {
        let members = self.next_roster().map_or(self.world as usize, |roster| roster.members.len());
        members < self.world_max() as usize
    }

    /// This generation is the one that is prepared.
    pub(super) fn expect(&mut self, next: Next) {
        for &member in next.ranks.keys() {
            self.members.change(member, |m| m.expected = true);
        }
        self.next = Some(next);
    }

    /// No generation is.
    pub(super) fn expect_none(&mut self) -> Option<Next> {
        let next = self.next.take()?;
        for &member in next.ranks.keys() {
            self.members.change(member, |m| m.expected = false);
        }
        Some(next)
    }

    /// Prepares a generation of those who stay and those who can join.
    pub(super) fn prepare(&mut self) {
        let stayers = self.members.those(|m| m.is_active() && m.leaving.is_none());
        let roster = Roster::new(&stayers, &self.members.those(Member::is_candidate), self.world_max());
        let generation = self.number();
        let (members, stayers) = (roster.members.to_vec(), roster.stayers);
        self.emit(RunEffect::Ledger(Record::Prepared { generation, members, stayers }));
        self.expect(Next::new(generation, &roster, Told::Nobody));
        self.prepared.insert(generation, roster);
        self.joiners_since = None;
        self.emit(RunEffect::Claim { generation });
    }

    /// The record of a prepared generation is in the store: those who join it may hear of it.
    pub(super) fn prepared_is_claimed(&mut self, generation: Generation) {
        let Some(next) = self.next.as_mut().filter(|next| next.generation == generation) else { return };
        let Some(roster) = self.prepared.get(&generation).cloned() else { return };
        next.told = Told::Joiners(BTreeSet::new());
        let receivers = next.receivers.clone();
        for (member, rank) in roster.joiners() {
            let form = self.prepared_form(generation, (&roster, &receivers), rank);
            self.members.change(member, |m| m.duty = Duty::Holding(generation));
            self.emit(RunEffect::Send { member, order: Order::Form(form) });
        }
        self.tell_ranks();
    }

    /// A member that is to join holds its order; whether it was expected to.
    pub(super) fn holds(&mut self, member: MemberId, generation: Generation) -> bool {
        let next = self.next.as_mut().filter(|next| next.generation == generation && next.joins(member));
        let Some(Next { told, .. }) = next else { return false };
        if let Told::Joiners(holding) = told {
            holding.insert(member);
        }
        self.members.change(member, |m| m.duty = Duty::Holding(generation));
        self.tell_ranks();
        true
    }

    /// The ranks hear once all who join hold their order.
    fn tell_ranks(&mut self) {
        let Some(Next { told: Told::Joiners(holding), receivers, .. }) = &self.next else { return };
        if holding.len() < receivers.len() {
            return;
        }
        if let Some(next) = &mut self.next {
            next.told = Told::Ranks;
        }
        for member in self.active() {
            self.tell_rank(member);
        }
    }

    /// Tells a rank what it is to hold, if the ranks are told by now.
    pub(super) fn tell_rank(&mut self, member: MemberId) {
        let (Some(next), Some(from)) = (&self.next, self.generation) else { return };
        let (generation, rank) = (next.generation, next.ranks.get(&member).copied());
        let Some(roster) = self.prepared.get(&generation).filter(|_| next.told == Told::Ranks) else { return };
        let form = rank.map(|rank| self.prepared_form(generation, (roster, &next.receivers), rank));
        let order = Order::Prepare(Prepared { from, generation, form });
        self.emit(RunEffect::Send { member, order });
    }

    fn prepared_form(&self, generation: Generation, next: (&Roster, &Arc<[Rank]>), rank: Rank) -> Form {
        let (roster, receivers) = next;
        Form {
            generation,
            rank,
            members: roster.members.clone(),
            meets_at: self.meeting_point(&roster.members),
            start_step: None,
            source: Some(Rank(0)),
            receivers: receivers.clone(),
            resume_from: None,
            checkpoint_only: false,
        }
    }

    /// Where a generation of these members meets.
    pub(super) fn meeting_point(&self, members: &[MemberId]) -> MeetingPoint {
        let host = members.first().and_then(|&host| self.members.get(host));
        host.map(|m| m.join.meets_at.clone()).unwrap_or_default()
    }

    /// The prepared generation is not to be: somebody in it is gone, or something else is wanted. Ranks that have agreed on
    /// it already will say so.
    pub(super) fn call_off(&mut self) {
        let Some(Next { generation, told, .. }) = self.expect_none() else { return };
        self.dismiss(|held| held == generation, generation);
        if told == Told::Ranks {
            for member in self.active() {
                self.emit(RunEffect::Send { member, order: Order::Withdraw { generation } });
            }
        }
    }

    /// Tells those that hold the order of a generation that it, and all up to `through`, are not to be.
    pub(super) fn dismiss(&mut self, which: impl Fn(Generation) -> bool, through: Generation) {
        let holds = |m: &Member| matches!(m.duty, Duty::Holding(held) if which(held));
        for member in self.members.those(holds) {
            let order = Order::Abort { generation: through, cause: "it is not to be".into() };
            self.emit(RunEffect::Send { member, order });
        }
    }

    /// Whether somebody has not told yet that it is out of the generation before.
    pub(super) fn is_handing_over(&self, member: MemberId) -> bool {
        self.handover.as_ref().is_some_and(|h| h.ranks.contains_key(&member))
    }

    /// The rank of `member` in `generation`, and how many there are: the one that stands, or the one that it goes over from.
    pub(super) fn seat(&self, member: MemberId, generation: Generation) -> Option<(Rank, u32)> {
        if self.generation == Some(generation) {
            return Some((self.members.get(member)?.rank()?, self.world));
        }
        let before = self.handover.as_ref().filter(|h| h.generation == generation)?;
        before.ranks.get(&member).map(|&rank| (rank, before.world))
    }

    /// A rank is in the next generation.
    pub(super) fn switched(&mut self, now: Now, member: MemberId, told: Switched) {
        let Switched { generation, start_step, digest } = told;
        if self.generation != Some(generation) && !self.begin_handover(now, generation, start_step) {
            // It heard of a generation that is over.
            let order = Order::Abort { generation, cause: "another generation stands".into() };
            return self.emit(RunEffect::Send { member, order });
        }
        let name = self.members.change(member, |m| {
            if digest.is_some() && m.is_active() {
                m.next_step = m.next_step.max(Some(start_step));
            }
            m.join.name.clone()
        });
        let Some(name) = name else { return };
        let odd = self.handover.as_mut().is_some_and(|h| {
            h.digest = h.digest.or(digest);
            digest.is_some() && h.digest != digest
        });
        self.is_out(member);
        if odd {
            self.give_up(now, format!("{name} brings other weights than the ranks before it"));
        }
    }

    /// A rank that has no part in the next generation is out of the old one, in order.
    pub(super) fn left_at_boundary(&mut self, now: Now, member: MemberId, left: &Left, next: Generation) {
        let first = self.generation == Some(left.generation);
        let known = !first || left.next_step.is_some_and(|step| self.begin_handover(now, next, step));
        self.members.change(member, |m| {
            m.next_step = left.next_step;
            m.digest = left.digest;
            m.duty = Duty::Waiting;
        });
        self.is_out(member);
        if !known {
            self.give_up(now, format!("a rank left it for generation {next}, which was never prepared"));
        }
    }

    /// The ranks have gone over into `generation`; false if it is none that they could have.
    fn begin_handover(&mut self, now: Now, generation: Generation, start_step: Step) -> bool {
        let (Some(from), Some(roster)) = (self.generation, self.prepared.get(&generation).cloned()) else {
            return false;
        };
        let ranks = self.members.iter().filter_map(|(id, m)| Some((id, m.rank()?))).collect();
        let members = roster.members.clone();
        self.handover = Some(Handover {
            generation: from,
            world: self.world,
            ranks,
            members,
            start_step,
            whole: Vec::new(),
            digest: None,
        });
        self.begin_generation(generation, &roster.members, start_step);
        self.fruitless += 1;
        self.steps.hold(start_step);
        let mut whole = true;
        let in_next: BTreeMap<_, _> = roster.ranks().collect();
        self.members.change_all(|id, m| {
            let holds = m.duty == Duty::Holding(generation);
            match in_next.get(&id) {
                Some(&rank) if m.is_active() || holds => m.duty = Duty::Active { rank, ready: false, finished: false },
                Some(_) => whole = false,
                None if m.is_active() => m.duty = Duty::Waiting,
                None => {}
            }
        });
        whole &= roster.members.iter().all(|&m| self.members.contains(m));
        self.dismiss(|held| held != generation, self.highest(generation));
        self.expect_none();
        self.prepared.clear();
        match self.phase {
            Phase::Training(_) => {
                self.enter(Some(now), Phase::Forming(generation));
                if !whole {
                    self.give_up(now, "a member of it was gone before it began".into());
                }
            }
            // It was given up in the meantime.
            Phase::Reforming(_) => self.enter(Some(now), Phase::Reforming(generation)),
            // Everybody was lost, and comes back with what it did.
            Phase::Gathering => {}
            Phase::Claiming(_) | Phase::Forming(_) | Phase::Done(_) => unreachable!("nothing is prepared in these"),
        }
        true
    }

    /// A member has told that it is out of the generation before, or will not any more.
    pub(super) fn is_out(&mut self, member: MemberId) {
        if let Some(handover) = &mut self.handover {
            handover.ranks.remove(&member);
            self.all_told();
        }
    }

    /// Whether records wait for somebody who tells of the generation before.
    pub(super) fn is_held_back(&self) -> bool {
        self.handover.is_some()
    }

    fn all_told(&mut self) {
        if self.handover.as_ref().is_some_and(|h| h.ranks.is_empty()) {
            self.close_handover();
        }
    }

    /// Somebody who was lost owes a step of the generation before; whether that is one.
    pub(super) fn owed_before(&mut self, step: StepReport) -> bool {
        let before = self.handover.as_ref().filter(|h| h.generation == step.generation).map(|h| h.world);
        let Some(world) = before else { return false };
        self.steps.owed(world, step);
        self.all_told();
        self.gathered_steps();
        true
    }

    /// Nobody else is expected to report a step of the generation before: its records are closed, and those of the new one
    /// follow. While one of its steps is told by nobody, they wait for somebody who comes back.
    pub(super) fn close_handover(&mut self) {
        if self.steps.lacks_one() {
            return;
        }
        let (Some(handover), Some(generation)) = (self.handover.take(), self.generation) else { return };
        for done in self.steps.before_held() {
            self.record_step(done);
        }
        let Handover { members, start_step, whole, .. } = handover;
        let source = StateSource::Member(members[0]);
        self.emit(RunEffect::Ledger(Record::Formed { generation, start_step, members: members.to_vec(), source }));
        for done in self.steps.release() {
            self.record_step(done);
        }
        for (step, parts) in whole {
            self.emit(RunEffect::StoreManifest { generation, step, parts });
        }
    }

    /// A checkpoint of the generation that stands is whole.
    pub(super) fn whole(&mut self, generation: Generation, step: Step, parts: Vec<PartEntry>) {
        match &mut self.handover {
            Some(handover) => handover.whole.push((step, parts)),
            None => self.emit(RunEffect::StoreManifest { generation, step, parts }),
        }
    }

    /// Whoever has not told by now will not be heard any more. If a step is missing, what was done after it has no place in
    /// the ledger.
    pub(super) fn end_handover(&mut self) {
        self.close_handover();
        if let (Some(handover), Some(generation)) = (self.handover.take(), self.generation) {
            for (step, _) in handover.whole {
                self.commits.answered(step, generation);
            }
        }
    }

    /// A step of the generation before.
    pub(super) fn committed_before(&mut self, now: Now, member: MemberId, seat: (Rank, u32), step: StepReport) {
        let Some(m) = self.members.get(member) else { return };
        let expected = m.next_step.unwrap_or(step.step);
        if step.step != expected {
            return;
        }
        self.members.change(member, |m| m.next_step = Some(expected.next()));
        if self.steps.is_news(step.step) {
            self.pace.stepped(now);
        }
        for done in self.steps.report(seat.0, seat.1, step) {
            self.record_step(done);
        }
    }
}

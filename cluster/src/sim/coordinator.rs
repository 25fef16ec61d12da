//! A coordinator's process: it reads the run from the store, leads it with the real machine, and performs one effect
//! after the other; between any two of them it may die.

use super::clock::Dice;
use super::net::{Message, SessionId, Side};
use super::setup::{DATASET, RUN};
use super::store::{CLOSED, Put, Store};
use super::world::{CoordinatorId, ToCoordinator, What, World};
use crate::ids::MemberId;
use crate::lead::{Lead, LeadEffect, LeadEvent};
use crate::run::{self, Join, LossCause, Now, Outcome, Phase, Report, Welcome};
use crate::sessions::{Seat, Sessions, process_ended};
use crate::spec::Rung;
use std::collections::BTreeMap;
use std::time::Duration;

/// Pause before another attempt at something that the store refused.
pub(super) const AGAIN: Duration = Duration::from_millis(500);
/// Orders to stop have left the machine by then.
const FAREWELL: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) lead: Option<Box<Lead>>,
    /// When its machine's clock began.
    pub(super) zero: Now,
    pub(super) leads: bool,
    pub(super) leader: u64,
    pub(super) sessions: Sessions<SessionId>,
    /// As each session was opened.
    pub(super) seats: BTreeMap<SessionId, Seat>,
    /// When a member was last heard; `None`: its session has ended since.
    heard: BTreeMap<MemberId, Option<Now>>,
    /// It dies after so many more effects.
    pub(super) fuse: Option<u64>,
    /// It dies instead of handing out one more order of a generation.
    pub(super) orders_left: Option<u64>,
    pub(super) frozen_until: Now,
    pub(super) tick_at: Option<Now>,
    pub(super) dice: Dice,
}

impl Coordinator {
    fn new(seed: u64, id: CoordinatorId) -> Self {
        let (seats, heard) = Default::default();
        Self {
            lead: None,
            zero: Now::ZERO,
            leads: false,
            leader: 0,
            sessions: Sessions::new(0, MemberId(0)),
            seats,
            heard,
            fuse: None,
            orders_left: None,
            frozen_until: Now::ZERO,
            tick_at: None,
            dice: Dice::new(seed, &[5, id.0]),
        }
    }
}

impl World {
    pub(super) fn start_coordinator(&mut self) {
        self.born.0 += 1;
        let id = CoordinatorId(self.born.0);
        self.log(|| format!("{id} starts"));
        let mut coordinator = Coordinator::new(self.setup.seed, id);
        let at = self.now + coordinator.dice.ms(50..=1500);
        self.coordinators.insert(id, coordinator);
        self.queue.push(at, What::Coordinator(id, ToCoordinator::ReadsLedger));
    }

    /// A coordinator's process ends; who had a session with it hears of that.
    pub(super) fn end_coordinator(&mut self, id: CoordinatorId, why: &str) {
        if self.coordinators.remove(&id).is_none() {
            return;
        }
        self.log(|| format!("{id} ends: {why}"));
        for session in self.net.those(|s| s.coordinator == id) {
            self.hang_up(session, Side::Coordinator);
        }
        self.is_anybody_leading();
        let again = self.now + self.dice.ms(200..=15_000);
        self.queue.push(again, What::StartCoordinator);
    }

    pub(super) fn happens_to_coordinator(&mut self, id: CoordinatorId, event: ToCoordinator) {
        match event {
            ToCoordinator::ReadsLedger => self.read_ledger(id),
            ToCoordinator::ReadsManifests(records) => {
                let manifests = self.store.manifests();
                let at = self.now + self.store.latency(self.now);
                self.queue.push(at, What::Coordinator(id, ToCoordinator::Opens(records, manifests)));
            }
            ToCoordinator::Opens(records, manifests) => self.open(id, &records, &manifests),
            ToCoordinator::Answered(request, answer) => self.lead(id, LeadEvent::Answered(request, answer)),
            ToCoordinator::Tick(at) => self.tick(id, at),
            ToCoordinator::Said(session, report) => self.said(id, session, report),
            ToCoordinator::Ended(session) => self.session_ended(id, session),
            ToCoordinator::ChildEnded { host, pid } => self.child_ended(id, &host, pid),
            ToCoordinator::Announces => self.announce(id),
            ToCoordinator::Concludes(outcome) => self.conclude(id, outcome),
            ToCoordinator::Goes => self.end_coordinator(id, "all is done"),
        }
    }

    /// Something happens to the machine.
    pub(super) fn lead(&mut self, id: CoordinatorId, event: LeadEvent) {
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        let Some(lead) = &mut c.lead else { return };
        let before = lead.run().phase();
        let line = (self.traced && !matches!(event, LeadEvent::Tick | LeadEvent::Answered(..)))
            .then(|| format!("{id} <- {event:?}"));
        let effects = lead.handle(self.now - c.zero, event);
        let (after, world) = (lead.run().phase(), lead.run().world());
        let broken = lead.run().violations().keys().next().copied();
        if let Some(line) = line {
            self.log(|| line);
        }
        if let Some(name) = broken {
            self.accuse(name, || format!("{id}: an invariant of the run"));
        }
        if before != after {
            self.log(|| format!("{id}: {after:?}"));
            self.walk(phase_word(after) << 8 | u64::from(world));
        }
        self.perform(id, effects);
        self.wind(id);
    }

    /// Sees to it that the machine's deadline is kept.
    pub(super) fn wind(&mut self, id: CoordinatorId) {
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        let Some(deadline) = c.lead.as_ref().and_then(|l| l.deadline()) else { return };
        let at = (c.zero + deadline).max(self.now + Duration::from_millis(1));
        if c.tick_at.is_none_or(|tick| at < tick) {
            c.tick_at = Some(at);
            self.queue.push(at, What::Coordinator(id, ToCoordinator::Tick(at)));
        }
    }

    fn tick(&mut self, id: CoordinatorId, at: Now) {
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        if c.tick_at != Some(at) {
            return;
        }
        c.tick_at = None;
        let (zero, now) = (c.zero, self.now);
        self.lead(id, LeadEvent::Tick);
        // A deadline that has come and stays would make the shell spin.
        let after = self.coordinators.get(&id).and_then(|c| c.lead.as_ref()?.deadline());
        if after.is_some_and(|deadline| zero + deadline <= at) {
            let stands = self.stands();
            self.accuse("spins", || format!("{id} asks for {after:?} at {:?}: {stands}", now - zero));
        }
    }

    pub(super) fn perform(&mut self, id: CoordinatorId, effects: Vec<LeadEffect>) {
        for effect in effects {
            let Some(c) = self.coordinators.get_mut(&id) else { return };
            if let Some(fuse) = &mut c.fuse {
                if *fuse == 0 {
                    return self.end_coordinator(id, "killed between two effects");
                }
                *fuse -= 1;
            }
            match effect {
                LeadEffect::Run(effect) => self.perform_run(id, effect),
                LeadEffect::Ask(request, ask) => self.ask(id, request, ask),
                LeadEffect::Lead => {
                    c.leads = true;
                    self.led();
                    self.log(|| format!("{id} leads"));
                    self.announce(id);
                }
                LeadEffect::Sweep => {}
                LeadEffect::Depose if !c.leads => {
                    c.lead = None;
                    let at = self.now + AGAIN;
                    self.queue.push(at, What::Coordinator(id, ToCoordinator::ReadsLedger));
                }
                LeadEffect::Depose => return self.end_coordinator(id, "deposed"),
                LeadEffect::Break { message } => return self.end_coordinator(id, &message),
            }
        }
    }

    fn perform_run(&mut self, id: CoordinatorId, effect: run::RunEffect) {
        let interval = self.setup.ladder[Rung::HeartbeatInterval];
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        match effect {
            run::RunEffect::Welcome { member } => {
                let welcome = Welcome {
                    member,
                    leader: c.leader,
                    run: RUN.into(),
                    spec_toml: String::new(),
                    spec_digest: String::new(),
                    dataset_digest: DATASET.into(),
                    heartbeat_ms: interval.as_millis() as u64,
                };
                self.order(id, member, run::Order::Welcome(welcome));
            }
            run::RunEffect::Send { member, order } => self.order(id, member, order),
            run::RunEffect::Close { member } => self.close_session(id, member),
            run::RunEffect::Refuse { member, refusal } => {
                self.log(|| format!("{id}: member {member} is refused: {refusal:?}"));
                self.fired.refuse(&refusal);
                if refusal.ends_session() {
                    self.close_session(id, member);
                }
            }
            run::RunEffect::Announce(run::Notice::Loss { member, cause, .. }) => self.judge_loss(id, member, &cause),
            run::RunEffect::Announce(run::Notice::Left { .. }) => self.walk(99),
            run::RunEffect::Announce(_) => {}
            run::RunEffect::Finish { outcome, message } => {
                self.log(|| format!("{id}: the run is over: {outcome:?} {message}"));
                if outcome != Outcome::Done {
                    self.accuse("not_done", || format!("{outcome:?}: {message}"));
                }
                self.conclude(id, outcome);
            }
            run::RunEffect::Ledger(_) | run::RunEffect::Claim { .. } | run::RunEffect::StoreManifest { .. } => {
                unreachable!("the lead keeps these to itself")
            }
        }
    }

    fn order(&mut self, id: CoordinatorId, member: MemberId, order: run::Order) {
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        if let (Some(left), run::Order::Form(_) | run::Order::Prepare(_)) = (&mut c.orders_left, &order) {
            if *left == 0 {
                return self.end_coordinator(id, "killed between two orders");
            }
            *left -= 1;
        }
        let Some(&session) = c.sessions.way(member) else { return };
        self.transmit(session, Side::Coordinator, Message::Order(order));
    }

    fn close_session(&mut self, id: CoordinatorId, member: MemberId) {
        if let Some(session) = self.coordinators.get_mut(&id).and_then(|c| c.sessions.close(member)) {
            self.hang_up(session, Side::Coordinator);
        }
    }

    fn said(&mut self, id: CoordinatorId, session: SessionId, report: Report) {
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        let Some(lead) = c.lead.as_ref().filter(|_| c.leads) else { return };
        if let Report::Join(join) = report {
            return self.joined(id, session, join);
        }
        let report = self.habits.report(lead.run().generation(), report);
        let Some(&seat) = c.seats.get(&session) else { return };
        let Some(event) = c.sessions.said(seat, report) else { return };
        c.heard.insert(seat.member, Some(self.now));
        self.lead(id, LeadEvent::Run(event));
    }

    fn joined(&mut self, id: CoordinatorId, session: SessionId, join: Join) {
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        let Some(lead) = &c.lead else { return };
        let seated = c.sessions.open(lead.run(), &join, session);
        let member = seated.seat.member;
        c.heard.insert(member, Some(self.now));
        c.seats.insert(session, seated.seat);
        self.lead(id, LeadEvent::Run(run::RunEvent::Joined { member, join }));
        if let Some(replaced) = seated.replaced {
            self.hang_up(replaced, Side::Coordinator);
            if self.habits.replaced_session_counts() {
                let how = "its session was replaced".into();
                self.lead(id, LeadEvent::Run(run::RunEvent::Disconnected { member, how }));
            }
        }
    }

    fn session_ended(&mut self, id: CoordinatorId, session: SessionId) {
        let Some(c) = self.coordinators.get_mut(&id) else { return };
        let Some(seat) = c.seats.remove(&session) else { return };
        let Some(event) = c.sessions.broke(seat, "reset".into()) else { return };
        c.heard.insert(seat.member, None);
        self.lead(id, LeadEvent::Run(event));
    }

    fn child_ended(&mut self, id: CoordinatorId, host: &str, pid: u32) {
        let Some(lead) = self.coordinators.get(&id).and_then(|c| c.lead.as_ref()) else { return };
        for event in process_ended(lead.run(), host, pid, "signal 9") {
            self.lead(id, LeadEvent::Run(event));
        }
    }

    /// A loss must have a reason that the coordinator could see.
    fn judge_loss(&mut self, id: CoordinatorId, member: MemberId, cause: &LossCause) {
        let Some(c) = self.coordinators.get(&id) else { return };
        let heard = c.heard.get(&member).copied().flatten();
        let silent = self.now - heard.unwrap_or_default();
        let (word, holds) = match cause {
            LossCause::StreamClosed { .. } => (1, heard.is_none()),
            LossCause::HeartbeatMissed { .. } => (2, silent >= self.setup.ladder[Rung::HeartbeatTimeout]),
            LossCause::Exited { .. } => (3, true),
            LossCause::SilentAfterFailure { .. } => (4, true),
            LossCause::Fault { .. } => (5, true),
        };
        self.walk(100 + word);
        if !holds {
            self.accuse("lost_without_reason", || format!("{id} lost member {member}: {cause}"));
        }
    }

    /// Writes where this leader is to be found.
    fn announce(&mut self, id: CoordinatorId) {
        let Some(c) = self.coordinators.get(&id) else { return };
        let (key, body) = (Store::leader_key(c.leader), id.0.to_string().into_bytes());
        if self.store.is_down(self.now) {
            let again = self.now + AGAIN;
            return self.queue.push(again, What::Coordinator(id, ToCoordinator::Announces));
        }
        let at = self.now + self.store.latency(self.now);
        self.queue.push(at, What::Put(Put { by: id, key, body, answer: None }));
    }

    /// Writes that the run is over, and goes.
    pub(super) fn conclude(&mut self, id: CoordinatorId, outcome: Outcome) {
        if self.store.is_down(self.now) {
            let again = self.now + AGAIN;
            return self.queue.push(again, What::Coordinator(id, ToCoordinator::Concludes(outcome)));
        }
        let at = self.now + self.store.latency(self.now);
        let body = format!("{outcome:?}").into_bytes();
        self.queue.push(at, What::Put(Put { by: id, key: CLOSED.into(), body, answer: None }));
        self.queue.push(at + FAREWELL, What::Coordinator(id, ToCoordinator::Goes));
    }
}

fn phase_word(phase: Phase) -> u64 {
    match phase {
        Phase::Gathering => 1,
        Phase::Claiming(_) => 2,
        Phase::Forming(_) => 3,
        Phase::Training(_) => 4,
        Phase::Reforming(_) => 5,
        Phase::Done(_) => 6,
    }
}

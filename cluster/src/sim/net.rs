//! Sessions between workers and coordinators: first in, first out in each direction, as TCP has it. A session may break
//! with what is under way, its ends may notice that at different times, and machines may be cut off from each other.

use super::clock::Dice;
use super::world::{CoordinatorId, ToCoordinator, ToWorker, What, WorkerId, World};
use crate::run::{Now, Order, Report};
use crate::spec::Rung;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// An end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Worker,
    Coordinator,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Worker => Self::Coordinator,
            Self::Coordinator => Self::Worker,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u64);

/// What travels.
#[derive(Debug)]
pub(super) enum Message {
    Report(Report),
    Order(Order),
    /// No more will come.
    End,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) worker: WorkerId,
    pub(super) coordinator: CoordinatorId,
    open: [bool; 2],
    last: [Now; 2],
    inbox: [VecDeque<Message>; 2],
    cut: bool,
}

impl Session {
    pub(super) fn is_open(&self, side: Side) -> bool {
        self.open[side as usize]
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) sessions: BTreeMap<SessionId, Session>,
    opened: u64,
    pub(super) dice: Dice,
    /// Workers that reach no coordinator until then.
    pub(super) lonely: BTreeMap<WorkerId, Now>,
    /// Coordinators that no worker reaches until then.
    pub(super) hidden: BTreeMap<CoordinatorId, Now>,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        let (sessions, lonely, hidden) = Default::default();
        Self { sessions, opened: 0, dice: Dice::new(seed, &[3]), lonely, hidden }
    }

    pub(super) fn reaches(&self, now: Now, worker: WorkerId, coordinator: CoordinatorId) -> bool {
        self.lonely.get(&worker).is_none_or(|&until| now >= until)
            && self.hidden.get(&coordinator).is_none_or(|&until| now >= until)
    }

    pub(super) fn open(&mut self, worker: WorkerId, coordinator: CoordinatorId) -> SessionId {
        self.opened += 1;
        let id = SessionId(self.opened);
        let (open, last, inbox) = ([true; 2], [Now::ZERO; 2], Default::default());
        self.sessions.insert(id, Session { worker, coordinator, open, last, inbox, cut: false });
        id
    }

    /// Open sessions that `is` true of.
    pub(super) fn those(&self, is: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, s)| is(s)).map(|(&id, _)| id).collect()
    }
}

impl World {
    pub(super) fn transmit(&mut self, id: SessionId, from: Side, message: Message) {
        let latency = self.net.dice.ms(1..=40);
        let Some(session) = self.net.sessions.get_mut(&id) else { return };
        if !session.is_open(from) || session.cut {
            return;
        }
        let to = from.other();
        let at = (self.now + latency).max(session.last[to as usize]);
        session.last[to as usize] = at;
        session.inbox[to as usize].push_back(message);
        self.queue.push(at, What::Arrive(id, to));
    }

    /// `side` ends the session; what it has said before still arrives.
    pub(super) fn hang_up(&mut self, id: SessionId, side: Side) {
        self.transmit(id, side, Message::End);
        self.close(id, side);
    }

    fn close(&mut self, id: SessionId, side: Side) {
        if let Some(session) = self.net.sessions.get_mut(&id) {
            session.open[side as usize] = false;
            if session.open == [false; 2] {
                self.net.sessions.remove(&id);
            }
        }
    }

    /// The session breaks, with what is under way. One end notices soon; if it is `half` the other does so only when
    /// its keep-alive runs out.
    pub(super) fn cut(&mut self, id: SessionId, half: bool) {
        let Some(session) = self.net.sessions.get_mut(&id) else { return };
        if std::mem::replace(&mut session.cut, true) {
            return;
        }
        self.log(|| format!("net: session {} is cut, half {half}", id.0));
        let first = if self.net.dice.percent(50) { Side::Worker } else { Side::Coordinator };
        let soon = self.now + self.net.dice.ms(0..=400);
        let later = if half { self.keepalive() } else { self.net.dice.ms(0..=400) };
        self.queue.push(soon, What::Notice(id, first));
        self.queue.push(self.now + later, What::Notice(id, first.other()));
    }

    /// When an end notices that the other is gone without a word: within a question and its answer's time, or later, for
    /// the ends that workers hold are asked at a pace of their own.
    fn keepalive(&mut self) -> Duration {
        let ladder = &self.setup.ladder;
        let noticed = ladder[Rung::KeepaliveInterval] + ladder[Rung::KeepaliveTimeout];
        let ms = noticed.as_millis() as u64;
        self.net.dice.ms(ms * 2 / 5..=ms * 4)
    }

    /// The next message of a session arrives, unless its receiver stands still.
    pub(super) fn arrive(&mut self, id: SessionId, to: Side) {
        let Some(session) = self.net.sessions.get_mut(&id) else { return };
        if session.cut || !session.is_open(to) {
            return;
        }
        let (worker, coordinator) = (session.worker, session.coordinator);
        if let Some(thaw) = self.thaws(to, worker, coordinator) {
            return self.queue.push(thaw, What::Arrive(id, to));
        }
        let Some(session) = self.net.sessions.get_mut(&id) else { return };
        let Some(message) = session.inbox[to as usize].pop_front() else { return };
        match message {
            Message::Report(report) => self.happens_to_coordinator(coordinator, ToCoordinator::Said(id, report)),
            Message::Order(order) => self.happens_to_worker(worker, ToWorker::Ordered(id, order)),
            Message::End => self.ended(id, to),
        }
    }

    fn thaws(&self, to: Side, worker: WorkerId, coordinator: CoordinatorId) -> Option<Now> {
        let until = match to {
            Side::Worker => self.workers.get(&worker).map(|w| w.frozen_until),
            Side::Coordinator => self.coordinators.get(&coordinator).map(|c| c.frozen_until),
        };
        until.filter(|&until| until > self.now)
    }

    /// One end notices that the session is no more.
    pub(super) fn ended(&mut self, id: SessionId, side: Side) {
        let Some(session) = self.net.sessions.get(&id).filter(|s| s.is_open(side)) else { return };
        let (worker, coordinator) = (session.worker, session.coordinator);
        if let Some(thaw) = self.thaws(side, worker, coordinator) {
            return self.queue.push(thaw, What::Notice(id, side));
        }
        self.close(id, side);
        match side {
            Side::Worker => self.happens_to_worker(worker, ToWorker::Ended(id)),
            Side::Coordinator => self.happens_to_coordinator(coordinator, ToCoordinator::Ended(id)),
        }
    }
}

//! A worker's process: the real control machine, and a model of the trainer beside it.

use super::clock::Dice;
use super::net::{Message, SessionId, Side};
use super::store::CLOSED;
use super::trainer::Trainer;
use super::world::{ToCoordinator, ToWorker, What, WorkerId, World};
use crate::peer::{Peer, PeerEffect, PeerEvent, Word};
use crate::run::{Join, Now, Outcome, Report};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) peer: Peer,
    pub(super) trainer: Trainer,
    pub(super) link: Option<SessionId>,
    /// Attempts to find the leader.
    attempt: u64,
    /// A child of the first coordinator's machine: its end is seen there.
    local: bool,
    pub(super) frozen_until: Now,
    tick_at: Option<Now>,
    pub(super) dice: Dice,
}

impl World {
    pub(super) fn start_worker(&mut self) {
        self.born.1 += 1;
        let id = WorkerId(self.born.1);
        let mut dice = Dice::new(self.setup.seed, &[6, id.0]);
        let wakes = self.now + dice.ms(200..=3000);
        let warm = wakes + dice.ms(100..=4000);
        let (host, pid) = id.process();
        let join = Join { name: id.to_string(), host, pid, ..Join::default() };
        let worker = Worker {
            peer: Peer::new(wakes, join, self.setup.ladder),
            trainer: Trainer::default(),
            link: None,
            attempt: 0,
            local: dice.percent(50),
            frozen_until: Now::ZERO,
            tick_at: None,
            dice,
        };
        self.log(|| format!("{id} starts"));
        self.workers.insert(id, worker);
        self.queue.push(wakes, What::Worker(id, ToWorker::Wakes));
        self.queue.push(warm, What::Worker(id, ToWorker::Warm));
    }

    /// A worker's process is killed, alone or with its `host`, whose sockets then end without a word.
    pub(super) fn kill_worker(&mut self, id: WorkerId, host: bool) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let local = worker.local && !host;
        self.log(|| format!("{id} is killed, with its host {host}"));
        if host {
            for session in self.net.those(|s| s.worker == id) {
                self.cut(session, true);
            }
        }
        self.end_worker(id);
        let parent = self.coordinators.iter().find(|(_, c)| c.leads).map(|(&id, _)| id);
        if let Some(parent) = parent.filter(|_| local) {
            let seen = self.now + self.dice.ms(1..=300);
            let (host, pid) = id.process();
            self.queue.push(seen, What::Coordinator(parent, ToCoordinator::ChildEnded { host, pid }));
        }
    }

    /// A worker's process ends.
    fn end_worker(&mut self, id: WorkerId) {
        let Some(mut gone) = self.workers.remove(&id) else { return };
        self.disturb(self.now);
        for session in self.net.those(|s| s.worker == id) {
            self.hang_up(session, Side::Worker);
        }
        if let Some(stint) = gone.trainer.stint.take() {
            self.rank_gone(stint.form.generation, true);
        }
    }

    pub(super) fn happens_to_worker(&mut self, id: WorkerId, event: ToWorker) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match event {
            ToWorker::Wakes => self.peer(id, PeerEvent::Tick),
            ToWorker::Tick(at) if worker.tick_at == Some(at) => {
                worker.tick_at = None;
                self.peer(id, PeerEvent::Tick);
            }
            ToWorker::Tick(_) => {}
            ToWorker::Warm => self.peer(id, PeerEvent::Trainer(Word::Warm)),
            ToWorker::Finds(attempt) if attempt == worker.attempt => self.find_leader(id),
            ToWorker::Finds(_) => {}
            ToWorker::Ordered(session, order) if worker.link == Some(session) => {
                self.log(|| format!("{id} <- {order:?}"));
                self.peer(id, PeerEvent::Ordered(order));
            }
            ToWorker::Ordered(..) => {}
            ToWorker::Ended(session) if worker.link == Some(session) => {
                worker.link = None;
                self.log(|| format!("{id} has lost its coordinator"));
                self.peer(id, PeerEvent::Broken { how: "reset".into() });
            }
            ToWorker::Ended(_) => {}
            ToWorker::Term => {
                self.log(|| format!("{id} is to leave"));
                self.peer(id, PeerEvent::Leave { reason: "SIGTERM".into() });
            }
            ToWorker::Activity(token) => self.activity_over(id, token),
            ToWorker::Collective(token) => self.collective_over(id, token, false),
            ToWorker::TimedOut(token) => self.collective_over(id, token, true),
            ToWorker::Uploaded(upload) => self.uploaded(id, upload),
        }
    }

    /// Something happens to the control machine.
    pub(super) fn peer(&mut self, id: WorkerId, event: PeerEvent) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for effect in worker.peer.handle(now, event) {
            self.perform_peer(id, effect);
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(deadline) = worker.peer.deadline() else { return };
        let at = deadline.max(now + Duration::from_millis(1));
        if worker.tick_at.is_none_or(|tick| at < tick) {
            worker.tick_at = Some(at);
            self.queue.push(at, What::Worker(id, ToWorker::Tick(at)));
        }
    }

    fn perform_peer(&mut self, id: WorkerId, effect: PeerEffect) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match effect {
            PeerEffect::Connect => {
                worker.attempt += 1;
                let attempt = worker.attempt;
                let at = self.now + worker.dice.ms(2..=150);
                self.queue.push(at, What::Worker(id, ToWorker::Finds(attempt)));
            }
            PeerEffect::Send(report) => {
                let Some(session) = worker.link else { return };
                if self.traced && !matches!(report, Report::Heartbeat { .. }) {
                    self.log(|| format!("{id} -> {report:?}"));
                }
                self.transmit(session, Side::Worker, Message::Report(report));
            }
            PeerEffect::HangUp => {
                if let Some(session) = worker.link.take() {
                    self.hang_up(session, Side::Worker);
                }
            }
            PeerEffect::Train(form) => self.take_order(id, form),
            PeerEffect::Abort(generation) => self.abort_trainer(id, generation),
            PeerEffect::Prepare(prepared) => worker.trainer.hold(prepared),
            PeerEffect::Withdraw(generation) => worker.trainer.withdraw(generation),
            PeerEffect::Yield(generation) => worker.trainer.asked(generation),
            PeerEffect::Exit { outcome, message } => {
                self.log(|| format!("{id} exits: {outcome:?} {message}"));
                self.end_worker(id);
            }
        }
    }

    /// The newest leader is looked up in the store, and called.
    fn find_leader(&mut self, id: WorkerId) {
        let broken = |how: &str| PeerEvent::Broken { how: how.into() };
        if self.store.is_down(self.now) {
            return self.peer(id, broken("the store does not say who leads"));
        }
        if self.store.objects.contains_key(CLOSED) {
            return self.peer(id, PeerEvent::RunClosed { outcome: Outcome::Done });
        }
        let leader = self.store.newest_leader();
        let Some(leader) = leader.filter(|leader| self.coordinators.contains_key(leader)) else {
            return self.peer(id, broken("nobody listens"));
        };
        if !self.net.reaches(self.now, id, leader) {
            return self.peer(id, broken("no route"));
        }
        let session = self.net.open(id, leader);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.link = Some(session);
        }
        self.peer(id, PeerEvent::Connected);
    }
}

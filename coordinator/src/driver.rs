//! One task owns the coordinator's machine: it feeds events in, in the order in which they arrived, and performs what
//! comes out. Nothing here waits for a worker or for the store.

use crate::fault::Faults;
use crate::metrics;
use crate::orders::{self, Orders, Unsent};
use crate::stage::{Stage, StageSetter};
use crate::store;
use crate::view::{Frame, Tally};
use pixfleet_checkpoint::Folder;
use pixfleet_cluster::MemberId;
use pixfleet_cluster::create::Answer;
use pixfleet_cluster::lead::{Lead, LeadEffect, LeadEvent, Opening, Request};
use pixfleet_cluster::run::{self, Join, LossCause, Notice, Order, Outcome, Refusal, Report, Welcome};
use pixfleet_cluster::sessions::{Seat, Seated, Sessions, process_ended};
use pixfleet_cluster::spec::Rung;
use pixfleet_proto::{FleetError, pb};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Inputs that are taken in one after the other without a look at anything else.
const INPUTS_AT_ONCE: usize = 256;

/// What the service hands to the driver.
#[derive(Debug)]
pub(crate) enum Input {
    /// A session was opened.
    Join { join: Join, orders: Orders, seat: oneshot::Sender<Seat> },
    /// A member said something.
    Report { seat: Seat, report: Report },
    /// A session ended.
    Closed { seat: Seat, how: String },
    /// The parent of a worker saw it exit.
    Exited { host: String, pid: u32, how: String },
    /// Anything else that happened.
    Event(run::RunEvent),
    /// Somebody asks.
    Status(oneshot::Sender<pb::StatusReply>),
    /// Somebody asks for the metrics.
    Metrics(oneshot::Sender<String>),
}

/// What a driver is made from, besides the machine.
pub(crate) struct Parts {
    pub(crate) location: Folder,
    /// Checkpoints to keep.
    pub(crate) keep: usize,
    pub(crate) frame: Frame,
    pub(crate) welcome: Welcome,
    pub(crate) first_member: MemberId,
    /// Where workers reach this coordinator.
    pub(crate) address: String,
    pub(crate) notices: broadcast::Sender<pb::Notice>,
    pub(crate) stage: Arc<StageSetter>,
    pub(crate) faults: Faults,
}

/// How a driver ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeadEnd {
    /// The run is over, and all its records are in the store.
    Over(Outcome, String),
    /// Another coordinator leads the run. `led`: this one did before.
    Deposed { led: bool },
    /// The store does not take the ledger.
    Broken(String),
}

pub(crate) struct LeadDriver {
    parts: Parts,
    lead: Lead,
    started: Instant,
    led: bool,
    sessions: Sessions<Orders>,
    tally: Tally,
    asks: JoinSet<(Request, Answer)>,
    chores: JoinSet<()>,
    faults: Faults,
    /// What was last told of the run's state.
    said: Option<pb::StateNotice>,
    end: Option<LeadEnd>,
}

impl LeadDriver {
    /// A coordinator that begins by writing the record that makes it the leader.
    pub(crate) fn new(parts: Parts, opening: Opening) -> Self {
        let (lead, first) = Lead::open(Duration::ZERO, opening);
        let faults = parts.faults.clone();
        let mut driver = Self {
            sessions: Sessions::new(parts.welcome.leader, parts.first_member),
            parts,
            lead,
            started: Instant::now(),
            led: false,
            tally: Tally::default(),
            asks: JoinSet::new(),
            chores: JoinSet::new(),
            faults,
            said: None,
            end: None,
        };
        for effect in first {
            driver.perform(effect);
        }
        driver
    }

    /// Drives the run to its end; the sessions that are left end on return.
    pub(crate) async fn run(mut self, inputs: &mut mpsc::Receiver<Input>) -> LeadEnd {
        loop {
            if let Some(end) = self.end.take() {
                if matches!(end, LeadEnd::Over(..)) {
                    self.finish_chores().await;
                }
                return end;
            }
            let deadline = self.lead.deadline().map(|at| self.started + at);
            let tick = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(answered) = self.asks.join_next() => match answered {
                    Ok((request, answer)) => self.event(LeadEvent::Answered(request, answer)),
                    Err(error) => self.end = Some(LeadEnd::Broken(format!("a task that asks the store ended: {error}"))),
                },
                Some(_) = self.chores.join_next() => {}
                Some(input) = inputs.recv() => {
                    self.take(input);
                    self.take_more(inputs);
                }
                () = tick => self.event(LeadEvent::Tick),
            }
        }
    }

    async fn finish_chores(&mut self) {
        let all = async { while self.chores.join_next().await.is_some() {} };
        if tokio::time::timeout(self.lead.run().ladder()[Rung::LastChores], all).await.is_err() {
            tracing::warn!("old checkpoints are not swept to the end: the store is too slow");
        }
    }

    /// What has come in the meantime: the deadline is looked at once for all of it.
    fn take_more(&mut self, inputs: &mut mpsc::Receiver<Input>) {
        for _ in 1..INPUTS_AT_ONCE {
            // What is left when it ends is for whoever takes the lead next.
            let Some(input) = self.end.is_none().then(|| inputs.try_recv().ok()).flatten() else { return };
            self.take(input);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Join { join, orders, seat } => self.join(join, orders, seat),
            Input::Report { seat, report } => {
                if let Some(event) = self.sessions.said(seat, report) {
                    self.run_event(event);
                }
            }
            Input::Closed { seat, how } => {
                if let Some(event) = self.sessions.broke(seat, how) {
                    self.run_event(event);
                }
            }
            Input::Exited { host, pid, how } => {
                for event in process_ended(self.lead.run(), &host, pid, &how) {
                    self.run_event(event);
                }
            }
            Input::Event(event) => self.run_event(event),
            Input::Status(reply) => {
                // Whoever asked may have gone; so may they below.
                let _ = reply.send(self.status());
            }
            Input::Metrics(reply) => {
                let _ = reply.send(metrics::text(&self.status(), &self.tally, self.lead.run().violations()));
            }
        }
    }

    fn status(&self) -> pb::StatusReply {
        self.parts.frame.status(self.lead.run(), &self.tally, self.started.elapsed())
    }

    fn join(&mut self, join: Join, orders: Orders, seat: oneshot::Sender<Seat>) {
        // The session that this one replaces ends with its way.
        let Seated { seat: own, again, replaced: _ } = self.sessions.open(self.lead.run(), &join, orders);
        let member = own.member;
        tracing::info!(%member, again, name = join.name, pid = join.pid, "joined");
        // The session may have ended already; its end is the next input then.
        let _ = seat.send(own);
        self.run_event(run::RunEvent::Joined { member, join });
    }

    fn run_event(&mut self, event: run::RunEvent) {
        self.event(LeadEvent::Run(event));
    }

    fn event(&mut self, event: LeadEvent) {
        self.faults.event(matches!(event, LeadEvent::Answered(..)));
        // Effects may bring about further events (a session that takes no more orders); those come after.
        let mut events = VecDeque::new();
        let mut next = Some(event);
        while let Some(event) = next {
            for effect in self.lead.handle(self.started.elapsed(), event) {
                events.extend(self.perform(effect).map(LeadEvent::Run));
            }
            next = events.pop_front();
        }
    }

    fn perform(&mut self, effect: LeadEffect) -> Option<run::RunEvent> {
        match effect {
            LeadEffect::Run(effect) => return self.perform_run(effect),
            LeadEffect::Ask(request, ask) => {
                self.faults.asks(&ask);
                let location = self.parts.location.clone();
                self.asks.spawn(async move { (request, store::ask(location, ask).await) });
            }
            LeadEffect::Lead => {
                let leader = self.parts.welcome.leader;
                tracing::info!(leader, address = self.parts.address, "this coordinator leads the run");
                self.led = true;
                self.parts.stage.enter(Stage::Leading);
                let (location, address) = (self.parts.location.clone(), self.parts.address.clone());
                self.chores.spawn(store::announce(location, leader, address));
            }
            LeadEffect::Sweep => {
                self.chores.spawn(store::clean(self.parts.location.clone(), self.parts.keep));
            }
            LeadEffect::Depose => self.end = Some(LeadEnd::Deposed { led: self.led }),
            LeadEffect::Break { message } => self.end = Some(LeadEnd::Broken(message)),
        }
        None
    }

    fn perform_run(&mut self, effect: run::RunEffect) -> Option<run::RunEvent> {
        match effect {
            run::RunEffect::Welcome { member } => {
                let welcome = Welcome { member, ..self.parts.welcome.clone() };
                return self.send(member, Order::Welcome(welcome));
            }
            run::RunEffect::Send { member, order } => return self.send(member, order),
            run::RunEffect::Close { member } => drop(self.sessions.close(member)),
            run::RunEffect::Refuse { member, refusal } => self.refuse(member, refusal),
            run::RunEffect::Announce(notice) => self.announce(notice),
            run::RunEffect::Finish { outcome, message } => {
                tracing::info!(?outcome, message, "run over");
                self.end = Some(LeadEnd::Over(outcome, message));
            }
            run::RunEffect::Ledger(_) | run::RunEffect::Claim { .. } | run::RunEffect::StoreManifest { .. } => {
                unreachable!("the machine keeps these to itself: see LeadEffect::Run")
            }
        }
        None
    }

    /// Queues an order. A worker that does not read its orders is as good as gone.
    fn send(&mut self, member: MemberId, order: Order) -> Option<run::RunEvent> {
        self.faults.orders(&order);
        // To whom there is no session, it is not said.
        match orders::give(self.sessions.way(member)?, order) {
            Ok(()) => None,
            Err(Unsent::Full) => {
                let cause = LossCause::StreamClosed { how: "it does not read its orders".into() };
                Some(run::RunEvent::Lost { member, cause })
            }
            Err(Unsent::Closed) => {
                self.sessions.close(member);
                Some(run::RunEvent::Disconnected { member, how: "its session is closed".into() })
            }
        }
    }

    fn refuse(&mut self, member: MemberId, refusal: Refusal) {
        let members_max = u64::from(self.parts.frame.members_max);
        let ends = refusal.ends_session();
        let error = match refusal {
            Refusal::Over { outcome } => FleetError::RunOver { how: format!("{outcome:?}").to_lowercase() },
            Refusal::Full { members } => FleetError::RunFull { members, members_max },
            Refusal::Unknown => FleetError::UnknownMember { member },
            Refusal::StaleGeneration { got, current } => FleetError::StaleGeneration { got, current },
            Refusal::OutOfPlace => {
                let problem = "makes no sense where the run stands".into();
                FleetError::Malformed { field: "report".into(), problem }
            }
            Refusal::OutOfOrder { expected, got } => {
                let problem = format!("is {got}, expected {expected:?}");
                FleetError::Malformed { field: "next_step".into(), problem }
            }
        };
        if !ends {
            return tracing::debug!(%member, %error, "report refused");
        }
        tracing::info!(%member, %error, "member refused");
        if let Some(orders) = self.sessions.close(member) {
            orders::refuse(&orders, error);
        }
    }

    fn announce(&mut self, notice: Notice) {
        self.tally.count(&notice);
        let run = self.lead.run();
        match &notice {
            Notice::Loss { name, generation, cause, .. } => tracing::warn!(name, %generation, %cause, "member lost"),
            Notice::Left { name, reason, .. } => tracing::info!(name, reason, "member left"),
            Notice::Straggler { name, ratio, .. } => tracing::warn!(name, ratio, "member is slower than the others"),
            Notice::Diverged { name, step, .. } => {
                tracing::error!(name, next_step = %step, "member holds other weights than the others");
            }
            Notice::CheckpointFailed { step, message } => tracing::warn!(%step, message, "checkpoint given up"),
            Notice::State | Notice::Step { .. } | Notice::Checkpoint { .. } => {}
        }
        let Some(notice) = self.parts.frame.notice(run, notice) else { return };
        if let Some(pb::notice::Kind::Step(step)) = &notice.kind {
            self.tally.last = Some(step.clone());
        }
        if let Some(pb::notice::Kind::State(state)) = &notice.kind {
            // Ten thousand members that come back one after the other change nothing that is said here.
            if self.said.as_ref() == Some(state) {
                return;
            }
            tracing::info!(state = state.state, generation = state.generation, world = state.world, "state");
            self.said = Some(state.clone());
        }
        // Nobody may be watching.
        let _ = self.parts.notices.send(notice);
    }
}

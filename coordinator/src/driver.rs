//! One task owns the run machine: it feeds events in, in the order in which they arrived, and performs what comes out.
//! Nothing here waits for a worker or for the store.

use crate::error::CoordinatorError;
use crate::ledger_writer::LedgerHandle;
use crate::manifests::Manifests;
use crate::rendezvous::Rendezvous;
use crate::view::Frame;
use pixfleet_cluster::MemberId;
use pixfleet_cluster::ledger::Record;
use pixfleet_cluster::run::{Effect, Event, Join, LossCause, Notice, Order, Outcome, Refusal, Report, Run, Welcome};
use pixfleet_proto::{FleetError, pb};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tonic::Status;

/// What the service hands to the driver.
#[derive(Debug)]
pub(crate) enum Input {
    /// A session was opened.
    Join { join: Join, orders: mpsc::Sender<Result<pb::Order, Status>>, member: oneshot::Sender<MemberId> },
    /// A member said something.
    Report { member: MemberId, report: Report },
    /// A session ended.
    Closed { member: MemberId, how: String },
    /// The parent of a worker saw it exit.
    Exited { host: String, pid: u32, how: String },
    /// Anything else that happened.
    Event(Event),
    /// Somebody asks.
    Status(oneshot::Sender<pb::StatusReply>),
}

/// What a driver is made from.
pub(crate) struct Parts {
    pub(crate) run: Run,
    pub(crate) frame: Frame,
    pub(crate) welcome: Welcome,
    pub(crate) first_member: MemberId,
    pub(crate) ledger: LedgerHandle,
    pub(crate) manifests: Manifests,
    pub(crate) rendezvous: Arc<Rendezvous>,
    pub(crate) notices: broadcast::Sender<pb::Notice>,
    pub(crate) inputs: mpsc::Receiver<Input>,
    /// Handed to tasks whose results come back as inputs.
    pub(crate) back: mpsc::Sender<Input>,
}

pub(crate) struct Driver {
    parts: Parts,
    started: Instant,
    next_member: MemberId,
    sessions: BTreeMap<MemberId, mpsc::Sender<Result<pb::Order, Status>>>,
    last: Option<pb::StepDone>,
    ended: Option<(Outcome, String)>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let next_member = parts.first_member;
        Self { parts, started: Instant::now(), next_member, sessions: BTreeMap::new(), last: None, ended: None }
    }

    /// Drives the run to its end; the sessions that are left are dropped on return.
    pub(crate) async fn run(mut self) -> (Outcome, String) {
        loop {
            if let Some(end) = self.ended.take() {
                return end;
            }
            let deadline = self.parts.run.deadline().map(|d| self.started + d);
            let input = match deadline {
                Some(at) => tokio::time::timeout_at(at, self.parts.inputs.recv())
                    .await
                    .unwrap_or_else(|_| Some(Input::Event(Event::Tick))),
                None => self.parts.inputs.recv().await,
            };
            // The driver holds a sender itself, so the queue never ends.
            let Some(input) = input else { return (Outcome::Fault, "the driver's queue closed".into()) };
            self.take(input);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Join { join, orders, member } => {
                let id = self.next_member;
                self.next_member = id.next();
                tracing::info!(member = %id, name = join.name, pid = join.pid, "joined");
                self.sessions.insert(id, orders);
                // The session may have ended already; its end is the next input then.
                let _ = member.send(id);
                self.event(Event::Joined { member: id, join });
            }
            Input::Report { member, report } => self.event(Event::Reported { member, report }),
            Input::Closed { member, how } => {
                self.sessions.remove(&member);
                self.event(Event::Lost { member, cause: LossCause::StreamClosed { how } });
            }
            Input::Exited { host, pid, how } => {
                let same = |h: &str| host.is_empty() || h == host;
                let found = self.parts.run.members().find(|m| m.join.pid == pid && same(&m.join.host));
                if let Some(m) = found {
                    self.event(Event::Lost { member: m.member, cause: LossCause::Exited { how } });
                }
                self.event(Event::WillNotJoin);
            }
            Input::Event(event) => self.event(event),
            Input::Status(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.parts.frame.status(&self.parts.run, self.last.as_ref()));
            }
        }
    }

    fn event(&mut self, event: Event) {
        // Effects may bring about further events (a session that takes no more orders); those come after.
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.parts.run.handle(self.started.elapsed(), event) {
                events.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Welcome { member } => {
                let welcome = Welcome { member, ..self.parts.welcome.clone() };
                return self.send(member, Order::Welcome(welcome));
            }
            Effect::Send { member, order } => return self.send(member, order),
            Effect::Close { member } => drop(self.sessions.remove(&member)),
            Effect::Refuse { member, refusal } => self.refuse(member, refusal),
            Effect::OpenRendezvous { generation } => self.parts.rendezvous.open(generation),
            Effect::CloseRendezvous => self.parts.rendezvous.close(),
            Effect::Ledger(record) => return self.ledger(record),
            Effect::StoreManifest { generation, step, parts } => {
                let (manifests, ledger) = (self.parts.manifests.clone(), self.parts.ledger.clone());
                let back = self.parts.back.clone();
                tokio::spawn(async move {
                    let event = manifests.commit(&ledger, (generation, step), parts).await;
                    let stored = matches!(event, Event::ManifestStored { .. });
                    // The driver is gone only when the run is over.
                    let _ = back.send(Input::Event(event)).await;
                    if stored {
                        manifests.sweep().await;
                    }
                });
            }
            Effect::Announce(notice) => self.announce(notice),
            Effect::Finish { outcome, message } => {
                tracing::info!(?outcome, message, "run over");
                self.ended = Some((outcome, message));
            }
        }
        None
    }

    /// Queues an order. A worker that does not read its orders is as good as gone.
    fn send(&mut self, member: MemberId, order: Order) -> Option<Event> {
        let session = self.sessions.get(&member)?;
        let how = match session.try_send(Ok(order.into())) {
            Ok(()) => return None,
            Err(mpsc::error::TrySendError::Full(_)) => "it does not read its orders",
            Err(mpsc::error::TrySendError::Closed(_)) => "its session is closed",
        };
        Some(Event::Lost { member, cause: LossCause::StreamClosed { how: how.into() } })
    }

    fn refuse(&mut self, member: MemberId, refusal: Refusal) {
        let members_max = u64::from(self.parts.frame.members_max);
        let (error, ends) = match refusal {
            Refusal::Over { outcome } => (FleetError::RunOver { how: format!("{outcome:?}").to_lowercase() }, true),
            Refusal::Full { members } => (FleetError::RunFull { members, members_max }, true),
            Refusal::StaleGeneration { got, current } => (FleetError::StaleGeneration { got, current }, false),
            Refusal::Unknown => (FleetError::UnknownMember { member }, false),
            Refusal::OutOfOrder { expected, got } => {
                let problem = format!("is {got}, expected {expected:?}");
                (FleetError::Malformed { field: "next_step".into(), problem }, false)
            }
        };
        if !ends {
            // Ordinary around a re-forming: a report that was under way when its generation ended.
            return tracing::debug!(%member, %error, "report refused");
        }
        tracing::info!(%member, %error, "member refused");
        if let Some(session) = self.sessions.remove(&member) {
            // Its queue is empty, for it was never sent anything; it may be gone.
            let _ = session.try_send(Err(error.into()));
        }
    }

    fn ledger(&mut self, record: Record) -> Option<Event> {
        let formed = matches!(record, Record::Formed { .. });
        if let Err(error) = self.parts.ledger.push(record) {
            return Some(Event::Stop { message: CoordinatorError::sentence(&error) });
        }
        if formed {
            self.parts.ledger.hurry();
        }
        None
    }

    fn announce(&mut self, notice: Notice) {
        match &notice {
            Notice::Loss { name, generation, cause, .. } => {
                tracing::warn!(name, %generation, %cause, "member lost");
            }
            Notice::CheckpointFailed { step, message } => {
                tracing::warn!(%step, message, "checkpoint given up");
            }
            Notice::State => tracing::info!(
                state = self.parts.run.state(),
                generation = %self.parts.run.generation().unwrap_or_default(),
                world = self.parts.run.world(),
                "state"
            ),
            Notice::Step { .. } | Notice::Checkpoint { .. } => {}
        }
        let Some(notice) = self.parts.frame.notice(&self.parts.run, notice) else { return };
        if let Some(pb::notice::Kind::Step(step)) = &notice.kind {
            self.last = Some(step.clone());
        }
        // Nobody may be watching.
        let _ = self.parts.notices.send(notice);
    }
}

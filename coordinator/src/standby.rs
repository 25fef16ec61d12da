//! The shell of [`Standby`]: reads the run's ledger and holds a wire to its leader, until it is time to lead or to end.

use crate::driver::Input;
use crate::error::CoordinatorError;
use crate::open::Opened;
use crate::stage::{Stage, StageSetter};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::run::{Outcome, RunEvent};
use pixfleet_cluster::spec::{Ladder, Rung};
use pixfleet_cluster::standby::{Standby, StandbyEffect, StandbyEvent};
use pixfleet_proto::{Keepalive, Patience, connect_watchful, pb};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A look into the ledger that takes longer has seen nothing.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Events of a wire that may wait.
const EVENTS_MAX: usize = 8;

/// Why it stands by no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stood {
    /// It is to lead.
    Lead,
    /// The leader has ended the run.
    Over(Outcome),
    /// It was told to end.
    Told,
}

/// A coordinator's life as one that stands by; it may lead in between.
#[derive(Debug)]
pub(crate) struct Follower {
    standby: Standby,
    keepalive: Keepalive,
    started: Instant,
    /// Where the leader is that it follows.
    address: String,
    wire: Option<AbortHandle>,
    events: mpsc::Sender<(u64, StandbyEvent)>,
    heard: mpsc::Receiver<(u64, StandbyEvent)>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Follower {
    pub(crate) fn new(ladder: &Ladder) -> Self {
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let interval = ladder[Rung::StandbyKeepalive];
        Self {
            standby: Standby::new(Duration::ZERO, ladder),
            keepalive: Keepalive { interval, timeout: interval * 2 },
            started: Instant::now(),
            address: String::new(),
            wire: None,
            events,
            heard,
        }
    }

    /// The leader that it follows, or would take over from.
    pub(crate) fn leader(&self) -> u64 {
        self.standby.leader()
    }

    /// Another coordinator leads.
    pub(crate) fn stand_aside(&mut self) {
        self.standby.stand_aside(self.started.elapsed());
    }

    /// Stands by until there is something else to do.
    ///
    /// # Errors
    /// What the run's ledger cannot be read for, but for a store that fails: that is tried again.
    pub(crate) async fn stand_by(
        &mut self,
        spec: &RunSpec,
        opened: &mut Opened,
        stage: &StageSetter,
        inputs: &mut mpsc::Receiver<Input>,
    ) -> Result<Stood, CoordinatorError> {
        let mut next = vec![StandbyEvent::Tick];
        loop {
            while let Some(event) = next.pop() {
                for effect in self.standby.handle(self.started.elapsed(), event) {
                    match effect {
                        StandbyEffect::Look => next.push(self.look(spec, opened, stage).await?),
                        StandbyEffect::Reach { leader } => self.reach(leader),
                        StandbyEffect::TakeOver => {
                            tracing::info!(leader = self.standby.leader(), "nobody leads the run, taking it over");
                            self.hang_up();
                            stage.enter(Stage::Opening);
                            return Ok(Stood::Lead);
                        }
                        StandbyEffect::Retire(outcome) => return Ok(Stood::Over(outcome)),
                    }
                }
            }
            let deadline = self.standby.deadline().map(|at| self.started + at);
            let tick = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // An older leader's wire says nothing any more.
                Some((leader, event)) = self.heard.recv() => {
                    next.extend((leader == self.standby.leader()).then_some(event));
                }
                // Callers are refused by the stage; whoever slipped through is told so when its input is dropped.
                Some(input) = inputs.recv() => if let Input::Event(RunEvent::Drain) = input {
                    return Ok(Stood::Told);
                },
                () = tick => next.push(StandbyEvent::Tick),
            }
        }
    }

    async fn look(
        &mut self,
        spec: &RunSpec,
        opened: &mut Opened,
        stage: &StageSetter,
    ) -> Result<StandbyEvent, CoordinatorError> {
        let looked = match tokio::time::timeout(LOOK_LIMIT, opened.follow(spec)).await {
            Ok(Ok(looked)) => looked,
            Ok(Err(error)) if error.class() != pixfleet_cluster::Class::Retry => return Err(error),
            Ok(Err(error)) => {
                tracing::warn!(error = error.sentence(), "the ledger cannot be followed");
                return Ok(StandbyEvent::Blind);
            }
            Err(_) => {
                tracing::warn!("the ledger cannot be followed: the store does not answer");
                return Ok(StandbyEvent::Blind);
            }
        };
        if looked.sighting.leader != self.standby.leader() {
            let (leader, address) = (looked.sighting.leader, looked.address.clone());
            tracing::info!(leader, address, "standing by");
            stage.enter(Stage::Standby { leader, address });
        }
        self.address = looked.address;
        Ok(StandbyEvent::Looked(looked.sighting))
    }

    fn reach(&mut self, leader: u64) {
        self.hang_up();
        let (address, keepalive, events) = (self.address.clone(), self.keepalive, self.events.clone());
        let task = tokio::spawn(async move {
            hold(&address, keepalive, leader, &events).await;
            // This coordinator may be about to end.
            let _ = events.send((leader, StandbyEvent::Unreached)).await;
        });
        self.wire = Some(task.abort_handle());
    }

    fn hang_up(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.abort();
        }
    }
}

/// Watches the leader at `address` for as long as it answers.
async fn hold(address: &str, keepalive: Keepalive, leader: u64, events: &mpsc::Sender<(u64, StandbyEvent)>) {
    let Ok(mut client) = connect_watchful(address, Patience(Duration::ZERO), keepalive).await else { return };
    let Ok(notices) = client.watch(pb::WatchRequest {}).await else { return };
    if events.send((leader, StandbyEvent::Reached)).await.is_err() {
        return;
    }
    let mut notices = notices.into_inner();
    while let Ok(Some(_)) = notices.message().await {}
}

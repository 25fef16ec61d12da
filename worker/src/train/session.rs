//! The control client: orders down, reports up, signs of life. It runs on the runtime, so no computation and no blocked
//! collective ever delays a heartbeat or an abort.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pixfleet_cluster::run::{Form, Order, Outcome, Report};
use pixfleet_cluster::{Generation, Step};
use pixfleet_collective::AbortHandle;
use pixfleet_proto::{FleetError, Session};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What the trainer is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Take this place in a new generation.
    Form(Form),
    /// That generation is over.
    Abort(Generation),
    /// The run is over.
    Stop(Stopped),
}

/// How the run ended for this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// How.
    pub(crate) outcome: Outcome,
    /// The first cause of a fault, else empty.
    pub(crate) message: String,
}

/// No state is held.
const NOTHING: u64 = u64::MAX;

/// What the session and the trainer tell each other without waiting.
#[derive(Debug)]
pub(crate) struct Switches {
    held: AtomicU64,
    drain: AtomicBool,
    /// One more than the highest generation that was aborted.
    over: AtomicU64,
    abort: Mutex<Option<(Generation, AbortHandle)>>,
}

impl Switches {
    pub(crate) fn new() -> Self {
        Self {
            held: AtomicU64::new(NOTHING),
            drain: AtomicBool::new(false),
            over: AtomicU64::new(0),
            abort: Mutex::new(None),
        }
    }

    /// The step that the held state would run next.
    pub(crate) fn set_held(&self, step: Option<Step>) {
        self.held.store(step.map_or(NOTHING, |s| s.0), Ordering::Relaxed);
    }

    fn held(&self) -> Option<Step> {
        Some(self.held.load(Ordering::Relaxed)).filter(|&s| s != NOTHING).map(Step)
    }

    /// Asks for the step in flight to be the last.
    pub(crate) fn raise_drain(&self) {
        self.drain.store(true, Ordering::Relaxed);
    }

    /// Whether this rank wants to drain.
    pub(crate) fn wants_drain(&self) -> bool {
        self.drain.load(Ordering::Relaxed)
    }

    /// Whether `generation` was aborted. A group of one has no connections whose end would tell it.
    pub(crate) fn is_over(&self, generation: Generation) -> bool {
        self.over.load(Ordering::SeqCst) > generation.0
    }

    /// Makes `generation` abortable from the session. An abort that came before is carried out now.
    pub(crate) fn arm(&self, generation: Generation, handle: AbortHandle) {
        *self.slot() = Some((generation, handle));
        if self.is_over(generation) {
            self.abort(generation);
        }
    }

    /// No generation is abortable.
    pub(crate) fn disarm(&self) {
        *self.slot() = None;
    }

    /// Ends `generation` and those before it.
    fn abort(&self, generation: Generation) {
        self.over.fetch_max(generation.0.saturating_add(1), Ordering::SeqCst);
        let armed = self.slot().clone();
        if let Some((_, handle)) = armed.filter(|(g, _)| *g <= generation) {
            handle.abort();
        }
    }

    /// A poisoned lock holds a whole value all the same: it is only ever replaced.
    fn slot(&self) -> std::sync::MutexGuard<'_, Option<(Generation, AbortHandle)>> {
        self.abort.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries orders to the trainer until the run is over for this worker. SIGTERM and SIGINT raise the drain flag.
///
/// # Errors
/// [`FleetError::Disconnected`] if the coordinator is gone or the trainer is.
pub(crate) async fn run(
    session: &mut Session,
    heartbeat: Duration,
    switches: Arc<Switches>,
    trainer: mpsc::Sender<Command>,
) -> Result<Stopped, FleetError> {
    let broken = |cause: &str| FleetError::Disconnected { cause: cause.into() };
    let no_signals = |e: std::io::Error| FleetError::Disconnected { cause: format!("no signal handlers: {e}") };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let reports = session.reports();
    let mut beat = tokio::time::interval(heartbeat);
    loop {
        let order = tokio::select! {
            order = session.next() => order?.ok_or_else(|| broken("the coordinator closed the session"))?,
            _ = beat.tick() => {
                reports.send(Report::Heartbeat { next_step: switches.held() }).await?;
                continue;
            }
            _ = terminate.recv() => { switches.raise_drain(); continue }
            _ = interrupt.recv() => { switches.raise_drain(); continue }
        };
        tracing::debug!(?order, "order");
        let command = match order {
            Order::Form(form) => Command::Form(form),
            Order::Abort { generation, cause } => {
                tracing::info!(%generation, cause, "generation aborted");
                switches.abort(generation);
                Command::Abort(generation)
            }
            Order::Drain => {
                switches.raise_drain();
                continue;
            }
            Order::Checkpointed { step, key, .. } => {
                tracing::info!(%step, key, "checkpoint committed");
                continue;
            }
            Order::Stop { outcome, message } => {
                let stopped = Stopped { outcome, message };
                // A trainer in the middle of a collective would not look at its orders.
                switches.abort(Generation(u64::MAX - 1));
                // It may have ended by itself: then there is nobody to tell.
                let _ = trainer.send(Command::Stop(stopped.clone())).await;
                return Ok(stopped);
            }
            Order::Welcome(_) => return Err(broken("a second welcome")),
        };
        trainer.send(command).await.map_err(|_| broken("the trainer is gone"))?;
    }
}

#[cfg(test)]
mod tests;

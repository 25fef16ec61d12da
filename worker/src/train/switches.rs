//! What the control side and the trainer tell each other without waiting: which generations are over, and what is asked
//! of the one that trains.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pixfleet_cluster::Generation;
use pixfleet_cluster::run::{Form, Outcome, Prepared};
use pixfleet_collective::AbortHandle;
use tokio::sync::watch;

/// What the trainer is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Take this place in a new generation.
    Form(Form),
    /// That generation is over.
    Abort(Generation),
    /// The run is over for this worker.
    Stop,
}

/// How the run ended for this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// How.
    pub(crate) outcome: Outcome,
    /// The first cause of a fault, else empty.
    pub(crate) message: String,
}

/// What a rank knows of the end of its generation, or all ranks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wish {
    /// To write a checkpoint and finish after the step in flight. It counts if any rank was asked.
    pub(crate) finish: bool,
    /// To go over into this prepared generation after it. It counts if all ranks hold the order.
    pub(crate) next: Option<Generation>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Switches {
    /// One more than the highest generation that is over.
    over: watch::Sender<u64>,
    /// The newest generation that was asked to finish.
    finish: Mutex<Option<Generation>>,
    /// The order of the next generation.
    prepared: Mutex<Option<Prepared>>,
    abort: Mutex<Option<(Generation, AbortHandle)>>,
}

impl Switches {
    pub(crate) fn new() -> Self {
        Self {
            over: watch::Sender::new(0),
            finish: Mutex::default(),
            prepared: Mutex::default(),
            abort: Mutex::new(None),
        }
    }

    /// Asks `generation` to finish.
    pub(crate) fn finish(&self, generation: Generation) {
        let mut newest = lock(&self.finish);
        *newest = (*newest).max(Some(generation));
    }

    /// Whether `generation` is asked to finish.
    pub(crate) fn finishes(&self, generation: Generation) -> bool {
        *lock(&self.finish) == Some(generation)
    }

    /// Holds the order of the next generation, in place of any other.
    pub(crate) fn hold(&self, prepared: Prepared) {
        *lock(&self.prepared) = Some(prepared);
    }

    /// Holds that of `generation` no more.
    pub(crate) fn withdraw(&self, generation: Generation) {
        lock(&self.prepared).take_if(|held| held.generation == generation);
    }

    /// The order of the generation that comes after `generation`, if it is held.
    pub(crate) fn held_in(&self, generation: Generation) -> Option<Prepared> {
        lock(&self.prepared).clone().filter(|held| held.from == generation)
    }

    /// Whether `generation` is over. A group of one has no connections whose end would tell it.
    pub(crate) fn is_over(&self, generation: Generation) -> bool {
        *self.over.borrow() > generation.0
    }

    /// Waits until `generation` is over.
    pub(crate) async fn until_over(&self, generation: Generation) {
        // The sender is `self`, so it cannot be gone.
        let _ = self.over.subscribe().wait_for(|over| *over > generation.0).await;
    }

    /// Makes `generation` abortable from the control side. An abort that came before is carried out now.
    pub(crate) fn arm(&self, generation: Generation, handle: AbortHandle) {
        *lock(&self.abort) = Some((generation, handle));
        if self.is_over(generation) {
            self.end(generation);
        }
    }

    /// No generation is abortable.
    pub(crate) fn disarm(&self) {
        *lock(&self.abort) = None;
    }

    /// Ends `generation` and those before it, whatever the trainer does in them.
    pub(crate) fn end(&self, generation: Generation) {
        self.over.send_modify(|over| *over = (*over).max(generation.0.saturating_add(1)));
        let armed = lock(&self.abort).clone();
        if let Some((_, handle)) = armed.filter(|(g, _)| *g <= generation) {
            handle.abort();
        }
    }

    /// Ends all generations, for good.
    pub(crate) fn end_all(&self) {
        self.end(Generation(u64::MAX - 1));
    }
}

/// What stands behind these locks is only ever replaced as a whole, so a poisoned one holds a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

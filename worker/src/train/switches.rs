//! What the control side and the trainer tell each other without waiting: which generations are over, and what is asked
//! of the one that trains.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pixfleet_cluster::Generation;
use pixfleet_cluster::run::{Form, Outcome};
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

/// What the ranks of a generation are asked to do after the step in flight. The highest wish of any rank counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Wish {
    /// To train on.
    #[default]
    Nothing,
    /// To leave the generation.
    Boundary,
    /// To write a checkpoint and finish.
    Checkpoint,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Switches {
    /// One more than the highest generation that is over.
    over: watch::Sender<u64>,
    /// Of the newest generation that anything was asked of.
    asked: Mutex<(Generation, Wish)>,
    abort: Mutex<Option<(Generation, AbortHandle)>>,
}

impl Switches {
    pub(crate) fn new() -> Self {
        Self { over: watch::Sender::new(0), asked: Mutex::default(), abort: Mutex::new(None) }
    }

    /// Asks this of `generation`, unless more is asked already.
    pub(crate) fn ask(&self, generation: Generation, asked: Wish) {
        let mut newest = lock(&self.asked);
        *newest = (*newest).max((generation, asked));
    }

    /// What is asked of `generation`.
    pub(crate) fn asked_of(&self, generation: Generation) -> Wish {
        let (newest, asked) = *lock(&self.asked);
        if newest == generation { asked } else { Wish::Nothing }
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

//! Ending a generation's operations from another thread.
//!
//! Invariant: an abort is final, and it works at any time: before the group is formed, while it is, and after. A handle
//! never keeps a group alive.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::live::Links;

/// Ends the operations of one group (one generation) from another thread.
#[derive(Debug, Clone, Default)]
pub struct AbortHandle {
    target: Arc<Mutex<Target>>,
}

#[derive(Debug, Default)]
enum Target {
    #[default]
    Nothing,
    /// Who waits for the group, and the group once its ranks have met.
    Forming(Sender<()>, Weak<Links>),
    Formed(Weak<Links>),
    Aborted,
}

impl AbortHandle {
    /// A handle for a group to be formed by [`Group::form`](crate::Group::form).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every operation of the group, blocked or yet to come, fail with
    /// [`CollectiveError::Aborted`](crate::CollectiveError::Aborted). Gloo: its connections are shut down, which peers
    /// see as a lost rank. NCCL: the communicators are aborted. Does nothing once the group is dropped. Waits for nobody.
    pub fn abort(&self) {
        let links = match std::mem::replace(&mut *self.lock(), Target::Aborted) {
            Target::Nothing | Target::Aborted => return,
            Target::Forming(waiting, links) => {
                // A receiver that is gone has its answer already.
                let _ = waiting.send(());
                links
            }
            Target::Formed(links) => links,
        };
        if let Some(links) = links.upgrade() {
            links.abort();
        }
    }

    /// From now an abort wakes `waiting`; false if it has come already.
    pub(crate) fn forming(&self, waiting: Sender<()>) -> bool {
        self.advance(Target::Forming(waiting, Weak::new()))
    }

    /// From now an abort also ends the group that `waiting` waits for; false if it has come already.
    pub(crate) fn joined(&self, waiting: Sender<()>, links: &Arc<Links>) -> bool {
        self.advance(Target::Forming(waiting, Arc::downgrade(links)))
    }

    /// From now an abort ends the group; false if it has come already.
    pub(crate) fn formed(&self, links: &Arc<Links>) -> bool {
        self.advance(Target::Formed(Arc::downgrade(links)))
    }

    fn advance(&self, next: Target) -> bool {
        let mut target = self.lock();
        let aborted = matches!(*target, Target::Aborted);
        if !aborted {
            *target = next;
        }
        !aborted
    }

    fn lock(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

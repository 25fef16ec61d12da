//! Texts that were longer than their tower's positions, told once an epoch: cutting is normal, not knowing of it is not.

use std::sync::{Mutex, PoisonError};

use pixfleet_shards::tokens::Cuts;

/// What this rank has cut in the epoch under way.
#[derive(Debug, Default)]
pub(crate) struct CutLog(Mutex<(u64, Cuts)>);

impl CutLog {
    /// Adds a batch's texts; those of an epoch that ended are told.
    pub(crate) fn add(&self, epoch: u64, cuts: &Cuts) {
        let ended = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = (kept.0 != epoch).then(|| std::mem::replace(&mut *kept, (epoch, Cuts::default())));
            kept.1.merge(cuts);
            ended
        };
        if let Some((epoch, cuts)) = ended {
            tell(epoch, &cuts);
        }
    }

    /// Tells of the epoch under way: no step follows.
    pub(crate) fn finish(&self) {
        let (epoch, cuts) = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tell(epoch, &cuts);
    }
}

fn tell(epoch: u64, cuts: &Cuts) {
    if !cuts.is_empty() {
        tracing::warn!(epoch, "{cuts}; `pixfleet shards verify --tokens` has the lengths of all texts");
    }
}

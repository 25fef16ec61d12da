//! Whoever could train without a coordinator does: as long as nobody leads, ranks that were training and that nothing has
//! happened to go on committing, whatever a coordinator was about when it fell silent.

use super::trainer::Activity;
use super::world::{What, WorkerId, World};
use crate::ids::{Generation, MemberId};
use crate::run::Now;
use std::time::Duration;

/// Longer than a step takes, and a change of generations with the step after it.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how long without a leader it is looked: the step that was in flight is over by then, and so is a change of generations.
const VIGIL: Duration = Duration::from_secs(8);

/// What the oracle knows of the time without a leader.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    /// Since when nobody leads, and who trained then.
    leaderless: Option<(Now, Vec<WorkerId>)>,
    /// When something last happened to a worker or to a group.
    disturbed: Now,
    committed: Now,
    /// Times that ranks were seen to have gone on.
    pub(super) kept: u64,
}

impl World {
    /// A worker was killed or stands still until then, or a group broke.
    pub(super) fn disturb(&mut self, until: Now) {
        let vigil = &mut self.oracle.vigil;
        vigil.disturbed = vigil.disturbed.max(until);
    }

    pub(super) fn note_commit(&mut self) {
        self.oracle.vigil.committed = self.now;
    }

    /// Somebody leads.
    pub(super) fn led(&mut self) {
        self.oracle.vigil.leaderless = None;
    }

    /// A coordinator is gone.
    pub(super) fn is_anybody_leading(&mut self) {
        if self.coordinators.values().any(|c| c.leads) || self.oracle.vigil.leaderless.is_some() {
            return;
        }
        self.oracle.vigil.leaderless = Some((self.now, self.who_trains()));
        self.queue.push(self.now + VIGIL, What::Vigil(self.now));
    }

    /// All ranks of the newest generation, if all of them train in it, or in one that it goes over into.
    fn who_trains(&self) -> Vec<WorkerId> {
        let Some((generation, members)) = self.oracle.newest() else { return Vec::new() };
        let of = |member: &MemberId| self.workers.iter().find(|(_, w)| w.peer.member() == Some(*member));
        let ranks: Vec<_> = members.iter().map_while(of).collect();
        let trains = |generation: Generation, w: &super::worker::Worker| {
            w.trainer.stint.as_ref().is_some_and(|stint| stint.form.generation >= generation && stint.trains())
        };
        let all = ranks.len() == members.len() && ranks.iter().all(|(_, w)| trains(generation, w));
        if all { ranks.into_iter().map(|(&id, _)| id).collect() } else { Vec::new() }
    }

    /// Looks again, if nobody has led since.
    pub(super) fn keep_vigil(&mut self, since: Now) {
        let Some((_, ranks)) = self.oracle.vigil.leaderless.take_if(|(from, _)| *from == since) else { return };
        let Vigil { disturbed, committed, .. } = self.oracle.vigil;
        let ends = |id: &WorkerId| {
            let Some(worker) = self.workers.get(id) else { return true };
            let finishing = worker.trainer.stint.as_ref().is_some_and(|stint| stint.ends());
            finishing || worker.trainer.next().is_some_and(|next| next.0 >= self.setup.steps)
        };
        if !ranks.is_empty() && disturbed + PATIENCE < since && !ranks.iter().any(ends) && !self.is_closed() {
            if committed + PATIENCE < self.now {
                let stands = self.stands();
                self.accuse("stands_still", || format!("nobody leads since {:.3} s: {stands}", since.as_secs_f64()));
            }
            self.oracle.vigil.kept += 1;
        }
        self.is_anybody_leading();
    }
}

impl super::trainer::Stint {
    /// In the midst of its steps.
    fn trains(&self) -> bool {
        match self.activity {
            Activity::Forward | Activity::Backward | Activity::Optimizing(_) => true,
            Activity::Waiting(op) => op.step().is_some(),
            Activity::Calling | Activity::Loading | Activity::Uploading | Activity::Finished => false,
        }
    }

    /// Has no more steps to do.
    fn ends(&self) -> bool {
        matches!(self.activity, Activity::Uploading | Activity::Finished)
    }
}

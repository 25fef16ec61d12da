//! A fault as it is written down, and what it cost by the workers' own record of committed steps. Pure.

use super::plan::StrikeKind;
use crate::steps::{self, Commit, firsts};
use serde::Serialize;
use std::collections::BTreeSet;

/// One fault.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Fault {
    /// Counted from 0.
    pub(super) number: usize,
    pub(super) kind: StrikeKind,
    /// The process that was hurt, or the one whose connections were.
    pub(super) target: String,
    pub(super) pid: Option<u32>,
    /// When, in nanoseconds since 1970.
    pub(super) at: u64,
    /// The newest generation that had committed a step, its members, and the newest step.
    pub(super) generation: u64,
    pub(super) world: usize,
    pub(super) step: u64,
    /// Faults that were not lifted or not healed yet.
    pub(super) overlaps: Vec<usize>,
    /// Whether it is known to have fired; absent: nobody knows yet.
    pub(super) fired: Option<bool>,
    /// By what that is known.
    pub(super) evidence: String,
    /// When the harness took it back, or replaced what it took away.
    pub(super) lifted: Option<u64>,
    /// When the next step was committed.
    pub(super) healed: Option<u64>,
    /// From the fault to the next committed step.
    pub(super) healed_s: Option<f64>,
    /// The longest time without a commit that touches it, up to the next fault.
    pub(super) pause_s: f64,
    /// Committed steps that were committed again, up to the next fault.
    pub(super) redone: usize,
}

impl Fault {
    /// One that has just been decided on; nothing is known of it yet, nor of the run.
    pub(super) fn new(number: usize, kind: StrikeKind, target: String, at: u64) -> Self {
        Self {
            number,
            kind,
            target,
            pid: None,
            at,
            generation: 0,
            world: 0,
            step: 0,
            overlaps: Vec::new(),
            fired: None,
            evidence: String::new(),
            lifted: None,
            healed: None,
            healed_s: None,
            pause_s: 0.0,
            redone: 0,
        }
    }

    /// It fired, and says by what that is known.
    pub(super) fn fired(&mut self, evidence: impl Into<String>) {
        self.fired = Some(true);
        self.evidence = evidence.into();
    }

    /// It is known not to have fired.
    pub(super) fn missed(&mut self, evidence: impl Into<String>) {
        self.fired = Some(false);
        self.evidence = evidence.into();
    }

    /// Whether its effect is still there.
    pub(super) fn lasts(&self) -> bool {
        self.lifted.is_none() || self.healed.is_none()
    }

    /// Looks whether the run has gone on: with a later generation where the fault ends the one it strikes, else with a
    /// step that nobody had committed in that generation.
    pub(super) fn heal(&mut self, commits: &[Commit]) {
        if self.healed.is_some() {
            return;
        }
        let later = |c: &&&Commit| c.at > self.at && (!self.kind.ends_generation() || c.generation > self.generation);
        let next = firsts(commits).iter().find(later).map(|c| c.at);
        self.healed = next;
        self.healed_s = next.map(|next| steps::seconds(self.at, next));
    }
}

/// Says of each fault what it cost; they are in the order of time, and `end` is the end of all.
pub(super) fn examine(faults: &mut [Fault], commits: &[Commit], end: u64) {
    let again = redone(commits);
    let ends: Vec<u64> = faults.iter().skip(1).map(|f| f.at).chain([end]).collect();
    for (fault, next) in faults.iter_mut().zip(ends) {
        fault.heal(commits);
        fault.pause_s = steps::longest_pause_s(commits, fault.at, fault.healed.unwrap_or(next).max(next));
        fault.redone = again.iter().filter(|&&at| (fault.at..next).contains(&at)).count();
    }
}

/// When steps were committed that an earlier generation had committed already.
fn redone(commits: &[Commit]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    firsts(commits).into_iter().filter(|c| !seen.insert(c.step)).map(|c| c.at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(at: u64, step: u64, generation: u64, worker: &str) -> Commit {
        Commit { at, step, generation, worker: worker.into() }
    }

    fn fault(kind: StrikeKind, at: u64, generation: u64) -> Fault {
        Fault { generation, world: 2, ..Fault::new(0, kind, "w0".into(), at) }
    }

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_kill_is_healed_by_the_next_generation_and_a_cut_by_the_next_step() {
        let commits = [
            commit(S, 0, 1, "w0"),
            commit(S + 5, 0, 1, "w1"),
            commit(2 * S, 1, 1, "w1"),
            commit(4 * S, 1, 2, "w1"),
            commit(5 * S, 2, 2, "w1"),
        ];
        let mut faults = [fault(StrikeKind::LinkCut, S + 2, 1), fault(StrikeKind::Kill, S + 10, 1)];
        examine(&mut faults, &commits, 6 * S);
        assert_eq!(faults[0].healed, Some(2 * S), "the same step by another worker is no news");
        assert_eq!(faults[1].healed, Some(4 * S));
        assert_eq!((faults[0].redone, faults[1].redone), (0, 1), "step 1 was committed by one of two");
        assert!((faults[1].pause_s - 2.0).abs() < 1e-6, "{}", faults[1].pause_s);
    }

    #[test]
    fn what_never_came_back_is_not_healed() {
        let mut faults = [fault(StrikeKind::Kill, 2 * S, 1)];
        examine(&mut faults, &[commit(S, 0, 1, "w0"), commit(3 * S, 1, 1, "w1")], 9 * S);
        assert_eq!((faults[0].healed, faults[0].healed_s), (None, None));
        assert!(faults[0].lasts());
    }
}

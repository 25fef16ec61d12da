//! How fast members are: when a generation hangs, and who holds the others up.

use super::event::{Now, STALL_FACTOR};
use super::messages::StepReport;
use crate::ids::MemberId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Steps that the median is taken over.
const REMEMBERED: usize = 33;
/// Weight of the newest step in a member's averages.
const NEWEST: f64 = 0.2;
/// A straggler's own time a step, against the median of the others.
const STRAGGLER_RATIO: f64 = 1.5;
/// Steps in a row that make a straggler.
const STRAGGLER_STEPS: u32 = 8;

/// A member's averages over its last steps, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Speed {
    /// A whole step.
    pub step_s: f64,
    /// Of it, waiting for samples.
    pub data_wait_s: f64,
    /// Of it, waiting in collectives.
    pub collective_wait_s: f64,
    /// It holds the others up.
    pub straggler: bool,
}

impl Speed {
    /// What it takes by itself: whoever is slow makes the others wait, not itself.
    fn own(&self) -> f64 {
        (self.step_s - self.collective_wait_s).max(0.0)
    }
}

#[derive(Debug, Default)]
struct Track {
    speed: Speed,
    steps: u32,
    slow: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Between committed steps, newest last.
    gaps: VecDeque<Duration>,
    progress: Option<Now>,
    tracks: BTreeMap<MemberId, Track>,
}

impl Pace {
    /// A generation begins to train: its first step may take its time.
    pub(super) fn begin(&mut self, now: Now) {
        self.progress = Some(now);
        self.tracks.clear();
    }

    /// A step that no rank had reported before is committed.
    pub(super) fn stepped(&mut self, now: Now) {
        if let Some(last) = self.progress.replace(now) {
            self.gaps.push_back(now.saturating_sub(last));
            if self.gaps.len() > REMEMBERED {
                self.gaps.pop_front();
            }
        }
    }

    /// When the generation counts as hanging. `first` is granted as long as no step was ever seen.
    pub(super) fn stalls_at(&self, least: Duration, first: Duration) -> Option<Now> {
        let mut gaps: Vec<_> = self.gaps.iter().copied().collect();
        gaps.sort_unstable();
        let usual = gaps.get(gaps.len() / 2).map_or(first, |median| *median * STALL_FACTOR);
        self.progress.map(|at| at + usual.max(least))
    }

    /// Takes in one rank's step; the ratio if it has just become a straggler.
    pub(super) fn report(&mut self, member: MemberId, report: &StepReport) -> Option<f64> {
        let track = self.tracks.entry(member).or_default();
        let weight = if track.steps == 0 { 1.0 } else { NEWEST };
        let blend = |old: &mut f64, new: f64| *old += weight * (new - *old);
        blend(&mut track.speed.step_s, report.seconds);
        blend(&mut track.speed.data_wait_s, report.data_wait_s);
        blend(&mut track.speed.collective_wait_s, report.collective_wait_s);
        track.steps += 1;
        let own = track.speed.own();
        let mut others: Vec<f64> =
            self.tracks.iter().filter(|(id, _)| **id != member).map(|(_, t)| t.speed.own()).collect();
        others.sort_unstable_by(f64::total_cmp);
        let median = *others.get(others.len() / 2)?;
        let track = self.tracks.get_mut(&member)?;
        let slow = own > STRAGGLER_RATIO * median && median > 0.0;
        track.slow = if slow { track.slow + 1 } else { 0 };
        track.speed.straggler = track.slow >= STRAGGLER_STEPS;
        (track.slow == STRAGGLER_STEPS).then(|| own / median)
    }

    /// A member's averages, once it has trained.
    pub(super) fn speed(&self, member: MemberId) -> Option<Speed> {
        self.tracks.get(&member).map(|t| t.speed)
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, member: MemberId) {
        self.tracks.remove(&member);
    }
}

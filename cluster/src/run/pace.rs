//! How fast members are: when a generation hangs, and who holds the others up.

use super::event::Now;
use super::messages::StepReport;
use super::middle::Middle;
use crate::ids::MemberId;
use crate::spec::{Ladder, Rung};
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

/// How long a step takes, as the median over the last ones: few that are far off do not move it.
#[derive(Debug, Clone, Default)]
pub struct MedianStep {
    last: VecDeque<Duration>,
    /// Asked for after every event, so it is found when a step ends.
    median: Option<Duration>,
}

impl MedianStep {
    /// One more step took so long.
    pub fn push(&mut self, step: Duration) {
        self.last.push_back(step);
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
        let mut steps: Vec<_> = self.last.iter().copied().collect();
        let middle = steps.len() / 2;
        self.median = Some(*steps.select_nth_unstable(middle).1);
    }

    /// The median; `None` before the first step.
    #[must_use]
    pub fn get(&self) -> Option<Duration> {
        self.median
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
    /// Between committed steps.
    steps: MedianStep,
    progress: Option<Now>,
    tracks: BTreeMap<MemberId, Track>,
    /// What they take by themselves.
    own: Middle,
}

impl Pace {
    /// A generation begins to train: its first step may take its time.
    pub(super) fn begin(&mut self, now: Now) {
        self.progress = Some(now);
        self.tracks.clear();
        self.own.clear();
    }

    /// A step that no rank had reported before is committed.
    pub(super) fn stepped(&mut self, now: Now) {
        if let Some(last) = self.progress.replace(now) {
            self.steps.push(now.saturating_sub(last));
        }
    }

    /// As measured so far; `None`: no step was ever seen.
    pub(super) fn median_step(&self) -> Option<Duration> {
        self.steps.get()
    }

    /// When the generation counts as hanging.
    pub(super) fn stalls_at(&self, ladder: &Ladder) -> Option<Now> {
        let limit = match self.median_step() {
            Some(median) => ladder.measured(Rung::Stall, Some(median)),
            None => ladder.first_step(),
        };
        self.progress.map(|at| at + limit)
    }

    /// Takes in one rank's step; the ratio if it has just become a straggler.
    pub(super) fn report(&mut self, member: MemberId, report: &StepReport) -> Option<f64> {
        let track = self.tracks.entry(member).or_default();
        let before = (track.steps > 0).then(|| track.speed.own());
        let weight = if track.steps == 0 { 1.0 } else { NEWEST };
        let blend = |old: &mut f64, new: f64| *old += weight * (new - *old);
        blend(&mut track.speed.step_s, report.seconds);
        blend(&mut track.speed.data_wait_s, report.data_wait_s);
        blend(&mut track.speed.collective_wait_s, report.collective_wait_s);
        track.steps += 1;
        let own = track.speed.own();
        self.own.change(member, before, Some(own));
        let median = self.own.of_others(member, own)?;
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
        if let Some(track) = self.tracks.remove(&member) {
            self.own.change(member, Some(track.speed.own()), None);
        }
    }
}

//! Mistakes that a shell or a machine could make, each of which the simulator must find.

use super::habits::Habits;
use crate::create::Answer;
use crate::ids::Generation;
use crate::lead::Request;
use crate::run::{Report, agreed};
use crate::takeover::Takeover;
use std::ops::Range;

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// No fence in the ledger: a segment that somebody else wrote is taken for one's own.
    RivalSegment,
    /// No fence in the run: what is said of an earlier generation counts for the newest.
    OldGeneration,
    /// A step is told before the optimizer has run.
    EarlyReport,
    /// After a shrink a rank works on the rows beside its own.
    LanesOffByOne,
    /// A new leader does not look which generation stood, and uses its number again.
    ReusedGeneration,
    /// A trainer once feeds a lane the rows of the lane beside it.
    OtherLane,
    /// A member has two ways to be lost: also by the end of a session that another one has replaced.
    TwoLosses,
    /// Ranks leave their generation as soon as one of them holds the order of the next.
    EagerBoundary,
}

impl Planted {
    pub(super) const ALL: [Self; 8] = [
        Self::RivalSegment,
        Self::OldGeneration,
        Self::EarlyReport,
        Self::LanesOffByOne,
        Self::ReusedGeneration,
        Self::OtherLane,
        Self::TwoLosses,
        Self::EagerBoundary,
    ];
}

impl Habits for Planted {
    fn answer(&self, request: Request, answer: Answer) -> Answer {
        match (self, request, answer) {
            (Self::RivalSegment, Request::Journal, Answer::Exists) => Answer::Created,
            (_, _, answer) => answer,
        }
    }

    fn takeover(&self, takeover: Takeover) -> Takeover {
        match &takeover.adopted {
            Some(last) if *self == Self::ReusedGeneration => {
                Takeover { first_generation: last.generation, adopted: None, ..takeover }
            }
            Some(_) | None => takeover,
        }
    }

    fn report(&self, current: Option<Generation>, mut report: Report) -> Report {
        let Some(current) = current.filter(|_| *self == Self::OldGeneration) else { return report };
        match &mut report {
            Report::Ready { generation, .. } | Report::Finished { generation, .. } => *generation = current,
            Report::Committed(step) => step.generation = current,
            Report::Part(part) => part.generation = current,
            Report::Left(left) => left.generation = current,
            Report::Switched(switched) => switched.generation = current,
            Report::Join(_)
            | Report::Standing(_)
            | Report::Heartbeat { .. }
            | Report::Leaving { .. }
            | Report::Fault { .. } => {}
        }
        report
    }

    fn positions(&self, positions: Range<u64>, shrunk: bool) -> Range<u64> {
        let off = u64::from(*self == Self::LanesOffByOne && shrunk);
        positions.start + off..positions.end + off
    }

    fn reads(&self, position: u64) -> u64 {
        // The second lane of step 5.
        let off = *self == Self::OtherLane && (62..64).contains(&position);
        position + 2 * u64::from(off)
    }

    fn agreed(&self, held: &[Option<Generation>]) -> Option<Generation> {
        let eager = *self == Self::EagerBoundary;
        if eager { held.iter().copied().max().flatten() } else { agreed(held.iter().copied()) }
    }

    fn reports_early(&self) -> bool {
        *self == Self::EarlyReport
    }

    fn replaced_session_counts(&self) -> bool {
        *self == Self::TwoLosses
    }
}

//! What the shell around the machines does with what it carries: nothing. A test puts one here that makes a mistake, to
//! see that it is found.

use crate::create::Answer;
use crate::ids::Generation;
use crate::lead::Request;
use crate::run::{Report, agreed};
use crate::takeover::Takeover;
use std::ops::Range;

/// See the module.
pub(super) trait Habits {
    /// The store's answer to a put.
    fn answer(&self, _: Request, answer: Answer) -> Answer {
        answer
    }

    /// What a coordinator makes of the records that it has read.
    fn takeover(&self, takeover: Takeover) -> Takeover {
        takeover
    }

    /// A report on its way into a run that stands at `current`.
    fn report(&self, _current: Option<Generation>, report: Report) -> Report {
        report
    }

    /// The positions that a rank works on; `shrunk`: its generation is smaller than its last one.
    fn positions(&self, positions: Range<u64>, _shrunk: bool) -> Range<u64> {
        positions
    }

    /// The position whose row is read for `position`, in the lanes that a rank feeds of a step.
    fn reads(&self, position: u64) -> u64 {
        position
    }

    /// What ranks go over into, given what each holds.
    fn agreed(&self, held: &[Option<Generation>]) -> Option<Generation> {
        agreed(held.iter().copied())
    }

    /// Whether a worker says that a step is committed before its optimizer runs.
    fn reports_early(&self) -> bool {
        false
    }

    /// Whether the end of a session that another one has replaced counts as its member's.
    fn replaced_session_counts(&self) -> bool {
        false
    }
}

/// As it should be.
#[derive(Debug)]
pub(super) struct Honest;

impl Habits for Honest {}

//! The state machine of a run: what happened goes in ([`RunEvent`]), what must now be done comes out ([`RunEffect`]).
//!
//! ```text
//! Gathering -> Claiming(g) -> Forming(g) -> Training(g) -> Done
//!     ^            |              |             |
//!     |            v              v             v
//!     +------- Reforming(g) <-----+-------------+
//! ```
//! Where nobody was lost, the ranks go over into the next generation by themselves (`handover.rs`):
//! Training(g) -> Forming(h), of which the run hears when it has happened.
//!
//! Drain and pause are flags: the same edges, by way of a checkpoint. A coordinator that takes a run over begins in
//! Training(g) with members that are away, as after any broken session: either they come and nothing has happened, or
//! they are lost like anybody else.
//!
//! However a loss is noticed - a broken stream, missed heartbeats, an exit seen by the parent, silence after a failed
//! collective - it is the one event [`RunEvent::Lost`] with its cause, and one function removes a member.

mod commits;
mod deal;
mod ending;
mod event;
mod forming;
mod handover;
mod invariants;
mod machine;
mod membership;
mod messages;
mod middle;
mod pace;
mod reports;
mod roll;
mod steps;

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_boundary;
#[cfg(test)]
mod tests_return;
#[cfg(test)]
mod tests_takeover;

pub use deal::{Candidate, Deal, Roster, deal, odd_ones};
pub use event::{Adopted, LossCause, Notice, Now, Refusal, Resume, RunConfig, RunEffect, RunEvent};
pub use machine::{MemberView, Phase, Run};
pub use messages::{
    Form, Join, LeaveKind, Left, MeetingPoint, Order, Outcome, PartReport, Prepared, Report, Standing, StepReport,
    Switched, Welcome, agreed,
};
pub use pace::{MedianStep, Speed};

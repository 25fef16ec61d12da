//! The state machine of a run: what happened goes in ([`Event`]), what must now be done comes out ([`Effect`]).
//!
//! ```text
//! Gathering -> Forming(g) -> Training(g) -> Done
//!     ^            |            |
//!     |            v            v
//!     +------- Reforming(g) <---+     (a drain is a flag: the same edges, and Done at the next checkpoint)
//! ```
//! However a loss is noticed - a broken stream, missed heartbeats, an exit seen by the parent, silence after a failed
//! collective - it is the one event [`Event::Lost`] with its cause, and one function removes a member.

mod commits;
mod deal;
mod event;
mod machine;
mod membership;
mod messages;
mod steps;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_random;

pub use deal::{Deal, deal};
pub use event::{Effect, Event, LossCause, Notice, Now, Refusal, Resume, RunConfig};
pub use machine::{MemberView, Phase, Run};
pub use messages::{Failed, FailureKind, Form, Join, Order, Outcome, PartReport, Report, StepReport, Welcome};

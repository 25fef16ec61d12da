//! The state machine of a run: reports and losses in, orders and records out.

mod messages;

pub use messages::{Failed, FailureKind, Form, Join, Order, Outcome, PartReport, Report, StepReport, Welcome};

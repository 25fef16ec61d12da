//! A seeded simulator of the whole control plane: the real machines of coordinators ([`crate::lead`]) and workers
//! ([`crate::peer`]) on a virtual clock, with a store, a network and trainers that fail in every way that they can.
//!
//! A schedule is a pure function of one number: who runs what, what goes wrong and when, how long everything takes. So
//! whatever is found can be found again, and made smaller ([`shrink`]).
//!
//! What is looked for stands in `oracle.rs`; what is injected in `faults.rs`. See [`NOT_INJECTED`] for the rest.

mod clock;
mod coordinator;
mod faults;
mod group;
mod habits;
mod liveness;
mod net;
mod opening;
mod oracle;
#[cfg(test)]
mod planted;
mod setup;
mod shrink;
mod store;
#[cfg(test)]
mod tests;
mod trainer;
mod worker;
mod world;

pub use faults::{Fault, FaultKind, Fired, schedule};
pub use oracle::Violation;
pub use shrink::{Shrunk, shrink};

use habits::{Habits, Honest};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// What the simulator does not do, and why.
pub const NOT_INJECTED: &[(&str, &str)] = &[
    ("reordering or duplication within a session", "TCP; across sessions both arise from breaking and telling again"),
    ("a store that loses or changes what it took", "no run survives the loss of all its workers and of its store"),
    ("a store that is gone for two minutes", "its coordinator gives up, by design; a new one starts"),
    ("a drain or a stop by people", "the run would end otherwise than done"),
    ("weights that differ between ranks by a bit flip", "the model's weights are a chain of the steps alone"),
];

/// What came of one schedule.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What was wrong, if anything.
    pub violation: Option<Violation>,
    /// What happened, counted.
    pub fired: Fired,
    /// Phases of the run and causes of losses, in their order, as a hash.
    pub path: u64,
    /// The same for the same schedule, to the last happening.
    pub fingerprint: u64,
    /// Virtual time, in seconds.
    pub seconds: f64,
    /// Everything that happened, if it was asked for.
    pub trace: Vec<String>,
}

/// Runs the schedule of `seed` with these faults.
#[must_use]
pub fn simulate(seed: u64, faults: &[Fault], traced: bool) -> Verdict {
    simulate_with(seed, faults, traced, || Box::new(Honest))
}

fn simulate_with(seed: u64, faults: &[Fault], traced: bool, habits: impl FnOnce() -> Box<dyn Habits>) -> Verdict {
    let mut world = World::new(seed, faults.to_vec(), habits(), traced);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        world.run();
        world.judge_end();
    }));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned();
        world.accuse("panic", || text);
    }
    Verdict {
        violation: world.oracle.violation.take(),
        fired: Fired { kept: world.oracle.vigil.kept, ..std::mem::take(&mut world.fired) },
        path: world.path,
        fingerprint: world.fingerprint,
        seconds: world.now.as_secs_f64(),
        trace: world.take_trace(),
    }
}

//! What a run *is*: ids, the run file and its checked form, the order of samples, the map of lanes to ranks, the
//! state machine of a run, the ledger and its audit.
//!
//! Pure and synchronous: nothing here knows a clock, a file, a socket or a tensor. The shells (`coordinator`,
//! `worker`, `cli`) pass time and events in and perform what comes out.

pub mod audit;
pub mod claims;
pub mod commit;
pub mod create;
pub mod evidence;
pub mod fault;
pub mod ids;
pub mod index;
pub mod journal;
pub mod lane_sum;
pub mod lanes;
pub mod lead;
pub mod ledger;
pub mod order;
pub mod peer;
pub mod rng;
pub mod run;
pub mod sessions;
pub mod sim;
pub mod spec;
pub mod standby;
pub mod takeover;

pub use commit::{Manifest, PartEntry};
pub use evidence::Evidence;
pub use fault::Class;
pub use ids::{Generation, Lane, MemberId, Position, Rank, RunId, Step};
pub use lanes::LaneMap;
pub use order::{DatasetShape, SampleId, SampleOrder};
pub use spec::RunSpec;
